"""The wrapper of timm for the features of a model without its classifier."""

from __future__ import annotations

from typing import Any, cast

from timm.models._features import FeatureGetterNet  # exported nowhere else

from multiresnet.integrations.scripted import Scripted


class Features(FeatureGetterNet):
    """timm's `feature_cls="getter"`, which prunes what the features do not need, with torch.jit.script and checkpointing."""

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """As in the model."""
        cast(Any, self.model).set_grad_checkpointing(enable)

    def __prepare_scriptable__(self) -> Scripted:
        return Scripted(self, cast(Any, self.model).in_chans)
