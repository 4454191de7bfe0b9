"""`QuadtreeCRF` against enumeration, and at sizes that are no multiple of its blocks."""

import itertools

import pytest
import torch
from torch import nn

from multiresnet.graphical import QuadtreeCRF
from multiresnet.testing import randomise


def test_marginals_are_exact(tolerance):
    """One tree of two levels in 1-D: 1 + 2 + 4 nodes of three states."""
    crf = randomise(QuadtreeCRF(3, levels=2, spatial_dims=1).double())
    logits = torch.randn(1, 3, 4, dtype=torch.float64)
    top, low = crf.log_potentials
    wanted = torch.zeros(3, 4, dtype=torch.float64)
    for states in itertools.product(range(3), repeat=7):
        root, middle, leaves = states[0], states[1:3], states[3:]
        energy = crf.log_prior[root] + sum(top[i, root, s] for i, s in enumerate(middle))
        energy = energy + sum(low[k % 2, middle[k // 2], s] + crf.scale * logits[0, s, k] for k, s in enumerate(leaves))
        for k, s in enumerate(leaves):
            wanted[s, k] += energy.detach().exp()
    found = crf(logits)[0].exp()
    assert (found - wanted / wanted.sum(0)).abs().max() <= tolerance(torch.float64)


@pytest.mark.parametrize(("classes", "size"), [(3, (8, 8)), (2, (5, 11)), (4, (16,)), (3, (4, 6, 5))])
def test_without_ties_it_is_the_softmax(classes, size):
    crf = QuadtreeCRF(classes, levels=2, spatial_dims=len(size), stay=1 / classes)
    logits = torch.randn(2, classes, *size)
    assert torch.allclose(crf(logits), logits.log_softmax(1), atol=1e-5)


def test_binary_is_two_classes():
    logit = torch.randn(2, 1, 13, 9)
    one, two = QuadtreeCRF(1, levels=3), QuadtreeCRF(2, levels=3)
    pair = two(torch.cat([torch.zeros_like(logit), logit], 1))
    assert torch.allclose(one(logit), pair[:, 1:] - pair[:, :1], atol=1e-5)


def test_what_lies_beyond_the_edge_was_not_seen():
    crf = QuadtreeCRF(2, levels=2)
    logits = torch.randn(1, 2, 6, 7)
    padded = torch.zeros(1, 2, 8, 8)
    padded[..., :6, :7] = logits
    assert torch.equal(crf(logits), crf(padded)[..., :6, :7])


def test_it_fills_a_hole_and_removes_a_speck():
    logit = torch.full((1, 1, 16, 16), -2.0)
    logit[..., 4:12, 4:12] = 2.0
    clean = logit.clone()
    logit[..., 6, 7], logit[..., 2, 13] = -0.5, 0.5
    assert torch.equal(QuadtreeCRF(1, levels=2)(logit) > 0, clean > 0)


def test_it_learns_behind_a_frozen_network():
    torch.manual_seed(0)
    truth = torch.rand(8, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3).gt(0.5).float()
    logits = 2 * truth - 1 + 2 * torch.randn_like(truth)
    crf, loss = QuadtreeCRF(1, levels=3), nn.BCEWithLogitsLoss()
    optimiser = torch.optim.Adam(crf.parameters(), 0.05)
    before = loss(logits, truth)
    for _ in range(40):
        optimiser.zero_grad()
        loss(crf(logits), truth).backward()
        optimiser.step()
    assert loss(crf(logits), truth) < 0.5 * before
    assert all(p.grad.abs().max() > 0 for p in crf.parameters())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: QuadtreeCRF(0), "classes must be an integer >= 1"),
        (lambda: QuadtreeCRF(2, stay=1.0), "stay must be a probability between 0 and 1"),
        (lambda: QuadtreeCRF(2)(torch.zeros(1, 3, 8, 8)), "built for in_channels=2, got 3"),
        (lambda: QuadtreeCRF(2)(torch.zeros(2, 8, 8)), "add the batch dimension"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
