"""`Hat`: what section A.3 of the notes on the paper says of hats, and that the boundary is zero to the bit."""

import numpy as np
import pytest
import torch

from multiresnet import MultiResNet
from multiresnet.spaces import Hat
from multiresnet.testing import randomise


def pyramid(space, x, depth):
    """`(approximation, [details, finest first], [sizes])`."""
    details, sizes = [], []
    for level in range(depth):
        sizes.append(x.shape[2:])
        x, detail = space.analysis(x, level)
        details.append(detail)
    return x, details, sizes


def basis(depth):
    """The hats of all levels on 2**depth + 1 vertices: unit details, synthesised; (hats, vertices)."""
    space, zero = Hat(1), torch.zeros(1, 1, 2**depth + 1, dtype=torch.float64)
    coarse, details, sizes = pyramid(space, zero, depth)
    hats = []
    for level in range(depth):
        for k in range((sizes[level][0] - 1) // 2):
            x = coarse
            for other in reversed(range(depth)):
                unit = torch.zeros_like(details[other])
                if other == level:
                    unit[0, 0, k] = 1
                x = space.synthesis(x, unit, sizes[other], other)
            hats.append(x[0, 0])
    return torch.stack(hats)


@pytest.mark.parametrize("depth", [1, 3, 5])
def test_hats_are_orthogonal_in_h10_and_a_basis(depth, tolerance):
    """One for each inner vertex; scaled by 2**(-j / 2 - 1) they are the integrals of the Haar wavelets."""
    hats = basis(depth)
    assert len(hats) == 2**depth - 1
    assert torch.linalg.matrix_rank(hats) == 2**depth - 1
    assert hats[:, 0].abs().max() == hats[:, -1].abs().max() == 0
    slopes = hats.diff() * 2**depth
    slopes /= slopes.square().mean(1, keepdim=True).sqrt()
    assert (slopes @ slopes.T / 2**depth - torch.eye(len(hats))).abs().max() <= tolerance(torch.float64)


def test_hats_are_the_integrals_of_haar_wavelets(tolerance):
    """2**(j/2) max(0, min(x - l, r - x)), l = k 2**-j, r = (k + 1) 2**-j, with the coefficient 2**(j/2) (2 f(m) - f(l) - f(r))."""
    depth, f = 5, np.random.default_rng(0).normal(size=33)
    f[0] = f[-1] = 0
    t, total = np.linspace(0, 1, 33), np.zeros(33)
    _, details, _ = pyramid(Hat(1), torch.from_numpy(f).view(1, 1, -1), depth)
    for j in range(depth):
        step = 32 >> j
        for k in range(2**j):
            left, right = k * step, (k + 1) * step
            middle = (left + right) // 2
            surplus = 2 * f[middle] - f[left] - f[right]
            assert abs(details[depth - 1 - j][0, 0, k].item() - surplus / 2) <= tolerance(torch.float64)
            total += 2**j * surplus * np.maximum(0, np.minimum(t - t[left], t[right] - t))
    assert np.abs(total - f).max() <= tolerance(torch.float64)


@pytest.mark.parametrize("size", [2, 3, 8, 9, 20, 33])
@pytest.mark.parametrize("rule", ["zeros", "reflect", "replicate"])
def test_embedding_is_linear_interpolation(size, rule, tolerance):
    space = Hat(1, rule)
    x = space.constrain(torch.randn(1, 1, size, dtype=torch.float64))
    coarse = sorted({*range(0, size, 2), size - 1})
    assert torch.equal(space.project(x), x[..., coarse])
    expected = np.interp(np.arange(size), coarse, x[0, 0, coarse].numpy())
    assert np.abs(space.embed(space.project(x), (size,))[0, 0].numpy() - expected).max() <= tolerance(x.dtype)


def test_bilinear_functions_have_no_details(tolerance):
    """Tensor products of linear functions are in every space."""
    x, y = torch.linspace(0, 1, 17, dtype=torch.float64), torch.linspace(0, 1, 12, dtype=torch.float64)
    u = ((1 + 2 * x)[:, None] * (3 - y)[None]).view(1, 1, 17, 12)
    assert Hat(2, "replicate").detail(u).abs().max() <= tolerance(u.dtype)


@pytest.mark.parametrize(
    "options", [{}, {"patch_levels": 0}, {"sweeps": 2}, {"merge": "strict", "patch_levels": 0}, {"delta": True}]
)
@pytest.mark.parametrize("size", [(33, 33), (20, 47)])
def test_the_boundary_is_zero_to_the_bit_and_only_there(options, size):
    net = randomise(MultiResNet(1, 1, space=Hat(2), channels=(8, 8, 8), num_blocks=1, **options), 0.3)
    for y in net.forward_resolutions(100 * torch.randn(2, 1, *size)):
        rim = [y[..., 0, :], y[..., -1, :], y[..., 0], y[..., -1]]
        assert max(part.abs().max().item() for part in rim) == 0
        inside = y[..., 1:-1, 1:-1]
        assert not inside.numel() or (inside != 0).float().mean() > 0.99


def test_chosen_sides_only():
    net = randomise(
        MultiResNet(1, 1, space=Hat(2, (("zeros", "replicate"), "periodic")), channels=(8, 8), num_blocks=1), 0.3
    )
    y = net(torch.randn(1, 1, 16, 16))
    assert y[..., 0, :].abs().max() == 0
    assert all((part != 0).all() for part in (y[..., -1, :], y[..., 1:, 0], y[..., 1:, -1]))


def test_a_vertex_alone_has_no_ends():
    with pytest.raises(ValueError, match=r"needs both ends of an axis .* at least 2 vertices; got \(1, 9\)"):
        MultiResNet(1, 1, space=Hat(2), channels=(4, 4), num_blocks=1)(torch.zeros(1, 1, 1, 9))
    with pytest.raises(ValueError, match="spatial_dims must be 1, 2 or 3, got 0"):
        Hat(0)
