"""What a level computes, against the formulas written out."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from multiresnet import Context, Level, MultiResNet, haar_synthesis
from multiresnet.attention import CrossAttention, Perceptron, SelfAttention
from multiresnet.blocks import AddMerge, ConcatMerge, Head, ResidualBlock
from multiresnet.layers import FiLM, make_activation, make_norm
from multiresnet.spaces import Haar
from multiresnet.testing import randomise


def film(module, h, emb):
    scale, shift = (module.linear.weight @ emb.T + module.linear.bias[:, None]).T.chunk(2, 1)
    return h * (1 + scale[..., None, None]) + shift[..., None, None]


@pytest.mark.parametrize(("channels", "masked"), [(16, False), (64, True), (96, True)])
def test_cross_attention_is_the_explicit_softmax(channels, masked, tolerance):
    block = randomise(CrossAttention(Haar(2), channels, "group", 6).double(), 0.3)
    h, tokens = torch.randn(2, channels, 3, 5, dtype=torch.float64), torch.randn(2, 4, 6, dtype=torch.float64)
    mask = torch.tensor([[True, True, False, True], [True, False, False, False]]) if masked else None
    heads = max(channels // 32, 1)
    normed = F.group_norm(h, 4, block.norm.weight, block.norm.bias)
    q = torch.einsum("oc,nchw->nohw", block.query.conv.weight[..., 0, 0], normed) + block.query.conv.bias[:, None, None]
    k, v = (tokens @ block.key_value.weight.T + block.key_value.bias).mT.chunk(2, 1)  # (N, C, T)
    q, k, v = (part.reshape(2, heads, channels // heads, -1) for part in (q, k, v))
    logits = torch.einsum("nhci,nhct->nhit", q, k) / math.sqrt(channels // heads)
    if masked:
        logits = logits.masked_fill(~mask[:, None, None], -math.inf)
    mixed = torch.einsum("nhit,nhct->nhci", logits.softmax(-1), v).reshape(h.shape)
    out = torch.einsum("oc,nchw->nohw", block.out.conv.weight[..., 0, 0], mixed) + block.out.conv.bias[:, None, None]
    torch.testing.assert_close(
        block(h, Context(torch.zeros(2, 6), tokens, mask)), h + out, atol=tolerance(h.dtype), rtol=0
    )


def test_a_network_attends_to_the_tokens_that_count():
    net = randomise(
        MultiResNet(1, 1, channels=(4, 4, 6), num_blocks=1, block=("residual", "cross", "cross"), emb_channels=6), 0.3
    )
    x, vector, tokens = torch.randn(2, 1, 21, 18), torch.randn(2, 6), torch.randn(2, 3, 6, requires_grad=True)
    mask = torch.tensor([[True, False, True], [True, True, True]])
    y = net(x, Context(vector, tokens, mask))
    (gradient,) = torch.autograd.grad(y.square().sum(), tokens)
    assert gradient[0, 1].abs().max() == 0 < gradient[0, 0].abs().min()
    torch.testing.assert_close(y[:1], net(x[:1], Context(vector[:1], tokens[:1, ::2])))  # as if it were not there
    net.set_grad_checkpointing()
    (recomputed,) = torch.autograd.grad(net(x, Context(vector, tokens, mask)).square().sum(), tokens)
    torch.testing.assert_close(recomputed, gradient)


@pytest.mark.parametrize("channels", [16, 64, 96, 40])
def test_self_attention_is_the_explicit_softmax(channels, tolerance):
    """Weights sum to one over the keys; written out with einsum."""
    block = randomise(SelfAttention(Haar(2), channels, "group", 3).double(), 0.3)
    h, emb = torch.randn(2, channels, 3, 5, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    heads = max(n for n in range(1, max(channels // 32, 1) + 1) if channels % n == 0)
    normed = film(block.film, F.group_norm(h, 4, block.norm.weight, block.norm.bias), emb)
    qkv = torch.einsum("oc,nchw->nohw", block.qkv.conv.weight[..., 0, 0], normed) + block.qkv.conv.bias[:, None, None]
    q, k, v = (part.reshape(2, heads, channels // heads, 15) for part in qkv.chunk(3, 1))
    weights = torch.einsum("nhci,nhcj->nhij", q, k).div(math.sqrt(channels // heads)).softmax(-1)
    mixed = torch.einsum("nhij,nhcj->nhci", weights, v).reshape(2, channels, 3, 5)
    out = torch.einsum("oc,nchw->nohw", block.out.conv.weight[..., 0, 0], mixed) + block.out.conv.bias[:, None, None]
    assert (block(h, emb) - h - out).abs().max() <= tolerance(h.dtype)


def test_residual_block_and_perceptron_are_their_formulas(tolerance):
    space, h, emb = Haar(2, "zeros"), torch.randn(2, 8, 5, 4).double(), torch.randn(2, 3).double()
    block = randomise(ResidualBlock(space, 8, "layer", nn.SiLU, 3).double(), 0.3)
    w1, w2 = block.conv1.conv, block.conv2.conv
    r = F.conv2d(F.silu(F.group_norm(h, 1, block.norm1.weight, block.norm1.bias)), w1.weight, w1.bias, padding=1)
    r = film(block.film, F.group_norm(r, 1, block.norm2.weight, block.norm2.bias), emb)
    expected = h + F.conv2d(F.silu(r), w2.weight, w2.bias, padding=1)
    assert (block(h, emb) - expected).abs().max() <= tolerance(h.dtype)

    block = randomise(Perceptron(space, 8, None, nn.GELU, 3).double(), 0.3)
    inner = film(block.film, block.conv1.conv(F.group_norm(h, 1, block.norm.weight, block.norm.bias)), emb)
    assert inner.shape[1] == 32
    assert (block(h, emb) - h - block.conv2.conv(F.gelu(inner))).abs().max() <= tolerance(h.dtype)


@pytest.mark.parametrize("block", ["residual", "attention", "transformer"])
def test_blocks_start_as_the_identity(block):
    h = torch.randn(2, 8, 5, 4)
    for module in Level(8, 2, block).build(Haar(2), None, nn.GELU, 0):
        assert torch.equal(module(h), h)


@pytest.mark.parametrize("size", [(8, 12), (7, 10)])
def test_a_head_predicts_haar_coefficients(size, tolerance):
    head = Head(Haar(2), 1, 4, 2, patch_levels=1, activation=nn.Identity).double()
    h = torch.randn(1, 4, *((n + 1) // 2 for n in size), dtype=torch.float64)
    y = head.conv(h)
    expected = haar_synthesis(y[:, :2], y[:, 2:], size)
    assert (head(h, [h.shape[2:], size]) - expected).abs().max() <= tolerance(h.dtype)


@pytest.mark.parametrize(
    ("norm", "reference"),
    [
        ("group", nn.GroupNorm(4, 12)),
        ("layer", nn.GroupNorm(1, 12)),
        ("instance", nn.InstanceNorm2d(12)),
        ("batch", nn.BatchNorm2d(12)),
        (lambda channels: nn.GroupNorm(3, channels), nn.GroupNorm(3, 12)),
        (None, nn.Identity()),
    ],
)
def test_norms(norm, reference):
    x = torch.randn(3, 12, 5, 4)
    torch.testing.assert_close(make_norm(norm, 12, 2)(x), reference(x))


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 7, 10, 64])
def test_groups_divide_every_width_and_a_single_value_is_no_error(channels):
    norm = make_norm("group", channels, 1)
    assert channels % norm.num_groups == 0 and norm.num_groups <= 4
    for name in ("group", "layer", "instance"):
        y = make_norm(name, channels, 1)(torch.randn(1, channels, 1))
        assert y.isfinite().all()


@pytest.mark.parametrize("activation", [nn.SiLU, "SiLU", F.silu, nn.SiLU()])
def test_activations_are_named_in_many_ways(activation):
    x = torch.randn(5)
    assert torch.equal(make_activation(activation)(x), F.silu(x))


def test_film_without_conditioning_is_the_identity():
    h = torch.randn(2, 4, 3)
    assert FiLM(4, 0)(h, None) is h
    assert list(FiLM(4, 0).parameters()) == []


@pytest.mark.parametrize("size", [(8, 6), (7, 5)])
def test_merges_are_their_formulas(size, tolerance):
    space = Haar(2)
    skip, w = torch.randn(1, 3, *size).double(), torch.randn(1, 5, *((n + 1) // 2 for n in size)).double()
    widths = {"coarse_channels": 5, "skip_channels": 3, "channels": 4}

    def up(x):
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)[..., : size[0], : size[1]]

    merge = AddMerge(space, 0, **widths, lift=True).double()
    lift, coarse = merge.lift.conv, merge.coarse.conv
    expected = F.conv2d(skip, lift.weight, lift.bias, padding=1) + up(F.conv2d(w, coarse.weight, coarse.bias))
    assert (merge(w, skip) - expected).abs().max() <= tolerance(w.dtype)

    merge = ConcatMerge(space, 0, **widths, lift=True).double()
    expected = F.conv2d(torch.cat([skip, up(w)], 1), merge.conv.conv.weight, merge.conv.conv.bias, padding=1)
    assert (merge(w, skip) - expected).abs().max() <= tolerance(w.dtype)

    widths = {"coarse_channels": None, "skip_channels": 3, "channels": 3}
    assert torch.equal(AddMerge(space, 0, **widths, lift=False).double()(None, skip), skip)
