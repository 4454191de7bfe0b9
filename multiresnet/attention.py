"""Blocks that mix cells by content: self-attention, cross-attention to tokens, and the perceptron between them."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from multiresnet.context import Context, Emb
from multiresnet.layers import Activation, FiLM, Norm, make_activation, make_norm, zero_init
from multiresnet.spaces.base import Space


def _count_heads(channels: int) -> int:
    """The largest number of heads of at least 32 channels that divides the channels."""
    return max(n for n in range(1, max(channels // 32, 1) + 1) if channels % n == 0)


class SelfAttention(nn.Module):
    """`h + W_o softmax(q k^T / sqrt(c)) v` over all cells, heads of about 32 channels, W_o zero at the start.

    Memory and time are quadratic in the number of cells: meant for the coarse levels.
    """

    radius: int | None = None  # sees everything

    def __init__(self, space: Space, channels: int, norm: Norm, emb_channels: int) -> None:
        super().__init__()
        self.heads = _count_heads(channels)
        self.norm = make_norm(norm or "layer", channels, space.spatial_dims)  # logits need a bounded scale
        self.film = FiLM(channels, emb_channels)
        self.qkv = space.conv(channels, 3 * channels, 1)
        self.out = space.conv(channels, channels, 1)
        zero_init(self.out)

    def forward(self, h: Tensor, emb: Emb | None = None) -> Tensor:
        qkv = self.qkv(self.film(self.norm(h), emb)).flatten(2)  # (N, 3 C, cells)
        q, k, v = qkv.unflatten(1, (3, self.heads, -1)).transpose(3, 4).unbind(1)  # each (N, heads, cells, C / heads)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(2, 3)
        return h + cast(Tensor, self.out(mixed.reshape(h.shape)))


class CrossAttention(nn.Module):
    """`h + W_o softmax(q k^T / sqrt(c)) v`: q from every cell, k and v from the tokens of a `Context`, W_o zero at the start."""

    radius: int | None = 0  # the tokens have no place

    def __init__(self, space: Space, channels: int, norm: Norm, emb_channels: int) -> None:
        super().__init__()
        if not emb_channels:
            raise ValueError(
                'blocks of the kind "cross" attend to tokens of emb_channels numbers: give emb_channels > 0'
            )
        self.heads = _count_heads(channels)
        self.norm = make_norm(norm or "layer", channels, space.spatial_dims)
        self.query = space.conv(channels, channels, 1)
        self.key_value = nn.Linear(emb_channels, 2 * channels)
        self.out = space.conv(channels, channels, 1)
        zero_init(self.out)

    def forward(self, h: Tensor, emb: Emb | None = None) -> Tensor:
        if not isinstance(emb, Context):
            raise ValueError("cross-attention needs tokens: call model(x, Context(vector, tokens))")
        q = self.query(self.norm(h)).flatten(2).unflatten(1, (self.heads, -1)).transpose(2, 3)  # (N, heads, cells, c)
        kv = self.key_value(emb.tokens).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (2, N, heads, T, c)
        mask = None if emb.mask is None else emb.mask[:, None, None]
        mixed = F.scaled_dot_product_attention(q, kv[0], kv[1], attn_mask=mask).transpose(2, 3)
        return h + cast(Tensor, self.out(mixed.reshape(h.shape)))


class Perceptron(nn.Module):
    """`h + W2 act(FiLM(W1 norm(h)))` in every cell, four times as wide inside, W2 zero at the start."""

    radius: int | None = 0

    def __init__(self, space: Space, channels: int, norm: Norm, activation: Activation, emb_channels: int) -> None:
        super().__init__()
        self.norm = make_norm(norm or "layer", channels, space.spatial_dims)
        self.conv1 = space.conv(channels, 4 * channels, 1)
        self.film = FiLM(4 * channels, emb_channels)
        self.activation = make_activation(activation)
        self.conv2 = space.conv(4 * channels, channels, 1)
        zero_init(self.conv2)

    def forward(self, h: Tensor, emb: Emb | None = None) -> Tensor:
        r = self.activation(self.film(self.conv1(self.norm(h)), emb))
        return h + cast(Tensor, self.conv2(r))
