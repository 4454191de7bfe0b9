"""The layouts of the paper's own code (arXiv 2305.19638), with exactly its parameter counts, and their folding.

What differs from this package's default: a learned stem at full resolution, its pooled features tiled to the width of each
level as skips, concatenation, GroupNorm(1) after each convolution, blocks at every level, one head. Odd sizes differ on
purpose: the original shifts coarse levels by a pixel and darkens the border there.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from multiresnet.blocks import Head
from multiresnet.spaces.base import Space
from multiresnet.unet import Sweep, UNet

DEPTH = 4


class ConvBlock(nn.Module):
    """Two `GELU(GroupNorm(conv))` in a row, `h = first(x)` and `h + second(h)`."""

    radius = 2

    def __init__(self, space: Space, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = space.conv(in_channels, out_channels)
        self.conv2 = space.conv(out_channels, out_channels)
        self.norm1, self.norm2 = nn.GroupNorm(1, out_channels), nn.GroupNorm(1, out_channels)
        self.activation = nn.GELU()

    def first(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.activation(self.norm1(self.conv1(x))))

    def second(self, h: Tensor) -> Tensor:
        return cast(Tensor, self.activation(self.norm2(self.conv2(h))))

    def forward(self, x: Tensor) -> Tensor:
        """Residual around the second convolution only: the first changes the channels."""
        h = self.first(x)
        return h + self.second(h)


class FullBlock(ConvBlock):
    """The same two convolutions, residual around both."""

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))


class TiledPyramid(nn.Module):
    """Pooled stem features at every level, repeated to the level's width (`tile=False`: as they are)."""

    depth, patch_levels = DEPTH, 0
    radius: dict[int, int | None] = {0: ConvBlock.radius}

    def __init__(self, space: Space, in_channels: int, hidden_channels: int, *, tile: bool) -> None:
        super().__init__()
        self.space, self.in_channels, self.hidden_channels, self.tile = space, in_channels, hidden_channels, tile
        self.stem = ConvBlock(space, in_channels, hidden_channels)

    def channels(self, level: int) -> int:
        """Channels of the skip at `level`."""
        return self.hidden_channels * (1 << level) if self.tile else self.hidden_channels

    def forward(self, x: Tensor, emb: Tensor | None = None, *, levels: int) -> list[Tensor]:
        """Skips, coarsest first."""
        features = [self.stem(x)]
        for level in range(self.depth):
            features.append(self.space.project(features[-1], level))
        repeats = [2**level if self.tile else 1 for level in range(self.depth + 1)]
        return [f.repeat(1, n, *(1,) * self.space.spatial_dims) for f, n in zip(features, repeats)][::-1]


