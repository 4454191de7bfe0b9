"""Periodic fields by their waves: resampling, and the velocity that belongs to a vorticity."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.fft import irfft, irfft2, rfft, rfft2

__all__ = ["spectral_resample", "velocity", "wavenumbers"]


def wavenumbers(n: int) -> tuple[Tensor, Tensor]:
    """Whole waves per box, kx (n // 2 + 1,) and ky (n, 1)."""
    return torch.arange(n // 2 + 1, dtype=torch.float64), torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)[:, None]


def spectral_resample(field: Tensor, size: int, *, spatial_dims: int = 2) -> Tensor:
    """Resample the last `spatial_dims` axes of periodic fields to `size` points by dropping or adding the highest waves.

    Wavenumbers below half the smaller size keep their amplitude, so the mean stays; all others are dropped.

    Examples:
        >>> import torch
        >>> x = torch.arange(24) * (2 * torch.pi / 24)
        >>> coarse = spectral_resample(torch.cos(x) * torch.ones(24, 1), 8)
        >>> bool(torch.allclose(coarse[0], torch.cos(x[::3]), atol=1e-6))
        True
    """
    if field.ndim < spatial_dims or 0 in field.shape or size < 1:
        raise ValueError(
            f"need fields with {spatial_dims} space axes and size >= 1, got {tuple(field.shape)} and {size}"
        )
    for axis in range(-spatial_dims, 0):
        n = field.shape[axis]
        kept = (min(n, size) + 1) // 2  # wavenumbers 0 .. kept - 1; the Nyquist one of an even size is dropped
        field = irfft(rfft(field, dim=axis).narrow(axis, 0, kept), n=size, dim=axis) * (size / n)
    return field


def velocity(vorticity: Tensor, *, length: float = 2 * math.pi) -> Tensor:
    """The divergence-free velocity (..., 2, n, n), components x then y, of a vorticity (..., n, n).

    Examples:
        >>> import torch
        >>> x = torch.arange(16, dtype=torch.float64) * (2 * torch.pi / 16)
        >>> u = velocity(torch.cos(x) * torch.ones(16, 1, dtype=torch.float64))    # w = dv/dx = cos x
        >>> bool(torch.allclose(u[1, 0], torch.sin(x))), bool(u[0].abs().max() < 1e-12)
        (True, True)
    """
    n = vorticity.shape[-1]
    kx, ky = (2 * math.pi / length * k for k in wavenumbers(n))
    psi = rfft2(vorticity) / (kx**2 + ky**2).clamp_min(1e-300) * ((kx != 0) | (ky != 0))
    if n % 2 == 0:  # the derivative of the Nyquist wave has no real counterpart
        psi[..., n // 2, :] = psi[..., :, n // 2] = 0
    u: Tensor = irfft2(torch.stack([1j * ky * psi, -1j * kx * psi], dim=-3), s=(n, n))
    return u
