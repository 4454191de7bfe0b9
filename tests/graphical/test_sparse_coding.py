"""Sparse coding and AMP against enumeration, closed forms and state evolution."""

import math

import pytest
import torch

from multiresnet.graphical import SparseCoding, UnrolledAMP
from multiresnet.graphical.sparse_coding import scalar_posterior

F64 = torch.float64
VALUES, PROBABILITIES = torch.tensor([-1.0, 0.0, 1.0], dtype=F64), torch.tensor([0.1, 0.8, 0.1], dtype=F64)


def model(n, m, noise, *, orthonormal=False, seed=0):
    dictionary = torch.randn(n, m, generator=torch.Generator().manual_seed(seed), dtype=F64) / math.sqrt(n)
    return SparseCoding(torch.linalg.qr(dictionary)[0] if orthonormal else dictionary, VALUES, PROBABILITIES, noise)


def test_orthonormal_columns_in_closed_form():
    coding = model(12, 8, 0.5, orthonormal=True)
    x, _ = coding.sample(3, generator=torch.Generator().manual_seed(0))
    z = 0.8 * x + 0.6 * torch.randn(3, 12, dtype=F64)
    noise = coding.effective_noise(noise=0.6, scale=0.8)
    wanted, _ = scalar_posterior(z / 0.8 @ coding.dictionary, torch.tensor([noise**2]).double(), VALUES, PROBABILITIES)
    assert (coding.codes(z, noise=0.6, scale=0.8) - wanted).abs().max() < 1e-13


def test_tweedie():
    coding = model(6, 5, 0.4)
    z = torch.randn(2, 6, dtype=F64, requires_grad=True)
    which = torch.cartesian_prod(*[torch.arange(3)] * 5)
    covariance = (0.8 * 0.4) ** 2 + 0.6**2
    distance = (z[:, None] - 0.8 * VALUES[which] @ coding.dictionary.T).square().sum(-1)
    evidence = torch.logsumexp(PROBABILITIES.log()[which].sum(1) - distance / (2 * covariance), -1)
    [gradient] = torch.autograd.grad(evidence.sum(), z)
    assert (gradient - coding.score(z, noise=0.6, scale=0.8)).abs().max() < 1e-12


def test_slope_is_the_derivative():
    r = torch.randn(7, dtype=F64, requires_grad=True)
    mean, slope = scalar_posterior(r, torch.full_like(r, 0.3), VALUES, PROBABILITIES)
    [gradient] = torch.autograd.grad(mean.sum(), r)
    assert (gradient - slope).abs().max() < 1e-14


def test_message_passing_nears_enumeration_as_signals_grow():
    errors = []
    for n in (10, 40, 160):
        error = 0.0
        for seed in range(20):
            coding = model(n, 10, math.sqrt(0.075), seed=seed)
            generator = torch.Generator().manual_seed(seed)
            x, _ = coding.sample(1, generator=generator)
            z = x + math.sqrt(0.075) * torch.randn(1, n, generator=generator, dtype=F64)
            found = UnrolledAMP(coding, depth=60)(z)
            error += float((found - coding.codes(z, noise=math.sqrt(0.075))).square().mean().detach()) / 20
        errors.append(error)
    print("AMP against enumeration, n = 10, 40, 160:", [f"{error:.1e}" for error in errors])
    assert errors[0] > 2 * errors[1] > 4 * errors[2] and errors[2] < 3e-3


def test_state_evolution_foretells_the_layers():
    coding = model(2000, 3000, math.sqrt(0.05))
    generator = torch.Generator().manual_seed(0)
    x, codes = coding.sample(1, generator=generator)
    with torch.no_grad():
        found = [float((c - codes).square().mean()) for c in UnrolledAMP(coding, depth=8).layers(x)]
    foretold = coding.state_evolution(8, noise=math.sqrt(0.05))
    print("AMP", [f"{e:.4f}" for e in found], "state evolution", [f"{e:.4f}" for e in foretold])
    assert foretold[0] == pytest.approx(0.1231, abs=2e-3) and foretold[7] == pytest.approx(0.0745, abs=2e-3)
    assert all(abs(a - b) < 0.1 * b for a, b in zip(found, foretold))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SparseCoding(torch.zeros(3), VALUES, PROBABILITIES, 0.1), "dictionary must be"),
        (lambda: SparseCoding(torch.zeros(3, 2), VALUES, PROBABILITIES[:2], 0.1), "one probability for each value"),
        (lambda: SparseCoding(torch.zeros(3, 2), VALUES, 2 * PROBABILITIES, 0.1), "sum to 1"),
        (lambda: SparseCoding(torch.zeros(3, 2), VALUES, PROBABILITIES, 0.0), "noise must be a number > 0"),
        (lambda: model(5, 30, 0.1).codes(torch.zeros(1, 5, dtype=F64), noise=1.0), "too many to enumerate"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
