"""Drawing samples with the schedulers of diffusers, driven by a denoiser D(x, sigma) = E[x0 | x = x0 + sigma eps].

Schedulers differ in the state that they keep and in what they ask the network for. Both are found out here, so that a
denoiser may have been trained with any prediction and any noise levels: the state is brought to x0 + sigma eps, and the
denoised image is turned into the output that the scheduler expects.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from multiresnet.checks import check_choice, check_positive

from .noise import Schedule, beta_schedule, require_diffusers
from .parametrisation import SIGMA_DATA, Prediction, output_of

__all__ = ["DEFAULT_STEPS", "Sampler", "draw", "evaluating", "make_scheduler"]

Sampler = Literal["ddpm", "ddim", "dpm-solver++", "sde-dpm-solver++", "edm-euler", "edm-heun"]
Denoiser = Callable[[Tensor, Tensor], Tensor]

DEFAULT_STEPS = {"ddpm": 1000, "ddim": 20, "dpm-solver++": 20, "sde-dpm-solver++": 20, "edm-euler": 40, "edm-heun": 18}
"""Steps of the samplers unless others are asked for."""

_ASKED: dict[str, Prediction] = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}


def make_scheduler(name: Sampler, *, schedule: Schedule = "linear", limits: tuple[float, float] = (0.002, 80.0)) -> Any:
    """A scheduler of diffusers, set up to end without noise and to leave clipping to us.

    Args:
        name: `"ddpm"`, ancestral sampling (2006.11239); `"ddim"`, deterministic (2010.02502); `"dpm-solver++"`, second order
            multistep, evenly in log sigma (2211.01095); `"sde-dpm-solver++"`, the same with fresh noise in every step;
            `"edm-euler"`, `"edm-heun"`, first and second order at the noise levels of Karras et al. (2206.00364), each step of
            Heun's method but the last taking two evaluations.
        schedule: the noise schedule of the first two.
        limits: smallest and largest sigma of the others.

    Raises:
        ValueError: unknown name.
        ImportError: no diffusers.
    """
    check_choice("sampler", name, get_args(Sampler))
    diffusers = require_diffusers()
    betas = diffusers.DDPMScheduler(beta_schedule=beta_schedule(schedule)).betas.numpy()  # not all know all schedules
    # "trailing" begins at the last step, where all is noise; "leading", the default of most, begins earlier
    process = {"trained_betas": betas, "prediction_type": "sample", "timestep_spacing": "trailing"}
    if name == "ddpm":
        return diffusers.DDPMScheduler(**process, clip_sample=False)
    if name == "ddim":
        return diffusers.DDIMScheduler(**process, clip_sample=False, set_alpha_to_one=True)
    if name == "edm-euler":
        return diffusers.EDMEulerScheduler(sigma_min=limits[0], sigma_max=limits[1], sigma_data=SIGMA_DATA)
    if name == "edm-heun":
        with _quiet():
            scheduler = diffusers.HeunDiscreteScheduler(use_karras_sigmas=True, prediction_type="epsilon")
    else:
        scheduler = diffusers.DPMSolverMultistepScheduler(
            trained_betas=betas,
            prediction_type="sample",
            use_exponential_sigmas=True,
            final_sigmas_type="zero",
            algorithm_type="sde-dpmsolver++" if name.startswith("sde") else "dpmsolver++",
        )
    scheduler.register_to_config(sigma_min=limits[0], sigma_max=limits[1])  # else the ends of the beta schedule
    return scheduler


@torch.no_grad()
def draw(
    denoise: Denoiser,
    scheduler: Any,
    noise: Tensor,
    *,
    steps: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Run a scheduler from noise to a sample.

    Args:
        denoise: D(x, sigma), x (N, C, *spatial), sigma (N,) on the CPU, any sigma > 0.
        scheduler: of diffusers, variance preserving (DDPM, DDIM, DPM-Solver, UniPC, ...), exploding (Euler, Heun, ...), EDM
            or flow matching; its state is reset.
        noise: (N, C, *spatial), standard normal.
        steps: number of steps of the scheduler.
        generator: of the noise that is added on the way, where there is any.

    Raises:
        ValueError: a scheduler of another kind, such as those of consistency models.

    Examples:
        >>> x = draw(lambda x, sigma: 0 * x + 0.5, make_scheduler("ddim"), torch.randn(2, 1, 4, 4), steps=3)
        >>> x.unique().tolist()  # the only image there is
        [0.5]
    """
    check_positive(steps=steps)
    _check(scheduler)
    with _quiet():
        scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)  # found by the value of t, it may be off by one where two t are equal
    flow = _flows(scheduler)
    start = 1.0 if flow else float(scheduler.init_noise_sigma)
    options = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
    x = noise * start
    for i, t in enumerate(scheduler.timesteps):
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(x, t)  # not used, but some schedulers insist
        sigma = _sigma(scheduler, i, t)
        if flow:  # x = (1 - s) x0 + s eps, so sigma = s / (1 - s)
            y = x * (1 + sigma).to(x)
        else:
            y = x * (1 + sigma**2).sqrt().to(x) if start == 1.0 else x
        x0 = denoise(y, sigma.expand(len(x)))
        output = (x - x0) * (1 + 1 / sigma).to(x) if flow else _output(scheduler, x0, y, sigma.to(x))
        x = scheduler.step(output, t, x, **options).prev_sample
    return x


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, and back to what each part was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def _quiet() -> Iterator[None]:
    """Without NumPy 2's remark on how diffusers turns tensors into arrays."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="__array__ implementation", category=DeprecationWarning)
        yield


def _sigma(scheduler: Any, i: int, t: Tensor) -> Tensor:
    """Noise over signal of the state before step i."""
    if hasattr(scheduler, "sigmas") and len(scheduler.sigmas) == len(scheduler.timesteps) + 1:
        sigma = torch.as_tensor(scheduler.sigmas[i]).cpu()
        sigma = sigma / (1 - sigma) if _flows(scheduler) else sigma
    else:
        alphas = scheduler.alphas_cumprod[int(t)].double().cpu()
        sigma = ((1 - alphas) / alphas).sqrt()
    return sigma.float().clamp(max=1e4)  # where a schedule ends with no signal at all


def _output(scheduler: Any, x0: Tensor, y: Tensor, sigma: Tensor) -> Tensor:
    """What the scheduler takes for the network's output."""
    if hasattr(scheduler, "precondition_outputs"):  # EDM: c_skip y + c_out F
        skip = scheduler.precondition_outputs(torch.ones_like(sigma), torch.zeros_like(sigma), sigma)
        out = scheduler.precondition_outputs(torch.zeros_like(sigma), torch.ones_like(sigma), sigma)
        return cast(Tensor, (x0 - skip * y) / out)
    return output_of(_ASKED[scheduler.config.prediction_type], x0, y, sigma)


def _flows(scheduler: Any) -> bool:
    """Whether it is one of flow matching: the state is (1 - s) x0 + s eps, and it asks for eps - x0."""
    return type(scheduler).__name__.startswith("FlowMatch")


def _check(scheduler: Any) -> None:
    config = getattr(scheduler, "config", {})
    diffusion = config.get("prediction_type") in _ASKED and not config.get("use_flow_sigmas")
    parts = ("set_timesteps", "step", "sigmas") if _flows(scheduler) else ("set_timesteps", "step", "init_noise_sigma")
    if not ((diffusion or _flows(scheduler)) and all(hasattr(scheduler, name) for name in parts)):
        raise ValueError(
            f"{type(scheduler).__name__} is not a scheduler of a diffusion process with a prediction_type among "
            f"{', '.join(_ASKED)}, nor one of flow matching (FlowMatch...); consistency models are others"
        )
