"""Cells without rows and columns: the convolution over listed neighbours, and trees of cells that divide into four equal ones."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiresnet.spaces.base import Space


@dataclass(frozen=True, eq=False)
class Neighbours:
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


def look_up(table: Tensor, cells: int, device: torch.device) -> Neighbours:
    """The `Neighbours` of a table (places, taps) of `cells` cells, `-1` for nothing."""
    seen = torch.where(table < 0, cells, table).flatten()
    order = seen.argsort(stable=True)[: int((seen < cells).sum())]
    count = torch.bincount(seen[order], minlength=cells)
    place = torch.arange(len(order)) - (count.cumsum(0) - count).repeat_interleave(count)
    seen_by = torch.full((cells, int(count.max())), len(seen))
    seen_by[seen[order], place] = order
    return Neighbours(cells, table.shape[1], seen.to(device), seen_by.flatten().to(device))


def gather(x: Tensor, neighbours: Neighbours) -> Tensor:
    """(N, cells, C) -> (N, places, taps, C), zero where nothing is seen."""
    return cast(Tensor, cast(Tensor, _Gather.apply(x, neighbours)).unflatten(1, (-1, neighbours.taps)))


class _Gather(torch.autograd.Function):
    """(N, cells, C) -> (N, places * taps, C)."""

    @staticmethod
    def forward(x: Tensor, neighbours: Neighbours) -> Tensor:
        return _select(x, neighbours.seen)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.neighbours = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return cast(Tensor, _Collect.apply(grads[0], ctx.neighbours)), None


class _Collect(torch.autograd.Function):
    """Adjoint of `_Gather`, as a gather and a sum: deterministic, and faster than to scatter."""

    @staticmethod
    def forward(x: Tensor, neighbours: Neighbours) -> Tensor:
        return cast(Tensor, _select(x, neighbours.seen_by).unflatten(1, (neighbours.cells, -1)).sum(2))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.neighbours = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return cast(Tensor, _Gather.apply(grads[0], ctx.neighbours)), None


def _select(x: Tensor, index: Tensor) -> Tensor:
    return F.pad(x, (0, 0, 0, 1)).index_select(1, index)


class _Conv(torch.autograd.Function):
    """A linear map of what each cell sees. It keeps its input, and gathers again for the gradient of its weight."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, neighbours: Neighbours) -> Tensor:
        patches = _select(x, neighbours.seen).view(len(x), -1, weight.shape[1])
        return F.linear(patches, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, weight, _, ctx.neighbours = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (x, weight), neighbours = grads, ctx.saved_tensors, ctx.neighbours
        to_x = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            rows = (grad @ weight).view(len(x), len(neighbours.seen), x.shape[2])
            to_x = cast(Tensor, _Collect.apply(rows, neighbours))
        if ctx.needs_input_grad[1]:
            patches = cast(Tensor, _Gather.apply(x, neighbours)).view(-1, weight.shape[1])
            to_weight = grad.flatten(0, 1).T @ patches
        if ctx.needs_input_grad[2]:
            to_bias = grad.sum((0, 1))
        return to_x, to_weight, to_bias, None


class CellConv(nn.Module):
    """`y_i = b + sum_k W_k x_n(i, k)`: the convolution where n(i, 0) = i and n(i, 1), n(i, 2), ... are the neighbours of cell i.

    Args:
        space: has `neighbours(cells, device)`, or is not asked if `kernel_size` is 1.
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: 3 for a cell and its neighbours, 1 for the cell alone.
        bias: whether to add a bias.

    Shape:
        (N, in_channels, cells) -> (N, out_channels, cells), on every level of the space.
    """

    def __init__(
        self, space: CellSpace, in_channels: int, out_channels: int, kernel_size: int = 3, *, bias: bool = True
    ) -> None:
        super().__init__()
        if kernel_size not in (1, 3):
            raise ValueError(f"kernel_size must be 1 or 3 (a cell and its neighbours), got {kernel_size}")
        self.space, self.kernel_size = space, kernel_size
        self.linear = nn.Linear(in_channels * (space.taps if kernel_size == 3 else 1), out_channels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)  # cells as rows: one gather takes all channels
        if self.kernel_size == 1:
            return cast(Tensor, self.linear(x)).transpose(1, 2)
        neighbours = self.space.neighbours(x.shape[1], x.device)
        weight: Tensor = self.linear.weight
        bias: Tensor | None = self.linear.bias
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
            x, weight, bias = x.to(dtype), weight.to(dtype), bias if bias is None else bias.to(dtype)
        return cast(Tensor, _Conv.apply(x, weight, bias, neighbours)).transpose(1, 2)


class CellSpace(Space):
    """Piecewise constant functions on the cells of a tree, as (N, C, cells): what `Triangle`, `Sphere` and `Mesh` share."""

    spatial_dims = 1
    taps: int  # cells that a convolution sees, with the cell itself

    @abstractmethod
    def cells(self, level: int) -> int:
        """Number of cells of `V_level`."""

    @abstractmethod
    def table(self, level: int) -> Tensor:
        """(cells, taps) neighbours of each cell of `V_level`, itself first, -1 for nothing."""

    def neighbours(self, cells: int, device: torch.device) -> Neighbours:
        """Of the level with so many cells."""
        return _neighbours(self, self.level_of(cells), device)

    @property
    @abstractmethod
    def num_levels(self) -> int:
        """How many levels there are."""

    def level_of(self, cells: int) -> int:
        """The level with so many cells."""
        for level in range(self.num_levels):
            if self.cells(level) == cells:
                return level
        counts = ", ".join(str(self.cells(level)) for level in range(self.num_levels))
        raise ValueError(f"{self} has levels of {counts} cells, none of {cells}")

    def fit(self, x: Tensor, depth: int) -> Tensor:
        """The cells of any level fit that has `depth` coarser ones."""
        level = self.level_of(x.shape[2])
        if level + depth >= self.num_levels:
            raise ValueError(
                f"the network halves {depth} times, but {self} has only {self.num_levels - 1 - level} levels above the one of "
                f"{x.shape[2]} cells; take fewer levels, or smaller cells"
            )
        return x

    def conv(self, in_channels: int, out_channels: int, kernel_size: int = 3, *, bias: bool = True) -> CellConv:
        return CellConv(self, in_channels, out_channels, kernel_size, bias=bias)


@functools.lru_cache(maxsize=64)
def _neighbours(space: CellSpace, level: int, device: torch.device) -> Neighbours:
    return look_up(space.table(level), space.cells(level), device)


class Quadtree(CellSpace):
    """Every cell divides into four equal ones, numbers 4 i ... 4 i + 3 of the finer level: the means and signs of Haar."""

    def project(self, x: Tensor, level: int = 0) -> Tensor:
        return cast(Tensor, x.unflatten(2, (-1, 4)).mean(3))

    def embed(self, w: Tensor, size: Sequence[int], level: int = 0) -> Tensor:
        return w.unsqueeze(3).expand(*w.shape, 4).flatten(2)

    def analysis(self, x: Tensor, level: int = 0) -> tuple[Tensor, Tensor]:
        bands = (x.unflatten(2, (-1, 4)) @ (_signs(x) / 4)).unbind(3)
        return bands[0], torch.cat(bands[1:], 1)

    def synthesis(self, approximation: Tensor, detail: Tensor, size: Sequence[int], level: int = 0) -> Tensor:
        bands = torch.stack([approximation, *detail.split(approximation.shape[1], 1)], 3)
        return (bands @ _signs(bands)).flatten(2)

    def detail_bands(self, level: int = 0) -> int:
        return 3

    def reduction(self, level: int) -> tuple[int, ...]:
        return (4**level,)


def _signs(like: Tensor) -> Tensor:
    """The symmetric 4 x 4 Hadamard matrix: mean, and the differences between left and right, between above and below, across."""
    rows = [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]
    return torch.tensor(rows, dtype=like.dtype, device=like.device)


def centre_and_neighbours(neighbours: Tensor, *, missing: str) -> Tensor:
    """A table for `look_up`, the cell itself first, of (cells, k) neighbours; with "replicate" it stands in for those that miss."""
    own = torch.arange(len(neighbours)).unsqueeze(1)
    if missing == "replicate":
        neighbours = torch.where(neighbours < 0, own, neighbours)
    return torch.cat([own, neighbours], 1)
