"""What a network is conditioned on: one vector, or a vector and a sequence of tokens to attend to."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor


class Context(NamedTuple):
    """A conditioning vector with a sequence of tokens, for networks that have blocks of the kind `"cross"`.

    Args:
        vector: (N, emb_channels), what scales and shifts every block.
        tokens: (N, T, emb_channels), T >= 1, what the cross-attention reads: an embedded text, a set of parameters.
        mask: (N, T) bool, true for the tokens that count, at least one in each sample; `None`: all.

    Examples:
        >>> import torch
        >>> from multiresnet import MultiResNet
        >>> net = MultiResNet(1, 1, channels=(16, 16), num_blocks=1, block=("residual", "cross"), emb_channels=8)
        >>> net(torch.randn(2, 1, 20, 20), Context(torch.randn(2, 8), torch.randn(2, 5, 8))).shape
        torch.Size([2, 1, 20, 20])
    """

    vector: Tensor
    tokens: Tensor
    mask: Tensor | None = None


Emb: TypeAlias = Tensor | Context


def check_emb(emb: Emb | None, *, emb_channels: int, batch: int, tokens: bool) -> None:
    """Raise `ValueError` unless `emb` is what the network was built for: nothing, a vector, or (`tokens`) a `Context`."""
    if emb is None and emb_channels:
        raise ValueError(
            f"the model was built with emb_channels={emb_channels}: call model(x, emb), emb of shape (N, {emb_channels})"
        )
    if emb is None:
        return
    if not emb_channels:
        raise ValueError(
            "got emb, but the model was built without conditioning; build it with emb_channels=emb.shape[1]"
        )
    if isinstance(emb, Context) != tokens:
        wanted = "a Context(vector, tokens)" if tokens else "a tensor: it has no cross-attention to read tokens with"
        raise ValueError(f"the model takes as emb {wanted}; got a {type(emb).__name__}")
    vector = emb.vector if isinstance(emb, Context) else emb
    if vector.ndim != 2 or vector.shape[1] != emb_channels or vector.shape[0] != batch:
        raise ValueError(
            f"expected emb of shape (N, emb_channels) = ({batch}, {emb_channels}), got {tuple(vector.shape)}"
        )
    if not isinstance(emb, Context):
        return
    shape = tuple(emb.tokens.shape)
    if emb.tokens.ndim != 3 or shape[0] != batch or shape[2] != emb_channels or not shape[1]:
        raise ValueError(
            f"expected tokens of shape (N, T, emb_channels) = ({batch}, >= 1, {emb_channels}), got {shape}"
        )
    if emb.mask is not None and (emb.mask.dtype != torch.bool or tuple(emb.mask.shape) != shape[:2]):
        raise ValueError(
            f"expected a mask of booleans of shape {shape[:2]}, got {emb.mask.dtype}, shape {tuple(emb.mask.shape)}"
        )
