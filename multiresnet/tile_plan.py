"""How a field is cut into tiles that a network predicts as it would predict the whole.

A tile's *core* is what it writes; its *window* is the core with a halo, what the network sees. Windows start at whole
cells of the coarsest level, counted from the lower border as the network sees it, and end at whole cells or at the upper
border: so all their cells, at all levels, are cells of the whole. At a border of the domain the window ends and the
network applies its own boundary rule; along a periodic axis the window wraps around.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeAlias, cast

from torch import nn

from multiresnet.spaces.base import Space
from multiresnet.tta import Symmetry

Span: TypeAlias = tuple[int, int]  # [start, stop) on one axis; what lies outside 0 ... size wraps around
PerAxis: TypeAlias = int | Sequence[int]

DEFAULT_TILE = {1: 2**16, 2: 512, 3: 96}


@dataclass(frozen=True)
class Axis:
    """One axis as the network sees it: length of a coarsest cell, samples of halo, whether it is periodic."""

    cell: int
    halo: int
    periodic: bool

    def cores(self, size: int, tile: int) -> list[Span]:
        """The axis cut into nearly equal parts of whole cells, at most `tile` long; one part where `tile` covers it.

        Examples:
            >>> Axis(cell=8, halo=0, periodic=False).cores(50, tile=30)
            [(0, 24), (24, 48), (48, 50)]
        """
        count = 1 if tile >= size else math.ceil(size / (tile // self.cell * self.cell))
        step = math.ceil(size / (count * self.cell)) * self.cell
        return [(start, min(start + step, size)) for start in range(0, size, step)]

    def window(self, core: Span, size: int) -> Span:
        """What must be seen to predict `core`, in whole cells.

        Examples:
            >>> Axis(cell=8, halo=3, periodic=False).window((24, 48), 50), Axis(8, 3, True).window((0, 16), 48)
            ((16, 50), (-8, 24))
        """
        lower = (core[0] - self.halo) // self.cell * self.cell
        upper = math.ceil((core[1] + self.halo) / self.cell) * self.cell
        if not self.periodic:
            return max(lower, 0), min(upper, size)
        return (lower, upper) if upper - lower < size else (0, size)


@dataclass(frozen=True)
class Tile:
    """The core, and the window for each symmetry, as spans of the axes of the field itself."""

    core: tuple[Span, ...]
    windows: tuple[tuple[Span, ...], ...]

    def inside(self, g: int) -> tuple[Any, ...]:
        """Index of the core in the window of symmetry number `g`."""
        return (..., *(slice(c[0] - w[0], c[1] - w[0]) for c, w in zip(self.core, self.windows[g])))

    @property
    def layout(self) -> tuple[int, ...]:
        """Equal for tiles that fit in one batch."""
        return tuple(
            n
            for window in self.windows
            for c, w in zip(self.core, window)
            for n in (c[0] - w[0], c[1] - c[0], w[1] - w[0])
        )


def plan(
    net: nn.Module, size: Sequence[int], tile: PerAxis | None, halo: PerAxis | None, group: Sequence[Symmetry]
) -> list[Tile]:
    """The tiles of a field of spatial size `size` under the symmetries of `group`; `tile`, `halo` as in `tiled_predict`."""
    dims = len(size)
    field = getattr(net, "receptive_field", None)
    space = cast(Space, net.space) if hasattr(net, "receptive_field") else None
    if space is not None and space.spatial_dims != dims:
        raise ValueError(
            f"the network takes (N, C, *spatial) with {space.spatial_dims} spatial axes; x has {dims}, {tuple(size)}"
        )
    halos = _per_axis("halo", [n // 2 for n in field or [0] * dims] if halo is None else halo, dims, least=0)
    sides = _per_axis("tile", [max(DEFAULT_TILE[dims], h) for h in halos] if tile is None else tile, dims, least=1)
    cells = [math.gcd(side, h) for side, h in zip(sides, halos)]
    if space is not None:
        cells = list(space.reduction(cast(int, net.depth)))
    rules = getattr(space, "sides", [()] * dims)
    axes = [Axis(cell, h, "periodic" in pair) for cell, h, pair in zip(cells, halos, rules)]

    cores = []
    for j, (axis, n, side) in enumerate(zip(axes, size, sides)):
        seen_as = [axes[i] for g in group for i, source in enumerate(g.axes) if source == j]
        shifted = halo is None and any(axis.periodic and n % axis.cell for axis in seen_as)
        if tile is None:
            side = n if shifted else max(side, axis.cell)
        if side < min(axis.cell, n):
            raise ValueError(f"tile={side} on axis {j} is smaller than the coarsest cell of the network, {axis.cell}")
        cores.append(axis.cores(n, side))
        if len(cores[j]) > 1 and halo is None and field is None:
            raise ValueError(
                f"{type(net).__name__} sees the whole field (attention, a space without windows) or has no receptive_field: "
                "give halo=, in samples, for a tiled result that is close to the whole one, or a tile that covers the field"
            )
        if len(cores[j]) > 1 and shifted:
            raise ValueError(
                f"axis {j} is periodic and its size {n} is no multiple of the coarsest cell: no tiling is exact. "
                f"Give tile={n} on that axis to keep it whole, or halo= to accept an error near its ends"
            )
    return [Tile(core, tuple(_window(core, size, axes, symmetry) for symmetry in group)) for core in product(*cores)]


def _window(core: Sequence[Span], size: Sequence[int], axes: Sequence[Axis], symmetry: Symmetry) -> tuple[Span, ...]:
    """Cells are counted on the axes after the symmetry; the result is in those of the field."""
    spans = {}
    for axis, j, flip in zip(axes, symmetry.axes, symmetry.flips):
        span = axis.window(_mirror(core[j], size[j]) if flip else core[j], size[j])
        spans[j] = _mirror(span, size[j]) if flip else span
    return tuple(spans[j] for j in range(len(size)))


def _mirror(span: Span, size: int) -> Span:
    return size - span[1], size - span[0]


def _per_axis(name: str, value: PerAxis, dims: int, *, least: int) -> list[int]:
    values = list(value) if isinstance(value, Sequence) else [value] * dims
    if len(values) != dims or any(isinstance(v, bool) or not isinstance(v, int) or v < least for v in values):
        raise ValueError(f"{name} takes an integer >= {least}, or one for each of the {dims} axes; got {value!r}")
    return values
