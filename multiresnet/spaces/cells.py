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

AT_ONCE = {"cpu": 1 << 20}  # bytes that are gathered at once: few enough to stay in a processor's cache
AT_ONCE_ELSEWHERE = 1 << 28


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None, taps: Taps) -> Tensor:
    """`y_i = b + sum_k W_k x_n(i, k)`: (N, cells, C), (taps, C, D) -> (N, cells, D). Some cells at a time."""
    kernel, padded = weight.flatten(0, 1), F.pad(x, (0, 0, 0, 1)) if taps.missing else x
    products = [_gather(padded, rows) @ kernel for rows in _parts(taps.seen, x)]
    y = torch.cat([product.view(len(x), -1, weight.shape[2]) for product in products], 1)
    return y if bias is None else y.add_(bias)


def _gather(x: Tensor, rows: Tensor) -> Tensor:
    """(N, cells, C) and a table (some cells, taps) -> (N * some cells, taps * C)."""
    return x.index_select(1, rows.flatten()).view(-1, rows.shape[1] * x.shape[2])


def _parts(table: Tensor, x: Tensor) -> tuple[Tensor, ...]:
    """The table in pieces, so that what is gathered for one of them is not much."""
    cell = x[:, 0].numel() * table.shape[1] * x.element_size()
    most = AT_ONCE.get(x.device.type, AT_ONCE_ELSEWHERE)
    return cast("tuple[Tensor, ...]", table.split(max(64, most // max(1, cell))))


class _Conv(torch.autograd.Function):
    """`_conv` that keeps only its input, and whose backward gathers too: deterministic, little is scattered."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, taps: Taps) -> Tensor:
        return _conv(x, weight, bias, taps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        *tensors, ctx.taps = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (x, weight, bias), taps = grads, ctx.saved_tensors, ctx.taps
        if torch.is_grad_enabled():  # a second derivative is wanted: by plain operations
            inputs = [tensor for tensor, needed in zip((x, weight, bias), ctx.needs_input_grad) if needed]
            found = iter(torch.autograd.grad(_plain(x, weight, bias, taps), inputs, grad, create_graph=True))
            return *(next(found) if needed else None for needed in ctx.needs_input_grad[:3]), None
        to_x = to_weight = None
        grad = grad.contiguous()
        if ctx.needs_input_grad[0]:
            back = weight.transpose(1, 2)
            to_x = _conv(grad, back, None, Taps(taps.seen_by, True, taps.seen))
            for tap, sources, cells in taps.again:
                to_x.index_add_(1, cells, grad[:, sources] @ back[tap])
        if ctx.needs_input_grad[1]:
            to_weight = torch.zeros_like(weight)
            padded, start = F.pad(x, (0, 0, 0, 1)) if taps.missing else x, 0
            for rows in _parts(taps.seen, x):
                part = grad[:, start : start + len(rows)].reshape(-1, grad.shape[2])
                to_weight.view(-1, grad.shape[2]).addmm_(_gather(padded, rows).T, part)
                start += len(rows)
        return to_x, to_weight, grad.sum((0, 1)) if ctx.needs_input_grad[2] else None, None


def _plain(x: Tensor, weight: Tensor, bias: Tensor | None, taps: Taps) -> Tensor:
    y = F.pad(x, (0, 0, 0, 1))[:, taps.seen].flatten(2) @ weight.flatten(0, 1)
    return y if bias is None else y + bias


@dataclass(frozen=True, eq=False)
class Taps:
    """What each cell sees, tap by tap, in both directions.

    Args:
        seen: (cells, taps), the cell that each cell sees through each tap; the number of cells for nothing.
        missing: whether some see nothing.
        seen_by: (cells, taps), the cell that sees it through each tap; the number of cells for none.
        again: `(tap, sources, cells)`: `cells` are seen by `sources` as well, the few that are seen more than once through a tap.
    """

    seen: Tensor
    missing: bool
    seen_by: Tensor
    again: tuple[tuple[int, Tensor, Tensor], ...] = ()


def make_taps(table: Tensor, device: torch.device) -> Taps:
    """The `Taps` of a table (cells, taps) of cells, `-1` for nothing."""
    cells = len(table)
    seen_by, again = torch.full_like(table, cells), []
    for tap, column in enumerate(table.T):
        sources, first = (column >= 0).nonzero().squeeze(1), seen_by[:, tap]
        first[column[sources]] = sources  # of several sources the last one stays
        while len(sources := sources[~torch.isin(sources, first)]):
            first = torch.full((cells,), cells)
            first[column[sources]] = sources
            chosen = first[first < cells]
            again.append((tap, chosen.to(device), column[chosen].to(device)))
    missing = bool((table < 0).any())
    return Taps(table.where(table >= 0, cells).to(device), missing, seen_by.to(device), tuple(again))


class CellConv(nn.Module):
    """`y_i = b + sum_k W_k x_n(i, k)`: the convolution where n(i, 0) = i and n(i, 1), n(i, 2), ... are the neighbours of cell i.

    Args:
        space: has `taps` and `neighbours(cells, device)`.
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: 3 for a cell and its neighbours, 1 for the cell alone.
        bias: whether to add a bias.

    Shape:
        (N, in_channels, cells) -> (N, out_channels, cells), on every level of the space.
    """

    def __init__(
        self, space: Quadtree, in_channels: int, out_channels: int, kernel_size: int = 3, *, bias: bool = True
    ) -> None:
        super().__init__()
        check_kernel(kernel_size)
        self.space, self.kernel_size = space, kernel_size
        self.linear = nn.Linear(in_channels * (space.taps if kernel_size == 3 else 1), out_channels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)  # channels last: a gather copies whole rows
        if self.kernel_size == 1:
            return cast(Tensor, self.linear(x)).transpose(1, 2)
        weight: Tensor = self.linear.weight
        bias: Tensor | None = self.linear.bias
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
            x, weight, bias = x.to(dtype), weight.to(dtype), bias if bias is None else bias.to(dtype)
        kernel = weight.T.unflatten(0, (self.space.taps, -1))
        taps = self.space.neighbours(x.shape[1], x.device)
        return cast(Tensor, _Conv.apply(x.contiguous(), kernel, bias, taps)).transpose(1, 2)


def check_kernel(kernel_size: int) -> None:
    """Raise `ValueError` unless the kernel is a cell (1), or a cell and its neighbours (3)."""
    if kernel_size not in (1, 3):
        raise ValueError(f"kernel_size must be 1 or 3 (a cell and its neighbours), got {kernel_size}")


class CellSpace(Space):
    """Piecewise constant functions on the cells of a tree, as (N, C, cells): what `Triangle`, `Sphere` and `Mesh` share."""

    spatial_dims = 1

    @abstractmethod
    def cells(self, level: int) -> int:
        """Number of cells of `V_level`."""

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


@functools.lru_cache(maxsize=64)
def _taps(space: Quadtree, level: int, device: torch.device) -> Taps:
    return make_taps(space.table(level), device)


class Quadtree(CellSpace):
    """Every cell divides into four equal ones, numbers 4 i ... 4 i + 3 of the finer level: the means and signs of Haar."""

    taps: int  # cells that a convolution sees, with the cell itself

    @abstractmethod
    def table(self, level: int) -> Tensor:
        """(cells, taps): each cell of `V_level`, and its neighbours, -1 for nothing."""

    def neighbours(self, cells: int, device: torch.device) -> Taps:
        """Of the level with so many cells."""
        return _taps(self, self.level_of(cells), device)

    def conv(self, in_channels: int, out_channels: int, kernel_size: int = 3, *, bias: bool = True) -> CellConv:
        return CellConv(self, in_channels, out_channels, kernel_size, bias=bias)

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
