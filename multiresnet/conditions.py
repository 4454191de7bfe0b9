"""Conditions that the output of any network obeys exactly, by construction: values at the boundary, means, no divergence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor, nn

from multiresnet.checks import check_choice, check_scale
from multiresnet.spaces.boundary import Boundary, pad_axis, parse_boundary

Given: TypeAlias = float | Tensor | Callable[[Tensor], Tensor]
Where: TypeAlias = Literal["all"] | Sequence[tuple[bool, bool]]


class Constrained(nn.Module):
    """A network whose output obeys conditions exactly, whatever its weights: `model`, then each condition in turn.

    Args:
        model: any network, (N, C, *spatial) -> (N, D, *spatial).
        conditions: of `multiresnet.conditions`, or modules and functions of `(output, input)` of your own. Later ones act on
            what the earlier ones made, and may undo it: give boundary values last.

    In `SurrogateTask` data are divided by their standard deviation, and not shifted, so that zero stays zero; other given values
    are in these units there.

    Examples:
        >>> from multiresnet import MultiResNet, conditions
        >>> net = Constrained(MultiResNet(1, 1, channels=(16, 16), num_blocks=1), conditions.Dirichlet(0.0))
        >>> net(torch.randn(1, 1, 9, 9))[0, 0, 0].abs().max().item()
        0.0
    """

    def __init__(self, model: nn.Module, *conditions: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        if not conditions:
            raise ValueError("give at least one condition, such as multiresnet.conditions.Dirichlet(0.0)")
        self.model, self.conditions = model, conditions
        self.anchored = True  # as `UNet.anchored`

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        """The conditions on `model(x, *rest)`."""
        y = cast(Tensor, self.model(x, *rest))
        for condition in self.conditions:
            y = condition(y, x)
        return y

    def __getattr__(self, name: str) -> Any:
        """What the network says of itself, such as `in_channels`."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in ("in_channels", "out_channels", "emb_channels", "space"):
                return getattr(super().__getattr__("model"), name)
            raise


class Dirichlet:
    """Given values on the boundary of the box, whose first and last samples of an axis are taken to lie on it.

    `u = lift + w y`: the lift takes the given values on the boundary and interpolates them into the box (linearly between
    opposite sides, transfinite in more dimensions), w is 0 on the boundary. The values themselves are copied: exact to the bit.

    Args:
        value: a number, a tensor that broadcasts to the output, or a function of the input; only its boundary is used.
        sides: "all", or for each axis whether the (lower, upper) side is given.
        weight: w is 1 inside ("jump"), or falls towards the sides as the distance to them ("distance"), which keeps smooth
            networks smooth.

    Shape:
        (N, D, *spatial), (N, C, *spatial) -> (N, D, *spatial), at least 2 samples on each given axis.
    """

    def __init__(
        self, value: Given = 0.0, sides: Where = "all", *, weight: Literal["jump", "distance"] = "jump"
    ) -> None:
        check_choice("weight", weight, ("jump", "distance"))
        self.value, self.sides, self.weight = value, sides, weight

    def __call__(self, y: Tensor, x: Tensor) -> Tensor:
        given = _evaluate(self.value, y, x)
        sides = _sides(self.sides, y)
        lift = torch.zeros_like(y)
        for axis, pair in sides:
            lift = lift + _interpolate(given - lift, axis, pair)
        if self.weight == "distance":
            for axis, pair in sides:
                y = y * _distance(y, axis, pair)
        u = lift + y
        for axis, pair in sides:
            u = _set_sides(u, given, axis, pair)
        return u


class Neumann:
    """No slope across the boundary: the first and the last sample of an axis repeat their neighbours.

    Args:
        sides: "all", or for each axis whether the (lower, upper) side has no slope.
    """

    def __init__(self, sides: Where = "all") -> None:
        self.sides = sides

    def __call__(self, y: Tensor, x: Tensor) -> Tensor:
        for axis, (lower, upper) in _sides(self.sides, y):
            n = y.shape[axis]
            inner = [min(1, n - 1)] if lower else [0]
            index = [*inner, *range(1, n - 1), max(n - 2, 0) if upper else n - 1]
            y = y.index_select(axis, torch.tensor(index, device=y.device))
        return y


class Mean:
    """A given mean over the cells of each sample and channel: mass, charge, total water are conserved to rounding.

    Args:
        value: a number, a tensor (N, D), or a function of the input that returns one; `None` is the mean of the last D channels of
            the input, that is conservation in time.
        weights: areas of the cells, in the shape of the grid; `None` if all are equal.
    """

    def __init__(self, value: Given | None = None, *, weights: Tensor | None = None) -> None:
        self.value, self.weights = value, weights

    def __call__(self, y: Tensor, x: Tensor) -> Tensor:
        if self.value is None:
            if x.shape[1] < y.shape[1]:
                raise ValueError(
                    f"conservation compares with the last {y.shape[1]} channels of the input, which has {x.shape[1]}; give value="
                )
            target = self._mean(x[:, -y.shape[1] :])
        else:
            found = self.value(x) if callable(self.value) else self.value
            target = torch.as_tensor(found, dtype=y.dtype, device=y.device).expand(y.shape[:2])
        correction = target - self._mean(y)
        return y + correction[(..., *(None,) * (y.ndim - 2))]

    def _mean(self, y: Tensor) -> Tensor:
        if self.weights is None:
            return y.flatten(2).mean(2)
        weights = self.weights.to(y).flatten()
        return (y.flatten(2) * (weights / weights.sum())).sum(2)


