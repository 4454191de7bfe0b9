"""`torch.jit.script` for networks whose Python it cannot read: the trace, which serves every size."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn


class Scripted(nn.Module):
    """What an adapter returns from `__prepare_scriptable__`: its trace in evaluation mode, with the same parameters.

    Sizes are recorded as sizes, so the trace serves any batch and spatial size; dtype and device are those of the moment.

    Args:
        model: a module with `forward(x)`.
        example: an input of it.
    """

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        super().__init__()
        training = model.training
        model.eval()
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # torch.jit is deprecated; whoever calls it was told
            self.traced = torch.jit.trace(model, example, check_trace=False)
        model.train(training)

    def forward(self, x: Tensor):  # type: ignore[no-untyped-def]  # the compiler knows what the trace returns
        return self.traced(x)
