"""The networks of the benchmarks by name, and any other by import path."""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

import multiresnet as mrn
from multiresnet.checks import closest
from multiresnet.spaces import Haar, Space

Builder = Callable[[int, int, Space, "int | None"], nn.Module]

# Few blocks where they are dear, at full resolution: for step time and memory at equal parameters.
FAST = {**mrn.PRESETS["compact"], "patch_levels": 1}


class MissingPackage(ImportError):
    """A peer that is not installed."""


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
        params: scale ours to this number of parameters; None takes the widths as they are. The peers always do.

    Raises:
        ValueError: unknown name, or no such function.
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


def _paper(kind: type[mrn.MultiResNet] | type[mrn.ResidualUNet], extra_blocks: int) -> Builder:
    def builder(in_channels: int, out_channels: int, space: Space, params: int | None) -> nn.Module:
        def make(width: int) -> nn.Module:
            return kind.paper(in_channels, out_channels, hidden_channels=width, extra_blocks=extra_blocks, space=space)

        if params is None:
            return make(16)
        with torch.device("meta"):
            width = min(range(2, 129, 2), key=lambda width: abs(mrn.count_parameters(make(width)) - params))
        return make(width)

    return builder


def _smp(encoder: str, architecture: str = "unet") -> Builder:
    def builder(in_channels: int, out_channels: int, space: Space, params: int | None) -> nn.Module:
        smp = package("segmentation_models_pytorch", "segmentation-models-pytorch")
        importlib.import_module("multiresnet.integrations.smp")  # registers "haar"
        if space.spatial_dims != 2:
            raise ValueError(f"smp's networks are for 2 spatial dimensions, got {space.spatial_dims}")
        arguments = {"encoder_weights": None, "in_channels": in_channels, "classes": out_channels}
        return cast(nn.Module, smp.create_model(architecture, encoder, **arguments))

    return builder


def _monai(kind: str, **layout: Any) -> Builder:
    def builder(in_channels: int, out_channels: int, space: Space, params: int | None) -> nn.Module:
        nets = package("monai.networks.nets", "monai")
        arguments = {"in_channels": in_channels, "out_channels": out_channels, **layout}
        return cast(nn.Module, getattr(nets, kind)(spatial_dims=space.spatial_dims, **arguments))

    return builder


BUILDERS: dict[str, Builder] = {
    "multiresnet": _own(mrn.MultiResNet),
    "multiresnet-fast": _own(mrn.MultiResNet, **FAST),
    "multiresnet-paper": _paper(mrn.MultiResNet, 3),
    "residual-unet": _own(mrn.ResidualUNet),
    "residual-unet-fast": _own(mrn.ResidualUNet, **FAST),
    "residual-unet-paper": _paper(mrn.ResidualUNet, 0),
    "smp-resnet18": _smp("resnet18"),
    "smp-resnet34": _smp("resnet34"),
    "smp-haar": _smp("haar"),
    "smp-multiresnet": _smp("haar", "multiresnet"),
    "monai-unet": _monai("UNet", channels=(16, 32, 64, 128, 256), strides=(2, 2, 2, 2), num_res_units=2),
    "monai-basicunet": _monai("BasicUNet"),
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
