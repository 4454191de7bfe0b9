"""Images as a normal distribution, of which the best denoiser is a closed form: what is left to say where noise drowns them."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from multiresnet.checks import check_positive
from multiresnet.diffusion.spectrum import band_energy
from multiresnet.spaces import Haar

__all__ = ["GaussianImages", "GaussianPyramid", "PrincipalAxes", "Stationary"]

LARGEST = 4096  # values of an image whose principal axes are found
Batches = Tensor | Iterable[Tensor] | Iterable[Mapping[str, Tensor]]


@dataclass(frozen=True, eq=False)
class Stationary:
    """Independent modes of a cosine transform, or, around a periodic axis, of sines and cosines (the Hartley transform).

    For stationary images that is exact around a periodic axis, and nearly so elsewhere. It takes few images, and serves every size.

    Args:
        covariance: of the channels in each mode, (*size, C, C), symmetric and >= 0.
        periodic: of each axis.
    """

    covariance: Tensor
    periodic: tuple[bool, ...]

    def shrink(self, x: Tensor, noise: Tensor) -> Tensor:
        """`Σ (Σ + noise)^-1 x` with variances (N,) of the noise: (N, C, *size) -> (N, C, *size)."""
        variances, axes = (part.to(x) for part in self._eigen)
        modes = torch.einsum("mce,ncm->nme", axes, transform(x, self.periodic).flatten(2))
        modes = torch.einsum("mce,nme->ncm", axes, variances / (variances + noise.view(-1, 1, 1)) * modes)
        return transform(modes.view_as(x), self.periodic, inverse=True)

    @functools.cached_property
    def _eigen(self) -> tuple[Tensor, Tensor]:
        """Variances (modes, C) and axes (modes, C, C) of the channels."""
        variances, axes = torch.linalg.eigh(self.covariance.double().flatten(0, -3))
        return variances.clamp(min=0), axes


@dataclass(frozen=True, eq=False)
class PrincipalAxes:
    """The covariance of all values, by its largest axes; what is left is taken for white. For small images that stand in place.

    Args:
        variances: (k,).
        axes: orthonormal, (values, k).
        rest: variance along every other axis.
    """

    variances: Tensor
    axes: Tensor
    rest: float

    def shrink(self, x: Tensor, noise: Tensor) -> Tensor:
        """`Σ (Σ + noise)^-1 x` with variances (N,) of the noise: (N, C, *size) -> (N, C, *size)."""
        values, axes, noise = x.flatten(1), self.axes.to(x), noise.view(-1, 1)
        rest = self.rest / (self.rest + noise)
        gains = self.variances.to(x) / (self.variances.to(x) + noise) - rest
        return (rest * values + (gains * (values @ axes)) @ axes.T).view_as(x)


@dataclass(frozen=True, eq=False)
class GaussianImages:
    """A normal distribution of images: a mean for each class, one covariance.

    Args:
        means: (classes + 1, C, *size); the last one is that of all images.
        covariance: within the classes.

    Examples:
        >>> x = torch.randn(500, 1, 8, 8, generator=torch.Generator().manual_seed(0)).cumsum(-1)
        >>> images = GaussianImages.fit(x)
        >>> noisy = x + torch.randn_like(x)
        >>> bool((images.denoise(noisy, 1.0) - x).square().mean() < (noisy - x).square().mean() / 2)
        True
    """

    means: Tensor
    covariance: Stationary | PrincipalAxes

    @classmethod
    def fit(
        cls, batches: Batches, *, stationary: bool | None = None, periodic: Sequence[bool] | None = None
    ) -> GaussianImages:
        """Means and covariance of images.

        Args:
            batches: see `GaussianPyramid.of`.
            stationary: whether the covariance is `Stationary` or has `PrincipalAxes`; `None`: axes up to 4,096 values.
            periodic: of each axis, where stationary; `None`: of none.
        """
        moments = _Moments(stationary, periodic)
        for x, label in _parts(batches):
            moments.add(x, label)
        return moments.images()

    def denoise(
        self, x: Tensor, sigma: float | Tensor, label: Tensor | None = None, *, guidance: float = 1.0
    ) -> Tensor:
        """E[x0 | x = x0 + sigma eps], the Wiener filter, with the arguments of `DiffusionTask.denoise`: -> (N, C, *size)."""
        if x.shape[1:] != self.means.shape[1:]:
            wanted = ", ".join(map(str, self.means.shape[1:]))
            raise ValueError(f"expected images (N, {wanted}), got {tuple(x.shape)}")
        noise = torch.as_tensor(sigma).to(x).reshape(-1).expand(len(x)).square()
        means = self.means.to(x)
        mean = means[-1:]
        if label is not None and len(means) > 1:
            mean = mean + guidance * (means[label.to(x.device)] - mean)
        return mean + self.covariance.shrink(x - mean, noise)


@dataclass(frozen=True, eq=False)
class GaussianPyramid:
    """Images, and their averages after one halving, two, ..., each as `GaussianImages`.

    Args:
        images: finest first.
        energy: mean square of the orthonormal details between one and the next, `band_energy`.

    Examples:
        >>> pyramid = GaussianPyramid.of(torch.randn(16, 3, 12, 12), halvings=2)
        >>> [tuple(images.means.shape) for images in pyramid.images], len(pyramid.energy)
        ([(1, 3, 12, 12), (1, 3, 6, 6), (1, 3, 3, 3)], 2)
    """

    images: tuple[GaussianImages, ...]
    energy: tuple[float, ...]

    @classmethod
    @torch.no_grad()
    def of(
        cls, batches: Batches, *, halvings: int, space: Haar | None = None, stationary: bool | None = None
    ) -> GaussianPyramid:
        """Fit all resolutions in one pass.

        Args:
            batches: images (N, C, *size), or {"image": images, "label": (N,) int64} as a data module's loader has them; one tensor
                is one batch. As the network is trained on; some thousand images in all do.
            halvings: number of coarser resolutions.
            space: of the network, whose averages they are; `None` is `Haar` without a period.
            stationary: whether covariances are `Stationary` or have `PrincipalAxes`; `None`: axes up to 4,096 values.
        """
        check_positive(halvings=halvings)
        moments, energies, count = list[_Moments](), torch.zeros(halvings, dtype=torch.float64), 0
        for x, label in _parts(batches):
            own = Haar(x.ndim - 2, "replicate") if space is None else space
            around = [rule == "periodic" for rule, _ in own.sides]
            moments = moments or [_Moments(stationary, around) for _ in range(halvings + 1)]
            energies += len(x) * band_energy(x, levels=halvings)[:-1].cpu()
            count += len(x)
            for level, sums in enumerate(moments):
                sums.add(x, label)
                x = own.project(x, level) if level < halvings else x
        if not count:
            raise ValueError("there are no images to fit; an iterator that was read once is empty")
        return cls(tuple(sums.images() for sums in moments), tuple((energies / count).tolist()))


class _Moments:
    """Sums over images in double precision: of each class, and of products."""

    def __init__(self, stationary: bool | None, periodic: Sequence[bool] | None) -> None:
        self.stationary, self.periodic = stationary, periodic
        self.counts, self.sums = dict[int, int](), dict[int, Tensor]()
        self.shape, self.products = torch.Size(), torch.zeros(()).double()

    @torch.no_grad()
    def add(self, x: Tensor, label: Tensor | None) -> None:
        if x.ndim < 3 or not x.is_floating_point() or (self.counts and x.shape[1:] != self.shape):
            raise ValueError(
                f"expected floating point images (N, C, *size), all of one size, got {x.dtype} {tuple(x.shape)}"
            )
        if not bool(x.isfinite().all()):
            raise ValueError("images must be finite: there are NaN or Inf among them")
        if self.stationary is None:
            self.stationary = x[0].numel() > LARGEST
        self.shape, x = x.shape[1:], x.double().cpu()
        labels = torch.zeros(len(x), dtype=torch.int64) if label is None else label.cpu()
        for c in labels.unique().tolist():
            own = x[labels == c]
            self.counts[c] = self.counts.get(c, 0) + len(own)
            self.sums[c] = self.sums.get(c, 0) + own.sum(0)
        self.products = self.products + self._products(x, torch.ones(len(x)).double())

    def images(self) -> GaussianImages:
        if not self.counts:
            raise ValueError("there are no images to fit; an iterator that was read once is empty")
        total = sum(self.counts.values())
        everything = torch.stack(list(self.sums.values())).sum(0) / total
        means = torch.stack([everything] * (max(self.counts) + 2 if len(self.counts) > 1 else 1))
        for c, count in self.counts.items():  # a class that was not seen has the mean of all
            means[c] = self.sums[c] / count
        known = torch.stack([means[c] for c in self.counts])
        within = (self.products - self._products(known, torch.tensor(list(self.counts.values())).double())) / total
        if self.stationary:
            return GaussianImages(means, Stationary(within, self._around()))
        variances, axes = torch.linalg.eigh(within)
        kept = min(256, len(variances))
        rest = float(variances[:-kept].clamp(min=0).mean()) if kept < len(variances) else 0.0
        return GaussianImages(means, PrincipalAxes(variances[-kept:].clamp(min=1e-12), axes[:, -kept:].float(), rest))

    def _products(self, x: Tensor, weights: Tensor) -> Tensor:
        """Sum of weights times x xᵀ: of channels in each mode, or of all values."""
        if not self.stationary:
            values = x.flatten(1)
            return (weights.unsqueeze(1) * values).T @ values
        modes = transform(x, self._around())
        return torch.einsum("n,nc...,nd...->...cd", weights, modes, modes)

    def _around(self) -> tuple[bool, ...]:
        return tuple(self.periodic or (False,) * (len(self.shape) - 1))


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


def _parts(batches: Batches) -> Iterable[tuple[Tensor, Tensor | None]]:
    for batch in [batches] if isinstance(batches, Tensor) else batches:
        found: Any = batch
        yield (found, None) if isinstance(found, Tensor) else (found["image"], found.get("label"))
