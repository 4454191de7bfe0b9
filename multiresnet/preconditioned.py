"""Correct a given predictor by a network: U = R_pre + R (paper A, definition 2)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from multiresnet.blocks import Head
from multiresnet.layers import zero_init
from multiresnet.unet import UNet


class Preconditioned(nn.Module):
    """`U(v) = R_pre(v) + R([v, R_pre(v)])`, equal to `R_pre` before training because R ends with zero.

    Args:
        base: R_pre, any module or function with an output on the grid of its input: a solver, a persistence forecast, a coarse
            model. It is trained along if it has parameters that require gradients.
        residual: R, with `in_channels` = channels of v + channels of R_pre(v). Its heads are set to zero here.

    Shape:
        (N, C, *spatial) -> (N, residual.out_channels, *spatial).

    Raises:
        ValueError: the channels of the base's output don't fit the residual.

    Examples:
        >>> from multiresnet import MultiResNet
        >>> persistence = nn.Identity()
        >>> net = Preconditioned(persistence, MultiResNet(2, 1, channels=(16, 16), num_blocks=1))
        >>> x = torch.randn(1, 1, 9, 9)
        >>> torch.equal(net(x), x)
        True
    """

    def __init__(self, base: nn.Module, residual: UNet) -> None:
        super().__init__()
        if residual.delta:
            raise ValueError("the residual must be built with delta=False: what it corrects is the base")
        self.base, self.residual = base, residual
        for module in residual.modules():
            if isinstance(module, Head):
                zero_init(module.conv)

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        """(N, C, *spatial) -> (N, out_channels, *spatial)."""
        prediction = cast(Tensor, self.base(x))
        out_channels, in_channels = self.residual.out_channels, self.residual.in_channels
        if prediction.shape[1] != out_channels or x.shape[1] + out_channels != in_channels:
            raise ValueError(
                f"the base maps {x.shape[1]} channels to {prediction.shape[1]}; the residual must then be built with "
                f"in_channels={x.shape[1] + prediction.shape[1]} and out_channels={prediction.shape[1]}, "
                f"not {in_channels} and {out_channels}"
            )
        return prediction + cast(Tensor, self.residual(torch.cat([x, prediction], 1), emb))
