"""What both networks promise: sizes, symmetries, gradients, conditioning, and what their skips and blocks contain."""

import math

import numpy as np
import pytest
import pywt
import torch
import torch.nn.functional as F
from torch import nn

from multiresnet import PRESETS, MultiResNet, ResidualUNet
from multiresnet.spaces import Haar
from multiresnet.testing import assert_every_parameter_has_gradient, assert_shift_equivariant, randomise

BOTH = [MultiResNet, ResidualUNet]
SKIPS = ["approximation", "detail", "packet", "scattering"]
SHARED = [
    {},
    {"patch_levels": 0},
    {"patch_levels": 2},
    {"sweeps": 2},
    {"sweeps": 3, "num_blocks": ((1, 0, 1), (0, 1, 1), (1, 1, 0)), "patch_levels": 0},
    {"merge": "concat"},
    {"merge": "concat", "sweeps": 2},
    {"merge": "strict", "patch_levels": 0},
    {"norm": None},
    {"norm": "group"},
    {"norm": "layer"},
    {"norm": "instance"},
    {"norm": "batch"},
    {"norm": lambda channels: nn.GroupNorm(2, channels)},
    {"block": "attention", "norm": "group"},
    {"block": "transformer"},
    {"block": ("residual", "attention", "transformer"), "emb_channels": 3},
    {"emb_channels": 5},
    {"delta": True},
    {"num_blocks": 0},
    {"channels": (4,)},
    {"activation": "PReLU"},
    {"activation": F.silu},
]
OPTIONS = (
    [(build, options) for build in BOTH for options in SHARED]
    + [(MultiResNet, {"skip": skip, "patch_levels": n}) for skip in SKIPS for n in (0, 1, 2)]
    + [(MultiResNet, {"skip": skip, "sweeps": 2}) for skip in SKIPS]
    + [(ResidualUNet, {"encoder_blocks": (0, 1, 2)})]
)


def tiny(build=MultiResNet, *, dims=2, boundary="periodic", **options):
    options = {"channels": (4, 6, 8), "num_blocks": 1, **options}
    return build(2, 1, space=Haar(dims, boundary), **options)


def conditioning(net, batch):
    return (torch.randn(batch, net.emb_channels, dtype=next(net.parameters()).dtype),) if net.emb_channels else ()


# ----------------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("boundary", ["zeros", "periodic", ("reflect", ("zeros", "replicate"))])
@pytest.mark.parametrize("build", BOTH)
@pytest.mark.filterwarnings("ignore:spatial size")
@torch.no_grad()
def test_output_has_the_size_of_the_input_in_2d(build, boundary):
    net = tiny(build, channels=(4, 4, 4), boundary=boundary)
    for n in range(1, 71):
        for size in ((n, n), (n, 71 - n)):
            assert net(torch.zeros(1, 2, *size)).shape == (1, 1, *size)


@pytest.mark.parametrize("patch_levels", [0, 2])
@pytest.mark.parametrize("build", BOTH)
@pytest.mark.filterwarnings("ignore:spatial size")
@torch.no_grad()
def test_output_has_the_size_of_the_input_in_1d_and_3d(build, patch_levels):
    line, box = (tiny(build, dims=dims, channels=(4, 4, 4), patch_levels=patch_levels) for dims in (1, 3))
    for n in range(1, 71):
        assert line(torch.zeros(1, 2, n)).shape == (1, 1, n)
    for size in [(1, 1, 1), (2, 3, 5), (7, 9, 8), (17, 4, 6), (13, 21, 1)]:
        assert box(torch.zeros(1, 2, *size)).shape == (1, 1, *size)


@pytest.mark.parametrize("build", BOTH)
def test_anisotropic_grid_end_to_end(build):
    space = Haar.for_size((5, 24, 20), 3, boundary=("zeros", "periodic", ("reflect", "zeros")))
    assert space.strides[0] == (1, 2, 2)
    net = build(2, 1, space=space, channels=(4, 6, 8), num_blocks=1)
    assert_every_parameter_has_gradient(net, torch.randn(1, 2, 5, 24, 20))
    assert [tuple(y.shape[2:]) for y in net.forward_resolutions(torch.zeros(1, 2, 5, 24, 20))] == [
        (5, 6, 5),
        (5, 12, 10),
        (5, 24, 20),
    ]


@pytest.mark.parametrize(("build", "options"), OPTIONS)
@torch.no_grad()
def test_an_empty_batch(build, options):
    if options.get("norm") == "batch":
        pytest.skip("torch's batch norm has no statistics of nothing")
    net = tiny(build, **options)
    assert net(torch.zeros(0, 2, 18, 17), *conditioning(net, 0)).shape == (0, 1, 18, 17)


# -------------------------------------------------------------------------------------------------------------- symmetry


