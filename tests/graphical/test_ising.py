"""Spins against enumeration and closed forms; networks against both."""

import itertools
import math

import pytest
import torch

from multiresnet.graphical import (
    ConditionalIsing,
    Ising,
    ReLUTanh,
    RestrictedBoltzmannMachine,
    UnrolledMeanField,
    depth_for,
    overlap_correction,
)

F64 = torch.float64


def enumerated_mean(couplings, field):
    """E[x], with python's loops."""
    total, mean = 0.0, [0.0] * len(field)
    for x in itertools.product((-1, 1), repeat=len(field)):
        energy = sum(float(f) * s for f, s in zip(field, x))
        energy += 0.5 * sum(float(couplings[i, j]) * x[i] * x[j] for i in range(len(x)) for j in range(len(x)))
        weight = math.exp(energy)
        total += weight
        mean = [m + weight * s for m, s in zip(mean, x)]
    return torch.tensor(mean, dtype=F64) / total


def test_means_and_evidence_against_enumeration():
    model = Ising.sherrington_kirkpatrick(5, 0.8, seed=3, dtype=F64)
    z = torch.randn(2, 5, dtype=F64)
    found = model.denoise(z, noise=0.7, scale=0.6)
    for i in range(2):
        assert (found[i] - enumerated_mean(model.couplings, 0.6 / 0.49 * z[i])).abs().max() < 1e-13
    states, weights = model.energies(torch.zeros(1, 5, dtype=F64))
    density = torch.distributions.Normal(0.6 * states, 0.7).log_prob(z[:, None]).sum(-1)
    wanted = torch.logsumexp(weights.log_softmax(-1) + density, -1)
    assert (model.log_evidence(z, noise=0.7, scale=0.6) - wanted).abs().max() < 1e-12
    z.requires_grad_()
    [gradient] = torch.autograd.grad(model.log_evidence(z, noise=0.7, scale=0.6).sum(), z)
    assert (gradient - model.score(z, noise=0.7, scale=0.6)).abs().max() < 1e-12


def test_closed_forms():
    field = torch.tensor([[0.3, -0.2]], dtype=F64)
    free = Ising(torch.zeros(2, 2, dtype=F64))
    assert (free.mean(field) - field.tanh()).abs().max() < 1e-15
    a, (h, k) = 0.6, field[0].tolist()
    pair = Ising(torch.tensor([[0.0, a], [a, 0.0]], dtype=F64))
    up, down = math.exp(a), math.exp(-a)
    wanted = (up * math.sinh(h + k) + down * math.sinh(h - k)) / (up * math.cosh(h + k) + down * math.cosh(h - k))
    assert abs(float(pair.mean(field)[0, 0]) - wanted) < 1e-15


def test_naive_mean_field_of_curie_weiss():
    """Its error falls as 1 / n; the numbers are known."""
    for n, known in ((6, 0.0190), (10, 0.0139), (14, 0.0108)):
        couplings = torch.full((n, n), 0.5 / n, dtype=F64).fill_diagonal_(0)
        field = torch.full((1, n), 0.3, dtype=F64)
        network = UnrolledMeanField(couplings, depth=200, correction="none", damping=0.0)
        assert abs(float((network(field).detach() - Ising(couplings).mean(field)).abs().max()) - known) < 1e-4


