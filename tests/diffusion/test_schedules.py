"""Times at which noise drowns a level, and what pooling does to a process, against closed forms and diffusers."""

import math

import diffusers
import pytest
import torch
import torch.nn.functional as F

from multiresnet.diffusion import (
    Spectrum,
    crossing_time_linear_vp,
    crossing_times,
    eps_loss_weights,
    noise_levels,
    pooled,
    shifted,
    shifted_scheduler,
)
from multiresnet.tasks.diffusion.noise import Steps
from multiresnet.tasks.diffusion.parametrisation import shrinkage

F64 = torch.float64
ENERGY = [1e-3, 0.04, 0.7, 1.0, 9.0, 250.0]
POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
PRESERVING = [
    diffusers.DDPMScheduler(),
    diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
    diffusers.DDIMScheduler(beta_schedule="scaled_linear"),
    diffusers.DPMSolverMultistepScheduler(),
    diffusers.EulerDiscreteScheduler(),
    diffusers.UniPCMultistepScheduler(),
]


def brute_force(energy, noise_to_signal, snr=1.0):
    """Step by step."""
    return tuple(
        next((t for t, sigma in enumerate(noise_to_signal) if sigma and value / sigma**2 <= snr), None)
        for value in energy
    )


# ---- the noise of a scheduler: what its own add_noise adds -----------------------------------------------


def added(scheduler, timesteps):
    """(factor of the image, factor of the noise) of diffusers' own noising at those time steps."""
    factors = []
    for t in timesteps.split(1):
        for image, noise in ((1.0, 0.0), (0.0, 1.0)):
            fresh, image, noise = (
                type(scheduler).from_config(scheduler.config),
                torch.tensor([image]),
                torch.tensor([noise]),
            )
            flow = hasattr(fresh, "scale_noise")
            noisy = fresh.scale_noise(image, t, noise) if flow else fresh.add_noise(image, noise, t)
            factors.append(noisy.double())
    return torch.cat(factors).view(-1, 2).unbind(1)


@pytest.mark.parametrize("scheduler", PRESERVING, ids=lambda s: type(s).__name__)
def test_noise_of_variance_preserving_schedulers(scheduler):
    steps = torch.tensor([0, 3, 250, 600, 990])
    signal, noise = added(diffusers.DDPMScheduler(trained_betas=scheduler.betas.tolist()), steps)
    levels = noise_levels(scheduler)
    assert levels.dtype == F64 and levels.shape == (1000,) and bool((levels.diff() > 0).all())
    torch.testing.assert_close(levels[steps], noise / signal, rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    "scheduler",
    [
        diffusers.EDMEulerScheduler(),
        diffusers.EDMEulerScheduler(final_sigmas_type="sigma_min", sigma_max=20.0),
        diffusers.EDMDPMSolverMultistepScheduler(),
        diffusers.CMStochasticIterativeScheduler(),
        diffusers.FlowMatchEulerDiscreteScheduler(),
        diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        diffusers.FlowMatchHeunDiscreteScheduler(),
    ],
    ids=lambda s: type(s).__name__,
)
def test_noise_of_other_schedulers(scheduler):
    levels = noise_levels(scheduler)
    assert len(levels) == len(scheduler.timesteps) and bool((levels.diff() > 0).all())
    if not isinstance(scheduler, diffusers.CMStochasticIterativeScheduler):  # its add_noise wants set_timesteps
        signal, noise = added(scheduler, scheduler.timesteps[[1, 10, -1]])
        torch.testing.assert_close(levels.flip(0)[[1, 10, -1]], noise / signal, rtol=1e-5, atol=0)
    scheduler.set_timesteps(7)
    assert torch.equal(noise_levels(scheduler), levels)  # those of the training, not of the sampling


