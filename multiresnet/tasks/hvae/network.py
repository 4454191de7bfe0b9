"""A hierarchical VAE, described before its data are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from multiresnet.hvae import HVAE, Resolution
from multiresnet.spaces import Haar
from multiresnet.spaces.boundary import Boundary

__all__ = ["HVAENetwork", "HVAESize"]


@dataclass(frozen=True)
class HVAESize:
    """What the data settle about a hierarchical VAE."""

    channels: int
    size: tuple[int, ...]
    boundary: Boundary = "zeros"
    emb_channels: int = 0


@dataclass(frozen=True)
class HVAENetwork:
    """`multiresnet.hvae.HVAE` for images; channels and size come from the data.

    Args:
        resolutions: finest first; `None` halves the size down to a single cell: four cells and blocks of 64 channels at
            each resolution whose sides are 4 ... 32, two at finer ones, one at the single cell.
        options: other arguments of `HVAE`: `share`, `latent_channels`, `likelihood`, ...
        boundary: stronger than that of the data; `None` takes theirs.

    Examples:
        >>> model = HVAENetwork(options={"share": "per_resolution"}).build(HVAESize(1, (28, 28)))
        >>> [(resolution.level, resolution.cells) for resolution in model.resolutions]
        [(0, 4), (1, 4), (2, 4), (3, 4), (5, 1)]
    """

    resolutions: tuple[Resolution, ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    boundary: Boundary | None = None

    def build(self, size: HVAESize, /) -> HVAE:
        """The network for these data."""
        return HVAE(
            size.channels,
            size=size.size,
            resolutions=self.resolutions or _suggested(size.size),
            space=Haar(len(size.size), self.boundary if self.boundary is not None else size.boundary),
            **{"emb_channels": size.emb_channels, **self.options},
        )


def _suggested(size: tuple[int, ...]) -> tuple[Resolution, ...]:
    level, grid, found = 0, tuple(size), list[Resolution]()
    while max(grid) > 1:
        if min(grid) >= 4 or not found:
            number = 4 if max(grid) <= 32 else 2
            found.append(Resolution(level, 64, cells=number, encoder_blocks=number))
        level, grid = level + 1, tuple(-(-n // 2) for n in grid)
    return (*found, Resolution(level, 64))
