"""What a level computes: residual, attention and transformer blocks, merges of a coarse state with a skip, output heads."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiresnet.checks import check_choice, check_positive
from multiresnet.spaces.base import Space

NormName = Literal["group", "batch", "instance", "layer"]
Norm: TypeAlias = NormName | Callable[[int], nn.Module] | None
Activation: TypeAlias = str | Callable[..., object]
BlockName = Literal["residual", "attention", "transformer"]
MergeName = Literal["add", "concat", "strict"]

BLOCKS = ("residual", "attention", "transformer")
_BATCH_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class Function(nn.Module):
    """A plain function such as `torch.nn.functional.gelu` as a module."""

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.function(x))


def make_activation(activation: Activation) -> nn.Module:
    """Module of an activation: a class (`nn.GELU`), its name (`"GELU"`), or a function of a tensor (`F.gelu`)."""
    if isinstance(activation, str):
        names = [name for name in nn.modules.activation.__all__ if name != "MultiheadAttention"]
        check_choice("activation", activation, names)
        activation = getattr(nn, activation)
    if isinstance(activation, type) and issubclass(activation, nn.Module):
        return activation()
    if not callable(activation):
        raise TypeError(f"activation must be a callable, a torch.nn class or its name; got {activation!r}")
    return activation if isinstance(activation, nn.Module) else Function(activation)


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

    def forward(self, h: Tensor, emb: Tensor | None) -> Tensor:
        if self.linear is None or emb is None:
            return h
        both: Tensor = self.linear(emb)
        scale, shift = both[(..., *(None,) * (h.ndim - 2))].chunk(2, 1)  # (N, C, 1, ..., 1) each
        return h * (1 + scale) + shift


class ResidualBlock(nn.Module):
    """`h + W2 act(FiLM(norm(W1 act(norm(h)))))`: pre-activation, 3-wide convolutions, W2 zero at the start."""

    radius: int | None = 2  # cells that an output cell sees on each side

    def __init__(self, space: Space, channels: int, norm: Norm, activation: Activation, emb_channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (make_norm(norm, channels, space.spatial_dims) for _ in range(2))
        self.conv1, self.conv2 = (space.conv(channels, channels) for _ in range(2))
        self.film = FiLM(channels, emb_channels)
        self.activation = make_activation(activation)
        zero_init(self.conv2)

    def forward(self, h: Tensor, emb: Tensor | None = None) -> Tensor:
        r = self.conv1(self.activation(self.norm1(h)))
        r = self.conv2(self.activation(self.film(self.norm2(r), emb)))
        return h + cast(Tensor, r)


class SelfAttention(nn.Module):
    """`h + W_o softmax(q k^T / sqrt(c)) v` over all cells, heads of about 32 channels, W_o zero at the start.

    Memory and time are quadratic in the number of cells: meant for the coarse levels.
    """

    radius: int | None = None  # sees everything

    def __init__(self, space: Space, channels: int, norm: Norm, emb_channels: int) -> None:
        super().__init__()
        self.heads = max(n for n in range(1, max(channels // 32, 1) + 1) if channels % n == 0)
        self.norm = make_norm(norm or "layer", channels, space.spatial_dims)  # logits need a bounded scale
        self.film = FiLM(channels, emb_channels)
        self.qkv = space.conv(channels, 3 * channels, 1)
        self.out = space.conv(channels, channels, 1)
        zero_init(self.out)

    def forward(self, h: Tensor, emb: Tensor | None = None) -> Tensor:
        qkv = self.qkv(self.film(self.norm(h), emb)).flatten(2)  # (N, 3 C, cells)
        q, k, v = qkv.unflatten(1, (3, self.heads, -1)).transpose(3, 4).unbind(1)  # each (N, heads, cells, C / heads)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(2, 3)
        return h + cast(Tensor, self.out(mixed.reshape(h.shape)))


class Perceptron(nn.Module):
    """`h + W2 act(FiLM(W1 norm(h)))` in every cell, four times as wide inside, W2 zero at the start."""

    radius: int | None = 0

    def __init__(self, space: Space, channels: int, norm: Norm, activation: Activation, emb_channels: int) -> None:
        super().__init__()
        self.norm = make_norm(norm or "layer", channels, space.spatial_dims)
        self.conv1 = space.conv(channels, 4 * channels, 1)
        self.film = FiLM(4 * channels, emb_channels)
        self.activation = make_activation(activation)
        self.conv2 = space.conv(4 * channels, channels, 1)
        zero_init(self.conv2)

    def forward(self, h: Tensor, emb: Tensor | None = None) -> Tensor:
        r = self.activation(self.film(self.conv1(self.norm(h)), emb))
        return h + cast(Tensor, self.conv2(r))


@dataclass(frozen=True)
class Level:
    """What one resolution computes.

    Args:
        channels: width, preferably a multiple of 16 (odd widths run at half the speed).
        num_blocks: blocks in a row, >= 0.
        block: `"residual"`; `"attention"`, a residual block followed by self-attention; or `"transformer"`,
            self-attention followed by a perceptron.
    """

    channels: int
    num_blocks: int = 2
    block: BlockName = "residual"

    def __post_init__(self) -> None:
        check_positive(channels=self.channels)
        check_choice("block", self.block, BLOCKS)
        if not isinstance(self.num_blocks, int) or self.num_blocks < 0:
            raise ValueError(f"num_blocks must be integers >= 0, got {self.num_blocks!r}")

    def build(self, space: Space, norm: Norm, activation: Activation, emb_channels: int) -> nn.ModuleList:
        """The blocks, each mapping (N, channels, *grid), emb -> (N, channels, *grid)."""
        blocks: list[nn.Module] = []
        for _ in range(self.num_blocks):
            if self.block != "transformer":
                blocks += [ResidualBlock(space, self.channels, norm, activation, emb_channels)]
            if self.block != "residual":
                blocks += [SelfAttention(space, self.channels, norm, emb_channels)]
            if self.block == "transformer":
                blocks += [Perceptron(space, self.channels, norm, activation, emb_channels)]
        return nn.ModuleList(blocks)


class AddMerge(nn.Module):
    """`h = lift(skip) + embed(W w)`: the coarse state is mixed before it is embedded, where that is cheapest.

    A raw skip is lifted by a 3-wide convolution; learned features (`lift=False`) are added as they are.
    """

    def __init__(
        self, space: Space, level: int, *, coarse_channels: int | None, skip_channels: int, channels: int, lift: bool
    ) -> None:
        super().__init__()
        self.space, self.level, self.radius = space, level, int(lift)
        self.lift = space.conv(skip_channels, channels) if lift else nn.Identity()
        self.coarse = space.conv(coarse_channels, channels, 1) if coarse_channels else None

    def forward(self, w: Tensor | None, skip: Tensor) -> Tensor:
        h = self.lift(skip)
        if w is not None and self.coarse is not None:
            h = h + self.space.embed(self.coarse(w), skip.shape[2:], self.level)
        return cast(Tensor, h)


class ConcatMerge(nn.Module):
    """`h = W [skip, embed(w)]` with a 3-wide convolution, the classical U-Net's merge."""

    radius = 1

    def __init__(
        self, space: Space, level: int, *, coarse_channels: int | None, skip_channels: int, channels: int, lift: bool
    ) -> None:
        super().__init__()
        self.space, self.level = space, level
        self.conv = space.conv(skip_channels + (coarse_channels or 0), channels)

    def forward(self, w: Tensor | None, skip: Tensor) -> Tensor:
        if w is not None:
            skip = torch.cat([skip, self.space.embed(w, skip.shape[2:], self.level)], 1)
        return cast(Tensor, self.conv(skip))


