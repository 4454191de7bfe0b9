"""Spins at the pixels of an image, coupled by a stencil: the Ising model of textures and masks (arXiv 2309.11420)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from multiresnet.checks import check_positive
from multiresnet.graphical.couplings import Border, Stencil, check_grid, check_kernel
from multiresnet.graphical.ising import Ising
from multiresnet.graphical.variational import UnrolledMeanField, VariationalDenoiser


@dataclass(frozen=True, eq=False)
class GridIsing:
    """`p(x) ∝ exp(<x, k * x> / 2 + b sum x)`, x in {-1, 1}^size, `k *` the convolution by a kernel.

    Args:
        kernel: couplings to the neighbours, one to three odd sides, equal at an offset and at its opposite, 0 in the centre.
        size: of the image.
        boundary: `"periodic"`, or `"zeros"`: nothing beyond the edge.
        field: b, the same for all pixels.

    Examples:
        >>> model = GridIsing.nearest_neighbours((32, 32), beta=0.4)
        >>> x = model.sample(2, sweeps=50, generator=torch.Generator().manual_seed(0))
        >>> denoiser = model.denoiser(noise=1.0, depth=20)
        >>> denoiser(x + torch.randn(2, 1, 32, 32)).shape
        torch.Size([2, 1, 32, 32])
    """

    kernel: Tensor
    size: tuple[int, ...]
    boundary: Border = "periodic"
    field: float = 0.0

    def __post_init__(self) -> None:
        check_kernel(self.kernel)
        check_positive(**{f"size[{axis}]": n for axis, n in enumerate(self.size)})
        check_grid(torch.empty(1, 1, *self.size, device="meta"), self.kernel, self.boundary)

    @classmethod
    def nearest_neighbours(
        cls, size: Sequence[int], beta: float, *, boundary: Border = "periodic", field: float = 0.0
    ) -> GridIsing:
        """Couplings `beta` to the neighbours along the axes; in large images of two dimensions order begins at 0.4407."""
        kernel = torch.zeros((3,) * len(size))
        for axis, side in itertools.product(range(len(size)), (0, 2)):
            kernel[tuple(side if other == axis else 1 for other in range(len(size)))] = beta
        return cls(kernel, tuple(size), boundary, field)

    @property
    def stencil(self) -> Stencil:
        """The couplings as a module."""
        return Stencil(self.kernel, boundary=self.boundary)

    def dense(self) -> Ising:
        """The same model of a line of spins, pixels row by row: exact where there are few."""
        spins = math.prod(self.size)
        unit = torch.eye(spins, dtype=self.kernel.dtype).view(spins, 1, *self.size)
        with torch.no_grad():
            couplings = self.stencil(unit).view(spins, spins)
        return Ising(couplings, self.kernel.new_full((spins,), self.field))

    @torch.no_grad()
    def sample(self, count: int, *, sweeps: int = 200, generator: torch.Generator | None = None) -> Tensor:
        """(N, 1, *size): independent Gibbs chains from noise, pixels that are no neighbours drawn at once.

        Args:
            count: of chains.
            sweeps: over all pixels; near the critical coupling large images need many.
            generator: of the draws.
        """
        check_positive(count=count, sweeps=sweeps)
        shape, stencil = (count, 1, *self.size), self.stencil
        x = torch.rand(shape, generator=generator, dtype=self.kernel.dtype).round() * 2 - 1
        colours = self.colours()
        for _, colour in itertools.product(range(sweeps), range(int(colours.max()) + 1)):
            draws = torch.rand(shape, generator=generator, dtype=x.dtype)
            drawn = torch.where(draws < torch.sigmoid(2 * (stencil(x) + self.field)), 1.0, -1.0).to(x.dtype)
            x = torch.where(colours == colour, drawn, x)
        return x

    def colours(self) -> Tensor:
        """Integers (*size): pixels of one colour are not coupled to each other."""
        if self._bipartite():
            return torch.stack(torch.meshgrid(*map(torch.arange, self.size), indexing="ij")).sum(0) % 2
        colours = torch.zeros(self.size, dtype=torch.long)
        for axis, (n, side) in enumerate(zip(self.size, self.kernel.shape)):
            period, places = side // 2 + 1, torch.arange(n)
            whole = n // period * period
            own = torch.where(places < whole, places % period, period + places - whole)  # the rest meets the first ones
            colours = colours * (period + n - whole) + own.view(-1, *[1] * (len(self.size) - 1 - axis))
        numbered: Tensor = colours.unique(return_inverse=True)[1]
        return numbered

    def unrolled(
        self, *, depth: int, correction: str = "instance", damping: float = 0.5, tied: bool = True
    ) -> UnrolledMeanField:
        """A network of convolutions from the field on the pixels to their means, (N, 1, *size) -> (N, 1, *size), for every size."""
        return UnrolledMeanField(self.stencil, depth=depth, correction=correction, damping=damping, tied=tied)

    def denoiser(self, *, noise: float, scale: float = 1.0, depth: int) -> VariationalDenoiser:
        """`unrolled` for `z = scale * x + noise * normal`, with the model's field."""
        return VariationalDenoiser(self.unrolled(depth=depth), noise=noise, scale=scale, field=self.field)

    def _bipartite(self) -> bool:
        """Whether the colours of a chessboard do: nearest neighbours only, and even sides where these go around."""
        centre = torch.tensor([n // 2 for n in self.kernel.shape])
        nearest = ((self.kernel != 0).nonzero() - centre).abs().sum(1) <= 1
        return bool(nearest.all()) and (self.boundary == "zeros" or all(n % 2 == 0 for n in self.size))
