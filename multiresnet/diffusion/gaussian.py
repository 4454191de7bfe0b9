"""Images as a normal distribution, of which the best denoiser is a closed form: what is left to say where noise drowns them."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from multiresnet.checks import check_positive
from multiresnet.diffusion.spectrum import band_energy
from multiresnet.spaces import Haar

__all__ = ["GaussianImages", "GaussianPyramid"]


@dataclass(frozen=True, eq=False)
class GaussianImages:
    """A normal distribution of images whose cosine modes are independent of each other; channels are not.

    For stationary images that is exact around a periodic axis and nearly so elsewhere (the discrete cosine transform
    is close to their principal axes). The mean is any image.

    Args:
        mean: (C, *size).
        covariance: of the channels in each mode, (*size, C, C), symmetric and >= 0.
        periodic: whether each axis goes around, and its modes are sines and cosines (the Hartley transform).

    Examples:
        >>> x = torch.randn(500, 1, 8, 8, generator=torch.Generator().manual_seed(0)).cumsum(-1)
        >>> images = GaussianImages.fit(x)
        >>> noisy = x + torch.randn_like(x)
        >>> bool((images.denoise(noisy, 1.0) - x).square().mean() < (noisy - x).square().mean() / 2)
        True
    """

    mean: Tensor
    covariance: Tensor
    periodic: tuple[bool, ...]

    def __post_init__(self) -> None:
        channels, *size = self.mean.shape
        if self.covariance.shape != (*size, channels, channels) or len(self.periodic) != len(size):
            raise ValueError(
                f"a mean of {tuple(self.mean.shape)} goes with a covariance of {(*size, channels, channels)} and "
                f"{len(size)} periodic axes or not; got {tuple(self.covariance.shape)} and {self.periodic}"
            )

    @classmethod
    def fit(cls, batches: Tensor | Iterable[Tensor], *, periodic: Sequence[bool] | None = None) -> GaussianImages:
        """Mean and covariance of images.

        Args:
            batches: (N, C, *size) each; one tensor is one batch.
            periodic: of each axis; `None`: of none.
        """
        moments = _Moments(periodic)
        for x in [batches] if isinstance(batches, Tensor) else batches:
            moments.add(x)
        return moments.images()

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """E[x0 | x = x0 + sigma eps], the Wiener filter: (N, C, *size), sigma a number or (N,) -> (N, C, *size)."""
        if x.shape[1:] != self.mean.shape:
            raise ValueError(f"expected images (N, {', '.join(map(str, self.mean.shape))}), got {tuple(x.shape)}")
        variances, axes = (part.to(x) for part in self._eigen)
        noise = torch.as_tensor(sigma).to(x).reshape(-1, 1, 1).square()
        mean = self.mean.to(x)
        modes = torch.einsum("mce,ncm->nme", axes, transform(x - mean, self.periodic).flatten(2))
        modes = torch.einsum("mce,nme->ncm", axes, variances / (variances + noise) * modes)
        return mean + transform(modes.view_as(x), self.periodic, inverse=True)

    @functools.cached_property
    def _eigen(self) -> tuple[Tensor, Tensor]:
        """Variances (modes, C) and axes (modes, C, C) of the channels."""
        variances, axes = torch.linalg.eigh(self.covariance.double().flatten(0, -3))
        return variances.clamp(min=0), axes


@dataclass(frozen=True, eq=False)
class GaussianPyramid:
    """Images, and their averages after one halving, two, ..., each as `GaussianImages`.

    Args:
        images: finest first.
        energy: mean square of the orthonormal details between one and the next, `band_energy`.

    Examples:
        >>> pyramid = GaussianPyramid.of(torch.randn(16, 3, 12, 12), halvings=2)
        >>> [tuple(images.mean.shape) for images in pyramid.images], len(pyramid.energy)
        ([(3, 12, 12), (3, 6, 6), (3, 3, 3)], 2)
    """

    images: tuple[GaussianImages, ...]
    energy: tuple[float, ...]

    @classmethod
    @torch.no_grad()
    def of(cls, batches: Tensor | Iterable[Tensor], *, halvings: int, space: Haar | None = None) -> GaussianPyramid:
        """Fit all resolutions in one pass.

        Args:
            batches: (N, C, *size) each, as the network is trained on; some thousand images in all do.
            halvings: number of coarser resolutions.
            space: of the network, whose averages they are; `None` is `Haar` without a period.
        """
        check_positive(halvings=halvings)
        moments, energies, count = list[_Moments](), torch.zeros(halvings, dtype=torch.float64), 0
        for x in [batches] if isinstance(batches, Tensor) else batches:
            own = Haar(x.ndim - 2, "replicate") if space is None else space
            moments = moments or [_Moments([rule == "periodic" for rule, _ in own.sides]) for _ in range(halvings + 1)]
            energies += len(x) * band_energy(x, levels=halvings)[:-1].cpu()
            count += len(x)
            for level, sums in enumerate(moments):
                sums.add(x)
                x = own.project(x, level) if level < halvings else x
        if not count:
            raise ValueError("there are no images to fit; an iterator that was read once is empty")
        return cls(tuple(sums.images() for sums in moments), tuple((energies / count).tolist()))


class _Moments:
    """Sums over images, in double precision."""

    def __init__(self, periodic: Sequence[bool] | None) -> None:
        self.periodic, self.count = periodic, 0
        self.first, self.second = torch.zeros(()).double(), torch.zeros(()).double()

    @torch.no_grad()
    def add(self, x: Tensor) -> None:
        if x.ndim < 3 or not x.is_floating_point() or (self.count and x.shape[1:] != self.first.shape):
            raise ValueError(
                f"expected floating point images (N, C, *size), all of one size, got {x.dtype} {tuple(x.shape)}"
            )
        if not bool(x.isfinite().all()):
            raise ValueError("images must be finite: there are NaN or Inf among them")
        self.periodic = tuple(self.periodic or (False,) * (x.ndim - 2))
        modes = transform(x.double().cpu(), self.periodic)
        self.first = self.first + modes.sum(0)
        self.second = self.second + torch.einsum("nc...,nd...->...cd", modes, modes)
        self.count += len(x)

    def images(self) -> GaussianImages:
        if not self.count:
            raise ValueError("there are no images to fit; an iterator that was read once is empty")
        periodic, mean = tuple(self.periodic or ()), self.first / self.count
        centred = self.second / self.count - torch.einsum("c...,d...->...cd", mean, mean)
        return GaussianImages(transform(mean[None], periodic, inverse=True)[0], centred, periodic)


def transform(x: Tensor, periodic: Sequence[bool], *, inverse: bool = False) -> Tensor:
    """Orthonormal cosine transform of each axis, or the Hartley transform of a periodic one: (N, C, *size) -> (N, C, *size)."""
    for axis, around in enumerate(periodic, start=2):
        matrix = _basis(x.shape[axis], around).to(x)
        x = torch.tensordot(x, matrix.T if inverse else matrix, dims=([axis], [1])).movedim(-1, axis)
    return x


@functools.lru_cache(maxsize=64)
def _basis(n: int, periodic: bool) -> Tensor:
    """Modes by samples, (n, n)."""
    mode, place = torch.arange(n, dtype=torch.float64).view(-1, 1), torch.arange(n, dtype=torch.float64)
    if periodic:
        phase = 2 * math.pi / n * mode * place
        return (phase.cos() + phase.sin()) / math.sqrt(n)
    cosines = (math.pi / n * mode * (place + 0.5)).cos() * math.sqrt(2 / n)
    cosines[0] /= math.sqrt(2)
    return cosines
