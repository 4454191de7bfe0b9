"""How the energy of images is spread over the levels of the Haar transform (arXiv 2305.19638, section 4).

White noise of standard deviation sigma has variance sigma^2 in every coefficient of an orthonormal transform, the coarse
ones and the fine ones alike. Images have not: their energy lies in the coarse ones. So noise that is added drowns the
finest level first, then the next one, and what a level still tells is decided by one number, its energy.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from multiresnet.checks import check_positive, check_scale
from multiresnet.spaces.transform import haar_analysis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Spectrum", "band_energy"]


def band_energy(x: Tensor, *, levels: int | None = None) -> Tensor:
    """Mean square of the orthonormal Haar coefficients of each level, S_j of arXiv 2305.19638, section 4.

    Args:
        x: (N, C, *spatial), floating point, 1 to 3 spatial dimensions. Sides that are no multiples of `2**levels` are cut to one at
            the end, so that no coefficient holds a sample that was made up.
        levels: how often the sides are halved, >= 1; `None` halves until the smallest side would have fewer than 2 samples.

    Returns:
        (levels + 1,), float64, on the device of `x`: of the details of level 0 (finest), ..., levels - 1, then of the last
        approximation, whose coefficients are the averages of the cells times `2**(d levels / 2)`. Times the number of
        coefficients they add up to the sum of squares of `x`. A mean that is not 0 counts: it is part of the signal.

    Raises:
        ValueError: wrong rank, no images, or sides that are too small for the levels.
        TypeError: not floating point.

    Examples:
        >>> band_energy(torch.tensor([[[1.0, 3.0, 6.0, 6.0]]]), levels=2)  # squares 2 + 0 over 2, then 16, then 64
        tensor([ 1., 16., 64.], dtype=torch.float64)
    """
    dims = x.ndim - 2
    if dims not in (1, 2, 3) or x.numel() == 0:
        raise ValueError(
            f"expected (N, C, *spatial) with 1 to 3 spatial axes, none of them empty; got {tuple(x.shape)}"
        )
    levels = _levels(tuple(x.shape[2:]), levels)
    if not x.is_floating_point():  # before .double(), which would let integers through
        raise TypeError(f"expected floating point, got {x.dtype}; convert first, e.g. x.float() / 127.5 - 1")
    for axis in range(2, x.ndim):
        x = x.narrow(axis, 0, x.shape[axis] >> levels << levels)
    x, energies = x.double(), []
    for level in range(levels):
        x, detail = haar_analysis(x)
        energies.append(detail.square().mean() * 2 ** (dims * (level + 1)))  # from means of cells to orthonormal
    return torch.stack([*energies, x.square().mean() * 2 ** (dims * levels)])


@dataclass(frozen=True)
class Spectrum:
    """The energy of each Haar level of a set of images: whether Haar is a good basis for them, and when noise drowns a level.

    Args:
        energy: mean square of the orthonormal coefficients: of the details, finest first, then of the approximation; see
            `band_energy`.
        spatial_dims: 1, 2 or 3.
        size: of the images.
        images: how many were looked at.

    Raises:
        ValueError: energies that are negative, not finite or all 0; a size that does not fit the levels.

    Examples:
        >>> x = torch.randn(8, 1, 16, 16, generator=torch.Generator().manual_seed(0)).cumsum(-1).cumsum(-2)
        >>> spectrum = Spectrum.of([x[:4], x[4:]], levels=3)
        >>> [round(value, 1) for value in spectrum.energy]
        [6.0, 36.4, 283.0, 4421.1]
        >>> [round(sigma, 1) for sigma in spectrum.drowned_at()]  # noise of this standard deviation is as strong
        [2.5, 6.0, 16.8, 66.5]
        >>> Spectrum.from_json(spectrum.to_json()) == spectrum
        True
    """

    energy: tuple[float, ...]
    spatial_dims: int
    size: tuple[int, ...]
    images: int

    def __post_init__(self) -> None:
        check_positive(images=self.images)
        if self.spatial_dims not in (1, 2, 3) or len(self.size) != self.spatial_dims:
            raise ValueError(
                f"spatial_dims must be 1, 2 or 3 and size have as many sides, got {self.spatial_dims} and {self.size}"
            )
        if len(self.energy) < 2:
            raise ValueError(f"energy takes the details of at least one level and the approximation, got {self.energy}")
        if not all(0 <= value < math.inf for value in self.energy) or not any(self.energy):
            raise ValueError(
                f"energy must be finite, >= 0 and not all 0, got {self.energy}; look for NaN, Inf or empty images"
            )
        _levels(self.size, self.levels)

    @classmethod
    @torch.no_grad()
    def of(cls, batches: Iterable[Tensor], *, levels: int | None = None) -> Spectrum:
        """Add up over batches.

        Args:
            batches: (N, C, *spatial) each, floating point, of any N but one size, as a network sees them (in [-1, 1] for
                diffusion); all images count alike. One tensor is one batch.
            levels: see `band_energy`.

        Raises:
            ValueError: no batches, different sizes, NaN; as `band_energy`.
        """
        total, images, shape = torch.zeros(()), 0, torch.Size()
        for x in [batches] if isinstance(batches, Tensor) else batches:
            if images and x.shape[1:] != shape:
                raise ValueError(
                    f"batches must be of one size, got {tuple(x.shape[1:])} after {tuple(shape)}; resize first"
                )
            total = total + len(x) * band_energy(x, levels=levels).cpu()
            images, shape = images + len(x), x.shape[1:]
        if not images:
            raise ValueError("there are no batches; an iterator that was read once is empty")
        size = tuple(shape[1:])
        return cls(tuple((total / images).tolist()), spatial_dims=len(size), size=size, images=images)

    @property
    def levels(self) -> int:
        """How often the sides were halved."""
        return len(self.energy) - 1

    @property
    def coefficients(self) -> tuple[int, ...]:
        """How many each band has in one channel of one image."""
        cells = [math.prod(n >> self.levels << self.levels - k for n in self.size) for k in range(self.levels + 1)]
        return (*(fine - coarse for fine, coarse in zip(cells, cells[1:])), cells[-1])

    @property
    def shares(self) -> tuple[float, ...]:
        """Part of the energy of an image in each band; they add up to 1."""
        energies = [value * count for value, count in zip(self.energy, self.coefficients)]
        return tuple(value / sum(energies) for value in energies)

    @property
    def decay(self) -> float:
        """Smoothness s: S_j grows by `2**(2 s + d)` per coarser level (section 4), by least squares on log2 S_j of the details.

        Hölder continuous functions of exponent s <= 1 have it; white noise has -d / 2, natural images (a spectrum 1 / f^2 in 2-D)
        about 0. NaN where fewer than two levels hold energy.
        """
        known = [(level, math.log2(value)) for level, value in enumerate(self.energy[:-1]) if value > 0]
        if len(known) < 2:
            return math.nan
        centre = sum(level for level, _ in known) / len(known)
        slope = sum((level - centre) * value for level, value in known) / sum(
            (level - centre) ** 2 for level, _ in known
        )
        return (slope - self.spatial_dims) / 2

    def compaction(self, part: float = 0.99) -> float:
        """The fraction of the coefficients, whole bands from the coarsest one on, that holds `part` of the energy.

        Args:
            part: in (0, 1].
        """
        if not 0 < part <= 1:
            raise ValueError(f"part must be in (0, 1], got {part}")
        held, used = 0.0, 0
        for share, count in zip(reversed(self.shares), reversed(self.coefficients)):
            held, used = held + share, used + count
            if held >= part * (1 - 1e-12):  # the shares were rounded
                break
        return used / sum(self.coefficients)

    def snr(self, sigma: float | Tensor) -> Tensor:
        """Signal-to-noise ratio of each band, S_j / sigma^2.

        Args:
            sigma: standard deviation of the noise over the factor of the signal, a number or (*shape).

        Returns:
            (*shape, levels + 1), float64.
        """
        sigma = torch.as_tensor(sigma, dtype=torch.float64).cpu()
        return torch.tensor(self.energy, dtype=torch.float64) / sigma[..., None].square()

    def drowned_at(self, snr: float = 1.0) -> tuple[float, ...]:
        """The sigma of each band at which its signal-to-noise ratio is `snr` > 0: `sqrt(S_j / snr)`."""
        check_scale(snr=snr)
        return tuple(math.sqrt(value / snr) for value in self.energy)

    def table(self, scheduler: Any = None) -> str:
        """The spectrum as plain text.

        Args:
            scheduler: of diffusers; adds the first training time step at which a level is drowned (`crossing_times`).
        """
        from multiresnet.diffusion.report import spectrum_table

        return spectrum_table(self, scheduler)

    def plot(self, scheduler: Any = None) -> Figure:
        """Energy of the levels, and their signal-to-noise ratio against the time of `scheduler`, or against sigma without one."""
        from multiresnet.diffusion.report import spectrum_figure

        return spectrum_figure(self, scheduler)

    def to_json(self) -> str:
        """As a JSON object of the arguments."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Spectrum:
        """Inverse of `to_json`.

        Raises:
            ValueError: no JSON, or not of a spectrum.
        """
        try:
            found = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"this is not JSON ({error}); pass the text that Spectrum.to_json returned") from None
        names = [field.name for field in fields(cls)]
        if not isinstance(found, dict) or sorted(found) != sorted(names):
            got = (
                f"the keys {', '.join(sorted(found)) or '(none)'}" if isinstance(found, dict) else type(found).__name__
            )
            raise ValueError(f"a spectrum is a JSON object of {', '.join(names)}; got {got}")
        energy, size = found["energy"], found["size"]
        numbers = isinstance(energy, list) and all(type(value) in (int, float) for value in energy)
        if not numbers or not isinstance(size, list) or not all(type(side) is int for side in size):
            raise ValueError(f"energy must be a list of numbers and size one of integers, got {energy!r} and {size!r}")
        return cls(tuple(map(float, energy)), found["spatial_dims"], tuple(size), found["images"])


def _levels(size: tuple[int, ...], levels: int | None) -> int:
    smallest = min(size)
    most = int(smallest).bit_length() - 1
    if levels is None:
        if most < 2:
            raise ValueError(f"size {size} cannot be halved down to 2 samples, that takes sides >= 4; pass levels=1")
        return most - 1
    check_positive(levels=levels)
    if levels > most:
        raise ValueError(f"size {size} can be halved {most} times at most, got levels={levels}")
    return levels
