"""What lies outside the box: boundary rules per axis and side, padding by them, and the convolution that uses them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiresnet.checks import tracing

Rule: TypeAlias = Literal["periodic", "reflect", "replicate", "zeros"]
Boundary: TypeAlias = Rule | Sequence[Rule | tuple[Rule, Rule]]
Sides: TypeAlias = tuple[tuple[Rule, Rule], ...]  # (lower, upper) rule of each axis

RULES: tuple[Rule, ...] = ("periodic", "reflect", "replicate", "zeros")
_TORCH_MODE = {"periodic": "circular", "reflect": "reflect", "replicate": "replicate", "zeros": "constant"}
_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def recording() -> bool:
    """Whether a graph for other sizes is being made (compile, export, jit.trace): then plain expressions, no autograd functions."""
    return torch.compiler.is_compiling() or tracing()


def apply(function: type[torch.autograd.Function], *args: object) -> Any:
    """`function.apply`; under `torch.jit.trace`, which cannot record that, the plain operations of its `forward`."""
    return (function.forward if tracing() else function.apply)(*args)


def parse_boundary(boundary: Boundary, spatial_dims: int) -> Sides:
    """Spell a boundary out as one `(lower, upper)` pair of rules for each axis.

    Args:
        boundary: one rule for all axes, or one entry for each axis; an entry is a rule or a `(lower, upper)` pair.
            The rules are `"periodic"` (both sides of an axis or none), `"reflect"` (mirror, edge not repeated),
            `"replicate"` (edge repeated) and `"zeros"`.
        spatial_dims: number of spatial axes.

    Raises:
        ValueError: unknown rule, wrong number of entries, or periodic on one side only.

    Examples:
        >>> parse_boundary((("zeros", "replicate"), "periodic"), 2)
        (('zeros', 'replicate'), ('periodic', 'periodic'))
    """
    entries = (boundary,) * spatial_dims if isinstance(boundary, str) else tuple(boundary)
    if len(entries) != spatial_dims:
        raise ValueError(
            f"boundary has {len(entries)} entries for {spatial_dims} spatial axes: {boundary!r}; "
            "give one rule for all axes, or one entry for each axis"
        )
    sides = tuple((entry, entry) if isinstance(entry, str) else tuple(entry) for entry in entries)
    for axis, pair in enumerate(sides):
        if len(pair) != 2 or any(rule not in RULES for rule in pair):
            raise ValueError(f"boundary of axis {axis} is {pair!r}; each side takes one of {', '.join(RULES)}")
        if pair.count("periodic") == 1:
            raise ValueError(f"boundary of axis {axis} is {pair!r}; an axis is periodic on both sides or on none")
    return cast(Sides, sides)


def settle(spatial_dims: int, boundary: Boundary) -> tuple[Boundary, Sides]:
    """One spelling for each boundary of a box, so that spaces compare and hash, and its sides; see `parse_boundary`.

    Raises:
        ValueError: `spatial_dims` not 1, 2 or 3, or as `parse_boundary`.
    """
    if spatial_dims not in (1, 2, 3):
        raise ValueError(f"spatial_dims must be 1, 2 or 3, got {spatial_dims!r}")
    sides = parse_boundary(boundary, spatial_dims)
    return sides[0][0] if len({rule for pair in sides for rule in pair}) == 1 else sides, sides


def boundary_index(size: int, lower: int, upper: int, rules: tuple[Rule, Rule], device: torch.device) -> Tensor:
    """Where each sample of an axis padded by `(lower, upper)` comes from; any width, wrapped by index.

    Examples:
        >>> boundary_index(3, 2, 4, ("periodic", "periodic"), torch.device("cpu")).tolist()
        [1, 2, 0, 1, 2, 0, 1, 2, 0]
    """
    index = torch.arange(-lower, size + upper, device=device)
    # a size may be a symbol, and exporters take only a tensor as a divisor
    one = torch.ones((), dtype=index.dtype, device=device)
    mirrored = torch.remainder(index, one * max(2 * (size - 1), 1))
    source = {
        "periodic": torch.remainder(index, one * size),
        "reflect": torch.minimum(mirrored, 2 * (size - 1) - mirrored).clamp(min=0),
        "replicate": index.clamp(0, size - 1),
        "zeros": index.clamp(0, size - 1),
    }
    return torch.where(index < 0, source[rules[0]], source[rules[1]])


def pad_axis(x: Tensor, axis: int, lower: int, upper: int, rules: tuple[Rule, Rule]) -> Tensor:
    """Extend the tensor dimension `axis` by `(lower, upper)` samples, by the rules of its sides."""
    size = x.shape[axis]
    if size <= max(lower, upper):  # narrower than the padding: torch would refuse, an index wraps as often as needed
        padded = x.index_select(axis, boundary_index(size, lower, upper, rules, x.device))
        zero_below, zero_above = (width if rule == "zeros" else 0 for width, rule in zip((lower, upper), rules))
        if zero_below + zero_above == 0:
            return padded
        x, lower, upper = padded.narrow(axis, zero_below, size + lower + upper - zero_below - zero_above), 0, 0
        return _torch_pad(x, axis, zero_below, zero_above, "zeros")
    if rules[0] == rules[1]:
        return _torch_pad(x, axis, lower, upper, rules[0])
    return _torch_pad(_torch_pad(x, axis, lower, 0, rules[0]), axis, 0, upper, rules[1])


def _torch_pad(x: Tensor, axis: int, lower: int, upper: int, rule: Rule) -> Tensor:
    widths = [0] * (2 * (x.ndim - 2))  # F.pad counts axes from the last
    widths[2 * (x.ndim - 1 - axis)], widths[2 * (x.ndim - 1 - axis) + 1] = lower, upper
    return F.pad(x, widths, mode=_TORCH_MODE[rule])


def _pad_by_torch(x: Tensor, width: int, sides: Sides) -> Tensor:
    if len({rule for pair in sides for rule in pair}) == 1 and all(n > width for n in x.shape[2:]):
        return F.pad(x, [width] * (2 * len(sides)), mode=_TORCH_MODE[sides[0][0]])
    for axis, rules in enumerate(sides, start=2):
        x = pad_axis(x, axis, width, width, rules)
    return x


class _Pad(torch.autograd.Function):
    """Padding by `width` on all sides whose backward folds the rims back and saves nothing."""

    @staticmethod
    def forward(x: Tensor, width: int, sides: Sides) -> Tensor:
        return _pad_by_torch(x, width, sides)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.width, ctx.sides = inputs[1], inputs[2]

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        width = ctx.width
        grad = grad.clone()
        for axis in reversed(range(2, grad.ndim)):
            size = grad.shape[axis] - 2 * width
            # not split(): autograd lets nothing be added to one of several views, as a second derivative would
            lower, core, upper = (
                grad.narrow(axis, *part) for part in ((0, width), (width, size), (width + size, width))
            )
            for rim, rule, is_upper in ((lower, ctx.sides[axis - 2][0], False), (upper, ctx.sides[axis - 2][1], True)):
                if rule == "periodic":
                    core.narrow(axis, 0 if is_upper else size - width, width).add_(rim)
                elif rule == "reflect":
                    core.narrow(axis, size - 1 - width if is_upper else 1, width).add_(rim.flip(axis))
                elif rule == "replicate":
                    core.narrow(axis, size - 1 if is_upper else 0, 1).add_(rim.sum(axis, keepdim=True))
            grad = core
        return grad, None, None


def pad(x: Tensor, width: int, sides: Sides) -> Tensor:
    """Extend `x` by `width` samples on every side, by the rule of that side.

    Args:
        x: (N, C, *spatial).
        width: samples on each side, >= 0; may exceed the size (the rule is then applied by index, again and again).
        sides: rules of each axis, see `parse_boundary`.

    Returns:
        (N, C, *(spatial + 2 * width)).

    Examples:
        >>> x = torch.arange(3.0).view(1, 1, 3)
        >>> pad(x, 1, parse_boundary("reflect", 1)).flatten().tolist()
        [1.0, 0.0, 1.0, 2.0, 1.0]
    """
    if recording() or min(x.shape[2:]) <= width or not x.requires_grad:
        return _pad_by_torch(x, width, sides)
    return cast(Tensor, _Pad.apply(x, width, sides))


class BoundaryConv(nn.Module):
    """Convolution with an odd kernel whose output has the size of its input, padded by the boundary rules.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: odd; the same on all axes.
        sides: rules of each axis, see `parse_boundary`.
        bias: whether to add a bias.

    Shape:
        (N, in_channels, *spatial) -> (N, out_channels, *spatial), any spatial size >= 1.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, *, sides: Sides, bias: bool = True
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd to keep the size, got {kernel_size}")
        self.sides, width = sides, kernel_size // 2
        self.pad_width = 0 if all(pair == ("zeros", "zeros") for pair in sides) else width
        padding = width - self.pad_width  # zero padding is native to torch's convolution
        self.conv = _CONV[len(sides)](in_channels, out_channels, kernel_size, padding=padding, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.pad_width:
            x = pad(x, self.pad_width, self.sides)
        return cast(Tensor, self.conv(x))
