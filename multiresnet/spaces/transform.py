"""The Haar transform by sums and differences: no filter tensors, any size, exact inverse.

Convention: *mean*. One step along an axis maps a pair `(x0, x1)` to `a = (x0 + x1) / 2` and `d = (x0 - x1) / 2`, so
the approximation is the average over each cell and `x0 = a + d`, `x1 = a - d`. Halving is exact in every floating
type. PyWavelets' orthonormal coefficients are these times `2**(k / 2)`, `k` the number of halved axes.

An odd axis is first extended by one sample. For `"replicate"` (and `"zeros"`, where the last cell averages only what
lies inside the box) that repeats the last sample, PyWavelets' mode `"symmetric"`; constants stay constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from multiresnet.checks import tracing
from multiresnet.spaces.boundary import Sides, apply, boundary_index, parse_boundary, recording

_COMPILER_TELLS = torch.__version__ >= "2.7"
Axes = tuple[int, ...]  # tensor dimensions (2, 3, ...) that are halved


def _pairs(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    before = (slice(None),) * axis
    return x[(*before, slice(0, None, 2))], x[(*before, slice(1, None, 2))]


def _empty(shape: Sequence[int], like: Tensor) -> Tensor:
    """Uninitialised, in the memory format (channels last or not), type and device of `like`."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(like.ndim, torch.contiguous_format)
    plain = like.is_contiguous() or like.stride(1) != 1  # the stride, because a band may be a part of the channels
    layout = torch.contiguous_format if plain else last
    return torch.empty(tuple(shape), dtype=like.dtype, device=like.device, memory_format=layout)


def _analysis(x: Tensor, axes: Axes, mean: bool) -> tuple[Tensor, Tensor]:
    """(approximation, detail) of even sizes. The adjoint of `_synthesis` with the same `mean`."""
    channels, count = x.shape[1], 2 ** len(axes)
    if torch.compiler.is_compiling():  # plain expressions, which it fuses into one pass
        bands = [x]
        for axis in axes:
            pairs = [_pairs(band, axis) for band in bands]
            bands = [band for first, second in pairs for band in (first + second, first - second)]
        packed = torch.stack([band / count for band in bands] if mean else bands, 1)
        return packed[:, 0], packed[:, 1:].flatten(1, 2)

    results: list[Tensor] = []
    if not tracing():  # torch.jit takes no derivative of what is written into
        shape = list(x.shape)
        for axis in axes:
            shape[axis] //= 2
        results = [_empty([shape[0], channels * some, *shape[2:]], x) for some in (1, count - 1)]
    bands = [x]
    for step, axis in enumerate(axes):
        outs: list[Tensor | None] = [None] * (2 * len(bands))
        if results and step == len(axes) - 1:  # the last butterflies write straight into the two results
            outs = [results[0], *results[1].split(channels, 1)]
        halves: list[Tensor] = []
        for band, low_out, high_out in zip(bands, outs[0::2], outs[1::2]):
            first, second = _pairs(band, axis)
            # mean, then x0 - mean = (x0 - x1) / 2: no pass for the scale
            low = torch.lerp(first, second, 0.5, out=low_out) if mean else torch.add(first, second, out=low_out)
            halves += [low, torch.sub(first, low if mean else second, out=high_out)]
        bands = halves
    return (results[0], results[1]) if results else (bands[0], torch.cat(bands[1:], 1))


def _synthesis(approximation: Tensor, detail: Tensor, axes: Axes, mean: bool) -> Tensor:
    """Merge the bands of even sizes; with `mean=False` the inverse of `_analysis(mean=True)`."""
    bands = [approximation, *detail.split(approximation.shape[1], 1)]
    for axis in reversed(axes):
        bands = [_merge(low, high, axis, mean) for low, high in zip(bands[0::2], bands[1::2])]
    return cast(Tensor, bands[0])


