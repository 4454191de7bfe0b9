"""Gaussian fields on a periodic grid: everything in closed form, by the fast Fourier transform."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from multiresnet.checks import check_positive


@dataclass(frozen=True, eq=False)
class GaussianField:
    """A stationary normal field of mean zero: its Fourier modes are independent.

    Args:
        spectrum: variance of each mode of the orthonormal Fourier transform, (*size), as `torch.fft.fftn` orders them; even in the
            frequency. Its mean is the variance of a value.

    Examples:
        >>> field = GaussianField.power_law((16, 16), exponent=2.0)
        >>> x = field.sample(3, generator=torch.Generator().manual_seed(0))
        >>> field.denoise(x + 0.3 * torch.randn(3, 16, 16), noise=0.3).shape
        torch.Size([3, 16, 16])
    """

    spectrum: Tensor

    def __post_init__(self) -> None:
        mirrored = self.spectrum.flip(*[list(range(self.spectrum.ndim))]).roll(
            [1] * self.spectrum.ndim, list(range(self.spectrum.ndim))
        )
        if (
            self.spectrum.is_complex()
            or not bool((self.spectrum >= 0).all())
            or not torch.allclose(self.spectrum, mirrored)
        ):
            raise ValueError("spectrum must be real, >= 0 and even: the same at a frequency and at its negative")

    @classmethod
    def power_law(cls, size: tuple[int, ...], *, exponent: float, dtype: torch.dtype | None = None) -> GaussianField:
        """Spectrum `|k|^-exponent`, no mean, values of variance 1."""
        check_positive(**{f"size[{axis}]": n for axis, n in enumerate(size)})
        squares = sum(
            (n * torch.fft.fftfreq(n, dtype=dtype)).square().view(-1, *[1] * (len(size) - 1 - axis))
            for axis, n in enumerate(size)
        )
        assert isinstance(squares, Tensor)
        spectrum = torch.where(squares > 0, squares.clamp(min=1e-9) ** (-exponent / 2), 0.0)
        return cls(spectrum / spectrum.mean())

    def pooled(self) -> GaussianField:
        """The field of averages over cells of two along each axis, normal and stationary too: frequencies fold onto each other."""
        size = tuple(self.spectrum.shape)
        if any(n % 2 for n in size):
            raise ValueError(f"averages over cells of two need even sides, got {size}")
        folded = self.spectrum
        for axis, n in enumerate(size):
            kept = torch.cos(math.pi * torch.fft.fftfreq(n, dtype=folded.dtype)).square()  # of an average over two
            folded = folded * kept.view(-1, *[1] * (len(size) - 1 - axis))
            folded = (folded.narrow(axis, 0, n // 2) + folded.narrow(axis, n // 2, n // 2)) / 2
        return GaussianField(folded)

    def sample(self, count: int, *, generator: torch.Generator | None = None) -> Tensor:
        """(N, *size)."""
        check_positive(count=count)
        white = torch.randn(count, *self.spectrum.shape, generator=generator, dtype=self.spectrum.dtype)
        return self._filter(white, self.spectrum.sqrt())

    def denoise(self, z: Tensor, *, noise: float, scale: float = 1.0) -> Tensor:
        """The Wiener filter, E[x | z] for `z = scale * x + noise * normal`: (N, *size) -> (N, *size)."""
        return self._filter(z, scale * self.spectrum / (scale**2 * self.spectrum + noise**2))

    def score(self, z: Tensor, *, noise: float, scale: float = 1.0) -> Tensor:
        """Gradient of the log-density of z, (N, *size)."""
        return -self._filter(z, 1 / (scale**2 * self.spectrum + noise**2))

    def log_evidence(self, z: Tensor, *, noise: float, scale: float = 1.0) -> Tensor:
        """Log-density of z, (N, *size) -> (N,)."""
        variance = scale**2 * self.spectrum + noise**2
        modes = torch.fft.fftn(z, dim=self._axes, norm="ortho").abs().square()
        evidence: Tensor = -0.5 * ((modes / variance).flatten(1).sum(1) + (2 * math.pi * variance).log().sum())
        return evidence

    @property
    def _axes(self) -> list[int]:
        return list(range(1, self.spectrum.ndim + 1))

    def _filter(self, x: Tensor, factor: Tensor) -> Tensor:
        if x.shape[1:] != self.spectrum.shape:
            raise ValueError(f"expected (N, {', '.join(map(str, self.spectrum.shape))}), got {tuple(x.shape)}")
        filtered: Tensor = torch.fft.ifftn(factor * torch.fft.fftn(x, dim=self._axes), dim=self._axes).real
        return filtered
