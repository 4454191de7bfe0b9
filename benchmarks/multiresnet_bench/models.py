"""The networks of the benchmarks by name, and any other by import path."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import warnings
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

import multiresnet as mrn
from multiresnet.checks import closest
from multiresnet.spaces import Haar, Space

Builder = Callable[[int, int, Space, "int | None"], nn.Module]

# Few blocks where they are dear, at full resolution: for step time and memory at equal parameters.
FAST = {**mrn.PRESETS["compact"], "patch_levels": 1}


class MissingPackage(ImportError):
    """A peer that is not installed."""


class Unsuitable(ValueError):
    """A network that does not exist for this space."""


def build(
    name: str, in_channels: int, out_channels: int, *, space: Space | None = None, params: int | None = None
) -> nn.Module:
    """A network that maps (N, in_channels, *spatial) to (N, out_channels, *spatial).

    Args:
        name: a key of `BUILDERS`, or `"package.module:function"`; the function is called with
            `(in_channels, out_channels)` and with those of the keywords `space` and `params` that it takes.
        in_channels: channels of the input.
        out_channels: channels of the output.
        space: for ours; None is `Haar(2, "zeros")`. The peers pad with zeros.
        params: scale the widths to this number of parameters; None takes them as they are. The networks of smp have
            fixed widths, whatever `params` says.

    Raises:
        ValueError: unknown name, or no such function.
        Unsuitable: the network is not for this number of dimensions.
        MissingPackage: the peer is not installed.
    """
    space = space if space is not None else Haar(2)
    if ":" in name:
        model = _import(name)(in_channels, out_channels, space=space, params=params)
    elif name in BUILDERS:
        model = BUILDERS[name](in_channels, out_channels, space, params)
    else:
        known = ", ".join(BUILDERS)
        raise ValueError(
            f"unknown model {name!r}{closest(name, BUILDERS)}; known: {known}; "
            "your own by import path: package.module:function"
        )
    if not isinstance(model, nn.Module):
        raise ValueError(f"{name!r} returned {type(model).__name__}, expected a torch.nn.Module")
    if not hasattr(model, "in_channels"):
        model.in_channels = in_channels  # type: ignore[assignment]  # for multiresnet.count_macs
    return model


def _own(kind: type[mrn.UNet], **layout: Any) -> Builder:
    def builder(in_channels: int, out_channels: int, space: Space, params: int | None) -> nn.Module:
        arguments = {"in_channels": in_channels, "out_channels": out_channels, "space": space, **layout}
        if params is None:
            return cast(Callable[..., nn.Module], kind)(**arguments)
        return mrn.match_budget(kind, params=params, **arguments)

    return builder


def _scaled(make: Callable[[int, int, Space, int], nn.Module], default: int, step: int) -> Builder:
    """`make` with the last argument, a width, as it is by default, or the multiple of `step` that comes nearest to `params`."""

    def builder(in_channels: int, out_channels: int, space: Space, params: int | None) -> nn.Module:
        if params is None:
            return make(in_channels, out_channels, space, default)

        def count(width: int) -> int:
            with torch.device("meta"):
                return mrn.count_parameters(make(in_channels, out_channels, space, width))

        low = high = max(step, 4)
        while count(high) < params:
            low, high = high, 2 * high
        while high - low > step:
            middle = (low + high) // (2 * step) * step
            low, high = (middle, high) if count(middle) < params else (low, middle)
        width = min((low, high), key=lambda width: abs(count(width) - params))
        return make(in_channels, out_channels, space, width)

    return builder


def _paper(kind: type[mrn.MultiResNet] | type[mrn.ResidualUNet], extra_blocks: int) -> Builder:
    def make(in_channels: int, out_channels: int, space: Space, width: int) -> nn.Module:
        return kind.paper(in_channels, out_channels, hidden_channels=width, extra_blocks=extra_blocks, space=space)

    return _scaled(make, 16, 2)


def _smp(encoder: str, architecture: str = "unet") -> Builder:
    def builder(in_channels: int, out_channels: int, space: Space, params: int | None) -> nn.Module:
        smp = package("segmentation_models_pytorch", "segmentation-models-pytorch")
        importlib.import_module("multiresnet.integrations.smp")  # registers "haar"
        _only_2d(space)
        arguments = {"encoder_weights": None, "in_channels": in_channels, "classes": out_channels}
        return cast(nn.Module, smp.create_model(architecture, encoder, **arguments))

    return builder


def _monai_unet(in_channels: int, out_channels: int, space: Space, width: int) -> nn.Module:
    layout = {"channels": tuple(width * 2**i for i in range(5)), "strides": (2, 2, 2, 2), "num_res_units": 2}
    return _monai("UNet", in_channels, out_channels, space, **layout)


def _monai_basic(in_channels: int, out_channels: int, space: Space, width: int) -> nn.Module:
    features = tuple(width * n for n in (1, 1, 2, 4, 8, 1))  # the proportions of its default
    return _monai("BasicUNet", in_channels, out_channels, space, features=features)


def _monai_segresnet(in_channels: int, out_channels: int, space: Space, width: int) -> nn.Module:
    return _monai("SegResNet", in_channels, out_channels, space, init_filters=width)


def _monai(kind: str, in_channels: int, out_channels: int, space: Space, **layout: Any) -> nn.Module:
    make = getattr(package("monai.networks.nets", "monai"), kind)
    return cast(
        nn.Module, make(spatial_dims=space.spatial_dims, in_channels=in_channels, out_channels=out_channels, **layout)
    )


def _diffusers_unet(in_channels: int, out_channels: int, space: Space, width: int) -> nn.Module:
    diffusers = package("diffusers", "diffusers")
    _only_2d(space)
    return AtTimeZero(
        diffusers.UNet2DModel(
            in_channels=in_channels,
            out_channels=out_channels,
            block_out_channels=(width, 2 * width, 3 * width, 4 * width),  # the proportions of its default
            norm_num_groups=8,
        )
    )


class AtTimeZero(nn.Module):
    """A denoiser of diffusers as a network for images."""

    def __init__(self, denoiser: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.denoiser(x, 0).sample)


def _the_well(module: str, kind: str) -> Callable[[int, int, Space, int], nn.Module]:
    def make(in_channels: int, out_channels: int, space: Space, width: int) -> nn.Module:
        dims = space.spatial_dims
        model = getattr(package(f"the_well.benchmark.models.{module}", "the_well"), kind)
        return cast(nn.Module, model(in_channels, out_channels, dims, (64,) * dims, init_features=width))

    return make


def _fno(in_channels: int, out_channels: int, space: Space, width: int) -> nn.Module:
    modes = (16,) * space.spatial_dims
    return cast(nn.Module, package("neuralop.models", "neuraloperator").FNO(modes, in_channels, out_channels, width))


def _uno(in_channels: int, out_channels: int, space: Space, width: int) -> nn.Module:
    """The layout of the documentation of neuraloperator: five layers, the middle ones at half the resolution."""

    def everywhere(*numbers: float) -> list[list[float]]:
        return [[number] * space.spatial_dims for number in numbers]

    models = package("neuralop.models", "neuraloperator")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its options
        model = models.UNO(
            in_channels,
            out_channels,
            width,
            n_layers=5,
            uno_out_channels=[width, 2 * width, 2 * width, 2 * width, width],
            uno_n_modes=everywhere(16, 8, 8, 8, 16),
            uno_scalings=everywhere(1, 0.5, 1, 2, 1),
            channel_mlp_skip="linear",  # its default does not build where widths differ
        )
    return cast(nn.Module, model)


def _only_2d(space: Space) -> None:
    if space.spatial_dims != 2:
        raise Unsuitable(f"this network is for 2 spatial dimensions, got {space.spatial_dims}")


BUILDERS: dict[str, Builder] = {
    "multiresnet": _own(mrn.MultiResNet),
    "multiresnet-two-sweeps": _own(mrn.MultiResNet, **mrn.PRESETS["segmentation"]),
    "multiresnet-patched": _own(mrn.MultiResNet, patch_levels=2),
    "multiresnet-attention": _own(mrn.MultiResNet, block=("residual", "residual", "attention", "attention")),
    "multiresnet-transformer": _own(mrn.MultiResNet, block=("residual", "residual", "transformer", "transformer")),
    "multiresnet-fast": _own(mrn.MultiResNet, **FAST),
    "multiresnet-paper": _paper(mrn.MultiResNet, 3),
    "residual-unet": _own(mrn.ResidualUNet),
    "residual-unet-fast": _own(mrn.ResidualUNet, **FAST),
    "residual-unet-paper": _paper(mrn.ResidualUNet, 0),
    "smp-resnet18": _smp("resnet18"),
    "smp-resnet34": _smp("resnet34"),
    "smp-haar": _smp("haar"),
    "smp-multiresnet": _smp("haar", "multiresnet"),
    "smp-mobilenet": _smp("mobilenet_v2"),
    "monai-unet": _scaled(_monai_unet, 16, 1),
    "monai-basicunet": _scaled(_monai_basic, 32, 1),
    "monai-segresnet": _scaled(_monai_segresnet, 8, 8),
    "diffusers-unet": _scaled(_diffusers_unet, 64, 8),
    "well-unet-classic": _scaled(_the_well("unet_classic", "UNetClassic"), 32, 1),
    "well-unet-convnext": _scaled(_the_well("unet_convnext", "UNetConvNext"), 32, 1),
    "neuralop-fno": _scaled(_fno, 64, 1),
    "neuralop-uno": _scaled(_uno, 32, 1),
}


def package(module: str, distribution: str) -> Any:
    """A peer's module.

    Args:
        module: to import.
        distribution: what to install for it, for the message.

    Raises:
        MissingPackage: it, or something that it needs, is not installed.
    """
    try:
        with warnings.catch_warnings():  # what a peer warns about at import is not ours to mend
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingPackage(f"{distribution} does not import ({error}); pip install 'multiresnet[bench]'") from None


def _import(path: str) -> Callable[..., object]:
    module, _, name = path.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
        accepted = inspect.signature(function).parameters
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ValueError(f"found no model at {path!r}: {error}; expected package.module:function") from None

    def builder(in_channels: int, out_channels: int, **keywords: object) -> object:
        return function(in_channels, out_channels, **{k: v for k, v in keywords.items() if k in accepted})

    return builder
