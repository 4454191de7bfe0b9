"""A Multi-ResNet between the image and the heads, in pieces that timm's feature wrappers can take apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from timm.models._features_fx import register_notrace_module
from torch import Tensor, nn

import multiresnet
from multiresnet.integrations.scripted import Scripted
from multiresnet.layers import NormName, make_norm
from multiresnet.unet import Restrict, Sweep

Maps = tuple[Tensor, ...]


@register_notrace_module  # torch.fx takes it as one piece
class Body(nn.Module):
    """Pyramid and sweeps of a Multi-ResNet without its heads, and a restriction that pools the states of all levels.

    Shape:
        (N, C, H, W) -> the finest state, and the tuple of all states from it on, finest first, with the pooled map at its end.
    """

    def __init__(self, net: multiresnet.MultiResNet, channels: Sequence[int], norm: NormName | None) -> None:
        super().__init__()
        self.encoder, self.sweeps = net.encoder, net.sweeps
        pool = Restrict(net.space, net.patch_levels, channels[::-1])
        self.restricts = nn.ModuleList([*net.restricts, pool])  # one after each sweep, the last is for the classifier
        self.norm = nn.Sequential(make_norm(norm, channels[-1], net.space.spatial_dims), nn.GELU())
        self.levels = len(channels)
        self.kept = range(self.levels)

    def states(self, x: Tensor, finest: int) -> list[Tensor]:
        """States of the last sweep, from level `finest` on, finest first."""
        skips = self.encoder(x, levels=self.levels)
        for sweep, restrict in zip(list(self.sweeps)[:-1], self.restricts):
            skips = restrict(sweep(skips))
        return cast(list[Tensor], self.sweeps[-1](skips[: self.levels - finest])[::-1])

    def pool(self, states: Sequence[Tensor]) -> list[Tensor]:
        """The features of all levels on the coarsest grid, as long as there is a classifier for them."""
        pooling = list(self.restricts)[len(self.sweeps) - 1 :]
        return [self.norm(restrict(states[::-1])[0]) for restrict in pooling]

    def forward(self, x: Tensor) -> tuple[Tensor, Maps]:
        states = self.states(x, self.kept.start)
        maps = (*states[: len(self.kept)], *self.pool(states))
        return maps[0], maps

    def prune(self, kept: range) -> None:
        """Drop what only other states or labels need: the finest levels of the last sweep, and the pooling."""
        self.kept = kept
        last = cast(Sweep, self.sweeps[-1])
        last.levels = last.levels[: self.levels - kept.start]
        self.restricts, self.norm = self.restricts[: len(self.sweeps) - 1], nn.Sequential()

    def __prepare_scriptable__(self) -> Scripted:
        return Scripted(self, self.encoder.in_channels)


class Coarser(nn.Module):
    """The map that lies `steps` further on, and all from it on: of such a pair, timm's feature wrappers take the first."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, previous: tuple[Tensor, Maps]) -> tuple[Tensor, Maps]:
        maps = previous[1][self.steps :]
        return maps[0], maps
