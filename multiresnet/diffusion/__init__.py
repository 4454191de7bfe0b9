"""What noise does to each resolution of your data, schedules for it, and sampling that follows it (arXiv 2305.19638, section 4)."""

from multiresnet.diffusion.adaptive import AdaptiveResolutionSampler, denoise_coarse
from multiresnet.diffusion.gaussian import GaussianImages, GaussianPyramid, PrincipalAxes, Stationary
from multiresnet.diffusion.schedules import (
    crossing_time_linear_vp,
    crossing_times,
    eps_loss_weights,
    noise_levels,
    pooled,
    shifted,
    shifted_scheduler,
)
from multiresnet.diffusion.spectrum import Spectrum, band_energy

__all__ = [
    "AdaptiveResolutionSampler",
    "GaussianImages",
    "GaussianPyramid",
    "PrincipalAxes",
    "Spectrum",
    "Stationary",
    "band_energy",
    "crossing_time_linear_vp",
    "crossing_times",
    "denoise_coarse",
    "noise_levels",
    "pooled",
    "eps_loss_weights",
    "shifted",
    "shifted_scheduler",
]