def _merge(low: Tensor, high: Tensor, axis: int, mean: bool) -> Tensor:
    """Inverse butterfly: interleave (sums, differences) along `axis`, halved if `mean`."""
    if recording():
        first = torch.lerp(low, high, 0.5) if mean else low + high
        return torch.stack((first, low - first if mean else low - high), axis + 1).flatten(axis, axis + 1)
    shape = list(low.shape)
    shape[axis] *= 2
    x = _empty(shape, low)
    first, second = _pairs(x, axis)
    torch.lerp(low, high, 0.5, out=first) if mean else torch.add(low, high, out=first)
    torch.sub(low, first if mean else high, out=second)
    return x


class _Analysis(torch.autograd.Function):
    """Linear, so its backward is its adjoint, a synthesis, and nothing is saved."""

    @staticmethod
    def forward(x: Tensor, axes: Axes, mean: bool) -> tuple[Tensor, Tensor]:
        return _analysis(x, axes, mean)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.axes, ctx.mean = inputs[1], inputs[2]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return cast(Tensor, _Synthesis.apply(*grads, ctx.axes, ctx.mean)), None, None


class _Synthesis(torch.autograd.Function):
    """Adjoint of `_Analysis`."""

    @staticmethod
    def forward(approximation: Tensor, detail: Tensor, axes: Axes, mean: bool) -> Tensor:
        return _synthesis(approximation, detail, axes, mean)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.axes, ctx.mean = inputs[2], inputs[3]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        approximation, detail = _Analysis.apply(grads[0], ctx.axes, ctx.mean)
        return approximation, detail, None, None


def _known(condition: object) -> bool:
    """Whether a condition on sizes is true; a compiler must know it without a guard, that is a graph for each parity."""
    if not torch.compiler.is_compiling() or not _COMPILER_TELLS:
        return condition is True
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return statically_known_true(cast(bool, condition))


def pad_to_even(x: Tensor, axes: Axes, sides: Sides) -> Tensor:
    """Extend the odd ones among `axes` by one sample at the upper side, by the rule of that side."""
    odd = [x.shape[axis] % 2 for axis in axes]
    if all(_known(extra == 0) or _known(extra == 1) for extra in odd):
        # unlike torch's padding this saves nothing, and its backward is deterministic
        for axis, extra in zip(axes, odd):
            last = x.shape[axis] - 1
            source = {"periodic": 0, "reflect": max(last - 1, 0)}.get(sides[axis - 2][1], last)
            x = torch.cat([x, x.narrow(axis, source, 1)], axis) if extra else x
        return x
    # symbolic sizes: one graph for odd and even ones
    widths = [0] * (2 * (x.ndim - 2))
    for axis, extra in zip(axes, odd):
        if sides[axis - 2][1] in ("periodic", "reflect"):
            x = x.index_select(axis, boundary_index(x.shape[axis], 0, extra, sides[axis - 2], x.device))
        else:
            widths[2 * (x.ndim - 1 - axis) + 1] = extra
    return (
        F.pad(x, widths, mode="replicate") if any(sides[axis - 2][1] in ("replicate", "zeros") for axis in axes) else x
    )


def analysis(x: Tensor, axes: Axes, sides: Sides) -> tuple[Tensor, Tensor]:
    """One level along the tensor dimensions `axes`; the engine of `haar_analysis` and of `Haar`."""
    x = pad_to_even(x, axes, sides)
    return cast(tuple[Tensor, Tensor], apply(_Analysis, x, axes, True))


def synthesis(approximation: Tensor, detail: Tensor, axes: Axes, size: Sequence[int]) -> Tensor:
    """Inverse of `analysis`; `size` is the spatial size before it."""
    x = cast(Tensor, apply(_Synthesis, approximation, detail, axes, False))
    for axis in axes:
        n = size[axis - 2]
        # symbolic: a slice would add guards on its bounds that an export cannot prove
        if not (_known(x.shape[axis] == n) or _known(x.shape[axis] != n)):
            x = x.index_select(axis, torch.arange(n, device=x.device))
        elif x.shape[axis] != n:
            x = x.narrow(axis, 0, n)
    return x


