"""Errors at the door: what came, what was wanted, how to fix it."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar, cast

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def tracing() -> bool:
    """Whether `torch.jit.trace` records: sizes are then tensors, and autograd functions cannot be recorded."""
    return bool(torch._C._get_tracing_state() is not None)


def explain_typos(function: Callable[P, R]) -> Callable[P, R]:
    """Let an unknown keyword argument raise a `TypeError` that names the closest known one."""
    known = list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name in kwargs:
            if name not in known:
                raise TypeError(f"unknown argument {name!r}{closest(name, known)}; known: {', '.join(known[1:])}")
        return function(*args, **kwargs)

    return checked


def closest(name: str, options: Iterable[str]) -> str:
    """` (did you mean 'x'?)`, or nothing where no option is near."""
    spelling = {option.lower(): option for option in options}
    match = difflib.get_close_matches(name.lower(), spelling, 1, 0.5)
    return f" (did you mean {spelling[match[0]]!r}?)" if match else ""


def check_choice(name: str, value: object, options: Iterable[str]) -> None:
    """Raise `ValueError` unless `value` is one of `options`."""
    options = list(options)
    if value not in options:
        raise ValueError(f"{name}={value!r} is unknown{closest(str(value), options)}; choose from {', '.join(options)}")


def check_positive(**values: int) -> None:
    """Raise `ValueError` unless all values are integers >= 1."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer >= 1, got {value!r}")


def check_scale(**values: float) -> None:
    """Raise `ValueError` unless all values are finite numbers > 0."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise ValueError(f"{name} must be a number > 0, got {value!r}")


def check_input(x: Tensor, *, in_channels: int, spatial_dims: int, dtype: torch.dtype | None) -> None:
    """Raise unless `x` is a floating (N, in_channels, *spatial) tensor of the model's type (any type under autocast)."""
    if isinstance(cast(object, x), torch.fx.Proxy) or tracing():
        return  # no shapes to check
    if not isinstance(cast(object, x), Tensor):
        raise TypeError(f"expected a torch.Tensor, got {type(x).__name__}; use torch.from_numpy(x) for a numpy array")
    wanted = f"(N, {in_channels}, {', '.join('DHW'[-spatial_dims:])})"
    shape = tuple(x.shape)
    if x.ndim != spatial_dims + 2:
        hint = "; add the batch dimension: x.unsqueeze(0)" if x.ndim == spatial_dims + 1 else ""
        if x.ndim == spatial_dims + 3:
            hint = "; fold the extra axis into the batch or the channels: x.flatten(1, 2)"
        raise ValueError(f"expected rank {spatial_dims + 2}, {wanted}; got rank {x.ndim}, shape {shape}{hint}")
    if x.shape[1] != in_channels:
        if x.shape[-1] == in_channels:
            raise ValueError(f"expected {wanted}; got {shape}, which looks channels-last: use x.movedim(-1, 1)")
        raise ValueError(f"model built for in_channels={in_channels}, got {x.shape[1]} channels in shape {shape}")
    if 0 in shape[2:]:
        raise ValueError(f"spatial size {shape[2:]} holds no samples; every axis needs at least one")
    if not x.is_floating_point():
        raise TypeError(f"expected a floating point tensor, got {x.dtype}; for 8-bit images use x.float() / 255")
    if dtype is not None and x.dtype != dtype and not torch.is_autocast_enabled(x.device.type):
        raise TypeError(
            f"the input is {x.dtype}, the model's weights are {dtype}; "
            f"convert one of them: x.to({dtype}) or model.to({x.dtype})"
        )
