"""Noise schedules seen by each resolution: when a level is drowned, and what pooling does to a process.

Images are x_t = alpha x_0 + sigma_t eps; all that counts is the noise-to-signal ratio sigma = sigma_t / alpha. Identities of
arXiv 2305.19638, section 4: a Haar level of energy S_j has the signal-to-noise ratio S_j / sigma^2; averaging over the 2^d
cells of a grid k times divides sigma by 2^(d k / 2).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from multiresnet.checks import check_positive, check_scale
from multiresnet.diffusion.spectrum import Spectrum

__all__ = [
    "crossing_time_linear_vp",
    "crossing_times",
    "noise_levels",
    "pooled",
    "eps_loss_weights",
    "shifted",
    "shifted_scheduler",
]

Number = TypeVar("Number", float, Tensor)
# Options of schedulers that are in the betas already and must not have their effect twice, with the values of no effect.
_SPENT = {"rescale_betas_zero_snr": False, "snr_shift_scale": 1.0}


def noise_levels(scheduler: Any) -> Tensor:
    """Noise-to-signal ratio sigma of every time step that a scheduler of diffusers trains on, whatever steps it was set to sample.

    Args:
        scheduler: variance preserving (it has `alphas_cumprod`: DDPM, DDIM, DPM-Solver, Euler, ...), sqrt((1 - a) / a); exploding
            or EDM (`EDMEulerScheduler`, `ScoreSdeVeScheduler`, ...), its `sigmas`; flow matching
            (`FlowMatchEulerDiscreteScheduler`, ..., without dynamic shifting), sigma / (1 - sigma), infinite at 1.

    Returns:
        (steps,), float64, on the CPU, rising: entry t belongs to time step t of a variance preserving process; other
        schedulers number their steps differently, mostly from the noise on, and are counted from the data on here.

    Raises:
        ValueError: something else, or a variance preserving scheduler that is told to integrate a flow.

    Examples:
        >>> from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
        >>> noise_levels(DDPMScheduler())[[0, 500, 999]]
        tensor([1.0001e-02, 3.4430e+00, 1.5741e+02], dtype=torch.float64)
        >>> noise_levels(FlowMatchEulerDiscreteScheduler())[[499, 999]]
        tensor([1., inf], dtype=torch.float64)
    """
    name, config = type(scheduler).__name__, getattr(scheduler, "config", {})
    flow = hasattr(scheduler, "scale_noise") or bool(config.get("use_flow_sigmas"))
    if hasattr(scheduler, "alphas_cumprod"):
        if flow:
            raise ValueError(
                f"{name} with use_flow_sigmas samples a flow but lists another process: "
                "pass the FlowMatchEulerDiscreteScheduler that the network was trained with"
            )
        alphas = torch.as_tensor(scheduler.alphas_cumprod).double().cpu()
        return ((1 - alphas) / alphas).sqrt()
    known = getattr(scheduler, "sigmas", None) is not None and hasattr(scheduler, "from_config")
    if known and (flow or hasattr(scheduler, "add_noise")):
        fresh = type(scheduler).from_config(scheduler.config)  # set_timesteps replaces the sigmas of the training
        # behind the sigmas of the time steps may come a last one, for the end of sampling
        sigmas = torch.as_tensor(fresh.sigmas[: len(fresh.timesteps)]).double().cpu().sort().values
        if len(sigmas):
            return sigmas / (1 - sigmas) if flow else sigmas
    raise ValueError(
        f"{name} has no noise levels that are known here; wanted a scheduler of diffusers with alphas_cumprod (such as "
        "DDPMScheduler), of EDM (EDMEulerScheduler) or of flow matching (FlowMatchEulerDiscreteScheduler)"
    )


def crossing_times(
    energy: Sequence[float] | Tensor | Spectrum, scheduler: Any, *, snr: float = 1.0
) -> tuple[int | None, ...]:
    """The first time step at which noise dominates each band: its signal-to-noise ratio is at most `snr`.

    For DDPM at `snr=1` that is the first t with `alphas_cumprod[t] <= 1 / (1 + S_j)` (arXiv 2305.19638, section 4).

    Args:
        energy: mean square of the orthonormal coefficients of each band, >= 0.
        scheduler: of diffusers, see `noise_levels`.
        snr: > 0.

    Returns:
        One index into `noise_levels(scheduler)` for each band; `None` where the noise never gets there.

    Raises:
        ValueError: energies that are negative or not finite, an unknown scheduler.

    Examples:
        >>> from diffusers import DDPMScheduler
        >>> crossing_times([0.01, 1.0, 100.0, 1e6], DDPMScheduler())
        (27, 259, 674, None)
    """
    check_scale(snr=snr)
    noise = noise_levels(scheduler).square() * snr
    reached = noise >= _energies(energy)[:, None]
    return tuple(int(row.int().argmax()) if bool(row.any()) else None for row in reached)


def crossing_time_linear_vp(
    energy: Sequence[float] | Tensor | Spectrum, beta_min: float = 0.1, beta_max: float = 20.0, *, snr: float = 1.0
) -> tuple[float, ...]:
    """Closed form of `crossing_times` for the variance preserving process with beta(t) linear in the continuous time t.

    With S = S_j / snr, `t_j = (sqrt(b0^2 + 2 (b1 - b0) log(1 + S)) - b0) / (b1 - b0)` (arXiv 2305.19638, section 4).

    Args:
        energy: as in `crossing_times`.
        beta_min: b0, beta at t = 0, > 0.
        beta_max: b1, beta at t = 1, >= b0. DDPM's betas times the number of steps.
        snr: > 0.

    Returns:
        A time for each band; above 1 it is reached only after the end of the process.

    Raises:
        ValueError: numbers out of range.

    Examples:
        >>> [round(time, 3) for time in crossing_time_linear_vp([0.01, 1.0, 100.0])]
        [0.027, 0.259, 0.676]
    """
    check_scale(beta_min=beta_min, beta_max=beta_max, snr=snr)
    if beta_max < beta_min:
        raise ValueError(f"beta must not fall: beta_max >= beta_min, got {beta_max} and {beta_min}")
    wanted = (_energies(energy) / snr).log1p()
    # the formula times the conjugate of its numerator: no difference of near numbers, and no division by b1 - b0 = 0
    times = 2 * wanted / (beta_min + (beta_min**2 + 2 * (beta_max - beta_min) * wanted).sqrt())
    return tuple(times.tolist())


def pooled(sigma: Number, *, halvings: int, spatial_dims: int) -> Number:
    """Standard deviation of white noise after average pooling: `sigma * 2**(-d k / 2)` (arXiv 2305.19638, section 4).

    Taking every second sample instead would leave it at sigma.

    Args:
        sigma: a number or a tensor of any shape.
        halvings: k >= 0, how often each side is halved.
        spatial_dims: d, 1, 2 or 3.

    Raises:
        ValueError: numbers out of range.

    Examples:
        >>> [pooled(1.0, halvings=k, spatial_dims=2) for k in range(4)]
        [1.0, 0.5, 0.25, 0.125]
    """
    return sigma * math.sqrt(_noise_left(halvings, spatial_dims))


def shifted(alphas_cumprod: Tensor, *, halvings: int, spatial_dims: int) -> Tensor:
    """The variance preserving process that average pooling makes of one: its log-SNR rises by `k d log 2`.

    The pooled image alpha x_0 + sigma 2^(-d k / 2) eps, divided by n = sqrt(alpha^2 + sigma^2 2^(-d k)), is such a process at
    the coarse resolution (arXiv 2305.19638, section 4). Train a coarse network on it, and it meets the noise that the coarse level
    of the full one meets; on the unshifted process it would meet more.

    Args:
        alphas_cumprod: alpha^2 at any times, in [0, 1].
        halvings: k >= 0.
        spatial_dims: d, 1, 2 or 3.

    Returns:
        alpha^2 / n^2, of the same shape, float64: the difference to 1 is what counts.

    Raises:
        ValueError: numbers out of range.

    Examples:
        >>> shifted(torch.tensor([1.0, 0.5, 0.0]), halvings=1, spatial_dims=2)
        tensor([1.0000, 0.8000, 0.0000], dtype=torch.float64)
    """
    alphas = alphas_cumprod.double()
    if not bool(((alphas >= 0) & (alphas <= 1)).all()):
        raise ValueError("alphas_cumprod are squares of the factor of the signal, in [0, 1]; these are not")
    return alphas / (alphas + (1 - alphas) * _noise_left(halvings, spatial_dims))


def shifted_scheduler(scheduler: Any, *, halvings: int, spatial_dims: int) -> Any:
    """A scheduler like `scheduler`, for images that were pooled: the process of `shifted`, as `trained_betas`.

    Args:
        scheduler: of diffusers, variance preserving, with an argument `trained_betas` (DDPM, DDIM, DPM-Solver, ...).
        halvings: k >= 0.
        spatial_dims: d, 1, 2 or 3.

    Returns:
        A new scheduler of the same class and options, not set to any number of steps.

    Raises:
        ValueError: another scheduler; so many halvings that the float32 of diffusers has no number for the weakest noise.

    Examples:
        >>> from diffusers import DDPMScheduler
        >>> coarse = shifted_scheduler(DDPMScheduler(), halvings=1, spatial_dims=2)
        >>> noise_levels(coarse)[[100, 500]]  # half of what they were
        tensor([0.1711, 1.7215], dtype=torch.float64)
    """
    name = type(scheduler).__name__
    options = inspect.signature(type(scheduler).__init__).parameters
    if not hasattr(scheduler, "alphas_cumprod") or "trained_betas" not in options:
        raise ValueError(
            f"{name} takes no trained_betas; wanted a variance preserving scheduler of diffusers, such as DDPMScheduler. "
            "For EDM give the coarse network pooled(sigma, ...)"
        )
    wanted = pooled(noise_levels(scheduler), halvings=halvings, spatial_dims=spatial_dims)
    alphas = shifted(torch.as_tensor(scheduler.alphas_cumprod), halvings=halvings, spatial_dims=spatial_dims).cpu()
    betas = 1 - alphas / torch.cat([torch.ones_like(alphas[:1]), alphas[:-1]])
    done = {key: value for key, value in _SPENT.items() if key in options}
    made = type(scheduler).from_config(scheduler.config, trained_betas=betas.tolist(), **done)
    finite = wanted.isfinite() & (wanted < 1e3)  # alphas_cumprod of 1e-6 and 0 are the same end
    error = (noise_levels(made)[finite] / wanted[finite] - 1).abs().max()
    if not error < 0.1:
        raise ValueError(
            f"{name} cannot hold noise as weak as {float(wanted.min()):.2g}, its betas are float32: "
            f"got halvings={halvings}, take fewer or a schedule that begins with more noise"
        )
    return made


def eps_loss_weights(outputs: int, *, spatial_dims: int) -> Tensor:
    """Weights of the losses of an eps prediction at several resolutions, each half the next one, for which all count alike.

    Averaged over the cells of k halvings the noise has variance 2^(-d k); so has an error of it, and unweighted the coarse losses
    would hardly count (arXiv 2305.19638, section 4). `DiffusionTask` does this already, for every prediction: its weight is
    one over `multiresnet.tasks.diffusion.parametrisation.shrinkage`.

    Args:
        outputs: how many resolutions.
        spatial_dims: d, 1, 2 or 3.

    Returns:
        (outputs,), coarsest first, `2**(d k)` at k halvings, 1 for the finest.

    Raises:
        ValueError: numbers out of range.

    Examples:
        >>> eps_loss_weights(3, spatial_dims=2)
        tensor([16.,  4.,  1.])
    """
    check_positive(outputs=outputs)
    return torch.tensor([1 / _noise_left(k, spatial_dims) for k in reversed(range(outputs))])


def _noise_left(halvings: int, spatial_dims: int) -> float:
    """The part of the variance of white noise that averaging leaves."""
    if isinstance(halvings, bool) or not isinstance(halvings, int) or halvings < 0:
        raise ValueError(f"halvings must be an integer >= 0, got {halvings!r}")
    if spatial_dims not in (1, 2, 3):
        raise ValueError(f"spatial_dims must be 1, 2 or 3, got {spatial_dims!r}")
    return float(2.0 ** (-spatial_dims * halvings))


def _energies(energy: Sequence[float] | Tensor | Spectrum) -> Tensor:
    values = torch.as_tensor(energy.energy if isinstance(energy, Spectrum) else energy, dtype=torch.float64).cpu()
    if values.ndim != 1 or not bool(((values >= 0) & (values < math.inf)).all()):
        raise ValueError(f"energy takes one finite number >= 0 for each band, got {values.tolist()}")
    return values