class PaperEncoder(nn.Module):
    """Stem, then pooling and a block that doubles the width, four times."""

    depth, patch_levels = DEPTH, 0
    radius: dict[int, int | None] = {level: ConvBlock.radius for level in range(DEPTH + 1)}

    def __init__(self, space: Space, in_channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.space, self.in_channels, self.hidden_channels = space, in_channels, hidden_channels
        self.stem = ConvBlock(space, in_channels, hidden_channels)
        self.blocks = nn.ModuleList(
            ConvBlock(space, self.channels(level), self.channels(level + 1)) for level in range(self.depth)
        )

    def channels(self, level: int) -> int:
        """Channels of the skip at `level`."""
        return self.hidden_channels * (1 << level)

    def forward(self, x: Tensor, emb: Tensor | None = None, *, levels: int) -> list[Tensor]:
        """Skips, coarsest first."""
        features = [self.stem(x)]
        for level, block in enumerate(self.blocks):
            features.append(block(self.space.project(features[-1], level)))
        return features[::-1]


class Bottleneck(nn.Module):
    """U_0 of this layout: the coarsest skip itself."""

    def forward(self, w: Tensor | None, skip: Tensor, emb: Tensor | None = None) -> Tensor:
        return skip


class PaperLevel(nn.Module):
    """Halve the width of the coarse state, embed, concatenate with the skip, convolve; then the added residual blocks."""

    radius = 2  # of the convolution before the embedding, in cells of this level

    def __init__(
        self, space: Space, level: int, *, coarse_channels: int, skip_channels: int, channels: int, extra_blocks: int
    ) -> None:
        super().__init__()
        self.space, self.level, self.skip_channels = space, level, skip_channels
        self.coarse = space.conv(coarse_channels, channels)
        self.merge = ConvBlock(space, skip_channels + channels, channels)
        self.extra = nn.ModuleList(FullBlock(space, channels, channels) for _ in range(extra_blocks))

    def forward(self, w: Tensor, skip: Tensor, emb: Tensor | None = None) -> Tensor:
        h = self.space.embed(self.coarse(w), skip.shape[2:], self.level)
        h = self.merge(torch.cat([skip, h], 1))
        for block in self.extra:
            h = block(h)
        return cast(Tensor, h)


def parts(
    space: Space,
    in_channels: int,
    out_channels: int,
    hidden_channels: int,
    extra_blocks: int,
    *,
    learned: bool,
    tile: bool = True,
) -> dict[str, Any]:
    """Arguments of `multiresnet.unet.UNet` for this layout: five levels of widths `hidden_channels * 2**level`.

    Parameter counts for `hidden_channels=64`, 12 channels to 3: residual U-Net 34,531,971; Multi-ResNet 15,719,811 with no
    blocks added, 34,537,731 with 3. They were counted from the paper's code.
    """
    if extra_blocks < 0:
        raise ValueError(f"extra_blocks must be >= 0, got {extra_blocks}")
    encoder: nn.Module
    if learned:
        encoder = PaperEncoder(space, in_channels, hidden_channels)
    else:
        encoder = TiledPyramid(space, in_channels, hidden_channels, tile=tile)
    widths = [encoder.channels(DEPTH), *(hidden_channels * 2**level for level in reversed(range(DEPTH)))]
    levels: list[nn.Module] = [Bottleneck()]
    for i, level in enumerate(reversed(range(DEPTH))):
        levels.append(
            PaperLevel(
                space,
                level,
                coarse_channels=widths[i],
                skip_channels=encoder.channels(level),
                channels=widths[i + 1],
                extra_blocks=extra_blocks,
            )
        )
    head = Head(space, 0, hidden_channels, out_channels, patch_levels=0, activation=nn.Identity, scale=1.0)
    return {
        "space": space,
        "encoder": encoder,
        "sweeps": [Sweep(levels)],
        "restricts": [],
        "heads": [head],
        "out_channels": out_channels,
    }


def fold_tiled_skips(net: UNet) -> UNet:
    """The same function as a paper-layout Multi-ResNet with fewer parameters: its tiled skips carry each feature many times.

    A convolution of repeated channels is a convolution of the originals with the weights of the copies added up. For 64 hidden
    channels and no added blocks this leaves 8,715,651 of 15,719,811 parameters; the output agrees to rounding.

    Args:
        net: from `MultiResNet.paper`; left as it is.

    Returns:
        A `multiresnet.unet.UNet` with untiled skips, in the same type and on the same device.

    Raises:
        ValueError: `net` is not a Multi-ResNet in the paper's layout.
    """
    encoder = net.encoder
    if not isinstance(encoder, TiledPyramid) or not encoder.tile:
        raise ValueError(
            f"expected a model built by MultiResNet.paper, got {type(net).__name__} with {type(encoder).__name__}"
        )
    levels = cast(list[PaperLevel], list(cast(Sweep, net.sweeps[0]).levels)[1:])
    folded = UNet(
        **parts(
            net.space,
            net.in_channels,
            net.out_channels,
            encoder.hidden_channels,
            len(levels[0].extra),
            learned=False,
            tile=False,
        )
    ).to(next(net.parameters()))
    state = copy.copy(net.state_dict())
    target = folded.state_dict()
    for key, weight in state.items():
        if weight.shape != target[key].shape:  # (out, skip copies + own, ...): add the copies up
            own = weight.shape[1] - encoder.channels(DEPTH) if key.endswith("levels.1.coarse.conv.weight") else None
            state[key] = _fold(weight, encoder.hidden_channels, weight.shape[0] if own is None else own)
    folded.load_state_dict(state)
    return folded


def _fold(weight: Tensor, hidden_channels: int, own: int) -> Tensor:
    skip, rest = weight.split([weight.shape[1] - own, own], 1)
    return torch.cat([skip.unflatten(1, (-1, hidden_channels)).sum(1), rest], 1)
