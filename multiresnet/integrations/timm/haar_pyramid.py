"""The Haar pyramid as a model of timm."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from multiresnet.checks import explain_typos
from multiresnet.integrations.haar_level import HaarLevel
from multiresnet.integrations.timm.backbone import Backbone


class HaarPyramid(Backbone):
    """Five levels of the Haar transform, chained; without its classifier it has no parameter.

    Args:
        in_chans: channels of the image.
        num_classes: labels of the linear classifier on the coarsest level; 0 for none.
        global_pool: pooling before it, as in timm.
        drop_rate: dropout before it.
        output_stride: 8, 16 or 32, the reduction at which halving stops; later levels combine samples that are as far apart as
            those of the coarser grids would be (the undecimated, or a trous, transform).
        details: whether the maps hold the details beside the average.
        device: of the classifier.
        dtype: of the classifier.

    Shape:
        (N, in_chans, H, W) -> (N, num_classes); map i is (N, in_chans * 4, ceil(H / r), ceil(W / r)), r = 2**(i + 1), or
        (N, in_chans, ...) without details.

    Raises:
        ValueError: an output stride that timm does not have; an input of other than `in_chans` channels.

    Examples:
        >>> net = HaarPyramid(1, num_classes=10)
        >>> net(torch.zeros(2, 1, 50, 37)).shape
        torch.Size([2, 10])
        >>> [tuple(y.shape[1:]) for y in net.forward_intermediates(torch.zeros(2, 1, 50, 37), 3, intermediates_only=True)]
        [(4, 7, 5), (4, 4, 3), (4, 2, 2)]
    """

    @explain_typos
    def __init__(
        self,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        output_stride: int = 32,
        details: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride must be 8, 16 or 32, got {output_stride!r}")
        levels = [HaarLevel(in_chans, details=details, dilation=2**i // output_stride) for i in range(5)]
        width = levels[0].out_channels
        super().__init__(
            {f"level{i}": level for i, level in enumerate(levels)},
            [
                {"num_chs": width, "reduction": min(2 ** (i + 1), output_stride), "module": f"level{i}"}
                for i in range(5)
            ],
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool=global_pool,
            drop_rate=drop_rate,
            device=device,
            dtype=dtype,
        )

    def maps(self, x: Tensor, kept: range) -> Sequence[Tensor]:
        maps = []
        for i in range(kept.stop):
            x = self.get_submodule(f"level{i}")(x)
            maps.append(x)
        return maps[kept.start :]