def test_ends_of_the_schedulers():
    edm = noise_levels(diffusers.EDMEulerScheduler())
    assert edm[0] == pytest.approx(0.002) and edm[-1] == pytest.approx(80.0)
    rho = torch.linspace(0.002 ** (1 / 7), 80 ** (1 / 7), 1001, dtype=F64) ** 7  # 2206.00364, equation 5
    torch.testing.assert_close(edm, rho, rtol=1e-5, atol=0)
    assert noise_levels(diffusers.FlowMatchEulerDiscreteScheduler())[-1] == math.inf
    assert noise_levels(diffusers.DDPMScheduler(rescale_betas_zero_snr=True))[-1] > 1e3
    exploding = noise_levels(diffusers.ScoreSdeVeScheduler())
    assert exploding[0] < 0.02 and exploding[-1] == pytest.approx(1348.0)
    assert torch.equal(noise_levels(diffusers.DDPMScheduler(beta_schedule="sigmoid")), Steps("sigmoid").sigmas)


@pytest.mark.parametrize(
    "scheduler",
    [
        diffusers.SCMScheduler(),
        diffusers.IPNDMScheduler(),
        diffusers.DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"),
        torch.linspace(0, 1, 3),
        None,
    ],
    ids=lambda s: type(s).__name__,
)
def test_schedulers_without_known_levels(scheduler):
    with pytest.raises(ValueError, match="FlowMatchEulerDiscreteScheduler"):
        noise_levels(scheduler)


# ---- F3: when a level is drowned -------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", PRESERVING, ids=lambda s: type(s).__name__)
def test_crossing_of_ddpm(scheduler):
    alphas = scheduler.alphas_cumprod.double()
    wanted = [(alphas <= 1 / (1 + value)).nonzero().flatten() for value in ENERGY]
    wanted = tuple(int(places[0]) if len(places) else None for places in wanted)
    assert crossing_times(ENERGY, scheduler) == wanted == brute_force(ENERGY, ((1 - alphas) / alphas).sqrt().tolist())
    assert len(set(wanted)) == 6 and list(wanted) == sorted(wanted)


def test_closed_form_of_the_linear_process():
    times = crossing_time_linear_vp(ENERGY, 0.1, 20.0)
    for value, t in zip(ENERGY, times):
        textbook = (-0.1 + math.sqrt(0.01 + 2 * 19.9 * math.log(1 + value))) / 19.9
        assert t == pytest.approx(textbook, rel=1e-12)
        kept = math.exp(-0.1 * t - 19.9 * t**2 / 2)  # alpha^2
        assert kept / (1 - kept) * value == pytest.approx(1)
    # DDPM's betas are that process in steps of 1/1000
    steps = crossing_times(ENERGY, diffusers.DDPMScheduler())
    assert steps == pytest.approx([1000 * t for t in times], abs=3)
    assert crossing_time_linear_vp([1.0], 0.7, 0.7) == pytest.approx([math.log(2) / 0.7])  # constant beta
    assert crossing_time_linear_vp(ENERGY, snr=4.0) == pytest.approx(crossing_time_linear_vp([e / 4 for e in ENERGY]))
    assert crossing_time_linear_vp([0.0, 1e9])[0] == 0 and crossing_time_linear_vp([0.0, 1e9])[1] > 1


@pytest.mark.parametrize("snr", [1.0, 0.1, 5.0])
@pytest.mark.parametrize(
    ("scheduler", "flow"),
    [(diffusers.EDMEulerScheduler(), False), (diffusers.FlowMatchEulerDiscreteScheduler(shift=2.0), True)],
    ids=["edm", "flow"],
)
def test_crossing_of_exploding_and_flow_processes(scheduler, flow, snr):
    sigmas = sorted(scheduler.sigmas[: len(scheduler.timesteps)].double().tolist())
    if flow:
        sigmas = [sigma / (1 - sigma) if sigma < 1 else math.inf for sigma in sigmas]
    energy = [*ENERGY, 1e9]
    found = crossing_times(energy, scheduler, snr=snr)
    assert found == brute_force(energy, sigmas, snr)
    assert (found[-1] is None) == (not flow)
    for value, t in zip(ENERGY, found):  # sigma = sqrt(S_j / snr) lies between the step before and this one
        assert (t == 0 or sigmas[t - 1] < math.sqrt(value / snr)) and math.sqrt(value / snr) <= sigmas[t]


