"""The layouts of the paper's code: its exact parameter counts, its arithmetic restated in functions, and the folding."""

import pytest
import torch
import torch.nn.functional as F

from multiresnet import MultiResNet, ResidualUNet, count_macs, count_parameters, fold_tiled_skips
from multiresnet.spaces import Haar
from multiresnet.testing import assert_every_parameter_has_gradient, assert_shift_equivariant, randomise

# Counted from the paper's own classes. Data, in and out channels, hidden width: residual U-Net, none added, three added.
COUNTS = {
    "Navier-Stokes": ((12, 3, 64), 34_531_971, 15_719_811, 34_537_731),
    "shallow water": ((6, 3, 64), 34_528_515, 15_716_355, 34_534_275),
    "brain lesions": ((2, 1, 16), 2_161_633, 983_713, 2_163_073),
}


def paper(build, in_channels, out_channels, hidden_channels, extra_blocks=0, **options):
    return build.paper(in_channels, out_channels, hidden_channels=hidden_channels, extra_blocks=extra_blocks, **options)


@pytest.mark.parametrize("data", COUNTS)
def test_parameter_counts(data):
    widths, learned, plain, extra = COUNTS[data]
    with torch.device("meta"):
        assert count_parameters(paper(ResidualUNet, *widths)) == learned
        assert count_parameters(paper(MultiResNet, *widths)) == plain
        assert count_parameters(paper(MultiResNet, *widths, extra_blocks=3)) == extra


def test_defaults_are_the_counted_ones():
    with torch.device("meta"):
        assert count_parameters(ResidualUNet.paper(12, 3)) == 34_531_971
        assert count_parameters(MultiResNet.paper(12, 3)) == 34_537_731


@pytest.mark.parametrize(
    ("build", "extra", "gmac"), [(ResidualUNet, 0, 12.83), (MultiResNet, 0, 9.20), (MultiResNet, 3, 23.70)]
)
def test_multiply_accumulates_of_the_navier_stokes_networks(build, extra, gmac):
    """Counted from the same classes, at 128 x 128."""
    with torch.device("meta"):
        net = paper(build, 12, 3, 64, extra)
    assert round(count_macs(net, (128, 128)) / 1e9, 2) == gmac


def test_folding_leaves_the_counted_parameters():
    folded = fold_tiled_skips(paper(MultiResNet, 12, 3, 64))
    assert count_parameters(folded) == 8_715_651


# ------------------------------------------------------------------------------- the layout, restated without our modules


def conv(state, name, x):
    return F.conv2d(x, state[f"{name}.conv.weight"], state[f"{name}.conv.bias"], padding=1)


def block(state, name, x, *, full=False):
    """Conv, GroupNorm(1), GELU, twice; residual around the second half, or around both."""

    def half(i, x):
        x = F.group_norm(
            conv(state, f"{name}.conv{i}", x), 1, state[f"{name}.norm{i}.weight"], state[f"{name}.norm{i}.bias"]
        )
        return F.gelu(x)

    h = half(1, x)
    return (x if full else h) + half(2, h)


def pool(x):
    return F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)


def up(x, like):
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)[..., : like.shape[2], : like.shape[3]]


def restated(state, x, *, learned, extra):
    features = [block(state, "encoder.stem", x)]
    for level in range(4):
        h = pool(features[-1])
        features.append(block(state, f"encoder.blocks.{level}", h) if learned else h)
    if not learned:
        features = [f.tile(1, 2**level, 1, 1) for level, f in enumerate(features)]  # 64 channels to 64 ... 1024
    h = features[4]
    for i, skip in enumerate(features[3::-1], start=1):
        name = f"sweeps.0.levels.{i}"
        h = up(conv(state, f"{name}.coarse", h), skip)
        h = block(state, f"{name}.merge", torch.cat([skip, h], 1))
        for j in range(extra):
            h = block(state, f"{name}.extra.{j}", h, full=True)
    return conv(state, "heads.0.conv", h)


@pytest.mark.parametrize("size", [(32, 16), (25, 37), (16, 19)])
@pytest.mark.parametrize(("build", "extra"), [(MultiResNet, 0), (MultiResNet, 2), (ResidualUNet, 0), (ResidualUNet, 1)])
def test_the_network_is_the_restated_layout(build, extra, size, tolerance):
    net = randomise(paper(build, 3, 2, 4, extra).double(), 0.1)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = restated(net.state_dict(), x, learned=build is ResidualUNet, extra=extra)
    assert (net(x) - expected).abs().max() <= tolerance(x.dtype)


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("boundary", ["zeros", "periodic"])
@pytest.mark.parametrize("size", [(32, 16), (25, 37)])
def test_folding_keeps_the_function(boundary, extra, size, tolerance):
    net = randomise(paper(MultiResNet, 3, 2, 4, extra, space=Haar(2, boundary)).double(), 0.1)
    folded = fold_tiled_skips(net)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    assert (folded(x) - net(x)).abs().max() <= tolerance(x.dtype)
    assert count_parameters(folded) < count_parameters(net)
    assert next(folded.parameters()).dtype == torch.float64


def test_folding_leaves_the_original_alone_and_refuses_others():
    net = paper(MultiResNet, 1, 1, 2)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    folded = fold_tiled_skips(net)
    for p in folded.parameters():
        torch.nn.init.zeros_(p)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    for other in (folded, paper(ResidualUNet, 1, 1, 2), MultiResNet(1, 1)):
        with pytest.raises(ValueError, match="expected a model built by MultiResNet.paper, got"):
            fold_tiled_skips(other)


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("build", [MultiResNet, ResidualUNet])
def test_every_parameter_has_a_gradient(build, extra):
    assert_every_parameter_has_gradient(paper(build, 2, 1, 2, extra), torch.randn(2, 2, 32, 35))


@pytest.mark.parametrize("build", [MultiResNet, ResidualUNet])
def test_periodic_layouts_commute_with_shifts(build):
    net = paper(build, 2, 1, 2, space=Haar(2, "periodic")).double()
    assert_shift_equivariant(net, torch.randn(1, 2, 32, 48, dtype=torch.float64), 16)


@pytest.mark.parametrize("dims", [1, 3])
@pytest.mark.parametrize("build", [MultiResNet, ResidualUNet])
def test_other_dimensions(build, dims):
    x = torch.randn(1, 2, *(17, 16, 19)[:dims])
    assert paper(build, 2, 1, 2, space=Haar(dims))(x).shape == (1, 1, *x.shape[2:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_channels": 0}, "hidden_channels must be an integer >= 1, got 0"),
        ({"extra_blocks": -1}, "extra_blocks must be >= 0, got -1"),
    ],
)
@pytest.mark.parametrize("build", [MultiResNet, ResidualUNet])
def test_bad_input(build, options, message):
    with pytest.raises(ValueError, match=message):
        build.paper(1, 1, **options)
