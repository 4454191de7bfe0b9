"""Poisson's and the heat equation on the unit square with u = 0 on its boundary, on the vertices of a grid.

The five-point differences have the sine waves as eigenvectors, so both are solved exactly: a product of matrices for each axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .random_fields import random_field
from .solving import check_request, solve_all

__all__ = ["heat", "poisson", "solve_poisson"]

Array = NDArray[np.float64]
CUTOFF = 16  # waves per side of forcings and initial states


def solve_poisson(forcing: ArrayLike) -> Array:
    """The u with `-laplace u = f` in five-point differences at the inner vertices, and u = 0 on the boundary.

    Args:
        forcing: f at all vertices of the unit square, (ny, nx), both at least 3; what stands on the boundary does not matter.

    Returns:
        u, (ny, nx).

    Raises:
        ValueError: no inner vertices, or values that are not finite.

    Examples:
        >>> import numpy as np
        >>> round(float(solve_poisson(np.ones((65, 65))).max()), 3)  # a square membrane under load
        0.074
    """
    f = np.asarray(forcing, dtype=np.float64)
    if f.ndim != 2 or min(f.shape) < 3:
        raise ValueError(f"forcing must be (ny, nx) with inner vertices, both at least 3; got {f.shape}")
    if not np.isfinite(f).all():
        raise ValueError("forcing must be finite")
    return _spectrally(f, lambda eigenvalues: 1 / eigenvalues)


def poisson(
    samples: int = 100,
    size: int = 65,
    *,
    seed: int = 0,
    first: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Random smooth forcings, not zero on the boundary, and the solutions of Poisson's equation, which are.

    Args:
        samples: how many.
        size: vertices per side, both ends included; 2**k + 1 suits `multiresnet.spaces.Hat`.
        seed: sample i depends on (seed, i) only.
        first: index of the first sample.
        progress: called as progress(done, total) after every sample.

    Returns:
        Forcing and solution, both float32 (sample, 1, y, x).

    Raises:
        ValueError: on impossible arguments.

    Examples:
        >>> f, u = poisson(2, size=17)
        >>> f.shape, u.shape, float(abs(u[:, :, [0, -1]]).max())
        ((2, 1, 17, 17), (2, 1, 17, 17), 0.0)
    """
    check_request(trajectories=samples, frames=1, interval=1.0, seed=seed, first=first)
    _check_size(size)

    def forcings(index: int) -> list[Array]:
        s = np.arange(size) / (size - 1)
        return [random_field(np.random.default_rng([seed, index]), (s, s), ("even", "even"), _amplitude, cutoff=CUTOFF)]

    def fields(f: Array) -> Array:
        return np.stack([f, solve_poisson(f)])

    both = solve_all(forcings, fields, range(first, first + samples), frames=1, progress=progress)[:, 0]
    return both[:, :1], both[:, 1:]


def heat(
    trajectories: int = 100,
    frames: int = 11,
    size: int = 65,
    *,
    interval: float = 1e-3,
    seed: int = 0,
    first: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Temperatures in a square whose boundary is kept at zero, `du/dt = laplace u` in five-point differences, exact in time.

    Args:
        trajectories: how many.
        frames: of each.
        size: vertices per side, both ends included.
        interval: time between frames; in 1 / (2 pi^2) = 0.05 the slowest wave falls by a factor e.
        seed: trajectory i depends on (seed, i) only.
        first: index of the first trajectory.
        progress: called as progress(done, total) after every frame.

    Returns:
        float32 (trajectory, time, 1, y, x).

    Raises:
        ValueError: on impossible arguments.

    Examples:
        >>> u = heat(2, frames=3, size=17)
        >>> u.shape, bool((abs(u[:, 1:]).max(axis=(2, 3, 4)) < abs(u[:, :-1]).max(axis=(2, 3, 4))).all())
        ((2, 3, 1, 17, 17), True)
    """
    check_request(trajectories=trajectories, frames=frames, interval=interval, seed=seed, first=first)
    _check_size(size)

    def states(index: int) -> Iterator[Array]:
        s = np.arange(size) / (size - 1)
        u = random_field(np.random.default_rng([seed, index]), (s, s), ("odd", "odd"), _amplitude, cutoff=CUTOFF)
        for frame in range(frames):
            yield _spectrally(u, lambda eigenvalues, t=frame * interval: np.exp(-t * eigenvalues))  # type: ignore[misc]

    def frame(u: Array) -> Array:
        return u[None]

    return solve_all(states, frame, range(first, first + trajectories), frames=frames, progress=progress)


def _check_size(size: int) -> None:
    if isinstance(size, bool) or not isinstance(size, int) or size < 5:
        raise ValueError(f"size must be an integer >= 5, got {size!r}")


def _amplitude(k: Array) -> Array:
    return np.asarray(1 / (1 + (k / 3) ** 3))


def _spectrally(f: Array, factor: Callable[[Array], Array]) -> Array:
    """A function of the five-point Laplacian, times -1, applied to the inner vertices; zero on the boundary."""
    (sines_y, y), (sines_x, x) = (_sines(n) for n in f.shape)
    waves = sines_y @ f[1:-1, 1:-1] @ sines_x
    u = np.zeros_like(f)
    u[1:-1, 1:-1] = sines_y @ (waves * factor(y[:, None] + x)) @ sines_x
    return u


def _sines(size: int) -> tuple[Array, Array]:
    """Orthonormal sine waves at the inner vertices of an axis, a symmetric matrix, and their eigenvalues of `-d^2 / dx^2`."""
    cells = size - 1
    k = np.arange(1, cells)
    waves = math.sqrt(2 / cells) * np.sin(math.pi * np.outer(k, k) / cells)
    return waves, (2 * cells * np.sin(math.pi * k / (2 * cells))) ** 2
