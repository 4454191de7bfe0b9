"""The decoder of the core between smp's encoders and its masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiresnet.blocks import Head, patches
from multiresnet.spaces.base import Space
from multiresnet.spaces.boundary import recording
from multiresnet.unet import Restrict, Sweep, run_sweeps, telescope


@dataclass(frozen=True)
class Skips:
    """What the decoder reads: the features of an encoder of smp but the first, in the words of the core."""

    out_channels: Sequence[int]
    patch_levels: int = 1

    @property
    def depth(self) -> int:
        """Level of the coarsest feature."""
        return len(self.out_channels) - 1

    def channels(self, level: int) -> int:
        """Channels at `level`; where the encoder has none, the decoder reads the Haar coefficients of the image."""
        return self.out_channels[level] or self.out_channels[0] * 4**level


class Decoder(nn.Module):
    """The sweeps of the core.

    Shape:
        list of (N, C_i, H_i, W_i), finest first -> list of the states of all levels, coarsest first, and the first feature,
        whose size is that of the masks.
    """

    def __init__(self, space: Space, sweeps: Sequence[Sweep], restricts: Sequence[Restrict]) -> None:
        super().__init__()
        self.space, self.sweeps, self.restricts = space, nn.ModuleList(sweeps), nn.ModuleList(restricts)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        image, skips, size = features[0], [], features[0].shape[2:]
        for level, feature in enumerate(features[1:], 1):
            size = torch.Size([(n + 1) // 2 for n in size])
            if feature.shape[1] == 0:
                feature = patches(self.space, image, 0, level)
            elif recording() or feature.shape[2:] != size:  # some encoders round down
                feature = F.interpolate(feature, size)
            skips.append(feature)
        return [*run_sweeps(self.sweeps, self.restricts, skips[::-1]), image]


class Masks(nn.Module):
    """The heads of the core, one for each level: what the decoder returns -> (N, classes, H, W)."""

    def __init__(self, space: Space, heads: Sequence[Head], depth: int) -> None:
        super().__init__()
        self.space, self.heads, self.depth = space, nn.ModuleList(heads), depth

    def forward(self, decoder_output: Sequence[Tensor]) -> Tensor:
        sizes = [tensor.shape[2:] for tensor in decoder_output]
        return telescope(self.space, self.heads, decoder_output[:-1], sizes, self.depth)[-1]
