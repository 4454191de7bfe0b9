"""The Haar pyramid with the interface of smp's encoders."""

from __future__ import annotations

from segmentation_models_pytorch.encoders._base import EncoderMixin
from torch import Tensor, nn
from torch._jit_internal import is_scripting

from multiresnet.checks import check_input
from multiresnet.integrations.haar_level import HaarLevel


class HaarEncoder(nn.Module, EncoderMixin):  # type: ignore[misc]  # smp has no types
    """An encoder without parameters: smp's `"haar"`, and without details `"haar_ll"`.

    Args:
        details: whether the features hold the details beside the approximation.
        depth: number of halvings, 1 to 5.
        output_stride: the reduction at which halving stops; later levels combine samples that are as far apart as those of
            the coarser grids would be (the undecimated, or a trous, transform).

    Shape:
        (N, in_channels, H, W) -> list of depth + 1 features, the first one the input; feature i is
        (N, in_channels * 4, ceil(H / r), ceil(W / r)), r = min(2**i, output_stride), or (N, in_channels, ...) without details.

    Raises:
        ValueError: `depth` or output stride that smp does not have; an input of other than `in_channels` channels.

    Examples:
        >>> import torch
        >>> encoder = HaarEncoder(depth=3)
        >>> encoder.set_in_channels(1)
        >>> [tuple(feature.shape[1:]) for feature in encoder(torch.zeros(2, 1, 50, 37))]
        [(1, 50, 37), (4, 25, 19), (4, 13, 10), (4, 7, 5)]
    """

    def __init__(self, *, details: bool = True, depth: int = 5, output_stride: int = 32) -> None:
        super().__init__()
        if depth not in range(1, 6):
            raise ValueError(f"depth must be 1 to 5, got {depth!r}; for deeper pyramids use multiresnet.MultiResNet")
        self.details, self._depth, self._output_stride = details, depth, output_stride
        self.set_in_channels(3)

    def set_in_channels(self, in_channels: int, pretrained: bool = False) -> None:
        """Rebuild the levels for images of `in_channels` channels; there are no weights that could be kept."""
        self._in_channels = in_channels
        self.levels = nn.ModuleList(
            HaarLevel(in_channels, details=self.details, dilation=2**finer // self._output_stride)
            for finer in range(self._depth)
        )
        self._out_channels = [in_channels, *(level.out_channels for level in self.levels)]

    def make_dilated(self, output_stride: int) -> None:
        """Stop halving at `output_stride`, 8 or 16."""
        if output_stride not in (8, 16):
            raise ValueError(f"output stride must be 8, 16 or 32, got {output_stride!r}")
        self._output_stride = output_stride
        self.set_in_channels(self._in_channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        if not is_scripting():  # a level would drop channels that it does not know
            check_input(x, in_channels=self._in_channels, spatial_dims=2, dtype=None)
        features = [x]
        for level in self.levels:
            features.append(level(features[-1]))
        return features