@pytest.mark.parametrize(
    ("build", "options"),
    [(build, options) for build, options in OPTIONS if not options.get("emb_channels")],
)
def test_shifts_by_the_coarsest_cell_commute_with_the_network(build, options):
    net = tiny(build, **options).double()
    cell = 2**net.depth
    x = torch.randn(2, 2, 2 * cell, 3 * cell, dtype=torch.float64)
    assert_shift_equivariant(net, x, (cell, -cell))


@pytest.mark.parametrize("build", BOTH)
@pytest.mark.parametrize("dims", [1, 3])
def test_shift_equivariance_in_other_dimensions_and_types(build, dims):
    net = tiny(build, dims=dims, channels=(4, 6))
    assert_shift_equivariant(net, torch.randn(1, 2, *(16,) * dims), 4)


@pytest.mark.parametrize("boundary", ["zeros", "reflect", "replicate", ("periodic", "zeros")])
@pytest.mark.parametrize("build", BOTH)
def test_no_other_boundary_is_equivariant(build, boundary):
    """The assertion above can fail: one axis with an edge is enough."""
    net = tiny(build, boundary=boundary).double()
    x = torch.randn(2, 2, 16, 16, dtype=torch.float64)
    with pytest.raises(AssertionError, match="the output differs by"):
        assert_shift_equivariant(net, x, 8)
    if boundary == ("periodic", "zeros"):
        assert_shift_equivariant(net, x, (8, 0))


@pytest.mark.parametrize("build", BOTH)
def test_smaller_shifts_are_not_free(build):
    with pytest.raises(AssertionError, match=r"shift by \(1, 1\)"):
        assert_shift_equivariant(tiny(build).double(), torch.randn(1, 2, 16, 16, dtype=torch.float64), 1)


# ------------------------------------------------------------------------------------------------ gradients and the batch


@pytest.mark.parametrize(("build", "options"), OPTIONS)
def test_every_parameter_has_a_gradient(build, options):
    net = tiny(build, **options)
    x = torch.randn(3, 2, 18, 17)
    emb = torch.randn(3, net.emb_channels) if net.emb_channels else None
    assert_every_parameter_has_gradient(net, x, emb=emb)


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name):
    """They build, keep odd sizes, leave no parameter behind and commute with shifts on a periodic box."""
    net = MultiResNet(2, 1, space=Haar(2, "periodic"), **PRESETS[name])
    cell = 2**net.depth
    assert_every_parameter_has_gradient(net, torch.randn(1, 2, 2 * cell - 1, cell + 3))
    assert_shift_equivariant(net, torch.randn(1, 2, 2 * cell, 2 * cell), cell, tolerance=1e-4)


def test_a_dead_parameter_is_found():
    net = nn.Sequential(nn.Conv1d(1, 1, 1), nn.ReLU())
    net.forgotten = nn.Parameter(torch.ones(1))
    with pytest.raises(AssertionError, match="1 parameters have no finite, nonzero gradient: forgotten"):
        assert_every_parameter_has_gradient(net, torch.randn(1, 1, 9))


