"""`GenerativeHierarchicalModel` against enumeration of all states of the tree."""

import itertools
import math

import pytest
import torch

import multiresnet as mrn
from multiresnet.graphical import BeliefPropagationUNet, GenerativeHierarchicalModel
from multiresnet.graphical.messages import log_matmul
from multiresnet.graphical.tree_order import from_tree, to_tree


@pytest.fixture
def tree():
    """Seven nodes of three states, potentials not normalised."""
    torch.manual_seed(0)
    potentials = [torch.randn(2, 3, 3, dtype=torch.float64) for _ in range(2)]
    return GenerativeHierarchicalModel(
        torch.randn(3, dtype=torch.float64), potentials, torch.tensor([-1.0, 0.0, 1.0]).double()
    )


def enumerated(tree, seen=None):
    """Joint probabilities (states of root, 2 middle nodes, 4 leaves), with the evidence of the leaves (4, 3)."""
    prior, (top, low) = tree.log_prior, tree.log_potentials
    joint = torch.zeros((3,) * 7, dtype=torch.float64)
    for states in itertools.product(range(3), repeat=7):
        root, middle, leaves = states[0], states[1:3], states[3:]
        value = prior[root] + sum(top[i, root, s] for i, s in enumerate(middle))
        value = value + sum(low[k % 2, middle[k // 2], s] for k, s in enumerate(leaves))
        if seen is not None:
            value = value + sum(seen[k, s] for k, s in enumerate(leaves))
        joint[states] = value.exp()
    return joint


def marginal(joint, node):
    return joint.sum([axis for axis in range(7) if axis != node]) / joint.sum()


def test_everything_against_enumeration(tree):
    z = torch.randn(2, 4, dtype=torch.float64)
    seen = tree.seen_noisy(z, scale=0.7, noise=0.6)
    density = torch.distributions.Normal(0.7 * tree.values, 0.6).log_prob(z.unsqueeze(-1))
    assert torch.allclose(seen, density, rtol=0, atol=1e-14)
    found, partition = tree.posterior(seen), enumerated(tree).sum()
    assert abs(tree.directed()[2] - partition.log()) < 1e-14
    for i in range(2):
        joint = enumerated(tree, seen[i])
        assert abs(found.log_evidence[i] - (joint.sum() / partition).log()) < 1e-13
        assert (found.label[i].exp() - marginal(joint, 0)).abs().max() < 1e-14
        for leaf in range(4):
            assert (found.leaves[i, leaf].exp() - marginal(joint, 3 + leaf)).abs().max() < 1e-14
    mean = found.leaves.exp() @ tree.values
    assert torch.equal(tree.denoise(z, scale=0.7, noise=0.6), mean)
    assert torch.allclose(tree.log_evidence(seen), found.log_evidence)


def test_score_is_the_gradient_of_the_evidence(tree):
    z = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    noise = torch.tensor([0.4, 0.6, 1.0], dtype=torch.float64)
    [gradient] = torch.autograd.grad(tree.log_evidence(tree.seen_noisy(z, scale=0.7, noise=noise)).sum(), z)
    assert (gradient - tree.score(z, scale=0.7, noise=noise)).abs().max() < 1e-13


def test_gradients_of_potentials_are_expected_counts(tree):
    seen = tree.seen_noisy(torch.randn(1, 4, dtype=torch.float64), noise=0.6)
    tree.requires_grad_()
    [top, low] = torch.autograd.grad(tree.posterior(seen).log_evidence.sum(), list(tree.log_potentials))
    given, prior = enumerated(tree, seen[0]), enumerated(tree)
    for rank in range(2):
        pairs = [j.sum([a for a in range(7) if a not in (0, 1 + rank)]) / j.sum() for j in (given, prior)]
        assert (top[rank] - (pairs[0] - pairs[1])).abs().max() < 1e-14
        pairs = [
            sum(j.sum([a for a in range(7) if a not in (1 + m, 3 + 2 * m + rank)]) / j.sum() for m in range(2))
            for j in (given, prior)
        ]
        assert (low[rank] - (pairs[0] - pairs[1])).abs().max() < 1e-14


def test_missing_leaves_are_filled_in_exactly(tree):
    z = torch.tensor([[0.3, math.nan, -0.8, math.nan]], dtype=torch.float64)
    seen = tree.seen_noisy(z, noise=0.5)
    seen[0, [1, 3]] = 0
    joint = enumerated(tree, seen[0])
    mean = torch.stack([marginal(joint, 3 + k) @ tree.values for k in range(4)])
    assert (tree.denoise(z, noise=0.5)[0] - mean).abs().max() < 1e-14


def test_classification_of_known_leaves(tree):
    states = torch.tensor([[0, 2, 1, 1], [2, 2, -1, 0]])
    joint = enumerated(tree)
    first = joint[:, :, :, 0, 2, 1, 1].sum((1, 2))
    second = joint[:, :, :, 2, 2, :, 0].sum((1, 2, 3))
    wanted = torch.stack([first / first.sum(), second / second.sum()])
    assert (tree.classify(states).exp() - wanted).abs().max() < 1e-14
    found = tree.posterior(tree.seen_states(states))
    assert not found.leaves.isnan().any() and found.leaves[0, 1].argmax() == 2


def test_samples_have_the_frequencies_of_the_model(tree):
    label, states = tree.sample(200_000, generator=torch.Generator().manual_seed(0))
    joint = enumerated(tree)
    joint = joint.sum((1, 2)) / joint.sum()
    frequency = torch.zeros_like(joint)
    frequency.index_put_((label, *states.T), torch.tensor(1 / len(label), dtype=torch.float64), accumulate=True)
    deviation = (joint / len(label)).sqrt()
    assert ((frequency - joint) / deviation).abs().max() < 4.5  # of 243 cells


def test_potentials_that_forbid(tree):
    """A state that no child can have: term by term, and no NaN."""
    tree.log_potentials[1][:, :, 2] = -math.inf
    tree.log_potentials[0][0, 1] = torch.tensor([-math.inf, 0.0, -200.0])
    seen = tree.seen_noisy(torch.randn(1, 4, dtype=torch.float64), noise=0.3)
    joint = enumerated(tree, seen[0])
    found = tree.posterior(seen)
    for leaf in range(4):
        assert (found.leaves[0, leaf].exp() - marginal(joint, 3 + leaf)).abs().max() < 1e-14
    assert found.leaves.exp()[..., 2].max() == 0


def test_log_matmul_is_the_same_both_ways():
    x, weight = 30 * torch.randn(5, 7, 4, 8), torch.randn(4, 6, 8)
    direct = torch.logsumexp(weight.double() + x.double().unsqueeze(-2), -1)
    assert (log_matmul(weight, x) - direct).abs().max() < 1e-4 and (log_matmul(40 * weight, x) - direct).abs().max() > 1
    steep = torch.logsumexp(40 * weight.double() + x.double().unsqueeze(-2), -1)
    assert (log_matmul(40 * weight, x) - steep).abs().max() < 1e-3


def test_em_never_loses_and_finds_the_transitions(tree):
    _, states = tree.sample(3000, generator=torch.Generator().manual_seed(0))
    seen = tree.seen_states(states)
    torch.manual_seed(1)
    start = [torch.randn_like(p) for p in tree.log_potentials]
    learner = GenerativeHierarchicalModel(torch.zeros(3, dtype=torch.float64), start, tree.values)
    evidence = [learner.em_step(seen) for _ in range(60)]
    assert all(after >= before - 1e-12 for before, after in itertools.pairwise(evidence))
    assert evidence[-1] > evidence[0] + 0.1
    # As likely as under the truth: by less than half of its 36 parameters per sample more
    assert abs(evidence[-1] - float(tree.log_evidence(seen).mean())) < 36 / len(states)


@pytest.mark.parametrize("factors", [((2, 2), (2, 2), (2, 2)), ((3,), (2,)), ((2, 1), (3, 2)), ((2, 2, 2), (1, 2, 3))])
def test_tree_order(factors):
    roots = (2,) * len(factors[0])
    size = tuple(2 * math.prod(f[axis] for f in factors) for axis in range(len(roots)))
    x = torch.arange(math.prod(size)).view(1, *size, 1)
    tree = to_tree(x, factors)
    assert torch.equal(from_tree(tree, factors, roots), x)
    family = tree[0, : math.prod(factors[-1]), 0]  # of one box of cells
    corner = tuple(slice(n) for n in factors[-1])
    assert torch.equal(family, x[(0, *corner, 0)].flatten())


def test_images_in_the_order_of_a_quadtree():
    tree = GenerativeHierarchicalModel.random(depth=3, states=4)
    flat = GenerativeHierarchicalModel(tree.log_prior, list(tree.log_potentials), tree.values)
    z = torch.randn(2, 8, 8)
    leaves = to_tree(z.unsqueeze(-1), tree.factors)[..., 0]
    wanted = flat.denoise(leaves, noise=0.5)
    assert torch.equal(to_tree(tree.denoise(z, noise=0.5).unsqueeze(-1), tree.factors)[..., 0], wanted)


def test_memory_is_linear_in_the_leaves():
    """What autograd keeps of both passes: four times as much for four times as many."""
    saved = []
    for depth in (5, 6, 7):
        net = BeliefPropagationUNet(GenerativeHierarchicalModel.random(depth, states=4), noise=0.5)
        saved.append(mrn.count_saved_bytes(net, torch.randn(1, 1, 2**depth, 2**depth)))
    assert all(4 * a * 0.97 < b < 4 * a * 1.03 for a, b in itertools.pairwise(saved))


@torch.no_grad()
def test_a_million_leaves():
    """Nothing underflows, and the average of many pixels is as sure as it should be: noise that the model expects."""
    tree = GenerativeHierarchicalModel.random(10, states=4)
    _, states = tree.sample(1, generator=torch.Generator().manual_seed(0))
    clean = tree.values[states]
    z = clean + 0.5 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    leaves = tree.posterior(tree.seen_noisy(z, noise=0.5)).leaves.exp()
    mean, second = leaves @ tree.values, leaves @ tree.values.square()
    assert clean.shape == (1, 1024, 1024)
    assert float((mean - clean).square().mean()) == pytest.approx(float((second - mean.square()).mean()), rel=0.01)


def test_belief_propagation_learns():
    """Gradients reach every potential; at the true ones nothing is better."""
    tree = GenerativeHierarchicalModel.random(depth=2, states=3, seed=0)
    _, states = tree.sample(2000, generator=torch.Generator().manual_seed(0))
    x = tree.values[states].unsqueeze(1)
    noisy = x + 0.5 * torch.randn_like(x)
    exact = BeliefPropagationUNet(tree, noise=0.5)
    other = BeliefPropagationUNet(GenerativeHierarchicalModel.random(depth=2, states=3, seed=1), noise=0.5)
    (other(noisy) - x).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in other.parameters())
    assert (exact(noisy) - x).square().mean() < (other(noisy) - x).square().mean()
    label = BeliefPropagationUNet(tree, task="classify", noise=0.01)(x)
    assert torch.allclose(label, tree.classify(states), atol=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda t: GenerativeHierarchicalModel(torch.zeros(2), list(t.log_potentials), t.values),
            r"log_prior must be \(3,\)",
        ),
        (lambda t: GenerativeHierarchicalModel(t.log_prior, [], t.values), "an entry for each level"),
        (
            lambda t: GenerativeHierarchicalModel(t.log_prior, list(t.log_potentials), torch.zeros(4)),
            "last level's children have 4 values",
        ),
        (
            lambda t: GenerativeHierarchicalModel(
                t.log_prior, list(t.log_potentials), t.values, branching=[(2, 2)] * 2
            ),
            r"as many children per level as log_potentials have: \[2, 2\]",
        ),
        (lambda t: t.denoise(torch.zeros(1, 5), noise=1.0), r"z must be \(N, 4\), got \(1, 5\)"),
        (lambda t: t.classify(torch.tensor([[0, 1, 2, 3]])), r"integers in \[0, 3\), or -1"),
        (lambda t: t.classify(torch.zeros(1, 4)), "got torch.float32"),
        (lambda t: t.posterior(torch.zeros(1, 4, 2)), r"expected log-evidence \(N, 4, 3\)"),
        (lambda t: BeliefPropagationUNet(t, noise=0.0), "noise must be a number > 0"),
    ],
)
def test_bad_input(tree, call, message):
    with pytest.raises(ValueError, match=message):
        call(tree)


def test_random_transitions_keep_labels_equally_likely():
    tree = GenerativeHierarchicalModel.random(3, states=4, transitions=True)
    root, transitions, partition = tree.directed()
    torch.testing.assert_close(root.exp(), torch.full((4,), 0.25))
    assert abs(float(partition) - math.log(4)) < 1e-5
    for one, other in zip(transitions, tree.log_potentials):
        torch.testing.assert_close(one, other.data)
