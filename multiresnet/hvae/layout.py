"""What each resolution of a hierarchical VAE computes, and the published layouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from multiresnet.checks import check_positive

__all__ = ["LAYOUTS", "Layout", "Resolution", "Share", "check_order", "runs"]

Share = Literal["none", "per_resolution"] | int


@dataclass(frozen=True)
class Resolution:
    """One resolution of a hierarchical VAE.

    Args:
        level: of the space; 0 is the finest.
        channels: width of the state and of the encoder's features.
        cells: stochastic cells of the decoder, >= 1. The first of them follows the change from the coarser resolution.
        encoder_blocks: residual blocks of a learned encoder, >= 0. The last one comes before the pooling to the coarser
            resolution, where there is one.
        hidden: width inside blocks and cells; 0 is a quarter of `channels`.
    """

    level: int
    channels: int
    cells: int = 1
    encoder_blocks: int = 1
    hidden: int = 0

    def __post_init__(self) -> None:
        check_positive(channels=self.channels, cells=self.cells)
        for name, value in (("level", self.level), ("encoder_blocks", self.encoder_blocks), ("hidden", self.hidden)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"{name} must be an integer >= 0, got {value!r}")
        if not self.hidden:
            object.__setattr__(self, "hidden", max(self.channels // 4, 1))


@dataclass(frozen=True)
class Layout:
    """A published size: the images and the resolutions, finest first."""

    size: tuple[int, int]
    resolutions: tuple[Resolution, ...]


def _layout(side: int, channels: int, rows: Sequence[tuple[int, int, int]]) -> Layout:
    return Layout((side, side), tuple(Resolution(level, channels, cells, blocks) for level, cells, blocks in rows))


LAYOUTS = {
    "cifar10": _layout(32, 384, ((0, 22, 12), (1, 11, 7), (2, 6, 7), (3, 3, 4), (5, 1, 3))),
    "imagenet32": _layout(32, 512, ((0, 41, 16), (1, 20, 10), (2, 10, 9), (3, 5, 7), (5, 2, 6))),
    "imagenet64": _layout(64, 512, ((0, 13, 12), (1, 32, 21), (2, 16, 10), (3, 8, 9), (4, 4, 8), (6, 2, 5))),
}
"""VDVAE's (Child, arXiv 2011.10650), one row for each resolution: level, cells, encoder blocks."""


def check_order(resolutions: Sequence[Resolution]) -> tuple[Resolution, ...]:
    """The resolutions, if they go from fine to coarse.

    Raises:
        ValueError: none, or levels that do not rise.
    """
    levels = [resolution.level for resolution in resolutions]
    if not levels or levels != sorted(set(levels)):
        raise ValueError(f"resolutions go from fine to coarse, each level once; got levels {levels}")
    return tuple(resolutions)


def runs(cells: int, share: Share) -> tuple[int, ...]:
    """How many cells in a row have the same weights: lengths of the runs, summing to `cells`.

    Examples:
        >>> runs(5, "none"), runs(5, "per_resolution"), runs(5, 2)
        ((1, 1, 1, 1, 1), (5,), (2, 2, 1))

    Raises:
        ValueError: `share` is none of these.
    """
    if share == "none":
        share = 1
    if share == "per_resolution":
        return (cells,) if cells else ()
    if isinstance(share, bool) or not isinstance(share, int) or share < 1:
        raise ValueError(f"share must be 'none', 'per_resolution' or cells in a row, an integer >= 1; got {share!r}")
    return (share,) * (cells // share) + ((cells % share,) if cells % share else ())
