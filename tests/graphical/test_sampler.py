"""Gaussian fields against dense matrices; the sampler against closed forms."""

import itertools
import math

import pytest
import torch

from multiresnet.graphical import (
    GaussianField,
    GenerativeHierarchicalModel,
    as_noise_prediction,
    exponential_integrator,
    two_phase_grid,
)

F64 = torch.float64


@pytest.fixture
def field():
    return GaussianField.power_law((4, 6), exponent=1.5, dtype=F64)


def covariance(field):
    """Dense, by filtering unit vectors."""
    unit = torch.eye(24, dtype=F64).view(24, 4, 6)
    return field._filter(unit, field.spectrum).view(24, 24)


def test_gaussian_field_against_dense_matrices(field):
    dense, z = covariance(field), torch.randn(3, 4, 6, dtype=F64, requires_grad=True)
    noisy = 0.7**2 * dense + 0.5**2 * torch.eye(24, dtype=F64)
    wanted = (0.7 * dense @ torch.linalg.solve(noisy, z.flatten(1).T)).T.view(3, 4, 6)
    assert (field.denoise(z, noise=0.5, scale=0.7) - wanted).abs().max() < 1e-12
    normal = torch.distributions.MultivariateNormal(torch.zeros(24, dtype=F64), noisy)
    evidence = field.log_evidence(z, noise=0.5, scale=0.7)
    assert (evidence - normal.log_prob(z.flatten(1))).abs().max() < 1e-11
    [gradient] = torch.autograd.grad(evidence.sum(), z)
    assert (gradient - field.score(z, noise=0.5, scale=0.7)).abs().max() < 1e-12
    tweedie = (0.7 * wanted - z) / 0.25
    assert (tweedie - field.score(z, noise=0.5, scale=0.7)).abs().max() < 1e-11


def test_samples_of_the_field(field):
    x = field.sample(20_000, generator=torch.Generator().manual_seed(0)).flatten(1)
    assert (x.T @ x / len(x) - covariance(field)).abs().max() < 5 * math.sqrt(2 / len(x))
    assert covariance(field).diagonal().sub(1).abs().max() < 1e-12


def test_averages_of_the_field(field):
    """Against the dense covariance, pooled on both sides."""
    pool = torch.nn.functional.avg_pool2d
    once = pool(covariance(field).view(1, 24, 4, 6), 2).view(24, 2, 3)
    wanted = pool(once.permute(1, 2, 0).reshape(1, 6, 4, 6), 2).view(6, 6)
    pooled = field.pooled()
    unit = torch.eye(6, dtype=F64).view(6, 2, 3)
    assert (pooled._filter(unit, pooled.spectrum).view(6, 6) - wanted).abs().max() < 1e-12


def test_grid():
    times = two_phase_grid(20)
    assert len(times) == 21 and times[0] == 0 and times[10] == 5.0 and times[-1] == pytest.approx(6 - 1e-3)
    left = [6 - t for t in times[10:]]
    ratios = [b / a for a, b in itertools.pairwise(left)]
    assert max(ratios) - min(ratios) < 1e-9


def test_error_of_the_sampler_is_of_first_order():
    """N(0, 1/4): the final variance of the recursion, by pushing it through one step at a time."""
    known = {50: 0.0369, 100: 0.0174, 200: 0.00845}
    for steps, error in known.items():
        times, variance = two_phase_grid(steps), 1.0
        for now, then in itertools.pairwise(times):
            # The map is affine in y: its slope and its noise from three calls are those of the code below
            tau, step = 6 - now, then - now
            total = 0.25 * math.exp(-2 * tau) + 1 - math.exp(-2 * tau)
            slope = math.exp(step) - 2 * math.expm1(step) / total
            variance = slope**2 * variance + math.expm1(2 * step)
        target = 0.25 * math.exp(-2e-3) + 1 - math.exp(-2e-3)
        assert abs(variance - target) == pytest.approx(error, rel=0.01)
        generator = torch.Generator().manual_seed(0)
        start = torch.randn(100_000, generator=generator, dtype=F64)
        y = exponential_integrator(
            lambda z, scale, noise: -z / (0.25 * scale**2 + noise**2), start, steps=steps, generator=generator
        )
        assert float(y.var()) == pytest.approx(variance, rel=0.02)


def test_samples_of_a_tree_have_its_statistics():
    """Exact scores in, a sample of the model out: neighbours agree as often as in the model's own samples."""
    tree = GenerativeHierarchicalModel.random(depth=2, states=3, strength=2.0, seed=1)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(4000, 4, 4, generator=generator)
    y = exponential_integrator(
        lambda z, scale, noise: tree.score(z, scale=scale, noise=noise), start, steps=200, generator=generator
    )
    states = (y.unsqueeze(-1) - tree.values).abs().argmin(-1)
    _, true = tree.sample(20_000, generator=generator)
    for a, b in (((0, 0), (0, 1)), ((0, 0), (1, 1)), ((0, 0), (3, 3))):
        tables = []
        for drawn in (states, true):
            pairs = 3 * drawn[:, a[0], a[1]] + drawn[:, b[0], b[1]]
            tables.append(torch.bincount(pairs, minlength=9) / len(pairs))
        assert (tables[0] - tables[1]).abs().max() < 0.04


def test_schedulers_of_diffusers_run_on_exact_scores(field):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDIMScheduler(num_train_timesteps=1000, clip_sample=False, beta_schedule="scaled_linear")
    scheduler.set_timesteps(200)
    predict = as_noise_prediction(
        lambda z, scale, noise: field.score(z, scale=scale, noise=noise), scheduler.alphas_cumprod
    )
    z = torch.randn(4000, 4, 6, generator=torch.Generator().manual_seed(0), dtype=F64)
    for timestep in scheduler.timesteps:
        z = scheduler.step(predict(z, timestep), timestep, z).prev_sample
    flat = z.flatten(1)
    assert (flat.T @ flat / len(flat) - covariance(field)).abs().max() < 0.12


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: two_phase_grid(1), "two phases need steps >= 2"),
        (lambda: two_phase_grid(10, horizon=0.5), "horizon > 1"),
        (lambda: GaussianField.power_law((4, 6), exponent=1.0).pooled().pooled(), "even sides"),
        (lambda: GaussianField(torch.tensor([1.0, 2.0, 3.0])), "spectrum must be real, >= 0 and even"),
        (
            lambda: GaussianField.power_law((4, 4), exponent=1.0).denoise(torch.zeros(1, 4), noise=1.0),
            r"expected \(N, 4, 4\)",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