@pytest.mark.parametrize(("beta", "gain", "known"), [(0.2, 50, 3), (0.4, 20, 3), (0.8, 5, 0.3)])
def test_the_correction_pays(beta, gain, known):
    """Sherrington-Kirkpatrick, 14 spins, at time 0.5: against exact posterior means, over 15 draws.

    The constant is that of infinitely many spins: better than none while couplings are weak, worse where they are strong.
    """
    scale = math.exp(-0.5)
    noise = math.sqrt(1 - scale**2)
    errors = {"none": 0.0, "instance": 0.0, "constant": 0.0}
    constant = overlap_correction(beta, noise=noise, scale=scale)
    for seed in range(15):
        model = Ising.sherrington_kirkpatrick(14, beta, seed=seed, dtype=F64)
        generator = torch.Generator().manual_seed(seed)
        x = model.sample(1, generator=generator)
        z = scale * x + noise * torch.randn(1, 14, generator=generator, dtype=F64)
        exact, field = model.denoise(z, noise=noise, scale=scale), model.evidence_field(z, noise=noise, scale=scale)
        for correction in errors:
            known_constant = constant if correction == "constant" else 0.0
            network = UnrolledMeanField(model.couplings, depth=400, correction=correction, constant=known_constant)
            assert network.residual(field).max() < 1e-6
            errors[correction] += float((network(field).detach() - exact).square().mean()) / 15
    print(f"beta {beta}: mean square errors", {name: f"{error:.1e}" for name, error in errors.items()})
    assert errors["instance"] * gain < errors["none"]
    assert errors["constant"] * known < errors["none"]


@pytest.mark.parametrize("beta", [0.2, 0.8])
def test_overlap_solves_its_equation(beta):
    """By brute force on a fine grid."""
    noise, scale = 0.8, 0.6
    q = 1 - overlap_correction(beta, noise=noise, scale=scale) / beta**2
    g = torch.linspace(-9, 9, 20001, dtype=F64)
    weights = (-g * g / 2).exp()
    gain = beta**2 * q + (scale / noise) ** 2
    wanted = (weights * (gain + math.sqrt(gain) * g).tanh() ** 2).sum() / weights.sum()
    assert q == pytest.approx(float(wanted), abs=1e-8)


@torch.no_grad()
def test_layers_contract_and_depth_for_says_how_many():
    couplings = Ising.sherrington_kirkpatrick(12, 0.3, seed=1, dtype=F64).couplings
    field = torch.randn(1, 12, dtype=F64)
    rate = float(torch.linalg.matrix_norm(couplings, 2))
    end = UnrolledMeanField(couplings, depth=500, correction="none", damping=0.0)(field)
    distances = [
        float((UnrolledMeanField(couplings, depth=k, correction="none", damping=0.0)(field) - end).norm())
        for k in range(1, 20)
    ]
    assert all(after <= rate * before + 1e-13 for before, after in itertools.pairwise(distances))
    depth = depth_for(couplings, error=1e-4)
    assert (UnrolledMeanField(couplings, depth=depth, correction="none", damping=0.0)(field) - end).norm() < 1e-4
    assert depth_for(torch.zeros(3, 3), error=1e-3) == 1


def test_constant_correction():
    """In one layer from u: tanh(A u - K u + h)."""
    couplings = Ising.sherrington_kirkpatrick(6, 0.5, dtype=F64).couplings
    network = UnrolledMeanField(couplings, depth=1, correction="constant", constant=0.2)
    u, field = torch.rand(2, 6, dtype=F64), torch.randn(2, 6, dtype=F64)
    assert torch.allclose(network.step(u, field), (u @ couplings - 0.2 * u + field).tanh())


def test_relus_in_place_of_tanh():
    x = torch.linspace(-4, 4, 4001, dtype=F64)
    for pieces in (16, 32, 64):
        spline = ReLUTanh(pieces).double()
        assert (spline(x) - x.tanh()).abs().max() <= 0.7699 * (8 / pieces) ** 2 / 8 + 1e-6
    assert spline(torch.tensor([50.0, -50.0])).abs().sub(math.tanh(4)).abs().max() < 1e-4
    model, field = Ising.sherrington_kirkpatrick(8, 0.4), torch.randn(3, 8)
    exact, relu = (
        UnrolledMeanField(model.couplings, depth=20, activation=activation) for activation in (None, ReLUTanh())
    )
    assert (exact(field) - relu(field)).abs().max() < 5e-3


def test_a_network_of_its_own_couplings_for_each_layer_trains():
    model = Ising.sherrington_kirkpatrick(6, 0.8)
    network = model.unrolled(depth=3, tied=False)
    assert len(list(network.parameters())) == 3
    network(torch.randn(4, 6)).square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in list(network.parameters())[1:])


