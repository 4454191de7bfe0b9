"""Continuous functions that vanish on the boundary: a hard Dirichlet condition, or its mirrored and periodic relatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from multiresnet.spaces.base import Space
from multiresnet.spaces.boundary import Boundary, BoundaryConv, Sides, settle


@dataclass(frozen=True)
class Hat(Space):
    """Piecewise linear functions, given by their values at the vertices of a grid, both ends of the box included.

    The integrals of the Haar wavelets are hats, and those on `[0, 1]` are orthonormal in H^1_0 (paper A, section 3; products
    of them in more dimensions). So the projection keeps the values at the vertices of the coarser grid, the embedding
    interpolates, and a detail is how far a vertex lies off the mean of its two neighbours. Every other vertex is coarse, and
    so are both ends: `n // 2 + 1` vertices of `n`; `2**k + 1` are best. A periodic axis has no ends, and `ceil(n / 2)`.

    On a side whose rule is `"zeros"` every input and every output of a network, at each resolution, *is* zero, for any
    weights: what came there is dropped. Elsewhere the functions are free. `multiresnet.Constrained` imposes other values.

    Args:
        spatial_dims: 1, 2 or 3.
        boundary: one rule, or one for each axis, an entry being a rule or a `(lower, upper)` pair: `"zeros"` (Dirichlet),
            `"reflect"` (mirrored at the end: Neumann), `"replicate"` (free), `"periodic"`.

    Shape:
        (N, C, *vertices) everywhere, at least 2 vertices on each axis that is not periodic.

    Raises:
        ValueError: `spatial_dims` not 1, 2 or 3, an unknown rule; in use, an axis of one vertex.

    Examples:
        >>> space = Hat(spatial_dims=1)
        >>> space.embed(space.project(torch.tensor([[[0.0, 4.0, 6.0, 1.0, 0.0]]])), (5,))
        tensor([[[0., 3., 6., 3., 0.]]])
        >>> space.constrain(torch.ones(1, 1, 5))
        tensor([[[0., 1., 1., 1., 0.]]])
    """

    spatial_dims: int = 2
    boundary: Boundary = "zeros"
    sides: Sides = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        boundary, sides = settle(self.spatial_dims, self.boundary)
        object.__setattr__(self, "boundary", boundary)
        object.__setattr__(self, "sides", sides)

    @property
    def anchored(self) -> bool:
        return any("zeros" in pair for pair in self.sides)

    def _periodic(self, axis: int) -> bool:
        return self.sides[axis - 2][0] == "periodic"

    def project(self, x: Tensor, level: int = 0) -> Tensor:
        for axis in range(2, x.ndim):
            x = self._coarse(x, axis)
        return x

    def embed(self, w: Tensor, size: Sequence[int], level: int = 0) -> Tensor:
        for axis, n in enumerate(size, start=2):
            w = self._interleave(w, self._between(w, axis, n), axis, n)
        return w

    def analysis(self, x: Tensor, level: int = 0) -> tuple[Tensor, Tensor]:
        bands = [x]
        for axis in range(2, x.ndim):
            bands = [part for band in bands for part in self._split(band, axis)]
        return bands[0], torch.cat(bands[1:], 1)

    def synthesis(self, approximation: Tensor, detail: Tensor, size: Sequence[int], level: int = 0) -> Tensor:
        bands: list[Tensor] = [approximation, *detail.split(approximation.shape[1], 1)]
        for axis in reversed(range(2, approximation.ndim)):
            n, merged = size[axis - 2], []
            for w, d in zip(bands[::2], bands[1::2]):
                between = self._between(w, axis, n)
                merged.append(self._interleave(w, between + d.narrow(axis, 0, between.shape[axis]), axis, n))
            bands = merged
        return bands[0]

    def detail_bands(self, level: int = 0) -> int:
        return int(2**self.spatial_dims - 1)

    def conv(self, in_channels: int, out_channels: int, kernel_size: int = 3, *, bias: bool = True) -> BoundaryConv:
        return BoundaryConv(in_channels, out_channels, kernel_size, sides=self.sides, bias=bias)

    def reduction(self, level: int) -> tuple[int, ...]:
        return (2**level,) * self.spatial_dims

    def refine(self, size: Sequence[int], level: int = 0) -> tuple[int, ...]:
        return tuple(2 * n if self._periodic(axis) else 2 * n - 1 for axis, n in enumerate(size, start=2))

    def constrain(self, y: Tensor, level: int = 0) -> Tensor:
        """Zero on the sides that say so."""
        for axis, pair in enumerate(self.sides, start=2):
            lower, upper = (int(rule == "zeros") for rule in pair)
            if lower or upper:
                inside = y.narrow(axis, lower, max(y.shape[axis] - lower - upper, 0))
                y = F.pad(inside, [0, 0] * (y.ndim - 1 - axis) + [lower, upper])
        return y

    def fit(self, x: Tensor, depth: int) -> Tensor:
        """Any number of vertices fits; zero on the sides that say so."""
        for axis, n in enumerate(x.shape[2:], start=2):
            if n < 2 and not self._periodic(axis):
                raise ValueError(
                    f"Hat needs both ends of an axis that is not periodic, at least 2 vertices; got {tuple(x.shape[2:])}"
                )
        return self.constrain(x)

    def config(self) -> dict[str, object]:
        return {"Hat": {"spatial_dims": self.spatial_dims, "boundary": self.boundary}}

    # ---- one axis: the vertices 0, 2, 4, ... and the last one are coarse, those between two of them are not --------------

    def _coarse(self, x: Tensor, axis: int) -> Tensor:
        n = x.shape[axis]
        even = x[(slice(None),) * axis + (slice(0, None, 2),)]
        return even if n % 2 or self._periodic(axis) else torch.cat([even, x.narrow(axis, n - 1, 1)], axis)

    def _between(self, w: Tensor, axis: int, n: int) -> Tensor:
        """What linear interpolation says at the other vertices."""
        count = n // 2 if self._periodic(axis) else (n - 1) // 2
        left = w.narrow(axis, 0, count)
        right = w.roll(-1, axis) if self._periodic(axis) else w.narrow(axis, 1, w.shape[axis] - 1)
        return torch.lerp(left, right.narrow(axis, 0, count), 0.5)

    def _split(self, x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        w = self._coarse(x, axis)
        between = self._between(w, axis, x.shape[axis])
        odd = x[(slice(None),) * axis + (slice(1, 2 * between.shape[axis], 2),)]
        missing = w.shape[axis] - between.shape[axis]  # there are fewer: the band ends with zeros
        return w, F.pad(odd - between, [0, 0] * (x.ndim - 1 - axis) + [0, missing])

    def _interleave(self, w: Tensor, odd: Tensor, axis: int, n: int) -> Tensor:
        count = odd.shape[axis]
        pairs = torch.stack([w.narrow(axis, 0, count), odd], axis + 1).flatten(axis, axis + 1)
        return torch.cat([pairs, w.narrow(axis, count, n - 2 * count)], axis)
