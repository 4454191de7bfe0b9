"""A network of ours, described before its channels, dimension and boundary condition are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import nn

from multiresnet.checks import check_choice
from multiresnet.models import PRESETS, MultiResNet, ResidualUNet
from multiresnet.spaces import Haar
from multiresnet.spaces.boundary import Boundary
from multiresnet.unet import UNet

__all__ = ["KINDS", "Description", "Network", "NetworkSize"]

KINDS: dict[str, type[MultiResNet] | type[ResidualUNet]] = {"MultiResNet": MultiResNet, "ResidualUNet": ResidualUNet}


@runtime_checkable
class Description(Protocol):
    """What builds a network once the data are known."""

    def build(self, size: Any, /) -> nn.Module:
        """The network for these data; `size` is the `network_size` of the task."""


@dataclass(frozen=True)
class NetworkSize:
    """What the data settle about a network."""

    in_channels: int
    out_channels: int
    spatial_dims: int = 2
    boundary: Boundary = "zeros"
    emb_channels: int = 0


@dataclass(frozen=True)
class Network:
    """`MultiResNet` or `ResidualUNet` by name; channels, dimension and boundary condition come from the data.

    Args:
        name: `"MultiResNet"` or `"ResidualUNet"`.
        preset: a key of `multiresnet.PRESETS`, or `None`.
        options: arguments of the class, stronger than those of the preset: `channels`, `num_blocks`, `norm`, ...
        boundary: stronger than that of the data; `None` takes theirs.

    Raises:
        ValueError: unknown name or preset.

    Examples:
        >>> Network(options={"channels": (16, 32)}).build(NetworkSize(in_channels=3, out_channels=1)).num_levels
        2
    """

    name: str = "MultiResNet"
    preset: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    boundary: Boundary | None = None

    def __post_init__(self) -> None:
        check_choice("name", self.name, KINDS)
        if self.preset is not None:
            check_choice("preset", self.preset, PRESETS)

    def build(self, size: NetworkSize, /) -> UNet:
        """The network for these data."""
        boundary = self.boundary if self.boundary is not None else size.boundary
        options = {key: _tuples(value) for key, value in self.options.items()}
        return KINDS[self.name](
            size.in_channels,
            size.out_channels,
            space=Haar(size.spatial_dims, boundary),
            **{"emb_channels": size.emb_channels, **(PRESETS[self.preset] if self.preset else {}), **options},
        )


def _tuples(value: Any) -> Any:
    """Lists, which is what YAML has, as tuples."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
