"""Errors by wavenumber: which scales of a field are right. Frames are (..., *space), one spectrum for each."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from multiresnet.spaces.boundary import Boundary, parse_boundary

__all__ = ["BANDS", "check_same_shape", "fourier_rmse", "power_spectrum", "spectrum_error"]

BANDS: dict[str, tuple[int, int | None]] = {"low": (0, 5), "mid": (5, 13), "high": (13, None)}
"""Shells of the bands, first and last + 1: wavenumbers 0-4, 5-12, and from 13 on, as in PDEBench (arXiv 2210.07182)."""


def power_spectrum(x: Tensor, *, spatial_dims: int, boundary: Boundary = "periodic") -> Tensor:
    """Energy in shells of wavenumber k <= |k| < k + 1: (..., *space) -> (..., shells); the sum is the mean square of x.

    Wavenumbers count periods per side of the domain. Periodic axes take the Fourier transform. Others take the cosine
    transform (DCT-II), the Fourier transform of the mirrored field: no jump at the walls leaks into the high
    wavenumbers, and unlike a window it keeps all of the field. Corner wavenumbers are shells too.

    Examples:
        >>> x = torch.cos(2 * math.pi * 3 * torch.arange(16) / 16)
        >>> power_spectrum(x, spatial_dims=1)[:5].round(decimals=4)
        tensor([0.0000, 0.0000, 0.0000, 0.5000, 0.0000])
    """
    size = x.shape[x.ndim - spatial_dims :]
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    squared_k = torch.zeros((), device=x.device, dtype=torch.float64)
    periodic = [sides[0] == "periodic" for sides in parse_boundary(boundary, spatial_dims)]
    for axis in (axis for axis in range(spatial_dims) if not periodic[axis]):
        x = _cosine_transform(x, axis - spatial_dims)
    if any(periodic):
        x = torch.fft.fftn(x, dim=[axis - spatial_dims for axis in range(spatial_dims) if periodic[axis]], norm="ortho")
    for n, wraps in zip(size, periodic):
        k = torch.fft.fftfreq(n, 1 / n, device=x.device) if wraps else torch.arange(n, device=x.device) / 2
        squared_k = squared_k[..., None] + k.double().square()
    shell = (squared_k.sqrt() + 1e-9).long().flatten()
    energy = x.abs().square().flatten(x.ndim - spatial_dims) / math.prod(size)
    spectrum: Tensor = energy.new_zeros(*energy.shape[:-1], int(shell.max()) + 1)
    return spectrum.index_add_(-1, shell, energy)


def spectrum_error(
    prediction: Tensor, truth: Tensor, *, spatial_dims: int, boundary: Boundary = "periodic"
) -> dict[str, Tensor]:
    """Error of the energy, sum |E_prediction(k) - E_truth(k)| / sum E_truth(k) over the shells of each of the `BANDS`: (...).

    Only energies are compared, not phases: a rollout that has lost its way but not its character scores well.
    Bands that the grid does not have are left out. Less than a millionth of the whole energy counts as that much.
    """
    check_same_shape(prediction, truth)
    ours, true = (power_spectrum(x, spatial_dims=spatial_dims, boundary=boundary) for x in (prediction, truth))
    floor = 1e-6 * true.sum(-1) + 1e-30
    energy = {band: torch.maximum(value, floor) for band, value in _by_band(true).items()}
    return {band: wrong / energy[band] for band, wrong in _by_band((ours - true).abs()).items()}


def fourier_rmse(
    prediction: Tensor, truth: Tensor, *, spatial_dims: int, boundary: Boundary = "periodic"
) -> dict[str, Tensor]:
    """Root mean square of the part of the error that lies in each of the `BANDS`, each (...); the squares sum to the MSE.

    The fRMSE of PDEBench (arXiv 2210.07182) but for the weights: its code takes the mean over shells and leaves negative
    wavenumbers out. Bands that the grid does not have are left out.
    """
    check_same_shape(prediction, truth)
    error = power_spectrum(prediction - truth, spatial_dims=spatial_dims, boundary=boundary)
    return {band: energy.sqrt() for band, energy in _by_band(error).items()}


def _by_band(spectrum: Tensor) -> dict[str, Tensor]:
    shells = spectrum.shape[-1]
    return {band: spectrum[..., first:end].sum(-1) for band, (first, end) in BANDS.items() if first < shells}


def _cosine_transform(x: Tensor, axis: int) -> Tensor:
    """Orthonormal DCT-II along an axis, by a Fourier transform of the samples in the order 0, 2, 4, ..., 5, 3, 1."""
    x = x.movedim(axis, -1)
    n = x.shape[-1]
    turn = torch.arange(n, device=x.device, dtype=x.dtype) * (math.pi / (2 * n))
    wave = torch.fft.fft(torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], -1))
    y = (wave.real * turn.cos() + wave.imag * turn.sin()) * math.sqrt(2 / n)
    y[..., 0] *= math.sqrt(0.5)
    transformed: Tensor = y.movedim(-1, axis)
    return transformed


def check_same_shape(prediction: Tensor, truth: Tensor) -> None:
    """Raise `ValueError` unless both have one shape: broadcasting would hide a mistake."""
    if prediction.shape != truth.shape:
        raise ValueError(
            f"prediction {tuple(prediction.shape)} and truth {tuple(truth.shape)} must have the same shape"
        )
