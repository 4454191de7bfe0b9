"""What all blocks are made of: activations, norms, and the scale and shift by a conditioning vector."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Literal, TypeAlias, cast

import torch
from torch import Tensor, nn

from multiresnet.checks import check_choice
from multiresnet.context import Context, Emb

NormName = Literal["group", "batch", "instance", "layer"]
Norm: TypeAlias = NormName | Callable[[int], nn.Module] | None
Activation: TypeAlias = str | Callable[..., object]

_BATCH_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class Function(nn.Module):
    """A plain function such as `torch.nn.functional.gelu` as a module."""

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.function(x))


def make_activation(activation: Activation) -> nn.Module:
    """Module of an activation: a class (`nn.GELU`), its name (`"GELU"`), a function of a tensor, or a module to copy."""
    if isinstance(activation, str):
        names = [name for name in nn.modules.activation.__all__ if name != "MultiheadAttention"]
        check_choice("activation", activation, names)
        activation = getattr(nn, activation)
    if isinstance(activation, type) and issubclass(activation, nn.Module):
        return activation()
    if not callable(activation):
        raise TypeError(f"activation must be a callable, a torch.nn class or its name; got {activation!r}")
    return copy.deepcopy(activation) if isinstance(activation, nn.Module) else Function(activation)


class GroupNorm(nn.GroupNorm):
    """Torch's, also where a group is one single value; torch refuses that, here the result is the bias."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def make_norm(norm: Norm, channels: int, spatial_dims: int) -> nn.Module:
    """Normalisation over (N, channels, *spatial). All but `"batch"` work on a batch of 1 with a single cell.

    `"group"` takes 4 groups, or the largest smaller number that divides the channels; `"layer"` is one group,
    `"instance"` one group for each channel.
    """
    if norm is None:
        return nn.Identity()
    if not isinstance(norm, str):
        return norm(channels)
    check_choice("norm", norm, ("group", "batch", "instance", "layer"))
    if norm == "batch":
        return _BATCH_NORM[spatial_dims](channels)
    groups = {"group": math.gcd(4, channels), "layer": 1, "instance": channels}[norm]
    return GroupNorm(groups, channels)


class FiLM(nn.Module):
    """Scale and shift of every channel by a linear map of `emb`; the identity at the start and without `emb`."""

    def __init__(self, channels: int, emb_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(emb_channels, 2 * channels) if emb_channels else None
        if self.linear is not None:
            nn.init.zeros_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

    def forward(self, h: Tensor, emb: Emb | None) -> Tensor:
        emb = emb.vector if isinstance(emb, Context) else emb
        if self.linear is None or emb is None:
            return h
        both: Tensor = self.linear(emb)
        scale, shift = both[(..., *(None,) * (h.ndim - 2))].chunk(2, 1)  # (N, C, 1, ..., 1) each
        return h * (1 + scale) + shift


def zero_init(module: nn.Module) -> None:
    """Set all parameters of `module` to zero, so that a residual branch that ends with it starts as nothing."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
