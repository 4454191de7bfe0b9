"""The sphere in HEALPix cells: equal areas, no poles, every cell divides into four."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multiresnet.spaces.cells import Quadtree, centre_and_neighbours


@dataclass(frozen=True)
class Sphere(Quadtree):
    """Functions on the sphere, constant on the 12 nside**2 cells of HEALPix in nested order (Gorski et al. 2005).

    A convolution sees a cell and its 8 neighbours, south-west first and clockwise; the 24 cells at the corners where only
    three faces meet have 7, and see themselves in the place of the eighth. Nothing is padded, there is no seam, and no pole.

    Args:
        nside: cells along the side of each of the 12 faces, a power of two >= 2.

    Shape:
        (N, C, 12 * nside**2), nested order; `from_ring` brings fields in ring order into it.

    Raises:
        ValueError: `nside` is no power of two.
        ImportError: astropy-healpix is missing, which knows the neighbours.

    Examples:
        >>> space = Sphere(4)
        >>> space.cells(0), space.project(torch.ones(1, 1, 192)).shape
        (192, torch.Size([1, 1, 48]))
    """

    nside: int
    taps = 9

    def __post_init__(self) -> None:
        if (
            isinstance(self.nside, bool)
            or not isinstance(self.nside, int)
            or self.nside < 2
            or self.nside & (self.nside - 1)
        ):
            raise ValueError(f"nside must be a power of two >= 2, got {self.nside!r}")

    @property
    def num_levels(self) -> int:
        return self.nside.bit_length()

    def cells(self, level: int) -> int:
        return 12 * (self.nside >> level) ** 2

    def config(self) -> dict[str, object]:
        return {"Sphere": {"nside": self.nside}}

    def table(self, level: int) -> Tensor:
        nside = self.nside >> level
        with np.errstate(invalid="ignore"):  # it casts where there is no neighbour
            found = _healpix().neighbours(range(12 * nside**2), nside, order="nested")
        return centre_and_neighbours(torch.from_numpy(found.T.copy()).long(), missing="replicate")

    def coordinates(self, level: int = 0) -> tuple[Tensor, Tensor]:
        """Longitude in [0, 2 pi) and latitude in [-pi/2, pi/2] of the centre of each cell, float64."""
        nside = self.nside >> level
        longitude, latitude = _healpix().healpix_to_lonlat(range(12 * nside**2), nside, order="nested")
        return torch.from_numpy(longitude.value.copy()), torch.from_numpy(latitude.value.copy())

    def directions(self, level: int = 0) -> Tensor:
        """(cells, 3): the unit vector to the centre of each cell, float64."""
        longitude, latitude = self.coordinates(level)
        across = latitude.cos()
        return torch.stack([across * longitude.cos(), across * longitude.sin(), latitude.sin()], 1)

    def from_ring(self, x: Tensor) -> Tensor:
        """(..., cells) in ring order, the usual one of maps on disk, to nested order."""
        index = _healpix().core.nested_to_ring(range(x.shape[-1]), self._nside_of(x))
        return x[..., torch.from_numpy(index.copy()).to(x.device)]

    def to_ring(self, x: Tensor) -> Tensor:
        """Inverse of `from_ring`."""
        index = _healpix().core.ring_to_nested(range(x.shape[-1]), self._nside_of(x))
        return x[..., torch.from_numpy(index.copy()).to(x.device)]

    def sample(self, x: Tensor, longitude: Tensor, latitude: Tensor) -> Tensor:
        """(N, C, cells) -> (N, C, *points): the value of the cell at each point, angles in radians; for maps and pictures."""
        from astropy.units import rad

        angles = longitude.numpy() * rad, latitude.numpy() * rad
        index = _healpix().lonlat_to_healpix(*angles, self._nside_of(x), order="nested")
        return x[..., torch.from_numpy(np.asarray(index)).to(x.device)]

    def _nside_of(self, x: Tensor) -> int:
        return self.nside >> self.level_of(x.shape[-1])


def _healpix() -> Any:
    try:
        import astropy_healpix
    except ImportError:
        raise ImportError("Sphere needs astropy-healpix: pip install 'multiresnet[sphere]'") from None
    return astropy_healpix
