"""Count what a network costs, and meet a budget of parameters or multiply-accumulates, to compare at equal cost."""

from __future__ import annotations

import functools
import inspect
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from multiresnet.checks import check_choice

M = TypeVar("M", bound=nn.Module)


def count_parameters(model: nn.Module) -> int:
    """Number of parameters.

    Examples:
        >>> count_parameters(nn.Linear(3, 2))
        8
    """
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, size: Sequence[int]) -> int:
    """Multiply-accumulates of one forward pass for one sample (torch's flop counter halved: convolutions and matrix products).

    Args:
        model: has `in_channels` and takes (1, in_channels, *size); with `emb_channels` also (1, emb_channels).
        size: spatial size.
    """
    like = next(model.parameters())
    widths = [cast(int, model.in_channels)]
    if getattr(model, "emb_channels", 0):
        widths.append(cast(int, model.emb_channels))
    grids = [tuple(size), ()]
    inputs = [torch.zeros(1, c, *grid, device=like.device, dtype=like.dtype) for c, grid in zip(widths, grids)]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*inputs)
    return int(counter.get_total_flops() // 2)


def count_saved_bytes(model: nn.Module, x: Tensor) -> int:
    """Bytes that autograd keeps for the backward pass: distinct storages, those of the parameters excluded.

    Examples:
        >>> count_saved_bytes(nn.Sequential(nn.Linear(4, 8), nn.Tanh()), torch.zeros(2, 4))  # x: 32, tanh(...): 64
        96
    """
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(x)  # alive until the count is done, so no address is used twice
    del output
    return sum(seen.values())


def match_budget(
    build: Callable[..., M],
    *,
    params: int | None = None,
    macs: int | None = None,
    at: Sequence[int] | None = None,
    vary: Literal["channels", "num_blocks"] = "channels",
    tolerance: float = 0.02,
    **options: Any,
) -> M:
    """Build the network whose widths (or blocks) meet a budget.

    Args:
        build: `MultiResNet`, `ResidualUNet`, or a function with the same `channels` and `num_blocks` arguments.
        params: wanted number of parameters.
        macs: wanted multiply-accumulates at `at`; give this or `params`.
        at: spatial size at which `macs` counts.
        vary: `"channels"` scales all widths by one factor, in the coarsest steps (16, 8, 4, 2, 1) that meet the budget,
            and then moves single widths by one step; `"num_blocks"` chooses 1 to 12 blocks for each level, keeping the
            proportions of `options["num_blocks"]` as well as the budget allows.
        tolerance: largest relative deviation.
        options: all other arguments of `build`; `channels` and `num_blocks` give the proportions.

    Returns:
        The model, on the CPU (or the active device context), with fresh weights.

    Raises:
        ValueError: no or two budgets, `macs` without `at`, or a budget that can't be met; the message says what came
            nearest.

    Examples:
        >>> from multiresnet import ResidualUNet
        >>> net = match_budget(ResidualUNet, params=500_000, in_channels=3, out_channels=3)
        >>> abs(count_parameters(net) / 500_000 - 1) < 0.02
        True
    """
    if (params is None) == (macs is None):
        raise ValueError(f"give one budget, params or macs; got params={params}, macs={macs}")
    if macs is not None and at is None:
        raise ValueError("a budget of macs needs the spatial size at which it counts: at=(height, width)")
    budget = params if params is not None else macs
    if budget is None or budget < 1:
        raise ValueError(f"the budget must be >= 1, got {budget}")

    def cost(**choice: Any) -> int:
        with torch.device("meta"):
            model = build(**{**options, **choice})
        return count_parameters(model) if params is not None else count_macs(model, at or ())

    check_choice("vary", vary, ("channels", "num_blocks"))
    search = {"channels": _search_channels, "num_blocks": _search_blocks}[vary]
    choice, found = search(build, cost, budget, options, tolerance)
    if abs(found / budget - 1) > tolerance:
        what = "parameters" if params is not None else "MACs"
        raise ValueError(
            f"no choice of {vary} comes within {tolerance:.0%} of {budget:,} {what}; "
            f"the nearest, {choice}, has {found:,}"
        )
    return build(**{**options, **choice})


def _default(build: Callable[..., Any], options: dict[str, Any], name: str) -> Any:
    if name in options:
        return options[name]
    default = inspect.signature(build).parameters[name].default
    if default is inspect.Parameter.empty:
        raise ValueError(f"{build!r} has no default for {name}: pass it")
    return default


def _search_channels(
    build: Callable[..., Any], cost: Callable[..., int], budget: int, options: dict[str, Any], tolerance: float
) -> tuple[dict[str, Any], int]:
    base = [int(width) for width in _default(build, options, "channels")]
    best: tuple[float, dict[str, Any], int] = (math.inf, {}, 0)

    @functools.cache  # rounded widths come again
    def found_at(widths: tuple[int, ...]) -> int:
        return cost(channels=widths)

    def consider(widths: Sequence[int]) -> int:
        nonlocal best
        found = found_at(tuple(widths))
        if abs(found / budget - 1) < best[0]:
            best = (abs(found / budget - 1), {"channels": tuple(widths)}, found)
        return found

    for step in (16, 8, 4, 2, 1):
        low, high = 0.0, 1.0

        def widths(scale: float, step: int = step) -> list[int]:
            return [max(step, round(width * scale / step) * step) for width in base]

        while consider(widths(high)) < budget and high < 2**12:
            low, high = high, 2 * high
        for _ in range(12):
            middle = (low + high) / 2
            low, high = (middle, high) if consider(widths(middle)) < budget else (low, middle)
        for end in (widths(low), widths(high)):
            for i, sign in itertools.product(range(len(base)), (1, -1)):
                consider([max(step, width + (sign * step if i == j else 0)) for j, width in enumerate(end)])
        if best[0] <= tolerance:
            break
    return best[1], best[2]


def _search_blocks(
    build: Callable[..., Any], cost: Callable[..., int], budget: int, options: dict[str, Any], tolerance: float
) -> tuple[dict[str, Any], int]:
    base = _default(build, options, "num_blocks")
    levels = len(_default(build, options, "channels"))
    base = [base] * levels if isinstance(base, int) else list(base)
    ones = cost(num_blocks=(1,) * levels)
    each = [cost(num_blocks=tuple(2 if i == j else 1 for j in range(levels))) - ones for i in range(levels)]
    total = sum(base)

    def shape(blocks: Sequence[int]) -> float:
        return float(sum((n / sum(blocks) - m / total) ** 2 for n, m in zip(blocks, base)))

    def found(blocks: Sequence[int]) -> int:  # the cost is affine in the number of blocks of each level
        return ones + sum((n - 1) * extra for n, extra in zip(blocks, each))

    options_ = list(itertools.product(range(1, 13), repeat=levels))
    within = [blocks for blocks in options_ if abs(found(blocks) / budget - 1) <= tolerance]
    chosen = min(within, key=shape) if within else min(options_, key=lambda blocks: abs(found(blocks) / budget - 1))
    return {"num_blocks": chosen}, found(chosen)
