"""Smooth random fields on a box: sums of waves that fit its boundary, the same on every grid."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Waves", "random_field"]

Array = NDArray[np.float64]

Waves = Literal["periodic", "even", "odd"]
"""Waves along an axis: full waves, half waves with zero slope at both ends, or half waves that vanish there."""


def random_field(
    generator: np.random.Generator,
    points: tuple[Array, Array],
    waves: tuple[Waves, Waves],
    amplitude: Callable[[Array], Array],
    *,
    cutoff: int,
) -> Array:
    """A Gaussian random field with zero mean on a grid, (len(points[0]), len(points[1])).

    Args:
        generator: gives as many numbers for every grid, hence the same field on all of them.
        points: coordinates along y and along x, in box sides, 0..1.
        waves: the kind along y and along x.
        amplitude: standard deviation of a wave, by its number of whole waves per box side, |k|. On a periodic box the
            variance is the sum of amplitude^2 over all wave vectors but zero.
        cutoff: largest |k_x| and |k_y|.

    Examples:
        >>> import numpy as np
        >>> points = (np.arange(8) / 8, np.arange(9) / 8)      # the second one reaches from wall to wall
        >>> field = random_field(np.random.default_rng(0), points, ("periodic", "odd"), np.exp, cutoff=2)
        >>> field.shape, bool(np.abs(field[:, [0, -1]]).max() < 1e-12)
        ((8, 9), True)
    """
    (ky, basis_y), (kx, basis_x) = (_basis(s, kind, cutoff) for s, kind in zip(points, waves))
    k = np.hypot(ky[:, None], kx)
    scale = np.where(k > 0, amplitude(np.where(k > 0, k, 1.0)), 0.0)
    field: Array = basis_y.T @ (scale * generator.standard_normal(k.shape)) @ basis_x
    return field


def _basis(s: Array, kind: Waves, cutoff: int) -> tuple[Array, Array]:
    """Whole waves per side (waves,), and the waves (waves, points), all of mean square one."""
    k = np.arange(cutoff + 1.0) if kind == "periodic" else np.arange(2.0 * cutoff + 1) / 2
    phase, scale = 2 * math.pi * k[:, None] * s, np.where(k > 0, math.sqrt(2), 1.0)[:, None]
    cosines, sines = scale * np.cos(phase), scale * np.sin(phase)
    if kind == "periodic":
        return np.concatenate([k, k[1:]]), np.concatenate([cosines, sines[1:]])
    return k, cosines if kind == "even" else sines
