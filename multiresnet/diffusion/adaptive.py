"""Sampling at the resolution that the noise leaves: coarse stages while fine levels are drowned (arXiv 2305.19638, section 4).

A level is drowned where the noise is much stronger than its details. What they are then is nearly a matter of means and
covariances, so one formula serves for all of them: the denoiser is that of normal images, W, corrected by what the coarse stage D_k
knows better than normal averages, W_k:

    D(x)  =  W(x) + embed( D_k(average x) - W_k(average x) )

For normal images it is exact, whatever the noise. (Details that are shrunk one by one, S / (S + sigma²), are not: they forget
what coarse and fine have in common, and samples lose a fifth of their energy.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from multiresnet.budget import count_macs
from multiresnet.checks import check_positive, check_scale
from multiresnet.diffusion.gaussian import GaussianPyramid
from multiresnet.spaces.base import Space
from multiresnet.tasks.diffusion.noise import as_levels
from multiresnet.tasks.diffusion.samplers import Sampler
from multiresnet.tasks.diffusion.task import DiffusionTask
from multiresnet.unet import UNet

__all__ = ["AdaptiveResolutionSampler", "denoise_coarse"]

Coarse = Callable[[Tensor, Tensor], Tensor]  # (averages, their noise level) -> the denoised averages
Normal = Callable[[int, Tensor, Tensor], Tensor]


class AdaptiveResolutionSampler:
    """Draws images of a `DiffusionTask` with less work: while noise drowns the finest levels, only a coarse stage runs.

    It stands in for the task's denoiser, so every sampler and scheduler of `DiffusionTask.sample` works, guidance too. The
    stages of the network have to be trained: by `DiffusionTask(deep_supervision=True)`, or by `StagedTraining`.

    Args:
        task: trained, with a network of this package.
        pyramid: of training images, `GaussianPyramid.of(...)`.
        snr: a level is drowned where the signal-to-noise ratio of its details is below; 0 runs the whole network always.

    Raises:
        ValueError: a network without stages, or with an output at the finest resolution only.

    Examples:
        >>> from multiresnet import MultiResNet
        >>> net = MultiResNet(1, 1, channels=(16, 16), num_blocks=1, patch_levels=0, emb_channels=8)
        >>> images = 0.5 * torch.randn(64, 1, 8, 8).cumsum(-1).tanh()
        >>> sampler = AdaptiveResolutionSampler(DiffusionTask(net, emb_channels=8), GaussianPyramid.of(images, halvings=1))
        >>> sampler.sample(2, size=(1, 8, 8), steps=3).shape
        torch.Size([2, 1, 8, 8])
        >>> [sampler.halvings(sigma) for sigma in (0.01, 10.0)]
        [0, 1]
    """

    def __init__(self, task: DiffusionTask, pyramid: GaussianPyramid, *, snr: float = 0.05) -> None:
        model = getattr(task, "model", None)
        if not isinstance(model, UNet) or model.num_levels < 2 or len(model.heads) == 1:
            raise ValueError(
                "adaptive sampling needs a network of this package with an output at every resolution, got "
                f"{type(model).__name__}{' with one output' if isinstance(model, UNet) else ''}"
            )
        if snr != 0:
            check_scale(snr=snr)
        self.task, self.model, self.pyramid, self.snr = task, model, pyramid, float(snr)

    def halvings(self, sigma: float) -> int:
        """Finest levels that are drowned at a noise-to-signal ratio."""
        drowned = 0
        for energy in self.pyramid.energy[: self.model.num_levels - 1]:
            if energy >= self.snr * sigma**2:
                break
            drowned += 1
        return drowned

    def denoise(
        self, x: Tensor, sigma: float | Tensor, label: Tensor | None = None, *, guidance: float = 1.0
    ) -> Tensor:
        """The image in x = x0 + sigma eps, like `DiffusionTask.denoise`; one sigma for all images, as samplers have it."""
        levels = as_levels(sigma, len(x))
        if not bool((levels == levels[0]).all()):
            raise ValueError(
                "adaptive sampling takes one sigma for all images of a batch, as they run at one resolution"
            )
        halvings = self.halvings(float(levels[0])) if len(levels) else 0
        if not halvings:
            return self.task.denoise(x, levels, label, guidance=guidance)
        stage = self.model.num_levels - 1 - halvings

        def coarse(x: Tensor, sigma: Tensor) -> Tensor:
            return self.task.denoise(x, sigma, label, guidance=guidance, stage=stage)

        def normal(k: int, x: Tensor, sigma: Tensor) -> Tensor:
            return self.pyramid.images[k].denoise(x, sigma, label, guidance=guidance)

        return denoise_coarse(coarse, normal, x, levels, space=self.model.space, halvings=halvings)

    def sample(
        self,
        n: int,
        *,
        size: Sequence[int] | None = None,
        sampler: Sampler | Any = "dpm-solver++",
        steps: int | None = None,
        label: int | Sequence[int] | Tensor | None = None,
        guidance: float = 1.0,
        seed: int | torch.Generator | None = None,
        clip: bool = True,
        batch_size: int = 256,
    ) -> Tensor:
        """Draw images, with the arguments of `DiffusionTask.sample`: (n, C, *space)."""
        return self.task.sample(
            n,
            size=size,
            sampler=sampler,
            steps=steps,
            label=label,
            guidance=guidance,
            seed=seed,
            clip=clip,
            batch_size=batch_size,
            denoiser=self.denoise,
        )

    def cost(self, sigmas: Sequence[float], size: Sequence[int]) -> float:
        """Multiply-accumulates of the network over noise levels, in parts of those of the whole network at each.

        Args:
            sigmas: where the network is asked, as `noise_levels` has them.
            size: spatial size of an image.
        """
        macs, grid = list[int](), torch.zeros(1, 1, *size)
        for halvings in range(min(len(self.pyramid.energy), self.model.num_levels - 1) + 1):
            macs.append(count_macs(self.model.stage(self.model.num_levels - 1 - halvings), grid.shape[2:]))
            grid = self.model.space.project(grid, halvings)
        return sum(macs[self.halvings(float(sigma))] for sigma in sigmas) / (len(sigmas) * macs[0])


def denoise_coarse(coarse: Coarse, normal: Normal, x: Tensor, sigma: Tensor, *, space: Space, halvings: int) -> Tensor:
    """The image in x = x0 + sigma eps from a denoiser of its averages, see the head of this file.

    Args:
        coarse: D_k, called with averages and their noise level (N,).
        normal: W, called with a number of halvings, 0 or k, averages after so many, and their noise level (N,).
        x: (N, C, *spatial).
        sigma: (N,).
        space: whose averages they are.
        halvings: k, at least 1.

    Returns:
        (N, C, *spatial).
    """
    check_positive(halvings=halvings)
    averages, sizes = x, list[Sequence[int]]()
    for level in range(halvings):
        sizes.append(averages.shape[2:])
        averages = space.project(averages, level)
    noise = sigma / math.sqrt(math.prod(space.reduction(halvings)))
    known_better = coarse(averages, noise) - normal(halvings, averages, noise)
    for level in reversed(range(halvings)):
        known_better = space.embed(known_better, sizes[level], level)
    return normal(0, x, sigma) + known_better
