"""Parametrisations, noise levels and samplers, against Gaussian data, for which the best denoiser is known."""

import diffusers
import numpy as np
import pytest
import torch

from multiresnet.tasks.diffusion.noise import LogNormal, Steps, as_levels
from multiresnet.tasks.diffusion.parametrisation import (
    PREDICTIONS,
    denoised,
    input_scale,
    mixing,
    output_of,
    scales,
    shrinkage,
    snr_weight,
)
from multiresnet.tasks.diffusion.samplers import DEFAULT_STEPS, draw, make_scheduler

MEAN, STD = 0.3, 0.5
SCHEDULES = ("linear", "cosine", "scaled_linear", "sigmoid")
SIGMA = torch.logspace(-2, 2, 9, dtype=torch.float64)


def gaussian(mean=MEAN, std=STD):
    """E[x0 | x0 + sigma eps] for x0 ~ N(mean, std^2)."""

    def denoise(x, sigma):
        variance = sigma.to(x).view(-1, *(1,) * (x.ndim - 1)) ** 2
        return (mean * variance + std**2 * x) / (variance + std**2)

    return denoise


# ---- parametrisations -----------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_outputs_and_images_are_two_forms_of_the_same(prediction):
    x0, eps = torch.randn(2, 9, dtype=torch.float64)
    x = x0 + SIGMA * eps
    output = output_of(prediction, x0, x, SIGMA)
    torch.testing.assert_close(denoised(prediction, output, x, SIGMA), x0, rtol=1e-9, atol=1e-9)
    p, q = mixing(prediction, SIGMA)
    torch.testing.assert_close(p * x0 + q * eps, output, rtol=1e-9, atol=1e-9)
    for other in PREDICTIONS:  # there and back
        through = output_of(other, denoised(prediction, output, x, SIGMA), x, SIGMA)
        back = output_of(prediction, denoised(other, through, x, SIGMA), x, SIGMA)
        torch.testing.assert_close(back, output, rtol=1e-6, atol=1e-6)


def test_the_textbook_formulas():
    x0, eps = torch.randn(2, 1000, dtype=torch.float64)
    alphas = diffusers.DDPMScheduler().alphas_cumprod.double()
    a, s = alphas.sqrt(), (1 - alphas).sqrt()
    sigma, x_t = s / a, a * x0 + s * eps
    for prediction, target in {"eps": eps, "x0": x0, "v": a * eps - s * x0}.items():
        torch.testing.assert_close(output_of(prediction, x0, x_t / a, sigma), target)
        torch.testing.assert_close(input_scale(prediction, sigma), a)
    d = 0.5  # Karras et al., table 1
    skip, out = scales("edm", sigma)
    torch.testing.assert_close(skip, d**2 / (sigma**2 + d**2))
    torch.testing.assert_close(out, sigma * d / (sigma**2 + d**2).sqrt())
    p, q = mixing("edm", sigma)  # network inputs and targets of variance 1, if that of the data is d^2
    torch.testing.assert_close(p**2 * d**2 + q**2, torch.ones_like(sigma))
    torch.testing.assert_close(input_scale("edm", sigma) ** 2 * (d**2 + sigma**2), torch.ones_like(sigma))


def test_weights_of_the_losses():
    snr = SIGMA**-2
    torch.testing.assert_close(snr_weight("eps", SIGMA, 5.0), snr.clamp(max=5) / snr)
    torch.testing.assert_close(snr_weight("v", SIGMA, 5.0), snr.clamp(max=5) / (snr + 1))
    torch.testing.assert_close(snr_weight("x0", SIGMA, 5.0), snr.clamp(max=5))
    # EDM weighs x0 by (sigma^2 + d^2) / (sigma d)^2, which is 1 in the network's output
    torch.testing.assert_close(scales("edm", SIGMA)[1] ** -2, (SIGMA**2 + 0.25) / (SIGMA * 0.5) ** 2)
    assert shrinkage("eps", SIGMA, 16) == pytest.approx(1 / 16) and shrinkage("x0", SIGMA, 16) == pytest.approx(1)
    mixed = shrinkage("v", SIGMA, 16)
    assert (mixed >= 1 / 16).all() and (mixed <= 1).all() and (mixed.diff() > 0).all()  # v is noise at small sigma


# ---- noise levels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_steps_are_those_of_diffusers(schedule):
    name = {"cosine": "squaredcos_cap_v2"}.get(schedule, schedule)
    alphas = diffusers.DDPMScheduler(beta_schedule=name).alphas_cumprod.double()
    levels = Steps(schedule)
    torch.testing.assert_close(1 / (1 + levels.sigmas**2), alphas)
    every = (torch.arange(1000) + 0.5) / 1000
    sigma = levels.quantile(every)
    torch.testing.assert_close(sigma, levels.sigmas.float())
    torch.testing.assert_close(levels.condition(sigma), torch.arange(1000.0), atol=0.01, rtol=0)
    between = (sigma[:-1] * sigma[1:]).sqrt()
    torch.testing.assert_close(levels.condition(between), torch.arange(999.0) + 0.5, atol=0.02, rtol=0)
    assert levels.condition(torch.tensor([1e-9, 1e9])).tolist() == [0.0, 999.0]


def test_levels_of_edm_are_log_normal():
    levels = LogNormal()
    log = levels.quantile((torch.arange(10_000) + 0.5) / 10_000).double().log()
    assert float(log.mean()) == pytest.approx(-1.2, abs=1e-3) and float(log.std()) == pytest.approx(1.2, rel=1e-3)
    torch.testing.assert_close(levels.condition(torch.tensor([1.0, np.e**4])), torch.tensor([0.0, 1.0]))
    assert levels.quantile(torch.zeros(1)).isfinite()


