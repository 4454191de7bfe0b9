"""What the models share when they are wrapped: for features alone, and for torch.jit.script."""

from __future__ import annotations

from typing import Any, cast

import torch
from timm.models._features import FeatureGetterNet  # exported nowhere else
from torch import nn

from multiresnet.integrations.scripted import Scripted


class Features(FeatureGetterNet):
    """timm's `feature_cls="getter"`, which prunes what the features do not need, with torch.jit.script and checkpointing."""

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """As in the model."""
        cast(Any, self.model).set_grad_checkpointing(enable)

    def __prepare_scriptable__(self) -> Scripted:
        return scripted(self, cast(Any, self.model).in_chans)


def scripted(module: nn.Module, in_chans: int) -> Scripted:
    """What torch.jit.script makes of `module`, on the device and in the type of its parameters."""
    example = next(module.parameters(), torch.zeros(())).new_zeros(2, in_chans, 65, 99)
    return Scripted(module, example)