def test_gibbs_chains_have_the_right_means():
    model = Ising(Ising.sherrington_kirkpatrick(10, 0.6, dtype=F64).couplings, torch.linspace(-1, 1, 10, dtype=F64))
    large = Ising(
        torch.block_diag(model.couplings, *[torch.zeros(1, 1, dtype=F64)] * 12),
        torch.cat([model.field, torch.zeros(12, dtype=F64)]),
    )
    x = large.sample(4000, sweeps=50, generator=torch.Generator().manual_seed(0))
    assert (x[:, :10].mean(0) - model.mean()[0]).abs().max() < 4 / math.sqrt(4000)
    exact = model.sample(4000, generator=torch.Generator().manual_seed(0))
    assert (exact.mean(0) - model.mean()[0]).abs().max() < 4 / math.sqrt(4000)


def test_a_field_for_each_sample():
    torch.manual_seed(0)
    couplings, loadings = Ising.sherrington_kirkpatrick(5, 0.7, dtype=F64).couplings, torch.randn(5, 2, dtype=F64)
    theta, z = torch.randn(3, 2, dtype=F64), torch.randn(3, 5, dtype=F64)
    model = ConditionalIsing(couplings, loadings)(theta)
    one_by_one = [Ising(couplings, loadings @ t).denoise(v[None], noise=0.6)[0] for t, v in zip(theta, z)]
    assert (model.denoise(z, noise=0.6) - torch.stack(one_by_one)).abs().max() < 1e-14
    assert model.sample(3, generator=torch.Generator().manual_seed(0)).shape == (3, 5)


def test_restricted_boltzmann_machine():
    torch.manual_seed(0)
    rbm = RestrictedBoltzmannMachine(
        0.25 * torch.randn(8, 5, dtype=F64), 0.3 * torch.randn(8, dtype=F64), 0.3 * torch.randn(5, dtype=F64)
    )
    z, joint = torch.randn(2, 8, dtype=F64), rbm.joint()
    field = torch.cat([joint.evidence_field(z, noise=0.8), torch.zeros(2, 5, dtype=F64)], 1)
    exact = rbm.denoise(z, noise=0.8)
    assert (exact - joint.mean(field)[:, :8]).abs().max() < 1e-13
    unrolled = joint.unrolled(depth=400)
    unrolled = unrolled(field + joint.field)[:, :8]
    naive = joint.unrolled(depth=400, correction="none")(field + joint.field)[:, :8]
    assert (unrolled - exact).abs().max() < 0.3 * (naive - exact).abs().max() < 0.1
    visible, hidden = rbm.sample(4000, sweeps=50, generator=torch.Generator().manual_seed(0))
    both = torch.cat([visible, hidden], 1).mean(0)
    assert (both - joint.mean()[0]).abs().max() < 4 / math.sqrt(4000)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Ising(torch.zeros(2, 3)), r"couplings must be \(n, n\)"),
        (lambda: Ising(torch.tensor([[0.0, 1.0], [0.0, 0.0]])), "symmetric"),
        (lambda: Ising(torch.full((2, 2), math.nan)), "finite"),
        (lambda: Ising(torch.zeros(2, 2), torch.zeros(3)), r"field must be \(2,\) or \(N, 2\)"),
        (lambda: Ising(torch.zeros(30, 30)).mean(), "30 spins have too many states"),
        (lambda: UnrolledMeanField(torch.zeros(2, 2), depth=0), "depth must be"),
        (lambda: UnrolledMeanField(torch.zeros(2, 2), depth=1, correction="tap"), "correction='tap' is unknown"),
        (lambda: UnrolledMeanField(torch.zeros(2, 2), depth=1, damping=1.0), "damping must be"),
        (lambda: UnrolledMeanField(torch.zeros(2, 2), depth=1, correction="constant"), "goes with"),
        (lambda: depth_for(torch.eye(3), error=0.1), "not below 1"),
        (lambda: ConditionalIsing(torch.zeros(2, 2), torch.zeros(3, 1)), r"loadings must be \(2, parameters\)"),
        (lambda: RestrictedBoltzmannMachine(torch.zeros(2, 3), torch.zeros(3), torch.zeros(2)), r"\(3, 2\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