class Head(nn.Module):
    """`act`, a 3-wide convolution to Haar coefficients of `patch_levels` levels, and their synthesis.

    Shape:
        (N, channels, *sizes[0]) -> (N, out_channels, *sizes[-1]); `sizes` are the grids from this level to the finer
        one that it predicts, `patch_levels + 1` of them.
    """

    radius = 1

    def __init__(
        self,
        space: Space,
        level: int,
        channels: int,
        out_channels: int,
        *,
        patch_levels: int,
        activation: Activation,
        scale: float = 0.1,
    ) -> None:
        super().__init__()
        self.space, self.out_channels, self.finer = space, out_channels, range(level - 1, level - 1 - patch_levels, -1)
        bands = math.prod(space.detail_bands(finer) + 1 for finer in self.finer)
        self.activation = make_activation(activation)
        self.conv = space.conv(channels, out_channels * bands)
        with torch.no_grad():
            for parameter in self.conv.parameters():
                parameter.mul_(scale)

    def forward(self, h: Tensor, sizes: Sequence[Sequence[int]]) -> Tensor:
        y = cast(Tensor, self.conv(self.activation(h)))
        for level, size in zip(self.finer, sizes[1:]):
            count = y.shape[1] // (self.space.detail_bands(level) + 1)
            approximation, detail = y.split([count, y.shape[1] - count], 1)
            y = self.space.synthesis(approximation, detail, size, level)
        return y


def patches(space: Space, x: Tensor, level: int, count: int) -> Tensor:
    """All coefficients of `count` analyses in a row, each of all bands: (N, C, *grid) -> (N, C * bands, *coarse grid)."""
    for finer in range(level, level + count):
        x = torch.cat(space.analysis(x, finer), 1)
    return x


def total_radius(modules: nn.Module) -> int | None:
    """Cells on each side that an output cell of blocks in a row sees of their input; `None` for all."""
    radii = [module.radius for module in modules.modules() if hasattr(module, "radius")]
    return None if None in radii else sum(cast(list[int], radii))


def zero_init(module: nn.Module) -> None:
    """Set all parameters of `module` to zero, so that a residual branch that ends with it starts as nothing."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