def test_energies_in_any_form():
    scheduler = PRESERVING[0]
    wanted = crossing_times([0.0, 4.0], scheduler)
    assert wanted[0] == 0
    assert crossing_times(torch.tensor([0.0, 4.0]), scheduler) == wanted
    assert crossing_times(Spectrum((0.0, 4.0), 2, (8, 8), 1), scheduler) == wanted
    for energy in ([-1.0], [math.nan], [math.inf], [[1.0]]):
        with pytest.raises(ValueError, match="one finite number >= 0"):
            crossing_times(energy, scheduler)
    with pytest.raises(ValueError, match="snr must be"):
        crossing_times([1.0], scheduler, snr=0.0)
    with pytest.raises(ValueError, match="beta must not fall"):
        crossing_time_linear_vp([1.0], 2.0, 1.0)
    with pytest.raises(ValueError, match="beta_min must be"):
        crossing_time_linear_vp([1.0], 0.0, 1.0)


# ---- F4: pooling makes white noise weaker ----------------------------------------------------------------


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_pooled_noise_is_measured(dims):
    side = {1: 2**18, 2: 512, 3: 64}[dims]
    eps = 3.0 * torch.randn(1, 1, *[side] * dims)
    signal = torch.full_like(eps, 2.0)  # a low frequency
    for k in range(1, 5 if dims < 3 else 3):
        noise, coarse = POOL[dims](eps, 2**k), POOL[dims](signal, 2**k)
        wanted = pooled(3.0, halvings=k, spatial_dims=dims)
        assert wanted == pytest.approx(3.0 * {1: math.sqrt(0.5), 2: 0.5, 3: math.sqrt(1 / 8)}[dims] ** k)
        assert float(noise.std()) == pytest.approx(wanted, rel=5 / math.sqrt(noise.numel()))
        gain = float(coarse.square().mean() / noise.square().mean() / (4.0 / eps.square().mean()))
        assert gain == pytest.approx(2 ** (dims * k), rel=10 / math.sqrt(noise.numel()))
        strided = eps[(..., *[slice(None, None, 2**k)] * dims)]
        assert float(strided.std()) == pytest.approx(3.0, rel=5 / math.sqrt(noise.numel()))  # nothing gained
    torch.testing.assert_close(
        pooled(torch.tensor([4.0, 8.0]), halvings=1, spatial_dims=2), torch.tensor([2.0, 4.0]), rtol=0, atol=0
    )


# ---- F5: a pooled process is a process -------------------------------------------------------------------


@pytest.mark.parametrize(("halvings", "dims"), [(0, 2), (1, 1), (1, 2), (3, 2), (2, 3)])
def test_shifted_process(halvings, dims):
    alphas = torch.linspace(0.001, 0.999, 50, dtype=F64)
    alpha, sigma = alphas.sqrt(), (1 - alphas).sqrt()
    left = sigma * 2 ** (-dims * halvings / 2)
    n = (alpha**2 + left**2).sqrt()
    found = shifted(alphas, halvings=halvings, spatial_dims=dims)
    torch.testing.assert_close(found.sqrt(), alpha / n, rtol=1e-13, atol=0)
    torch.testing.assert_close((1 - found).sqrt(), left / n, rtol=1e-11, atol=0)
    gain = torch.logit(found) - torch.logit(alphas)
    torch.testing.assert_close(gain, torch.full_like(gain, halvings * dims * math.log(2)), rtol=1e-10, atol=1e-10)
    twice = shifted(shifted(alphas, halvings=1, spatial_dims=dims), halvings=halvings, spatial_dims=dims)
    torch.testing.assert_close(twice, shifted(alphas, halvings=halvings + 1, spatial_dims=dims))


