"""Sampling by the reverse of an Ornstein-Uhlenbeck process with an exact or learned score (arXiv 2309.11420)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from multiresnet.checks import check_positive

Score = Callable[[Tensor, float, float], Tensor]  # of z, scale and noise


def two_phase_grid(steps: int, *, horizon: float = 6.0, stop: float = 1e-3) -> list[float]:
    """Times 0 = t_0 < ... < t_steps = horizon - stop: even up to horizon - 1, then the time that is left falls geometrically.

    Args:
        steps: of the sampler, at least 2.
        horizon: time at which data are taken for noise, above 1.
        stop: time that is left out before the data.
    """
    check_positive(steps=steps)
    if steps < 2 or not horizon > 1 or not 0 < stop < 1:
        raise ValueError(f"two phases need steps >= 2, horizon > 1 and 0 < stop < 1; got {steps}, {horizon}, {stop}")
    even = steps // 2
    first = [(horizon - 1) * k / even for k in range(even + 1)]
    return first + [horizon - stop ** (k / (steps - even)) for k in range(1, steps - even + 1)]


def marginal(time: float) -> tuple[float, float]:
    """`(scale, noise)` of the process after `time`: `e^-t` and `sqrt(1 - e^-2t)`."""
    return math.exp(-time), math.sqrt(-math.expm1(-2 * time))


@torch.no_grad()
def exponential_integrator(
    score: Score,
    start: Tensor,
    *,
    steps: int,
    horizon: float = 6.0,
    stop: float = 1e-3,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Noise to samples: the reverse process with the score held fixed during a step, and the rest integrated exactly.

    Args:
        score: `score(z, scale, noise)`, the gradient of the log-density of `z = scale * x + noise * normal`, such as
            `lambda z, scale, noise: model.score(z, scale=scale, noise=noise)`.
        start: standard normal, (N, ...).
        steps: on `two_phase_grid`.
        horizon: time at which data are taken for noise.
        stop: time that is left at the end.
        generator: of the noise.

    Returns:
        (N, ...), distributed as `scale * x + noise * normal` at the time `stop`, up to an error of first order in the step.
    """
    times, y = two_phase_grid(steps, horizon=horizon, stop=stop), start
    for now, then in itertools.pairwise(times):
        step = then - now
        normal = torch.randn(y.shape, generator=generator, dtype=y.dtype, device=y.device)
        drift = 2 * math.expm1(step) * score(y, *marginal(horizon - now))
        y = math.exp(step) * y + drift + math.sqrt(math.expm1(2 * step)) * normal
    return y


def as_noise_prediction(score: Score, alphas_cumprod: Tensor) -> Callable[[Tensor, int | Tensor], Tensor]:
    """What a network would predict that was trained on noise, for the schedulers of diffusers.

    Args:
        score: `score(z, scale, noise)`.
        alphas_cumprod: of the scheduler, squared scales of its time steps.

    Returns:
        `predict(z, timestep)`, the expected noise in z.
    """

    def predict(z: Tensor, timestep: int | Tensor) -> Tensor:
        squared = float(alphas_cumprod[int(timestep)])
        scale, noise = math.sqrt(squared), math.sqrt(1 - squared)
        return -noise * score(z, scale, noise)

    return predict
