"""Gathers by tables of any shape, and their adjoints, which gather too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Lookup:
    """Which cells are seen from where, as gathers in both directions; see `look_up`.

    Args:
        cells: number of cells that can be seen.
        taps: how many of them are seen from each place.
        seen: flat (places * taps): which cell; `cells` stands for nothing, whose value is zero.
        seen_by: flat (cells * most): which entries of `seen` are a cell, filled up by `places * taps`.
    """

    cells: int
    taps: int
    seen: Tensor
    seen_by: Tensor


def look_up(table: Tensor, cells: int, device: torch.device) -> Lookup:
    """The `Lookup` of a table (places, taps) of `cells` cells, `-1` for nothing."""
    seen = torch.where(table < 0, cells, table).flatten()
    order = seen.argsort(stable=True)[: int((seen < cells).sum())]
    count = torch.bincount(seen[order], minlength=cells)
    place = torch.arange(len(order)) - (count.cumsum(0) - count).repeat_interleave(count)
    seen_by = torch.full((cells, int(count.max())), len(seen))
    seen_by[seen[order], place] = order
    return Lookup(cells, table.shape[1], seen.to(device), seen_by.flatten().to(device))


def gather(x: Tensor, table: Lookup) -> Tensor:
    """(N, cells, C) -> (N, places, taps, C), zero where nothing is seen."""
    return cast(Tensor, cast(Tensor, _Gather.apply(x, table)).unflatten(1, (-1, table.taps)))


class _Gather(torch.autograd.Function):
    """(N, cells, C) -> (N, places * taps, C)."""

    @staticmethod
    def forward(x: Tensor, table: Lookup) -> Tensor:
        return _select(x, table.seen)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.table = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return cast(Tensor, _Collect.apply(grads[0], ctx.table)), None


class _Collect(torch.autograd.Function):
    """Adjoint of `_Gather`, as a gather and a sum: deterministic, and faster than to scatter."""

    @staticmethod
    def forward(x: Tensor, table: Lookup) -> Tensor:
        return cast(Tensor, _select(x, table.seen_by).unflatten(1, (table.cells, -1)).sum(2))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.table = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return cast(Tensor, _Gather.apply(grads[0], ctx.table)), None


def _select(x: Tensor, index: Tensor) -> Tensor:
    return F.pad(x, (0, 0, 0, 1)).index_select(1, index)