class DivergenceFree:
    """Velocities in two dimensions from stream functions: `u = d psi / dy`, `v = -d psi / dx` in finite differences.

    Differences along different axes commute, so the divergence by the same differences vanishes to rounding
    (`multiresnet.conditions.divergence`). With "forward" differences the velocities are the flows through the sides of cells (a
    staggered grid, psi at the corners), with "central" ones they stand where psi does.

    Args:
        boundary: how psi goes on beyond the box, as in `multiresnet.spaces.Haar`.
        spacing: distance of samples, one number, or one for x (the last axis) and one for y (the last but one), in this order.
        differences: "central" or "forward".

    Shape:
        (N, k, H, W) stream functions -> (N, 2 k, H, W), u before v for each.
    """

    def __init__(
        self,
        boundary: Boundary = "periodic",
        *,
        spacing: float | tuple[float, float] = 1.0,
        differences: Literal["central", "forward"] = "central",
    ) -> None:
        check_choice("differences", differences, ("central", "forward"))
        self.boundary, self.differences = boundary, differences
        self.spacing = _pair(spacing)
        for number in self.spacing:
            check_scale(spacing=number)

    def __call__(self, y: Tensor, x: Tensor) -> Tensor:
        if y.ndim != 4:
            raise ValueError(f"stream functions are (N, k, H, W); got {tuple(y.shape)}")
        dx, dy = self.spacing
        u = difference(y, 2, dy, self.boundary, self.differences)
        v = -difference(y, 3, dx, self.boundary, self.differences)
        return torch.stack([u, v], 2).flatten(1, 2)


def difference(
    y: Tensor, axis: int, spacing: float, boundary: Boundary = "periodic", differences: str = "central"
) -> Tensor:
    """Central or forward difference of (N, C, *spatial) along the tensor dimension `axis`, on the same grid."""
    rules = parse_boundary(boundary, y.ndim - 2)[axis - 2]
    n = y.shape[axis]
    if differences == "forward":
        return (pad_axis(y, axis, 0, 1, rules).narrow(axis, 1, n) - y) / spacing
    padded = pad_axis(y, axis, 1, 1, rules)
    return (padded.narrow(axis, 2, n) - padded.narrow(axis, 0, n)) / (2 * spacing)


def divergence(
    velocity: Tensor,
    *,
    boundary: Boundary = "periodic",
    spacing: float | tuple[float, float] = 1.0,
    differences: Literal["central", "forward"] = "central",
) -> Tensor:
    """`du/dx + dv/dy` of (N, 2, H, W), x along the last axis: (N, 1, H, W), in the differences of `DivergenceFree`.

    Examples:
        >>> velocity = DivergenceFree()(torch.randn(1, 1, 8, 8, dtype=torch.float64), torch.empty(0))
        >>> bool(divergence(velocity).abs().max() < 1e-12)
        True
    """
    dx, dy = _pair(spacing)
    u, v = velocity.split(1, 1)
    return difference(u, 3, dx, boundary, differences) + difference(v, 2, dy, boundary, differences)


def _pair(spacing: float | tuple[float, float]) -> tuple[float, float]:
    return (spacing, spacing) if isinstance(spacing, (int, float)) else spacing


def _evaluate(value: Given, y: Tensor, x: Tensor) -> Tensor:
    given = value(x) if callable(value) else value
    try:
        return torch.as_tensor(given, dtype=y.dtype, device=y.device).expand(y.shape)
    except RuntimeError:
        raise ValueError(
            f"the given values have the shape {tuple(cast(Tensor, given).shape)}, which does not broadcast to {tuple(y.shape)}"
        ) from None


def _sides(sides: Where, y: Tensor) -> list[tuple[int, tuple[bool, bool]]]:
    """(tensor dimension, (lower, upper)) of the axes with a given side."""
    dims = y.ndim - 2
    pairs = [(True, True)] * dims if isinstance(sides, str) else [tuple(pair) for pair in sides]
    if isinstance(sides, str) and sides != "all":
        raise ValueError(f'sides is "all" or a pair (lower, upper) for each axis, got {sides!r}')
    if len(pairs) != dims or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"sides needs a pair (lower, upper) for each of {dims} axes, got {sides!r}")
    found = [(axis, cast("tuple[bool, bool]", pair)) for axis, pair in enumerate(pairs, start=2) if any(pair)]
    for axis, _ in found:
        if y.shape[axis] < 2:
            raise ValueError(f"axis {axis - 2} has {y.shape[axis]} sample; a boundary condition needs at least 2")
    return found


def _ramp(y: Tensor, axis: int) -> Tensor:
    """0 at the first sample of an axis, 1 at the last."""
    n = y.shape[axis]
    ramp = torch.arange(n, dtype=y.dtype, device=y.device) / (n - 1)
    return ramp.view(-1, *(1,) * (y.ndim - 1 - axis))


def _interpolate(given: Tensor, axis: int, pair: tuple[bool, bool]) -> Tensor:
    first, last = given.narrow(axis, 0, 1), given.narrow(axis, given.shape[axis] - 1, 1)
    if pair == (True, True):
        return torch.lerp(first.expand_as(given), last.expand_as(given), _ramp(given, axis).expand_as(given))
    return (first if pair[0] else last).expand_as(given)


def _distance(y: Tensor, axis: int, pair: tuple[bool, bool]) -> Tensor:
    """Of at most about 1, zero on the sides."""
    ramp = _ramp(y, axis)
    return 4 * ramp * (1 - ramp) if pair == (True, True) else ramp if pair[0] else 1 - ramp


def _set_sides(u: Tensor, given: Tensor, axis: int, pair: tuple[bool, bool]) -> Tensor:
    lower, upper = map(int, pair)
    n = u.shape[axis]
    ends = [
        given.narrow(axis, 0, lower),
        u.narrow(axis, lower, n - lower - upper),
        given.narrow(axis, n - upper, upper),
    ]
    return torch.cat(ends, axis)
