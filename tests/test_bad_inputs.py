"""Errors at the door, each in our own words: what came, what was wanted, how to fix it."""

import re
import warnings

import numpy as np
import pytest
import torch

from multiresnet import Level, MultiResNet, Preconditioned, ResidualUNet
from multiresnet.spaces import Haar

BOTH = [MultiResNet, ResidualUNet]
SMALL = {"channels": (4, 6), "num_blocks": 1}


@pytest.fixture(params=BOTH, ids=lambda build: build.__name__)
def build(request):
    return request.param


# ----------------------------------------------------------------------------------------------------------- the forward


INPUTS = {
    "no batch": (torch.zeros(3, 16, 16), ValueError, "expected rank 4, (N, 3, H, W); got rank 3, shape (3, 16, 16)"),
    "no batch, the fix": (torch.zeros(3, 16, 16), ValueError, "add the batch dimension: x.unsqueeze(0)"),
    "time axis": (torch.zeros(1, 2, 3, 8, 8), ValueError, "expected rank 4, (N, 3, H, W); got rank 5"),
    "time axis, the fix": (
        torch.zeros(1, 2, 3, 8, 8),
        ValueError,
        "fold the extra axis into the batch or the channels",
    ),
    "vector": (torch.zeros(3), ValueError, "expected rank 4, (N, 3, H, W); got rank 1, shape (3,)"),
    "channels": (
        torch.zeros(1, 4, 16, 16),
        ValueError,
        "model built for in_channels=3, got 4 channels in shape (1, 4, 16, 16)",
    ),
    "channels last": (
        torch.zeros(2, 16, 24, 3),
        ValueError,
        "got (2, 16, 24, 3), which looks channels-last: use x.movedim(-1, 1)",
    ),
    "bytes": (
        torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
        TypeError,
        "torch.uint8; for 8-bit images use x.float() / 255",
    ),
    "integers": (
        torch.zeros(1, 3, 8, 8, dtype=torch.int64),
        TypeError,
        "expected a floating point tensor, got torch.int64",
    ),
    "booleans": (
        torch.zeros(1, 3, 8, 8, dtype=torch.bool),
        TypeError,
        "expected a floating point tensor, got torch.bool",
    ),
    "complex": (torch.zeros(1, 3, 8, 8, dtype=torch.complex64), TypeError, "got torch.complex64"),
    "double": (
        torch.zeros(1, 3, 8, 8, dtype=torch.float64),
        TypeError,
        "the input is torch.float64, the model's weights are torch.float32; convert one of them: x.to(torch.float32)",
    ),
    "half": (torch.zeros(1, 3, 8, 8, dtype=torch.float16), TypeError, "or model.to(torch.float16)"),
    "numpy": (
        np.zeros((1, 3, 8, 8), np.float32),
        TypeError,
        "expected a torch.Tensor, got ndarray; use torch.from_numpy(x)",
    ),
    "nothing to see": (
        torch.zeros(1, 3, 0, 8),
        ValueError,
        "spatial size (0, 8) holds no samples; every axis needs at least one",
    ),
}


@pytest.mark.parametrize("case", INPUTS)
@pytest.mark.parametrize("method", ["forward", "forward_resolutions"])
def test_input(build, method, case):
    x, error, message = INPUTS[case]
    with pytest.raises(error, match=re.escape(message)):
        getattr(build(3, 1, **SMALL), method)(x)


@pytest.mark.parametrize(("dims", "wanted"), [(1, "(N, 2, W)"), (2, "(N, 2, H, W)"), (3, "(N, 2, D, H, W)")])
def test_the_wanted_shape_has_the_dimension_of_the_space(build, dims, wanted):
    net = build(2, 1, space=Haar(dims), **SMALL)
    with pytest.raises(ValueError, match=re.escape(f"expected rank {dims + 2}, {wanted}; got rank {dims + 1}")):
        net(torch.zeros(2, *(4,) * dims))


def test_autocast_takes_any_floating_type(build):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert build(3, 1, **SMALL)(torch.zeros(1, 3, 8, 8, dtype=torch.bfloat16)).isfinite().all()


