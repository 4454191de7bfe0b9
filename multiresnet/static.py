"""Fields that a network sees beside every input and that never change: coordinates, topography, a mask."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn


class StaticFields(nn.Module):
    """`model([fields, x])`: any network on inputs with the same fields before their channels.

    A convolution does not know where it is. Where that matters, as in a flow that is fixed in space, give it coordinates.

    Args:
        model: takes `channels of the fields + channels of x` channels. With `delta=True` it adds the last ones, those of x.
        fields: (C, *spatial), kept with the weights; about as large as the (standardised) data.

    Shape:
        (N, in_channels, *spatial) on the grid of the fields -> what the model returns.

    Examples:
        >>> from multiresnet import MultiResNet
        >>> across = torch.linspace(-1, 1, 16).expand(1, 16, 16)
        >>> net = StaticFields(MultiResNet(2, 1, channels=(16, 16), num_blocks=1), across)
        >>> net.in_channels, net(torch.randn(3, 1, 16, 16)).shape
        (1, torch.Size([3, 1, 16, 16]))
    """

    fields: Tensor

    def __init__(self, model: nn.Module, fields: Tensor) -> None:
        super().__init__()
        if fields.ndim < 2 or not fields.is_floating_point():
            raise ValueError(f"fields are (C, *spatial), floating point; got {fields.dtype} {tuple(fields.shape)}")
        taken = getattr(model, "in_channels", None)
        if taken is not None and taken <= len(fields):
            raise ValueError(f"{len(fields)} fields leave none of the model's in_channels={taken} for the input")
        self.model = model
        self.in_channels = None if taken is None else taken - len(fields)
        self.delta, self.anchored = (bool(getattr(model, name, False)) for name in ("delta", "anchored"))
        self.register_buffer("fields", fields)

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        """(N, in_channels, *spatial) -> the output of the model."""
        if x.shape[2:] != self.fields.shape[1:]:
            raise ValueError(f"the fields are on {tuple(self.fields.shape[1:])}, the input on {tuple(x.shape[2:])}")
        fields = self.fields.to(x).expand(len(x), *self.fields.shape)
        return cast(Tensor, self.model(torch.cat([fields, x], 1), *rest))
