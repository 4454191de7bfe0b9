"""The networks of the benchmarks by name, and any other by import path."""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

import multiresnet as mrn
from multiresnet.checks import closest
from multiresnet.spaces import Haar, Space

Options = Mapping[str, Any]
Builder = Callable[[int, int, Space, "int | None", Options], nn.Module]

# Few blocks where they are dear, at full resolution: for step time and memory at equal parameters.
FAST_LAYOUT = {"channels": (32, 64, 128, 128), "num_blocks": (1, 1, 3, 4), "patch_levels": 1, "norm": None}


class MissingPackage(ImportError):
    """A peer that is not installed."""


def build(
    name: str,
    in_channels: int,
    out_channels: int,
    *,
    space: Space | None = None,
    params: int | None = None,
    delta: bool = False,
    options: Options | None = None,
) -> nn.Module:
    """A network, from its name in `BUILDERS` or from `"package.module:function"`.

    Args:
        name: see above. A function of one's own is called with `(in_channels, out_channels)` and with those of the
            keywords `space`, `params`, `delta` and the names in `options` that it takes.
        in_channels: channels of the input.
        out_channels: channels of the output.
        space: for ours; None is `Haar(2, "zeros")`. The peers have 2-D (smp) or 1- to 3-D (MONAI) zero padding.
        params: scale the widths to this number of parameters; None, and the peers always, take the widths as they are.
        delta: add the last `out_channels` of the input to the output.
        options: arguments of `MultiResNet`, `ResidualUNet` or of the peer's class, over those of the name.

    Raises:
        ValueError: unknown name, or no such function.
        MissingPackage: the peer is not installed.
    """
    space = space if space is not None else Haar(2)
    if ":" in name:
        keywords = {"space": space, "params": params, "delta": delta, **(options or {})}
        return _with_channels(_import(name, in_channels, out_channels, keywords), in_channels)
    if name not in BUILDERS:
        known = ", ".join(BUILDERS)
        raise ValueError(
            f"unknown model {name!r}{closest(name, BUILDERS)}; known: {known}; "
            "your own by import path: package.module:function"
        )
    ours = {"delta": delta} if name in DELTA_INSIDE else {}
    model = BUILDERS[name](in_channels, out_channels, space, params, {**ours, **(options or {})})
    return _with_channels(model if ours or not delta else Delta(model, out_channels), in_channels)


class Delta(nn.Module):
    """`x + f(x)` on the last `out_channels`, for networks that don't have it inside."""

    def __init__(self, model: nn.Module, out_channels: int) -> None:
        super().__init__()
        self.model, self.out_channels = model, out_channels

    def forward(self, x: Tensor) -> Tensor:
        return x[:, -self.out_channels :] + cast(Tensor, self.model(x))


def _with_channels(model: nn.Module, in_channels: int) -> nn.Module:
    """With the attribute that `multiresnet.count_macs` asks for."""
    if not hasattr(model, "in_channels"):
        model.in_channels = in_channels  # type: ignore[assignment]
    return model


def _own(kind: type[mrn.UNet], **layout: Any) -> Builder:
    def builder(in_channels: int, out_channels: int, space: Space, params: int | None, options: Options) -> nn.Module:
        arguments = {"space": space, **layout, **options}
        if params is None:
            return cast(Callable[..., nn.Module], kind)(in_channels, out_channels, **arguments)
        return mrn.match_budget(kind, params=params, in_channels=in_channels, out_channels=out_channels, **arguments)

    return builder


def _paper(kind: type[mrn.MultiResNet] | type[mrn.ResidualUNet], extra_blocks: int) -> Builder:
    def builder(in_channels: int, out_channels: int, space: Space, params: int | None, options: Options) -> nn.Module:
        def make(hidden_channels: int) -> nn.Module:
            arguments = {"space": space, "extra_blocks": extra_blocks, "hidden_channels": hidden_channels, **options}
            return kind.paper(in_channels, out_channels, **arguments)

        if params is None:
            return make(16)
        with torch.device("meta"):  # the count grows with the width, about quadratically
            width = min(range(2, 129, 2), key=lambda width: abs(mrn.count_parameters(make(width)) - params))
        return make(width)

    return builder


def _smp(encoder: str) -> Builder:
    def builder(in_channels: int, out_channels: int, space: Space, params: int | None, options: Options) -> nn.Module:
        smp = package("segmentation_models_pytorch", "segmentation-models-pytorch")
        if space.spatial_dims != 2:
            raise ValueError(f"smp's networks are for 2 spatial dimensions, got {space.spatial_dims}")
        arguments = {"encoder_weights": None, "in_channels": in_channels, "classes": out_channels, **options}
        return cast(nn.Module, smp.Unet(encoder, **arguments))

    return builder


def _monai(kind: str, **layout: Any) -> Builder:
    def builder(in_channels: int, out_channels: int, space: Space, params: int | None, options: Options) -> nn.Module:
        nets = package("monai.networks.nets", "monai")
        arguments = {"in_channels": in_channels, "out_channels": out_channels, **layout, **options}
        return cast(nn.Module, getattr(nets, kind)(spatial_dims=space.spatial_dims, **arguments))

    return builder


BUILDERS: dict[str, Builder] = {
    "multiresnet": _own(mrn.MultiResNet),
    "multiresnet-fast": _own(mrn.MultiResNet, **FAST_LAYOUT),
    "multiresnet-paper": _paper(mrn.MultiResNet, 3),
    "residual-unet": _own(mrn.ResidualUNet),
    "residual-unet-fast": _own(mrn.ResidualUNet, **FAST_LAYOUT),
    "residual-unet-paper": _paper(mrn.ResidualUNet, 0),
    "smp-resnet18": _smp("resnet18"),
    "smp-resnet34": _smp("resnet34"),
    "monai-unet": _monai("UNet", channels=(16, 32, 64, 128, 256), strides=(2, 2, 2, 2), num_res_units=2),
    "monai-basicunet": _monai("BasicUNet"),
}
DELTA_INSIDE = ("multiresnet", "multiresnet-fast", "residual-unet", "residual-unet-fast")


def package(module: str, package: str) -> Any:
    """A peer's module.

    Args:
        module: to import.
        package: that holds it, for the message.

    Raises:
        MissingPackage: it is not installed.
    """
    try:
        with warnings.catch_warnings():  # what a peer warns about at import is not ours to mend
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingPackage(f"{package} is not installed ({error}); pip install 'multiresnet[bench]'") from None


def _import(path: str, in_channels: int, out_channels: int, keywords: Options) -> nn.Module:
    module, _, attribute = path.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"found no model at {path!r}: {error}; expected package.module:function") from None
    accepted = inspect.signature(function).parameters
    model = function(in_channels, out_channels, **{k: v for k, v in keywords.items() if k in accepted})
    if not isinstance(model, nn.Module):
        raise ValueError(f"{path!r} returned {type(model).__name__}, expected a torch.nn.Module")
    return model
