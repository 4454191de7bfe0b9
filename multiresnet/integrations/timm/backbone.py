"""What timm asks of every image model, for networks that return one map for each level.

Annotations are evaluated here: those of `forward` reach TorchScript through torch.fx, which would write them as a name.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from timm.layers.classifier import create_classifier
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from multiresnet.checks import check_input
from multiresnet.integrations.scripted import Scripted


class Backbone(nn.Module):
    """A classifier in timm's sense. What is left to say: `maps`, `pool`, and `forward_features`, made of them or equal to them.

    Args:
        stages: children by name, in order.
        feature_info: channels, reduction and module of each map, finest first.
        in_chans: channels of the image.
        num_classes: labels; 0 leaves the pooled features.
        global_pool: pooling before the classifier, as in timm.
        drop_rate: dropout before it.
        device: where the parameters go.
        dtype: type of the parameters.
    """

    def __init__(
        self,
        stages: Mapping[str, nn.Module],
        feature_info: list[dict[str, Any]],
        *,
        in_chans: int,
        num_classes: int,
        global_pool: str,
        drop_rate: float,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        for name, stage in stages.items():
            self.add_module(name, stage)
        self.feature_info, self.in_chans = feature_info, in_chans
        self.kept = range(len(feature_info))
        self.factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.to(**self.factory)
        self.drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes, global_pool)

    def maps(self, x: Tensor, kept: range) -> Sequence[Tensor]:
        """The maps number `kept`, finest first."""
        raise NotImplementedError

    def pool(self, maps: Sequence[Tensor]) -> Tensor:
        """What is pooled for the classifier: the coarsest map, unless a class knows better."""
        return maps[-1]

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, in_chans, H, W) -> (N, num_features, H', W')."""
        self.check(x)
        return self.pool(self.maps(x, self.kept))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(N, num_features, H', W') -> (N, num_classes), or what the classifier reads."""
        x = self.drop(self.global_pool(x))
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The maps `indices`, and before them what `forward_features` returns.

        Args:
            x: the image.
            indices: numbers of maps, finest first; an integer for that many of the coarsest ones, `None` for all.
            norm: no effect, there is no norm at the end.
            stop_early: compute no level that `indices` do not need; the features are then the coarsest of these maps.
            output_fmt: `"NCHW"`.
            intermediates_only: return the maps alone.

        Raises:
            ValueError: another format, or a map that was pruned.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt must be 'NCHW', got {output_fmt!r}")
        take = self.numbers(indices)
        self.check(x)
        alone = stop_early or intermediates_only
        kept = range(min(take), max(take) + 1) if alone else self.kept
        maps = self.maps(x, kept)
        chosen = [maps[i - kept.start] for i in take]
        if intermediates_only:
            return chosen
        return (maps[-1] if alone else self.pool(maps)), chosen

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop what only other maps than `indices` need; returns them as numbers >= 0."""
        take = self.numbers(indices)
        if prune_head or max(take) < self.kept[-1]:  # the classifier reads the last map of all
            self.kept = range(min(take), max(take) + 1)
            self.reset_classifier(0, "")
            self.prune()
        return take

    def prune(self) -> None:
        """Drop what neither the maps `kept` nor a classifier of the last of them needs."""

    def numbers(self, indices: int | Sequence[int] | None) -> list[int]:
        """`indices` as timm reads them, as numbers >= 0 of maps that are there."""
        take = feature_take_indices(len(self.feature_info), cast(Any, indices))[0]
        if not set(take) <= set(self.kept):
            raise ValueError(f"indices={indices} are not all among the features {list(self.kept)} that pruning left")
        return take

    @property
    def num_features(self) -> int:
        """Channels of `forward_features`."""
        return cast(int, self.feature_info[self.kept[-1]]["num_chs"])

    @property
    def head_hidden_size(self) -> int:
        """What the classifier reads."""
        return self.num_features * cast(int, self.global_pool.feat_mult())

    def get_classifier(self) -> nn.Module:
        """The last layer, `nn.Identity` without classes."""
        return cast(nn.Module, self.fc)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer; `global_pool=None` keeps the pooling."""
        parameter = next(self.parameters(), None)
        if parameter is not None:  # a pyramid without classifier has none to tell the device: remember the last
            self.factory = {"device": parameter.device, "dtype": parameter.dtype}
        pool_type = self.global_pool.pool_type if global_pool is None else global_pool
        self.num_classes = num_classes
        self.global_pool: Any
        self.global_pool, self.fc = create_classifier(self.num_features, num_classes, pool_type=pool_type)
        for new in (self.global_pool, self.fc):
            new.to(**self.factory).train(self.training)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute activations again in the backward pass."""
        assert not enable, "gradient checkpointing not supported"  # timm's own words

    def no_weight_decay(self) -> set[str]:
        """Nothing; timm leaves out biases and norms anyway."""
        return set()

    def check(self, x: Tensor) -> None:
        """Raise unless `x` is an image of the model's channels and type."""
        parameter = next(self.parameters(), None)
        check_input(x, in_channels=self.in_chans, spatial_dims=2, dtype=None if parameter is None else parameter.dtype)

    def __prepare_scriptable__(self) -> Scripted:
        return Scripted(self, self.in_chans)
