"""`torch.jit.script` for networks whose Python it cannot read: the trace, which serves every size."""

# mypy: disable-error-code="no-untyped-def"
# `forward` has no return type because the compiler knows what the trace returns; in a function it would read "type:" itself.
from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn


class Scripted(nn.Module):
    """What an adapter returns from `__prepare_scriptable__`: its trace in evaluation mode, with the same parameters.

    Sizes are recorded as sizes, so the trace serves any batch and spatial size; dtype and device are those that the parameters
    have at the moment.

    Args:
        model: a module with `forward(x)`.
        in_channels: channels of x.
        spatial_dims: 1, 2 or 3.
    """

    def __init__(self, model: nn.Module, in_channels: int, spatial_dims: int = 2) -> None:
        super().__init__()
        like = next(model.parameters(), torch.zeros(()))
        example = like.new_zeros(2, in_channels, *(33, 35, 37)[:spatial_dims])  # odd, and different on every axis
        training = model.training
        model.eval()
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # torch.jit is deprecated; whoever calls it was told
            self.traced = torch.jit.trace(model, example, check_trace=False)
        model.train(training)

    def forward(self, x: Tensor):
        return self.traced(x)
