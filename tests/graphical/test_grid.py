"""`GridIsing` and its networks of convolutions against the dense model, enumeration and Onsager's energy."""

import itertools
import math

import pytest
import torch
from scipy.special import ellipk

import multiresnet as mrn
from multiresnet.graphical import GridIsing, Ising, Stencil, UnrolledMeanField, VariationalDenoiser, depth_for

F64 = torch.float64
CROSS = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]], dtype=F64)
SLANTED = torch.tensor([[0.3, 0.1, 0.0], [-0.2, 0.0, -0.2], [0.0, 0.1, 0.3]], dtype=F64)
WIDE = torch.tensor([0.1, -0.2, 0.0, -0.2, 0.1], dtype=F64)


def couplings_by_hand(kernel, size, boundary):
    """A_ij with python's loops."""
    cells = list(itertools.product(*map(range, size)))
    matrix = torch.zeros(len(cells), len(cells), dtype=F64)
    for i, cell in enumerate(cells):
        for offset in itertools.product(*(range(-(n // 2), n // 2 + 1) for n in kernel.shape)):
            other = [a + b for a, b in zip(cell, offset)]
            if boundary == "periodic":
                other = [a % n for a, n in zip(other, size)]
            if tuple(other) in cells:
                matrix[i, cells.index(tuple(other))] += kernel[tuple(n // 2 + b for n, b in zip(kernel.shape, offset))]
    return matrix


CASES = [
    (CROSS, (4, 5), "periodic"),
    (CROSS, (2, 3), "zeros"),
    (SLANTED, (3, 4), "periodic"),
    (SLANTED, (4, 3), "zeros"),
    (WIDE, (7,), "periodic"),
    (
        0.1 * (torch.ones(3, 3, 3, dtype=F64).index_put_((torch.tensor([1]),) * 3, torch.zeros(1, dtype=F64))),
        (3, 3, 3),
        "zeros",
    ),
]


@pytest.mark.parametrize(("kernel", "size", "boundary"), CASES)
def test_a_stencil_is_the_matrix(kernel, size, boundary):
    model = GridIsing(kernel, size, boundary)
    matrix = couplings_by_hand(kernel, size, boundary)
    assert (model.dense().couplings - matrix).abs().max() < 1e-15
    u, n = torch.randn(2, 1, *size, dtype=F64), math.prod(size)
    assert (model.stencil(u).view(2, n) - u.view(2, n) @ matrix).abs().max() < 1e-14
    assert (model.stencil.squared(u).view(2, n) - u.view(2, n) @ matrix.square()).abs().max() < 1e-14
    for correction in ("none", "instance"):
        field = torch.randn(2, 1, *size, dtype=F64)
        dense = UnrolledMeanField(matrix, depth=7, correction=correction)(field.view(2, n))
        assert (model.unrolled(depth=7, correction=correction)(field).view(2, n) - dense).abs().max() < 1e-14


@pytest.mark.parametrize(
    ("kernel", "size", "boundary"), [*CASES, (WIDE, (11,), "periodic"), (CROSS, (4, 6), "periodic")]
)
def test_pixels_of_one_colour_are_not_coupled(kernel, size, boundary):
    model = GridIsing(kernel, size, boundary)
    colours = model.colours().flatten()
    coupled = couplings_by_hand(kernel, size, boundary) != 0
    assert not bool((coupled & (colours[:, None] == colours)).any())
    assert sorted(colours.unique().tolist()) == list(range(int(colours.max()) + 1))


def test_two_colours_for_a_chessboard():
    assert GridIsing.nearest_neighbours((8, 6), 0.3).colours().max() == 1
    assert GridIsing.nearest_neighbours((7, 5), 0.3, boundary="zeros").colours().max() == 1
    assert GridIsing.nearest_neighbours((7, 6), 0.3).colours().max() > 1


def test_chains_against_enumeration():
    """12 pixels with slanted couplings and a field: means, and the correlation of two neighbours."""
    model = GridIsing(SLANTED, (4, 3), "zeros", field=0.2)
    states, weights = model.dense().energies(torch.zeros(1, 12, dtype=F64))
    chances = weights[0].softmax(0)
    x = model.sample(6000, sweeps=30, generator=torch.Generator().manual_seed(0)).view(-1, 12)
    assert (x.mean(0) - chances @ states).abs().max() < 4.5 / math.sqrt(6000)
    pairs = (x[:, :, None] * x[:, None]).mean(0) - torch.einsum("s,si,sj->ij", chances, states, states)
    assert pairs.abs().max() < 4.5 / math.sqrt(6000)


def test_chains_have_the_energy_of_onsager():
    """Above the critical temperature; Phys. Rev. 65 (1944), the infinite square lattice."""
    beta = 0.35
    x = GridIsing.nearest_neighbours((64, 64), beta).sample(8, sweeps=150, generator=torch.Generator().manual_seed(1))
    bond = float((x * x.roll(1, -1) + x * x.roll(1, -2)).mean() / 2)
    k = 2 * math.sinh(2 * beta) / math.cosh(2 * beta) ** 2
    inside = 1 + 2 / math.pi * (2 * math.tanh(2 * beta) ** 2 - 1) * ellipk(k**2)
    assert bond == pytest.approx(inside / math.tanh(2 * beta) / 2, abs=0.006)


def noisy(model, count, noise, seed):
    generator = torch.Generator().manual_seed(seed)
    x = model.sample(count, sweeps=60, generator=generator)
    return x, x + noise * torch.randn(x.shape, generator=generator, dtype=x.dtype)


@torch.no_grad()
def test_the_correction_pays_on_a_grid():
    model, noise = GridIsing.nearest_neighbours((4, 4), 0.25), 1.0
    _, z = noisy(model, 50, noise, 0)
    exact = model.dense().denoise(z.view(50, 16), noise=noise)
    errors = {}
    for correction in ("none", "instance"):
        network = VariationalDenoiser(model.unrolled(depth=200, correction=correction), noise=noise)
        assert network.network.residual(network.gain * z).max() < 1e-5
        errors[correction] = float((network(z).view(50, 16) - exact).square().mean())
    print("mean square error on 4 x 4:", errors)
    assert errors["instance"] < errors["none"] / 4
    assert torch.equal(model.denoiser(noise=noise, depth=200)(z), network(z))


def test_couplings_are_learned_from_samples():
    """From none, by denoising, with a kernel that is not symmetric on the way; what is used stays symmetric."""
    torch.manual_seed(0)
    model, noise = GridIsing.nearest_neighbours((16, 16), 0.3), 1.0
    x, z = noisy(model, 64, noise, 0)
    network = VariationalDenoiser(
        UnrolledMeanField(Stencil(torch.zeros(3, 3), boundary="periodic"), depth=8), noise=noise
    )
    optimiser = torch.optim.Adam(network.parameters(), 0.03)
    before = float((network(z) - x).square().mean().detach())
    for _ in range(80):
        optimiser.zero_grad()
        (network(z) - x).square().mean().backward()
        optimiser.step()
    stencil = network.network.couplings[0]
    found = stencil.symmetric().detach()
    assert torch.equal(found, found.flip((0, 1))) and found[1, 1] == 0
    assert (found - model.kernel).abs().max() < 0.06  # of a loss that is flat, on 64 samples
    assert float((network(z) - x).square().mean().detach()) < 0.95 * before


def test_a_base_for_a_multi_resnet():
    """R_pre of the preconditioned network (T7): equal to it at the start, nearer to the truth after training."""
    torch.manual_seed(0)
    model, noise = GridIsing.nearest_neighbours((4, 4), 0.3), 1.0
    base = VariationalDenoiser(model.unrolled(depth=2, correction="none"), noise=noise)  # too shallow, and uncorrected
    space = mrn.spaces.Haar(2, "periodic")
    net = mrn.Preconditioned(base, mrn.MultiResNet(2, 1, channels=(16, 16), num_blocks=1, patch_levels=0, space=space))
    x, z = noisy(model, 20_000, noise, 1)
    assert torch.equal(net(z[:8]), base(z[:8]))
    _, other = noisy(model, 500, noise, 2)
    exact = model.dense().denoise(other.view(500, 16), noise=noise).view(500, 1, 4, 4)

    @torch.no_grad()
    def excess():
        return float((net(other) - exact).square().mean())

    before = excess()
    optimiser = torch.optim.Adam(net.residual.parameters(), 2e-3)
    for clean, seen in zip(x.split(200), z.split(200)):
        optimiser.zero_grad()
        (net(seen) - clean).square().mean().backward()
        optimiser.step()
    print(f"excess risk over the optimum: base {before:.4f}, corrected {excess():.4f}")
    assert excess() < 0.5 * before
    net.zero_grad()
    net(z[:8]).square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in net.parameters())


@torch.no_grad()
def test_depth_of_a_stencil():
    model = GridIsing(0.2 * CROSS, (6, 6))
    field = torch.randn(1, 1, 6, 6, dtype=F64)

    def means(depth):
        return model.unrolled(depth=depth, correction="none", damping=0.0)(field)

    depth = depth_for(model.stencil, error=1e-4, spins=36)
    assert (means(depth) - means(500)).norm() < 1e-4
    assert depth == depth_for(
        model.dense().couplings, error=1e-4
    )  # of couplings >= 0 around the edge the sum is the norm


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Stencil(torch.zeros(2, 3)), "odd length"),
        (lambda: Stencil(torch.eye(3)), "0 in its centre"),
        (lambda: Stencil(torch.tensor([1.0, 0.0, 0.0])), "at its opposite"),
        (lambda: Stencil(torch.tensor([math.nan, 0.0, math.nan])), "finite"),
        (lambda: Stencil(CROSS, boundary="reflect"), "boundary='reflect' is unknown"),
        (lambda: Stencil(CROSS)(torch.zeros(4, 4, dtype=F64)), r"must be \(N, 1, H, W\), got \(4, 4\)"),
        (lambda: Stencil(CROSS)(torch.zeros(1, 2, 4, 4, dtype=F64)), r"must be \(N, 1, H, W\)"),
        (lambda: GridIsing(CROSS, (4, 2)), "must not be smaller"),
        (lambda: GridIsing(CROSS, (4,)), r"must be \(N, 1, H, W\)"),
        (lambda: GridIsing(CROSS, (4, 0)), r"size\[1\] must be"),
        (lambda: depth_for(Stencil(CROSS), error=0.1), "how many pixels"),
        (lambda: depth_for(Stencil(CROSS), error=0.1, spins=9), "not below 1"),
        (lambda: VariationalDenoiser(torch.nn.Identity(), noise=0.0), "noise must be a number > 0"),
        (lambda: GridIsing(CROSS, (5, 5)).dense().mean(), "25 spins have too many states"),
        (lambda: UnrolledMeanField(Stencil(CROSS), depth=2)(torch.zeros(2, 9, dtype=F64)), r"must be \(N, 1, H, W\)"),
        (lambda: Ising(torch.zeros(2, 2)).unrolled(depth=0), "depth must be"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
