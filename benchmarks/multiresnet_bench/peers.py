"""The networks of other libraries: how each is built, in which dimensions it exists, and how it is scaled."""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from multiresnet.spaces import Haar
from multiresnet_bench.borders import Denoiser, Padded, follow


class MissingPackage(ImportError):
    """A peer that is not installed."""


class Unsuitable(ValueError):
    """A network that does not exist for this space, or this task."""


@dataclass(frozen=True)
class Ports:
    """What a network has to fit; see `multiresnet_bench.models.build`."""

    in_channels: int
    out_channels: int
    space: Haar
    emb_channels: int = 0
    classes: int = 0

    @property
    def dims(self) -> int:
        """Number of spatial dimensions."""
        return self.space.spatial_dims


@dataclass(frozen=True)
class Peer:
    """A network of another library.

    Args:
        make: builds it for ports at a width.
        width: the usual one; 0 if all widths are fixed.
        step: widths are multiples of it.
        multiple: sizes that it takes are multiples of it.
        dims: numbers of spatial dimensions in which it exists.
        denoiser: whether it takes a noise level, and is called like diffusers' `UNet2DModel`.
    """

    make: Callable[[Ports, int], nn.Module]
    width: int = 0
    step: int = 1
    multiple: int = 1
    dims: tuple[int, ...] = (1, 2, 3)
    denoiser: bool = False

    def build(self, ports: Ports, width: int) -> nn.Module:
        """The network, for any size, with the space's boundary.

        Raises:
            Unsuitable: it does not exist in this dimension, or as a denoiser.
            MissingPackage: it is not installed.
        """
        if ports.dims not in self.dims:
            raise Unsuitable(
                f"this network is for {' or '.join(map(str, self.dims))} spatial dimensions, got {ports.dims}"
            )
        if ports.emb_channels and not self.denoiser:
            raise Unsuitable("this network takes no noise level")
        model = self.make(ports, width)
        follow(model, ports.space.sides)
        if self.multiple > 1:
            model = (Denoiser if self.denoiser else Padded)(model, self.multiple, ports.space.sides)
        return model


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


def _smp(encoder: str, architecture: str = "unet") -> Peer:
    def make(ports: Ports, width: int) -> nn.Module:
        smp = package("segmentation_models_pytorch", "segmentation-models-pytorch")
        importlib.import_module("multiresnet.integrations.smp")  # registers "haar"
        arguments = {"encoder_weights": None, "in_channels": ports.in_channels, "classes": ports.out_channels}
        return cast(nn.Module, smp.create_model(architecture, encoder, **arguments))

    return Peer(make, dims=(2,))


def _monai(kind: str, layout: Callable[[int], dict[str, Any]]) -> Callable[[Ports, int], nn.Module]:
    def make(ports: Ports, width: int) -> nn.Module:
        arguments = {"spatial_dims": ports.dims, "in_channels": ports.in_channels, "out_channels": ports.out_channels}
        return cast(nn.Module, getattr(package("monai.networks.nets", "monai"), kind)(**arguments, **layout(width)))

    return make


def _unet(width: int) -> dict[str, Any]:
    return {"channels": tuple(width * 2**i for i in range(5)), "strides": (2, 2, 2, 2), "num_res_units": 2}


def _basic_unet(width: int) -> dict[str, Any]:
    return {"features": tuple(width * n for n in (1, 1, 2, 4, 8, 1))}  # the proportions of its default


def _segresnet(width: int) -> dict[str, Any]:
    return {"init_filters": width, "norm": ("GROUP", {"num_groups": 4})}  # its 8 would leave few widths to choose from


def _diffusers_unet(ports: Ports, width: int) -> nn.Module:
    model = package("diffusers", "diffusers").UNet2DModel(
        in_channels=ports.in_channels,
        out_channels=ports.out_channels,
        block_out_channels=(width, 2 * width, 3 * width, 4 * width),  # the proportions of its default
        norm_num_groups=4,
        num_class_embeds=ports.classes + 1 if ports.classes else None,  # the last one means no class
    )
    return cast(nn.Module, model)


def _the_well(module: str, kind: str) -> Callable[[Ports, int], nn.Module]:
    def make(ports: Ports, width: int) -> nn.Module:
        model = getattr(package(f"the_well.benchmark.models.{module}", "the_well"), kind)
        size = (64,) * ports.dims  # it keeps this, and does not use it
        return cast(nn.Module, model(ports.in_channels, ports.out_channels, ports.dims, size, init_features=width))

    return make


def _fno(ports: Ports, width: int) -> nn.Module:
    kind = package("neuralop.models", "neuraloperator").FNO
    return cast(nn.Module, kind((16,) * ports.dims, ports.in_channels, ports.out_channels, width))


def _uno(ports: Ports, width: int) -> nn.Module:
    """The layout of the documentation of neuraloperator: five layers, the middle ones at half the resolution."""

    def everywhere(*numbers: float) -> list[list[float]]:
        return [[number] * ports.dims for number in numbers]

    kind = package("neuralop.models", "neuraloperator").UNO
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its options
        model = kind(
            ports.in_channels,
            ports.out_channels,
            width,
            n_layers=5,
            uno_out_channels=[width, 2 * width, 2 * width, 2 * width, width],
            uno_n_modes=everywhere(16, 8, 8, 8, 16),
            uno_scalings=everywhere(1, 0.5, 1, 2, 1),
            channel_mlp_skip="linear",  # its default does not build where widths differ
        )
    return cast(nn.Module, model)


PEERS: dict[str, Peer] = {
    "smp-resnet18": _smp("resnet18"),
    "smp-resnet34": _smp("resnet34"),
    "smp-haar": _smp("haar"),
    "smp-multiresnet": _smp("haar", "multiresnet"),
    "smp-mobilenet": _smp("mobilenet_v2"),
    "monai-unet": Peer(_monai("UNet", _unet), 16, multiple=16),
    "monai-basicunet": Peer(_monai("BasicUNet", _basic_unet), 32, multiple=16),
    "monai-segresnet": Peer(_monai("SegResNet", _segresnet), 8, step=4, multiple=8, dims=(2, 3)),
    "diffusers-unet": Peer(_diffusers_unet, 64, step=4, multiple=8, dims=(2,), denoiser=True),
    "well-unet-classic": Peer(_the_well("unet_classic", "UNetClassic"), 32, multiple=16),
    "well-unet-convnext": Peer(_the_well("unet_convnext", "UNetConvNext"), 32, multiple=16, dims=(2, 3)),
    "neuralop-fno": Peer(_fno, 64),
    "neuralop-uno": Peer(_uno, 32),
}
