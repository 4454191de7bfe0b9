"""Steady Darcy flow through a porous square: -div(a grad p) = f, with p = 0 on the boundary.

Finite volumes with one permeability a per cell: the flow through a face between two cells sees the harmonic mean of
their permeabilities, which is exact for layers, and half a cell lies between the boundary and the first pressure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from multiresnet.checks import check_choice

from .random_fields import random_field
from .solving import check_physics, check_request, solve_all

__all__ = ["DarcyPhysics", "darcy", "solve_darcy"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class DarcyPhysics:
    """The medium and how finely the pressure is solved.

    A Gaussian random field with covariance (-laplacian + tau^2)^(-alpha), zero slope at the boundary and mean square one
    becomes the permeability: `high` where it is positive and `low` elsewhere ("two-phase"), or the exponential whose
    logarithm has the mean and the deviation of a two-phase medium ("lognormal").

    Attributes:
        medium: "two-phase" or "lognormal".
        low: smaller permeability, > 0.
        high: larger one.
        alpha: smoothness of the random field, > 1 for a continuous one.
        tau: inverse correlation length, in radians per box side.
        forcing: f, the same everywhere.
        length: side of the box.
        refinement: the solver cuts each cell of the output into this many per side; the pressure is their average.
    """

    medium: Literal["two-phase", "lognormal"] = "two-phase"
    low: float = 3.0
    high: float = 12.0
    alpha: float = 2.0
    tau: float = 3.0
    forcing: float = 1.0
    length: float = 1.0
    refinement: int = 2

    def __post_init__(self) -> None:
        check_choice("DarcyPhysics.medium", self.medium, ("two-phase", "lognormal"))
        check_physics(self, positive=("low", "high", "alpha", "tau", "length", "refinement"))
        if self.low > self.high:
            raise ValueError(f"DarcyPhysics needs low <= high, got {self.low} and {self.high}")


def solve_darcy(permeability: ArrayLike, forcing: ArrayLike = 1.0, *, length: float = 1.0) -> Array:
    """The pressure for given permeability and forcing.

    Args:
        permeability: (ny, nx), > 0: one value per square cell.
        forcing: f at the cell centres, (ny, nx) or one number.
        length: of the box along x.

    Returns:
        The pressure at the cell centres, (ny, nx).

    Raises:
        ValueError: permeability of a wrong shape, or not finite and positive everywhere.
        ImportError: no scipy.

    Examples:
        >>> import numpy as np
        >>> p = solve_darcy(np.ones((32, 32)))
        >>> round(float(p.max()), 3)            # a square membrane under load
        0.074
    """
    try:
        from scipy.sparse import coo_array
        from scipy.sparse.linalg import spsolve
    except ImportError as error:
        raise ImportError("Darcy flow needs scipy: pip install 'multiresnet[pde]'") from error
    a = np.asarray(permeability, dtype=np.float64)
    if a.ndim != 2 or 0 in a.shape:
        raise ValueError(f"permeability must be (ny, nx), got shape {a.shape}")
    if not (np.isfinite(a).all() and a.min() > 0):
        raise ValueError(f"permeability must be finite and > 0, got values from {a.min()} to {a.max()}")
    index = np.arange(a.size).reshape(a.shape)
    diagonal = np.zeros_like(a)
    rows, columns, values = [], [], []
    for i, b, total in ((index, a, diagonal), (index.T, a.T, diagonal.T)):
        face = 2 * b[:, :-1] * b[:, 1:] / (b[:, :-1] + b[:, 1:])
        total[:, :-1] += face
        total[:, 1:] += face
        total[:, 0] += 2 * b[:, 0]  # half a cell to the boundary
        total[:, -1] += 2 * b[:, -1]
        rows += [i[:, :-1].ravel(), i[:, 1:].ravel()]
        columns += [i[:, 1:].ravel(), i[:, :-1].ravel()]
        values += [-face.ravel()] * 2
    rows, columns, values = [*rows, index.ravel()], [*columns, index.ravel()], [*values, diagonal.ravel()]
    place = (np.concatenate(rows), np.concatenate(columns))
    matrix: Any = coo_array((np.concatenate(values), place), shape=(a.size, a.size)).tocsc()
    load = np.broadcast_to(np.asarray(forcing, dtype=np.float64), a.shape).ravel() * (length / a.shape[1]) ** 2
    pressure: Array = spsolve(matrix, load, permc_spec="MMD_AT_PLUS_A").reshape(a.shape)
    return pressure


def darcy(
    samples: int = 100,
    size: int = 64,
    *,
    physics: DarcyPhysics | None = None,
    seed: int = 0,
    first: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Random permeabilities and the pressures that belong to them.

    Args:
        samples: how many.
        size: cells per side, at least 4.
        physics: the medium; None means `DarcyPhysics()`.
        seed: sample i depends on (seed, i) only.
        first: index of the first sample.
        progress: called as progress(done, total) after every sample, by one thread at a time.

    Returns:
        Permeability and pressure, both float32 (sample, channel, y, x) with one channel.

    Raises:
        ValueError: on impossible arguments.
        ImportError: no scipy.

    Examples:
        >>> permeability, pressure = darcy(2, size=16)
        >>> permeability.shape, pressure.shape, np.unique(permeability).tolist()
        ((2, 1, 16, 16), (2, 1, 16, 16), [3.0, 12.0])
    """
    physics = physics or DarcyPhysics()
    check_request(trajectories=samples, frames=1, interval=1.0, seed=seed, first=first)
    if size < 4:
        raise ValueError(f"size must be >= 4, got {size}")

    def media(index: int) -> list[Array]:
        return [_permeability(np.random.default_rng([seed, index]), size, physics)]

    def fields(a: Array) -> Array:
        m = physics.refinement
        p = solve_darcy(a.repeat(m, 0).repeat(m, 1), physics.forcing, length=physics.length)
        return np.stack([a, p.reshape(size, m, size, m).mean((1, 3))])

    both = solve_all(media, fields, range(first, first + samples), frames=1, progress=progress)[:, 0]
    return both[:, :1], both[:, 1:]


def _permeability(generator: np.random.Generator, n: int, physics: DarcyPhysics) -> Array:
    def amplitude(k: Array) -> Array:
        decay: Array = ((2 * np.pi * k) ** 2 + physics.tau**2) ** (-physics.alpha / 2)
        return decay

    s = (np.arange(n) + 0.5) / n
    field = random_field(generator, (s, s), ("even", "even"), amplitude, cutoff=32)
    if physics.medium == "two-phase":
        return np.where(field > 0, physics.high, physics.low)
    # ln a of a two-phase medium is +- half of ln(high / low) around its mean
    exponent = field / np.sqrt(np.mean(field**2)) / 2
    permeability: Array = np.sqrt(physics.low * physics.high) * (physics.high / physics.low) ** exponent
    return permeability
