"""The spaces of the other discrete wavelets: natural bases where boxes are a poor one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from multiresnet.spaces import filters
from multiresnet.spaces.base import Space
from multiresnet.spaces.boundary import Boundary, BoundaryConv, Sides, settle


@dataclass(frozen=True)
class Wavelet(Space):
    """The multiresolution spaces of any discrete wavelet of PyWavelets, in 1, 2 or 3 dimensions (paper A, section 3).

    Averages and details are PyWavelets' coefficients without those at the ends that are redundant, so that
    there are as many as samples, at every size; see `multiresnet.spaces.filters`. `project` keeps the averages, `embed` synthesises
    without details. That is the orthogonal projection for the orthogonal families (haar, db, sym, coif) on periodic axes of even
    size; elsewhere, and for the biorthogonal ones, an oblique one. On even sizes
    `Wavelet("haar")` has the coefficients of `Haar`.

    Args:
        name: one of `pywt.wavelist(kind="discrete")`: `"db2"`, `"sym4"`, `"coif1"`, `"bior2.2"`, `"rbio4.4"`, `"dmey"`, ...
        spatial_dims: 1, 2 or 3.
        boundary: what lies outside the box, as for `Haar`: for the convolutions, and for the filters, where `"zeros"` repeats the
            last sample, so that constants stay constants.

    Raises:
        ValueError: an unknown wavelet or boundary rule, `spatial_dims` not 1, 2 or 3.

    Examples:
        >>> space = Wavelet("db2", spatial_dims=1, boundary="periodic")
        >>> x = torch.arange(9.0).view(1, 1, 9)
        >>> approximation, detail = space.analysis(x)
        >>> approximation.shape, detail.shape
        (torch.Size([1, 1, 5]), torch.Size([1, 1, 5]))
        >>> bool((space.synthesis(approximation, detail, (9,)) - x).abs().max() < 1e-5)
        True
    """

    name: str = "db2"
    spatial_dims: int = 2
    boundary: Boundary = "zeros"
    sides: Sides = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        boundary, sides = settle(self.spatial_dims, self.boundary)
        object.__setattr__(self, "boundary", boundary)
        object.__setattr__(self, "sides", sides)
        for pair in sides:
            filters.filters(self.name, pair)  # an unknown name

    def project(self, x: Tensor, level: int = 0) -> Tensor:
        for axis, pair in enumerate(self.sides, start=2):
            x = filters.project(x, axis, self.name, pair)
        return x

    def embed(self, w: Tensor, size: Sequence[int], level: int = 0) -> Tensor:
        for axis, (n, pair) in enumerate(zip(size, self.sides), start=2):
            w = filters.synthesis(w, None, axis, n, self.name, pair)
        return w

    def analysis(self, x: Tensor, level: int = 0) -> tuple[Tensor, Tensor]:
        bands = [x]
        for axis, pair in enumerate(self.sides, start=2):
            bands = [part for band in bands for part in filters.analysis(band, axis, self.name, pair)]
        return bands[0], torch.cat(bands[1:], 1)

    def synthesis(self, approximation: Tensor, detail: Tensor, size: Sequence[int], level: int = 0) -> Tensor:
        bands: list[Tensor] = [approximation, *detail.split(approximation.shape[1], 1)]
        for axis in reversed(range(2, 2 + self.spatial_dims)):
            n, pair = size[axis - 2], self.sides[axis - 2]
            bands = [
                filters.synthesis(low, high, axis, n, self.name, pair) for low, high in zip(bands[::2], bands[1::2])
            ]
        return bands[0]

    def detail_bands(self, level: int = 0) -> int:
        return int(2**self.spatial_dims - 1)

    def conv(self, in_channels: int, out_channels: int, kernel_size: int = 3, *, bias: bool = True) -> BoundaryConv:
        return BoundaryConv(in_channels, out_channels, kernel_size, sides=self.sides, bias=bias)

    def reduction(self, level: int) -> tuple[int, ...]:
        return (2**level,) * self.spatial_dims

    def config(self) -> dict[str, object]:
        return {"Wavelet": {"name": self.name, "spatial_dims": self.spatial_dims, "boundary": self.boundary}}