def _check_floating(x: Tensor, spatial_dims: int | None) -> int:
    dims = x.ndim - 2 if spatial_dims is None else spatial_dims
    if dims not in (1, 2, 3):
        raise ValueError(f"spatial_dims must be 1, 2 or 3, got {dims}")
    if x.ndim != dims + 2:
        raise ValueError(
            f"expected (N, C, {dims} spatial axes), rank {dims + 2}; got rank {x.ndim}, shape {tuple(x.shape)}"
        )
    if not x.is_floating_point():
        raise TypeError(f"expected floating point, got {x.dtype}; convert first, e.g. x.float()")
    return dims


def haar_analysis(x: Tensor, spatial_dims: int | None = None, *, boundary: Any = "replicate") -> tuple[Tensor, Tensor]:
    """One level of the Haar transform, mean convention (see the head of this module).

    Args:
        x: (N, C, *spatial), floating point, any spatial size >= 1.
        spatial_dims: 1, 2 or 3; `None` takes it from the rank of `x`.
        boundary: how an odd axis is extended by its one missing sample; see `multiresnet.spaces.Haar`.

    Returns:
        `(approximation, detail)` of shapes (N, C, *half) and (N, C * (2**d - 1), *half), `half = ceil(spatial / 2)`.
        `detail.unflatten(1, (2**d - 1, C))` separates the bands, in the order of the sorted keys of `pywt.dwtn`:
        `d`; `ad da dd`; `aad ada add daa dad dda ddd` (one letter per axis, `a` mean, `d` difference).

    Raises:
        ValueError: wrong rank or number of dimensions.
        TypeError: not floating point.

    Examples:
        >>> approximation, detail = haar_analysis(torch.tensor([[[1.0, 3.0, 6.0]]]))
        >>> approximation.tolist(), detail.tolist()
        ([[[2.0, 6.0]]], [[[-1.0, 0.0]]])
    """
    dims = _check_floating(x, spatial_dims)
    return analysis(x, tuple(range(2, dims + 2)), parse_boundary(boundary, dims))


def haar_synthesis(approximation: Tensor, detail: Tensor, size: Sequence[int]) -> Tensor:
    """Inverse of `haar_analysis`, exact at odd sizes because it is told the original one.

    Args:
        approximation: (N, C, *half).
        detail: (N, C * (2**d - 1), *half), bands in the order of `haar_analysis`.
        size: the spatial size before the analysis; `half = ceil(size / 2)` on each axis.

    Returns:
        (N, C, *size).

    Raises:
        ValueError: shapes that don't fit together.

    Examples:
        >>> x = torch.arange(15.0).view(1, 1, 3, 5)
        >>> torch.equal(haar_synthesis(*haar_analysis(x), size=(3, 5)), x)
        True
    """
    dims = _check_floating(approximation, None)
    half = tuple((n + 1) // 2 for n in size)
    bands = 2**dims - 1
    wanted = (approximation.shape[0], approximation.shape[1] * bands, *approximation.shape[2:])
    if len(size) != dims or half != tuple(approximation.shape[2:]):
        raise ValueError(
            f"size {tuple(size)} has an approximation of size {half}, got {tuple(approximation.shape[2:])}"
        )
    if tuple(detail.shape) != wanted:
        raise ValueError(f"expected a detail of shape {wanted} (C * {bands} channels), got {tuple(detail.shape)}")
    return synthesis(approximation, detail, tuple(range(2, dims + 2)), size)


def haar_pyramid(x: Tensor, depth: int, *, boundary: Any = "replicate") -> tuple[Tensor, ...]:
    """The Haar transform over `depth` levels: each level transforms the approximation of the one before.

    Args:
        x: (N, C, *spatial), floating point.
        depth: number of levels >= 0.
        boundary: as in `haar_analysis`.

    Returns:
        `(approximation, detail of level depth, ..., detail of level 1)`, coarsest first, as `pywt.wavedecn`.

    Examples:
        >>> [tuple(band.shape) for band in haar_pyramid(torch.zeros(1, 2, 9, 6), 2)]
        [(1, 2, 3, 2), (1, 6, 3, 2), (1, 6, 5, 3)]
    """
    if depth < 0:
        raise ValueError(f"depth must be >= 0, got {depth}")
    details: list[Tensor] = []
    for _ in range(depth):
        x, detail = haar_analysis(x, boundary=boundary)
        details.append(detail)
    return (x, *reversed(details))