@pytest.mark.parametrize(
    ("emb", "message"),
    [
        (None, "the model was built with emb_channels=5: call model(x, emb), emb of shape (N, 5)"),
        (torch.zeros(2, 4), "expected emb of shape (N, emb_channels) = (2, 5), got (2, 4)"),
        (torch.zeros(3, 5), "expected emb of shape (N, emb_channels) = (2, 5), got (3, 5)"),
        (torch.zeros(5), "expected emb of shape (N, emb_channels) = (2, 5), got (5,)"),
        (torch.zeros(2, 5, 1), "= (2, 5), got (2, 5, 1)"),
    ],
)
def test_conditioning(build, emb, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build(3, 1, emb_channels=5, **SMALL)(torch.zeros(2, 3, 8, 8), emb)


def test_conditioning_of_a_model_without(build):
    with pytest.raises(ValueError, match="built without conditioning; build it with emb_channels="):
        build(3, 1, **SMALL)(torch.zeros(2, 3, 8, 8), torch.zeros(2, 5))


def test_a_size_below_the_depth_works_and_warns_once(build):
    net, x = build(3, 1, channels=(4, 4, 4), num_blocks=1), torch.zeros(1, 3, 6, 5 if build is MultiResNet else 4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            assert net(x).shape == (1, 1, *x.shape[2:])
    assert len(caught) == 1
    assert re.match(r"spatial size \(6, [45]\) is smaller than 2\*\*3", str(caught[0].message))


def test_nothing_is_printed(build, capfd):
    net = build(3, 1, **SMALL)
    net(torch.zeros(1, 3, 8, 8)).sum().backward()
    assert capfd.readouterr() == ("", "")


# -------------------------------------------------------------------------------------------------------- the constructor


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"chanels": (4, 4)},
            "unknown argument 'chanels' (did you mean 'channels'?); known: in_channels, out_channels",
        ),
        ({"num_block": 2}, "did you mean 'num_blocks'?"),
        ({"padding_mode": "circular"}, "unknown argument 'padding_mode'"),
        ({"spatial_dims": 4}, "unknown argument 'spatial_dims'"),
    ],
)
def test_typos(build, options, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        build(3, 1, **options)


def test_options_are_keywords(build):
    with pytest.raises(TypeError):
        build(3, 1, None, (4, 4))


@pytest.mark.parametrize("dims", [0, 4, 2.5])
def test_spatial_dims(build, dims):
    with pytest.raises(ValueError, match=f"spatial_dims must be 1, 2 or 3, got {dims}"):
        build(3, 1, space=Haar(dims))


@pytest.mark.parametrize("channels", [0, -1, 2.0, True, None])
def test_channels_of_input_and_output(build, channels):
    with pytest.raises(ValueError, match=f"in_channels must be an integer >= 1, got {channels}"):
        build(channels, 1)
    with pytest.raises(ValueError, match=f"out_channels must be an integer >= 1, got {channels}"):
        build(1, channels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": (8, 0), "num_blocks": 1}, "channels must be an integer >= 1, got 0"),
        ({"channels": (8, 8.5), "num_blocks": 1}, "channels must be an integer >= 1, got 8.5"),
        ({"channels": (), "num_blocks": 1}, "levels must be an integer >= 1, got 0"),
        ({"channels": (8, 8), "num_blocks": (1, 1, 1)}, "num_blocks has 3 entries for the 2 levels of channels=(8, 8)"),
        ({"num_blocks": -1}, "num_blocks must be integers >= 0, got -1"),
        ({"num_blocks": ((1, 1, 1, 1),) * 2, "sweeps": 3}, "num_blocks has 2 rows for sweeps=3; give one row for each"),
        ({"sweeps": 0}, "sweeps must be an integer >= 1, got 0"),
        ({"patch_levels": -1}, "patch_levels must be an integer >= 0, got -1"),
        ({"emb_channels": -2}, "emb_channels must be an integer >= 0, got -2"),
        (
            {"norm": "gruop"},
            "norm='gruop' is unknown (did you mean 'group'?); choose from group, batch, instance, layer",
        ),
        ({"activation": "geluu"}, "activation='geluu' is unknown"),
        ({"activation": "Gelu"}, "did you mean 'GELU'?"),
        ({"block": "resnet"}, "block='resnet' is unknown"),
        ({"block": ("residual",)}, "block has 1 entries for the 4 levels"),
        ({"merge": "cat"}, "merge='cat' is unknown"),
        (
            {"merge": "strict"},
            'merge="strict" works on the output itself: it needs patch_levels=0 and sweeps=1, got 1 and 1',
        ),
        ({"merge": "strict", "patch_levels": 0, "sweeps": 2}, "got 0 and 2"),
    ],
)
def test_values(build, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build(3, 1, **options)


def test_values_of_one_network():
    with pytest.raises(ValueError, match=r"skip='details' is unknown \(did you mean 'detail'\?\)"):
        MultiResNet(1, 1, skip="details")
    with pytest.raises(ValueError, match="num_blocks has 2 entries for the 4 levels"):
        ResidualUNet(1, 1, encoder_blocks=(1, 1))
    with pytest.raises(ValueError, match=r"delta=True adds the last out_channels=2 channels .* has in_channels=1"):
        MultiResNet(1, 2, delta=True)
    with pytest.raises(TypeError, match="activation must be a callable, a torch.nn class or its name; got 3"):
        MultiResNet(1, 1, activation=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "channels must be an integer >= 1, got 0"),
        ((8, -1), "num_blocks must be integers >= 0, got -1"),
        ((8, 1, "dense"), "block='dense' is unknown.*choose from residual, attention, transformer"),
    ],
)
def test_levels(arguments, message):
    with pytest.raises(ValueError, match=message):
        Level(*arguments)


def test_preconditioned():
    base = torch.nn.Identity()
    with pytest.raises(ValueError, match=r"maps 2 channels to 2; .* in_channels=4 and out_channels=2, not 2 and 1"):
        Preconditioned(base, MultiResNet(2, 1, **SMALL))(torch.zeros(1, 2, 8, 8))
    with pytest.raises(ValueError, match="residual must be built with delta=False"):
        Preconditioned(base, MultiResNet(2, 1, delta=True, **SMALL))


def test_every_default_builds(build):
    with torch.device("meta"):
        assert build(1, 1)(torch.zeros(1, 1, 64, 64)).shape == (1, 1, 64, 64)
