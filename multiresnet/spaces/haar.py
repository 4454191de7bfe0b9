"""Functions that are constant on the cells of a grid, and the halving of that grid."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from multiresnet.spaces.base import Space
from multiresnet.spaces.boundary import Boundary, BoundaryConv, Sides, apply, recording, settle
from multiresnet.spaces.transform import Axes, analysis, pad_to_even, synthesis

_AVG_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_UPSAMPLE = {
    1: torch.ops.aten.upsample_nearest1d.default,
    2: torch.ops.aten.upsample_nearest2d.default,
    3: torch.ops.aten.upsample_nearest3d.default,
}


@dataclass(frozen=True)
class Haar(Space):
    """Piecewise constant functions on a box in 1, 2 or 3 dimensions: the space of the Haar wavelet (paper A, section A.1).

    Projection is the average over each cell, embedding repeats a value over its cell, the details are the Haar coefficients
    (mean convention, see `multiresnet.haar_analysis`). Any spatial size >= 1 works: level `l + 1` has
    `ceil(n / 2)` cells where level `l` has `n`.

    Args:
        spatial_dims: 1, 2 or 3.
        boundary: what lies outside the box: `"periodic"`, `"reflect"`, `"replicate"` or `"zeros"`; one rule, or one
            for each axis, an entry being a rule or a `(lower, upper)` pair. Convolutions pad by it, and the last cell of
            an odd axis is completed by it; with `"zeros"` that cell averages the part inside the box, so that constants
            stay constants.
        strides: which axes are halved at which level, for anisotropic grids: one tuple of 1s and 2s for each level, finest
            first, such as `((1, 2, 2), (2, 2, 2))`. Later levels halve all axes; `()` halves all axes at all levels.

    Raises:
        ValueError: `spatial_dims` not 1, 2 or 3, an unknown boundary rule, or strides that are not 1 or 2.

    Examples:
        >>> space = Haar(spatial_dims=1, boundary="periodic")
        >>> x = torch.tensor([[[1.0, 3.0, 5.0, 7.0]]])
        >>> space.project(x), space.embed(space.project(x), (4,))
        (tensor([[[2., 6.]]]), tensor([[[2., 2., 6., 6.]]]))
    """

    spatial_dims: int = 2
    boundary: Boundary = "zeros"
    strides: Sequence[Sequence[int]] = ()
    sides: Sides = field(init=False, repr=False, compare=False)
    tileable = True

    def __post_init__(self) -> None:
        boundary, sides = settle(self.spatial_dims, self.boundary)
        strides = tuple(tuple(step) for step in self.strides)
        for step in strides:
            if len(step) != self.spatial_dims or not set(step) <= {1, 2} or 2 not in step:
                raise ValueError(
                    f"each entry of strides takes {self.spatial_dims} values 1 or 2, at least one of them 2; got {step}"
                )
        for name, value in (("boundary", boundary), ("strides", strides), ("sides", sides)):
            object.__setattr__(self, name, value)

    @classmethod
    def for_size(cls, size: Sequence[int], depth: int, *, boundary: Boundary = "zeros") -> Haar:
        """A space whose strides are chosen from the size: thin axes wait until the others have come down to them.

        Args:
            size: the usual spatial size.
            depth: number of levels to choose strides for.
            boundary: as in the class.

        Examples:
            >>> Haar.for_size((16, 64, 64), depth=3).strides
            ((1, 2, 2), (1, 2, 2), (2, 2, 2))
        """
        current, strides = list(size), []
        for _ in range(depth):
            step = tuple(2 if 2 * n > max(current) else 1 for n in current)
            strides.append(step)
            current = [-(-n // s) for n, s in zip(current, step)]
        return cls(len(current), boundary, tuple(strides))

    def halved(self, level: int) -> Axes:
        """Tensor dimensions that are halved between `level` and `level + 1`."""
        step = self.strides[level] if level < len(self.strides) else (2,) * self.spatial_dims
        return tuple(axis for axis, stride in enumerate(step, start=2) if stride == 2)

    def project(self, x: Tensor, level: int = 0) -> Tensor:
        axes = self.halved(level)
        x = pad_to_even(x, axes, self.sides)
        return cast(Tensor, apply(_CellMean, x, axes))

    def embed(self, w: Tensor, size: Sequence[int], level: int = 0) -> Tensor:
        if recording():  # a graph for all sizes has no fixed scale: at odd ones it is not 2
            return F.interpolate(w, size=list(size))
        # the scale given beside the size: torch would derive it from odd sizes and round
        scales = [2.0 if axis in self.halved(level) else 1.0 for axis in range(2, 2 + self.spatial_dims)]
        return cast(Tensor, _UPSAMPLE[self.spatial_dims](w, list(size), *scales))

    def analysis(self, x: Tensor, level: int = 0) -> tuple[Tensor, Tensor]:
        return analysis(x, self.halved(level), self.sides)

    def synthesis(self, approximation: Tensor, detail: Tensor, size: Sequence[int], level: int = 0) -> Tensor:
        return synthesis(approximation, detail, self.halved(level), size)

    def detail_bands(self, level: int = 0) -> int:
        return cast(int, 2 ** len(self.halved(level)) - 1)

    def conv(self, in_channels: int, out_channels: int, kernel_size: int = 3, *, bias: bool = True) -> BoundaryConv:
        return BoundaryConv(in_channels, out_channels, kernel_size, sides=self.sides, bias=bias)

    def reduction(self, level: int) -> tuple[int, ...]:
        cell = [1] * self.spatial_dims
        for finer in range(level):
            for axis in self.halved(finer):
                cell[axis - 2] *= 2
        return tuple(cell)

    def config(self) -> dict[str, object]:
        return {"Haar": {"spatial_dims": self.spatial_dims, "boundary": self.boundary, "strides": self.strides}}

    def fit(self, x: Tensor, depth: int) -> Tensor:
        """Every size fits. Warns once if the size is smaller than the depth, where coarse levels have nothing left to halve."""
        size = x.shape[2:]
        if all(isinstance(n, int) for n in size) and not recording():
            if any(n < cell for n, cell in zip(size, self.reduction(depth))):
                _warn_too_deep(tuple(size), depth)
        return x


@functools.cache
def _warn_too_deep(size: tuple[int, ...], depth: int) -> None:
    """Cached, so that each size is told once."""
    warnings.warn(
        f"spatial size {size} is smaller than 2**{depth}: the coarsest levels work on single cells; "
        "the result is valid, but fewer levels would do",
        stacklevel=2,
    )


class _CellMean(torch.autograd.Function):
    """Average over the cells of even axes. Unlike torch's pooling it saves nothing, and its backward is deterministic."""

    @staticmethod
    def forward(x: Tensor, axes: Axes) -> Tensor:
        kernel = [2 if axis in axes else 1 for axis in range(2, x.ndim)]
        return _AVG_POOL[len(kernel)](x, kernel)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.axes = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        scales = [2.0 if axis in ctx.axes else 1.0 for axis in range(2, grad.ndim)]
        size = [int(scale) * n for scale, n in zip(scales, grad.shape[2:])]
        return _UPSAMPLE[len(scales)](grad / 2 ** len(ctx.axes), size, *scales), None
