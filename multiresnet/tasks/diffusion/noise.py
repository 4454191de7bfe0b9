"""Which noise levels a diffusion network is trained at, and how it is told the level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from multiresnet.checks import check_choice

__all__ = ["LogNormal", "NoiseLevels", "Schedule", "Steps", "as_levels", "fixed_noise", "require_diffusers"]

Schedule = Literal["linear", "cosine", "scaled_linear", "sigmoid"]


class NoiseLevels(Protocol):
    """A distribution of sigma. The tensors are small and stay on the CPU, whatever the device and type of the network."""

    limits: tuple[float, float]
    """Smallest and largest sigma that samplers should use."""

    def quantile(self, u: Tensor) -> Tensor:
        """Sigma for u in [0, 1): u uniform gives the distribution of the training."""

    def condition(self, sigma: Tensor) -> Tensor:
        """The number that the network is conditioned on."""


class Steps:
    """The variance preserving process in `steps` steps: t is uniform in 0 ... steps - 1, and the network is told t.

    The betas are those of diffusers' `DDPMScheduler` with its default ends, so alpha_t^2 is its `alphas_cumprod[t]` and
    sigma_t^2 = (1 - alpha_t^2) / alpha_t^2. Between the steps t is interpolated linearly in log sigma.

    Args:
        schedule: `"linear"` (Ho et al., 2006.11239), `"cosine"` (Nichol & Dhariwal, 2102.09672), `"scaled_linear"`, `"sigmoid"`.
        steps: number of steps.

    Examples:
        >>> levels = Steps("linear")
        >>> sigma = levels.quantile(torch.tensor([0.0, 0.5, 0.999]))
        >>> sigma, levels.condition(sigma)
        (tensor([1.0001e-02, 3.4430e+00, 1.5741e+02]), tensor([  0., 500., 999.]))
    """

    def __init__(self, schedule: Schedule = "linear", *, steps: int = 1000) -> None:
        check_choice("schedule", schedule, get_args(Schedule))
        scheduler = require_diffusers().DDPMScheduler(num_train_timesteps=steps, beta_schedule=beta_schedule(schedule))
        alphas = scheduler.alphas_cumprod.double()
        self.sigmas: Tensor = ((1 - alphas) / alphas).sqrt()
        self.limits = (float(self.sigmas[0]), min(float(self.sigmas[-1]), LogNormal.limits[1]))

    def quantile(self, u: Tensor) -> Tensor:
        t = (u * len(self.sigmas)).long().clamp(0, len(self.sigmas) - 1)
        return self.sigmas[t].float()

    def condition(self, sigma: Tensor) -> Tensor:
        known, wanted = self.sigmas.log(), sigma.double().log()
        right = torch.searchsorted(known, wanted).clamp(1, len(known) - 1)
        part = (wanted - known[right - 1]) / (known[right] - known[right - 1])
        return (right - 1 + part.clamp(0, 1)).float()


class LogNormal:
    """EDM's distribution (2206.00364): ln sigma is normal with mean -1.2 and standard deviation 1.2; told is ln(sigma) / 4.

    Examples:
        >>> LogNormal().quantile(torch.tensor([0.5])).log()
        tensor([-1.2000])
    """

    mean, std = -1.2, 1.2
    limits = (0.002, 80.0)

    def quantile(self, u: Tensor) -> Tensor:
        normal: Tensor = torch.special.ndtri(u.double().clamp(1e-9, 1 - 1e-9))
        return (self.mean + self.std * normal).exp().float()

    def condition(self, sigma: Tensor) -> Tensor:
        return sigma.log() / 4


def as_levels(sigma: float | Tensor, batch: int) -> Tensor:
    """Noise levels of a batch, given as a number, (), (B,), (B, 1) or (B, 1, 1, 1), as a (B,) tensor on the CPU.

    Raises:
        ValueError: another shape, or a level that is not positive and finite.

    Examples:
        >>> as_levels(2.0, 3)
        tensor([2., 2., 2.])
    """
    levels = torch.as_tensor(sigma, dtype=torch.float32).detach().cpu()
    if levels.numel() not in (1, batch) or (levels.ndim and len(levels) != levels.numel()):
        raise ValueError(
            f"sigma must be one number or one for each of the {batch} images, (B,) or (B, 1), got {tuple(levels.shape)}"
        )
    if not bool(((levels > 0) & (levels < math.inf)).all()):
        raise ValueError("sigma is the standard deviation of the noise over that of the signal: finite and > 0")
    return levels.reshape(-1).expand(batch)


def fixed_noise(places: Sequence[int], shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The noise of a validation: u (N,), evenly over [0, 1), and eps (N, *shape), functions of the place alone.

    Examples:
        >>> fixed_noise([0, 1, 2], (1, 4, 4))[0]
        tensor([0.3090, 0.9271, 0.5451])
    """
    golden = (math.sqrt(5) - 1) / 2  # multiples of it, modulo 1, are evenly spread however many there are
    u = torch.tensor([(place + 0.5) * golden % 1 for place in places])
    return u, torch.stack([torch.randn(*shape, generator=torch.Generator().manual_seed(place)) for place in places])


def beta_schedule(schedule: str) -> str:
    """The name that diffusers has for a schedule."""
    return "squaredcos_cap_v2" if schedule == "cosine" else schedule


def require_diffusers() -> Any:
    """The package diffusers, or an error that says how to get it."""
    try:
        import diffusers
    except ImportError as error:
        raise ImportError("diffusion needs diffusers: pip install 'multiresnet[diffusion]'") from error
    return diffusers