@pytest.mark.parametrize("sigma", [2.0, torch.tensor(2.0), torch.full((3,), 2.0), torch.full((3, 1), 2.0)])
def test_levels_come_in_any_usual_shape(sigma):
    assert as_levels(sigma, 3).tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("sigma", [torch.ones(2), torch.ones(1, 3), 0.0, -1.0, float("nan"), float("inf")])
def test_bad_levels_are_explained(sigma):
    with pytest.raises(ValueError, match="sigma"):
        as_levels(sigma, 3)


# ---- samplers -------------------------------------------------------------------------------------------


def sampled(scheduler, steps, *, n=2000, denoise=None):
    noise = torch.randn(n, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    noise = (noise - noise.mean()) / noise.std()
    return draw(denoise or gaussian(), scheduler, noise, steps=steps, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "name, steps, off",  # the largest relative error of the standard deviation, by discretisation
    [
        ("ddpm", 1000, 0.03),
        ("ddim", 20, 0.15),
        ("ddim", 200, 0.02),
        ("dpm-solver++", 20, 0.04),
        ("sde-dpm-solver++", 40, 0.06),
        ("edm-heun", 18, 0.08),
    ]
    + [("edm-heun", 60, 0.01), ("edm-euler", 200, 0.02)],
)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_mean_and_deviation_of_gaussian_data_come_back(name, steps, off, schedule):
    limits = Steps(schedule).limits
    x = sampled(make_scheduler(name, schedule=schedule, limits=limits), steps)
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.01) and float(x.std()) == pytest.approx(STD, rel=off)


def test_heun_is_algorithm_1_of_karras():
    n, low, high = 18, 0.002, 80.0
    steps = np.arange(n) / (n - 1)
    levels = [*(high ** (1 / 7) + steps * (low ** (1 / 7) - high ** (1 / 7))) ** 7, 0.0]
    y = high
    for s, t in zip(levels, levels[1:]):
        slope = y * s / (s**2 + STD**2)  # (y - D(y)) / s
        euler = y + (t - s) * slope
        y = y + (t - s) * (slope + euler * t / (t**2 + STD**2)) / 2 if t else euler
    x = draw(gaussian(mean=0.0), make_scheduler("edm-heun"), torch.ones(1, 1, 1, 1), steps=n)
    assert float(x) == pytest.approx(y, rel=1e-5)


def test_ddpm_is_ancestral_sampling():
    """Mean and variance of x_t, step by step, from the posterior q(x_(t-1) | x_t, x0) of Ho et al., equation 7."""
    betas = np.linspace(1e-4, 0.02, 1000)
    alphas = np.cumprod(1 - betas)
    mean, variance = 0.0, 1.0
    for t in range(999, -1, -1):
        before = alphas[t - 1] if t else 1.0
        from_x0 = np.sqrt(before) * betas[t] / (1 - alphas[t])
        from_xt = np.sqrt(1 - betas[t]) * (1 - before) / (1 - alphas[t])
        ratio = (1 - alphas[t]) / alphas[t]
        slope, offset = STD**2 / np.sqrt(alphas[t]) / (ratio + STD**2), MEAN * ratio / (ratio + STD**2)
        gain = from_xt + from_x0 * slope
        mean = gain * mean + from_x0 * offset
        variance = gain**2 * variance + betas[t] * (1 - before) / (1 - alphas[t])
    x = sampled(make_scheduler("ddpm"), 1000, n=4000)
    assert float(x.mean()) == pytest.approx(mean, abs=0.01) and float(x.std()) == pytest.approx(variance**0.5, rel=0.01)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(
    "name, options",
    [
        ("EulerDiscreteScheduler", {}),
        ("EulerDiscreteScheduler", {"prediction_type": "v_prediction"}),
        ("HeunDiscreteScheduler", {"prediction_type": "v_prediction", "use_karras_sigmas": True}),
        ("LMSDiscreteScheduler", {}),
        ("PNDMScheduler", {}),
        ("UniPCMultistepScheduler", {}),
        ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True, "thresholding": False}),
        ("EDMEulerScheduler", {"prediction_type": "v_prediction"}),
        ("EDMDPMSolverMultistepScheduler", {"sigma_data": 1.0}),
        ("DDIMScheduler", {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "clip_sample": False}),
        ("FlowMatchEulerDiscreteScheduler", {}),
        ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
        ("FlowMatchHeunDiscreteScheduler", {}),
    ],
)
def test_schedulers_of_every_kind_can_be_given(name, options):
    x = sampled(getattr(diffusers, name)(**options), 60)
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.015) and float(x.std()) == pytest.approx(STD, rel=0.06)


@pytest.mark.parametrize("name", ["CMStochasticIterativeScheduler", "IPNDMScheduler", "ScoreSdeVeScheduler"])
def test_schedulers_of_other_processes_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} is not a scheduler of a diffusion process"):
        sampled(getattr(diffusers, name)(), 5, n=1)


def test_unknown_samplers_are_explained():
    with pytest.raises(ValueError, match="did you mean 'edm-heun'"):
        make_scheduler("heun")
    assert set(DEFAULT_STEPS) == {"ddpm", "ddim", "dpm-solver++", "sde-dpm-solver++", "edm-euler", "edm-heun"}
