"""A whole Multi-ResNet as a backbone of timm: the features are the states of its last sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

import multiresnet
from multiresnet.assembly import Blocks
from multiresnet.checks import explain_typos
from multiresnet.integrations.timm.backbone import Backbone
from multiresnet.integrations.timm.body import Body, Coarser
from multiresnet.layers import NormName
from multiresnet.unet import Sweep


class MultiResNet(Backbone):
    """`multiresnet.MultiResNet` without its heads, for features or labels.

    The features are the states of the last sweep, fine to coarse; each has seen all coarser ones. For labels they are pooled
    from fine to coarse as between two sweeps of the core, then normalised.

    Args:
        in_chans: channels of the image.
        num_classes: labels; 0 leaves the pooled features.
        global_pool: as in timm.
        drop_rate: dropout before the classifier.
        channels: width of each level, fine to coarse.
        num_blocks: as in the core.
        sweeps: as in the core.
        norm: as in the core.
        device: of the parameters.
        dtype: of the parameters.

    Shape:
        (N, in_chans, H, W) -> (N, num_classes); map i is (N, channels[i], ceil(H / r), ceil(W / r)), r = 2**(i + 1).

    Raises:
        ValueError: as in the core, for layouts that do not fit together and for inputs.

    Examples:
        >>> net = MultiResNet(1, num_classes=10, channels=(8, 16, 16), num_blocks=1)
        >>> net(torch.zeros(2, 1, 50, 37)).shape
        torch.Size([2, 10])
        >>> [tuple(y.shape[1:]) for y in net.forward_intermediates(torch.zeros(2, 1, 50, 37), intermediates_only=True)]
        [(8, 25, 19), (16, 13, 10), (16, 7, 5)]
    """

    body: Body

    @explain_typos
    def __init__(
        self,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        channels: Sequence[int] = (32, 48, 64, 96),
        num_blocks: int | Blocks = 1,
        sweeps: int = 2,
        norm: NormName | None = "group",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        net = multiresnet.MultiResNet(
            in_chans, 1, channels=channels, num_blocks=num_blocks, sweeps=sweeps, norm=norm, patch_levels=1
        )
        body, names = Body(net, channels, norm), [f"level{i}" for i in range(len(channels))]
        super().__init__(
            {"body": body, **{name: Coarser(min(i, 1)) for i, name in enumerate(names)}},
            [{"num_chs": width, "reduction": 2 ** (i + 1), "module": names[i]} for i, width in enumerate(channels)],
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool=global_pool,
            drop_rate=drop_rate,
            device=device,
            dtype=dtype,
        )

    def maps(self, x: Tensor, kept: range) -> Sequence[Tensor]:
        return self.body.states(x, kept.start)[: len(kept)]

    def pool(self, maps: Sequence[Tensor]) -> Tensor:
        return [*maps, *self.body.pool(maps)][-1]

    def forward_features(self, x: Tensor) -> Tensor:
        self.check(x)
        pair = self.body(x)
        for i in range(len(self.kept)):  # for the wrappers that look here for the features
            pair = self.get_submodule(f"level{i}")(pair)
        return cast(Tensor, pair[1][-1])

    def prune(self) -> None:
        self.body.prune(self.kept)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the inside of each level again in the backward pass: less memory, more time."""
        for sweep in self.body.sweeps:
            cast(Sweep, sweep).checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, object]:
        """Groups of parameters in the order in which they act, for rates that fall from layer to layer: sweeps, or their levels."""
        level = r"" if coarse else r"\.levels\.(\d+)"
        after = None if coarse else (99999,)  # timm's mark for "with what comes before"
        return {"blocks": [(rf"^body\.sweeps\.(\d+){level}", None), (r"^body\.restricts\.(\d+)", after)]}
