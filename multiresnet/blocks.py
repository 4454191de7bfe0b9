"""What a level computes: its blocks, the merge of a coarse state with a skip, the output head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from multiresnet.attention import CrossAttention, Perceptron, SelfAttention
from multiresnet.checks import check_choice, check_positive
from multiresnet.context import Emb
from multiresnet.layers import Activation, FiLM, Norm, make_activation, make_norm, zero_init
from multiresnet.spaces.base import Space

BlockName = Literal["residual", "attention", "transformer", "cross"]
MergeName = Literal["add", "concat", "strict"]

BLOCKS = ("residual", "attention", "transformer", "cross")


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

    def forward(self, h: Tensor, emb: Emb | None = None) -> Tensor:
        r = self.conv1(self.activation(self.norm1(h)))
        r = self.conv2(self.activation(self.film(self.norm2(r), emb)))
        return h + cast(Tensor, r)


@dataclass(frozen=True)
class Level:
    """What one resolution computes.

    Args:
        channels: width, preferably a multiple of 16 (odd widths run at half the speed).
        num_blocks: blocks in a row, >= 0.
        block: `"residual"`; `"attention"`, a residual block followed by self-attention; `"transformer"`, self-attention
            followed by a perceptron; or `"cross"`, as `"attention"`, then attention to the tokens of a `Context`.
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
            if self.block == "cross":
                blocks += [CrossAttention(space, self.channels, norm, emb_channels)]
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
        self.space, self.level, self.out_channels = space, level, out_channels
        self.finer = range(level - 1, level - 1 - patch_levels, -1)
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
        return self.space.constrain(y, self.level - len(self.finer))


def patches(space: Space, x: Tensor, level: int, count: int) -> Tensor:
    """All coefficients of `count` analyses in a row, each of all bands: (N, C, *grid) -> (N, C * bands, *coarse grid)."""
    for finer in range(level, level + count):
        x = torch.cat(space.analysis(x, finer), 1)
    return x


def total_radius(modules: nn.Module) -> int | None:
    """Cells on each side that an output cell of blocks in a row sees of their input; `None` for all."""
    radii = [module.radius for module in modules.modules() if hasattr(module, "radius")]
    return None if None in radii else sum(cast(list[int], radii))
