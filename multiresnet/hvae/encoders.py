"""What the cells see of the data: features of every resolution, learned or parameter-free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from multiresnet.context import Emb
from multiresnet.hvae.cells import Bottleneck
from multiresnet.hvae.layout import Resolution, Share, runs
from multiresnet.spaces.base import Space

__all__ = ["LearnedEncoder", "PyramidEncoder", "fitted", "kernel_size", "resize_channels"]


class PyramidEncoder(nn.Module):
    """The projections of the data onto the spaces of the resolutions: no parameters, `in_channels` features everywhere."""

    def __init__(self, space: Space, in_channels: int, resolutions: Sequence[Resolution]) -> None:
        super().__init__()
        self.space = space
        self.levels = [resolution.level for resolution in resolutions]
        self.feature_channels = [in_channels] * len(resolutions)

    def forward(self, x: Tensor, emb: Emb | None = None) -> list[Tensor]:
        """(N, in_channels, *grid) -> one such tensor for each resolution, finest first."""
        features, level = [], 0
        for wanted in self.levels:
            x, level = _project_to(self.space, x, level, wanted), wanted
            features.append(x)
        return features


class LearnedEncoder(nn.Module):
    """VDVAE's: residual `Bottleneck`s, and projections in between, which is what average pooling is.

    Of each resolution but the coarsest the last block comes after its features were read, just before the projection, and
    never shares weights. A block that is repeated r times takes r steps of length 1/r.
    """

    def __init__(
        self,
        space: Space,
        in_channels: int,
        resolutions: Sequence[Resolution],
        grids: Sequence[tuple[int, ...]],
        *,
        share: Share,
        emb_channels: int,
    ) -> None:
        super().__init__()
        self.space = space
        self.levels = [resolution.level for resolution in resolutions]
        self.feature_channels = [resolution.channels for resolution in resolutions]
        self.lift = space.conv(in_channels, self.feature_channels[0], kernel_size(grids[0]))
        changes = [resolution.encoder_blocks > 0 for resolution in resolutions[:-1]] + [False]
        self.runs = [runs(r.encoder_blocks - change, share) for r, change in zip(resolutions, changes)]
        count = sum(map(len, self.runs)) + sum(changes)
        self.blocks, self.changes = nn.ModuleList(), nn.ModuleList()
        for resolution, lengths, change in zip(resolutions, self.runs, changes):
            made = [
                Bottleneck(
                    space,
                    resolution.channels,
                    resolution.channels,
                    hidden=resolution.hidden,
                    kernel_size=kernel_size(grids[resolution.level]),
                    scale=count**-0.5,
                    emb_channels=emb_channels,
                )
                for _ in range(len(lengths) + change)
            ]
            self.blocks.append(nn.ModuleList(made[: len(lengths)]))
            self.changes.append(made[-1] if change else nn.Identity())

    def forward(self, x: Tensor, emb: Emb | None = None) -> list[Tensor]:
        """(N, in_channels, *grid) -> (N, channels, *grid) of each resolution, finest first."""
        h, level, features = self.lift(x), 0, []
        for i, wanted in enumerate(self.levels):
            h, level = resize_channels(_project_to(self.space, h, level, wanted), self.feature_channels[i]), wanted
            for block, repeats in zip(cast(Sequence[nn.Module], self.blocks[i]), self.runs[i]):
                for _ in range(repeats):
                    h = h + block(h, emb) / repeats
            features.append(h)
            if not isinstance(self.changes[i], nn.Identity):
                h = h + self.changes[i](h, emb)
        return features


def _project_to(space: Space, x: Tensor, level: int, wanted: int) -> Tensor:
    """From `V_level` to the coarser `V_wanted`."""
    for finer in range(level, wanted):
        x = space.project(x, finer)
    return x


def fitted(space: Space, x: Tensor, depth: int) -> Tensor:
    """`space.fit`, asked for as many levels as halve a side exactly: that the coarsest one is a single cell is no mistake here."""
    while depth and any(n < cell for n, cell in zip(x.shape[2:], space.reduction(depth))):
        depth -= 1
    return space.fit(x, depth)


def kernel_size(grid: Sequence[int]) -> int:
    """Of the blocks on a grid, as in VDVAE: 3, but 1 where an axis has two cells or fewer."""
    return 3 if min(grid) > 2 else 1


def resize_channels(x: Tensor, channels: int) -> Tensor:
    """Zeros for channels that are wanted and not there, and none that are not wanted: (N, C, ...) -> (N, channels, ...)."""
    if x.shape[1] >= channels:
        return x[:, :channels]
    return nn.functional.pad(x, (0, 0) * (x.ndim - 2) + (0, channels - x.shape[1]))