@pytest.mark.parametrize("scheduler", PRESERVING, ids=lambda s: type(s).__name__)
def test_shifted_scheduler(scheduler):
    coarse = shifted_scheduler(scheduler, halvings=2, spatial_dims=2)
    assert type(coarse) is type(scheduler) and coarse.config.num_train_timesteps == 1000
    wanted = shifted(scheduler.alphas_cumprod, halvings=2, spatial_dims=2)
    assert (coarse.alphas_cumprod - wanted).abs().max() < 1e-5
    torch.testing.assert_close(noise_levels(coarse)[10:-1], noise_levels(scheduler)[10:-1] / 4, rtol=2e-3, atol=0)
    energy = [0.01, 1.0]  # a band of S_j is drowned when one of S_j / 16 was
    assert crossing_times([e / 16 for e in energy], coarse) == pytest.approx(crossing_times(energy, scheduler), abs=1)


def test_shifted_scheduler_makes_pooled_images():
    """Pooling what the fine scheduler noises, and noising pooled images by the coarse one, is the same in distribution."""
    fine, t = diffusers.DDPMScheduler(), torch.tensor([300])
    coarse = shifted_scheduler(fine, halvings=2, spatial_dims=2)
    x, eps = torch.ones(1, 1, 512, 512), torch.randn(1, 1, 512, 512)
    pooled_noisy = F.avg_pool2d(fine.add_noise(x, eps, t), 4)
    alphas = fine.alphas_cumprod[300]
    pooled_noisy = pooled_noisy / (alphas + (1 - alphas) / 16).sqrt()
    noisy = coarse.add_noise(torch.ones(1, 1, 128, 128), torch.randn(1, 1, 128, 128), t)
    assert float(pooled_noisy.mean()) == pytest.approx(float(noisy.mean()), abs=0.01)
    assert float(pooled_noisy.std()) == pytest.approx(float(noisy.std()), rel=0.03)


def test_options_that_change_the_betas_are_not_applied_twice():
    for scheduler in (
        diffusers.DDIMScheduler(rescale_betas_zero_snr=True, beta_schedule="scaled_linear", clip_sample=False),
        diffusers.CogVideoXDDIMScheduler(snr_shift_scale=2.0),
    ):
        coarse = shifted_scheduler(scheduler, halvings=1, spatial_dims=2)
        torch.testing.assert_close(noise_levels(coarse)[5:-5], noise_levels(scheduler)[5:-5] / 2, rtol=5e-3, atol=0)
        assert coarse.config.clip_sample == scheduler.config.clip_sample


def test_shifts_that_cannot_be():
    for scheduler in (diffusers.EDMEulerScheduler(), diffusers.FlowMatchEulerDiscreteScheduler(), None):
        with pytest.raises(ValueError, match="takes no trained_betas"):
            shifted_scheduler(scheduler, halvings=1, spatial_dims=2)
    with pytest.raises(ValueError, match="got halvings=7, take fewer"):
        shifted_scheduler(diffusers.DDPMScheduler(), halvings=7, spatial_dims=2)
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        shifted(torch.tensor([0.5, 1.5]), halvings=1, spatial_dims=2)
    for halvings, dims, said in ((-1, 2, "halvings must"), (1.5, 2, "halvings must"), (1, 4, "spatial_dims must")):
        with pytest.raises(ValueError, match=said):
            pooled(1.0, halvings=halvings, spatial_dims=dims)
        with pytest.raises(ValueError, match=said):
            shifted(torch.tensor([0.5]), halvings=halvings, spatial_dims=dims)


# ---- F6: losses at several resolutions -------------------------------------------------------------------


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_weights_make_the_losses_equal_and_are_those_of_the_task(dims):
    weights = eps_loss_weights(3, spatial_dims=dims)
    eps = torch.randn(1, 1, *[{1: 2**18, 2: 512, 3: 64}[dims]] * dims)
    losses = [POOL[dims](eps, 2**k).square().mean() if k else eps.square().mean() for k in (2, 1, 0)]  # of predicting 0
    assert (weights * torch.stack(losses)).tolist() == pytest.approx([1.0, 1.0, 1.0], rel=0.1)
    for sigma in (0.01, 1.0, 50.0):
        divisors = [shrinkage("eps", torch.tensor(sigma), 2 ** (dims * k)) for k in (2, 1, 0)]
        torch.testing.assert_close(weights, 1 / torch.stack(divisors))
    with pytest.raises(ValueError, match="outputs must be"):
        eps_loss_weights(0, spatial_dims=dims)