@pytest.mark.parametrize("norm", [None, "group", "layer", "instance"])
@pytest.mark.parametrize("build", BOTH)
def test_samples_of_a_batch_do_not_see_each_other(build, norm, tolerance):
    net = randomise(tiny(build, norm=norm, block=("residual", "residual", "attention"), emb_channels=3).double(), 0.2)
    x, emb = torch.randn(4, 2, 15, 18, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    together = net(x, emb)
    for i in range(4):
        assert (net(x[i : i + 1], emb[i : i + 1]) - together[i : i + 1]).abs().max() <= tolerance(x.dtype)


@pytest.mark.parametrize("norm", [None, "group", "layer", "instance"])
@pytest.mark.parametrize("build", BOTH)
@pytest.mark.filterwarnings("ignore:spatial size")
def test_one_sample_of_one_cell_trains(build, norm):
    net = tiny(build, norm=norm, channels=(4, 4, 4)).train()
    net(torch.randn(1, 2, 1, 1)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


# --------------------------------------------------------------------------------------------------- conditioning and delta


@pytest.mark.parametrize("block", ["residual", "attention", "transformer"])
@pytest.mark.parametrize("build", BOTH)
def test_conditioning_is_nothing_at_the_start_and_then_acts_on_its_own_sample(build, block):
    net = tiny(build, block=block, emb_channels=3)
    x, emb = torch.randn(2, 2, 16, 16), torch.randn(2, 3)
    other = emb.clone()
    other[1] += 1
    assert torch.equal(net(x, emb), net(x, other))
    net = randomise(net, 0.2)
    assert torch.equal(net(x, emb)[0], net(x, other)[0])
    assert not torch.allclose(net(x, emb)[1], net(x, other)[1], atol=1e-4)


@pytest.mark.parametrize("build", BOTH)
@pytest.mark.parametrize("size", [(16, 16), (13, 9)])
def test_delta_adds_the_last_channels_at_every_resolution(build, size, tolerance):
    options = {"space": Haar(2, "zeros"), "channels": (4, 4), "num_blocks": 1}
    plain = randomise(build(3, 2, **options).double())
    stepping = build(3, 2, **options, delta=True).double()
    stepping.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    assert (stepping(x) - plain(x) - x[:, 1:]).abs().max() <= tolerance(x.dtype)
    base = x[:, 1:]
    for y, without in zip(stepping.forward_resolutions(x)[::-1], plain.forward_resolutions(x)[::-1], strict=True):
        assert (y - without - base).abs().max() <= tolerance(x.dtype)
        base = F.avg_pool2d(base, 2, ceil_mode=True, count_include_pad=False)


# ----------------------------------------------------------------------------------------------------------------- skips


def packets(x, levels):
    """All packet coefficients, by PyWavelets, band by band: our layout is bands of bands, outermost last level."""
    for _ in range(levels):
        bands = pywt.dwtn(x, "haar", mode="symmetric", axes=(2, 3))
        x = np.concatenate([bands[key] / 2 for key in sorted(bands)], 1)
    return x


def pooled(x, levels):
    for _ in range(levels):
        x = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
    return x


@pytest.mark.parametrize("size", [(16, 24), (13, 9)])
@pytest.mark.parametrize("patch_levels", [0, 1, 2])
@pytest.mark.parametrize("skip", SKIPS)
def test_skips_are_what_they_say(skip, patch_levels, size, tolerance):
    net = tiny(skip=skip, patch_levels=patch_levels, boundary="zeros").double()
    x = torch.randn(2, 2, *size, dtype=torch.float64)
    skips = net.encoder(x, levels=3)
    for level, actual in zip(range(net.depth, patch_levels - 1, -1), skips, strict=True):
        base = max(patch_levels, 1)
        if skip == "packet":
            expected = torch.as_tensor(packets(x.numpy(), level))
        elif skip == "approximation" and level > patch_levels:
            expected = pooled(x, level)
        else:
            first = max(level - base, 0)
            expected = torch.as_tensor(packets(pooled(x, first).numpy(), level - first))
            if skip == "scattering":
                for k in range(1, first + 1):
                    detail = packets(pooled(x, k - 1).numpy(), 1)[:, 2:]
                    expected = torch.cat([expected, pooled(torch.as_tensor(np.abs(detail)), level - k)], 1)
        assert actual.shape == expected.shape
        assert actual.shape[1] == net.encoder.channels(level)
        assert (actual - expected).abs().max() <= tolerance(x.dtype)


@pytest.mark.parametrize("patch_levels", [0, 1, 2])
@pytest.mark.parametrize("skip", SKIPS)
def test_detail_scale_is_a_factor_of_all_but_the_averages(skip, patch_levels):
    x = torch.randn(2, 2, 32, 48, dtype=torch.float64)
    plain, scaled = (
        tiny(skip=skip, patch_levels=patch_levels, detail_scale=scale).double().encoder(x, levels=3)
        for scale in (1.0, 8.0)
    )
    for level, (a, b) in enumerate(zip(plain, scaled, strict=True)):
        finest = 3 - 1 - level + patch_levels
        assert torch.equal(b[:, :2], a[:, :2]) and torch.equal(b[:, 2:], 8 * a[:, 2:])
        assert torch.allclose(b[:, :2], torch.as_tensor(pooled(x, finest)))


def test_detail_scale_of_a_learned_encoder():
    """The same function as with larger weights in the stem, which reads two averages and six details."""
    net = ResidualUNet(2, 1, channels=(4, 4), num_blocks=1, detail_scale=8).double()
    other = ResidualUNet(2, 1, channels=(4, 4), num_blocks=1).double()
    other.load_state_dict(net.state_dict())
    x = torch.randn(2, 2, 9, 14, dtype=torch.float64)
    assert not torch.allclose(net(x), other(x))
    with torch.no_grad():
        other.encoder.stem.conv.weight[:, 2:] *= 8
    assert torch.allclose(net(x), other(x), atol=1e-12)


@pytest.mark.parametrize("wrong", [0, -1.0, math.nan, math.inf, "8", True])
@pytest.mark.parametrize("build", [MultiResNet, ResidualUNet])
def test_a_wrong_detail_scale(build, wrong):
    with pytest.raises(ValueError, match="detail_scale must be a number > 0, got"):
        build(1, 1, detail_scale=wrong)


def test_the_pyramid_is_free():
    """No parameters, no state, no graph unless the input wants a gradient."""
    net, x = tiny(), torch.randn(1, 2, 16, 16)
    assert list(net.encoder.parameters()) == [] and net.encoder.state_dict() == {}
    assert not any(skip.requires_grad for skip in net.encoder(x, levels=3))
    assert all(skip.requires_grad for skip in net.encoder(x.requires_grad_(), levels=3))
    net(x).sum().backward()
    assert x.grad.any()
