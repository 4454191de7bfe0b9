"""Where the skips come from: a parameter-free pyramid (E = identity), or a learned encoder (the classical U-Net)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from multiresnet.blocks import Level, patches, total_radius
from multiresnet.context import Emb
from multiresnet.layers import Activation, Norm
from multiresnet.spaces.base import Space

SkipName = Literal["approximation", "detail", "packet", "scattering"]
SKIPS = ("approximation", "detail", "packet", "scattering")


def embed_down(space: Space, x: Tensor, level: int, target: int) -> Tensor:
    """An element of `V_level` as the same function in the larger space `V_target`, `target <= level`."""
    for finer in reversed(range(target, level)):
        x = space.embed(x, space.refine(x.shape[2:], finer), finer)
    return x


def scale_details(x: Tensor, channels: int, scale: float) -> Tensor:
    """Multiply all but the first `channels` channels, which are averages, by `scale`."""
    if scale == 1 or x.shape[1] == channels:
        return x
    return torch.cat([x[:, :channels], scale * x[:, channels:]], 1)


class Pyramid(nn.Module):
    """Raw, untiled coefficients of the input at every level: no parameters, no state, no autograd for a plain input.

    The finest level of the network holds all Haar coefficients of `patch_levels` levels (for 0, the input itself). A
    coarser level holds, by `skip`,

    - `"approximation"`: averages, C channels;
    - `"detail"`: what the finest level holds, of the averaged input; with `patch_levels` 0 or 1 the approximation and the
      details of one level, C * 2**d channels;
    - `"packet"`: all wavelet packet coefficients, C * 2**(d * level) channels, nothing is lost at any level;
    - `"scattering"`: as `"detail"`, and the averaged magnitudes of all finer details.

    All but the averages are multiplied by `detail_scale`: details of images are about a tenth of their averages.
    """

    radius: dict[int, int | None] = {}

    def __init__(
        self,
        space: Space,
        in_channels: int,
        *,
        depth: int,
        patch_levels: int,
        skip: SkipName,
        detail_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.space, self.depth, self.patch_levels, self.skip = space, depth, patch_levels, skip
        self.detail_scale = detail_scale
        self.base = max(patch_levels, 1)  # levels of coefficients that "detail" shows together
        self.in_channels = in_channels

    def channels(self, level: int) -> int:
        """Channels of the skip at `level`."""

        def bands(start: int, stop: int) -> int:
            return math.prod(self.space.detail_bands(k) + 1 for k in range(start, stop))

        if self.skip == "packet":
            return self.in_channels * bands(0, level)
        if self.skip == "approximation" and level > self.patch_levels:
            return self.in_channels
        count = bands(max(level - self.base, 0), level)
        if self.skip == "scattering":
            count += sum(self.space.detail_bands(k) for k in range(level - self.base))
        return self.in_channels * count

    def forward(self, x: Tensor, emb: Emb | None = None, *, levels: int) -> list[Tensor]:
        """Skips of the `levels` coarsest levels, coarsest first, for an `x` at the resolution that they predict.

        Coefficients that a coarse `x` has no longer are those of the same function on the finer grid: zero.
        """
        finest = self.depth - levels + 1
        start = finest - self.patch_levels
        needed = {"approximation": start, "detail": max(finest - self.base, 0)}.get(self.skip, 0)
        x = embed_down(self.space, x, start, needed)

        approximations, details, packet, skips = {needed: x}, {}, x, []
        for level in range(needed + 1, self.depth + 1):
            approximations[level], details[level] = self.space.analysis(approximations[level - 1], level - 1)
        for level in range(finest, self.depth + 1):
            if self.skip == "packet":
                known = 0 if level == finest else level - 1
                packet = patches(self.space, packet, known, level - known)
                skips.append(packet)
            elif self.skip == "approximation" and level > self.patch_levels:
                skips.append(approximations[level])
            else:
                first = max(level - self.base, 0)
                skip = [patches(self.space, approximations[first], first, level - first)]
                if self.base == 1 and level:  # already there
                    skip = [approximations[level], details[level]]
                if self.skip == "scattering":
                    skip += [self._magnitude(details[k], k, level) for k in range(1, first + 1)]
                skips.append(torch.cat(skip, 1) if len(skip) > 1 else skip[0])
        return [scale_details(skip, self.in_channels, self.detail_scale) for skip in skips[::-1]]

    def _magnitude(self, detail: Tensor, level: int, target: int) -> Tensor:
        detail = detail.abs()
        for finer in range(level, target):
            detail = self.space.project(detail, finer)
        return detail


class LearnedEncoder(nn.Module):
    """The encoder of a classical residual U-Net: a stem on the same Haar patches, then blocks, projection and a wider level.

    `levels` are given finest first, as everywhere; the skips are the features of each level after its blocks.
    """

    def __init__(
        self,
        space: Space,
        in_channels: int,
        levels: Sequence[Level],
        *,
        patch_levels: int,
        detail_scale: float,
        norm: Norm,
        activation: Activation,
        emb_channels: int,
    ) -> None:
        super().__init__()
        self.space, self.patch_levels, self.in_channels = space, patch_levels, in_channels
        self.detail_scale = detail_scale
        self.depth = patch_levels + len(levels) - 1
        bands = math.prod(space.detail_bands(k) + 1 for k in range(patch_levels))
        widths = [level.channels for level in levels]
        self.widths = dict(enumerate(widths, start=patch_levels))
        self.stem = space.conv(in_channels * bands, widths[0])
        self.blocks = nn.ModuleList(level.build(space, norm, activation, emb_channels) for level in levels)
        self.widen = nn.ModuleList(space.conv(a, b, 1) for a, b in zip(widths, widths[1:]))
        self.radius = {patch_levels + i: total_radius(blocks) for i, blocks in enumerate(self.blocks)}
        if self.radius[patch_levels] is not None:
            self.radius[patch_levels] = 1 + cast(int, self.radius[patch_levels])  # the stem

    def channels(self, level: int) -> int:
        """Channels of the skip at `level`."""
        return self.widths[level]

    def forward(self, x: Tensor, emb: Emb | None = None, *, levels: int) -> list[Tensor]:
        """Skips of the `levels` coarsest levels, coarsest first, for an `x` at the resolution that they predict."""
        x = embed_down(self.space, x, self.depth - levels + 1 - self.patch_levels, 0)
        x = scale_details(patches(self.space, x, 0, self.patch_levels), self.in_channels, self.detail_scale)
        h = cast(Tensor, self.stem(x))
        skips = []
        for i, blocks in enumerate(self.blocks):
            for block in cast(nn.ModuleList, blocks):
                h = block(h, emb)
            skips.append(h)
            if i < len(self.widen):
                h = self.widen[i](self.space.project(h, self.patch_levels + i))
        return skips[::-1][:levels]
