"""Tracers carried around the sphere by a steady flow, exact on every grid: each point looks where it came from."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from multiresnet.checks import check_positive

from .solving import check_request, solve_all

__all__ = ["sphere_advection"]

Array = NDArray[np.float64]
STEPS = 20  # of Runge and Kutta, per frame
# The stream function a.x + x.B x: a turn about an axis in the plane of the equator, so over the poles, and four vortices.
TURN = np.array([1.0, 0.3, 0.2])
SHEAR = np.array([[0.6, 0.0, 0.3], [0.0, -0.4, 0.2], [0.3, 0.2, -0.2]])


def sphere_advection(
    longitude: ArrayLike,
    latitude: ArrayLike,
    *,
    trajectories: int = 100,
    frames: int = 11,
    interval: float = 0.2,
    blobs: int = 12,
    seed: int = 0,
    first: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Sums of random smooth blobs on the unit sphere, carried over the poles and sheared, at any points.

    The flow is the same in all trajectories; its speed is about 1 radian in a unit of time. Values are those of the first
    state at the points where the flow came from, traced back in small Runge-Kutta steps (error about 1e-7).

    Args:
        longitude: of the points in radians, any shape, such as `Sphere(nside).coordinates()[0]` or a grid.
        latitude: the same, in [-pi/2, pi/2].
        trajectories: how many.
        frames: of each.
        interval: time between frames.
        blobs: in each first state.
        seed: trajectory i depends on (seed, i) only, and is the same on every grid.
        first: index of the first trajectory.
        progress: called as progress(done, total) after every frame.

    Returns:
        float32 (trajectory, time, 1, *points).

    Raises:
        ValueError: on impossible arguments.

    Examples:
        >>> import numpy as np
        >>> longitude, latitude = np.meshgrid(np.arange(8) * np.pi / 4, np.linspace(-1.2, 1.2, 4))
        >>> sphere_advection(longitude, latitude, trajectories=2, frames=3).shape
        (2, 3, 1, 4, 8)
    """
    check_request(trajectories=trajectories, frames=frames, interval=interval, seed=seed, first=first)
    check_positive(blobs=blobs)
    lon, lat = np.broadcast_arrays(np.asarray(longitude, dtype=np.float64), np.asarray(latitude, dtype=np.float64))
    if not (np.isfinite(lon).all() and np.abs(lat).max(initial=0) <= np.pi / 2 + 1e-9):
        raise ValueError("longitude must be finite, and latitude in radians between -pi/2 and pi/2")
    points = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], -1)
    origins = [points]
    for _ in range(frames - 1):
        origins.append(_trace_back(origins[-1], interval))

    def states(index: int) -> Iterator[Array]:
        generator = np.random.default_rng([seed, index])
        centres = generator.normal(size=(blobs, 3))
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
        heights, widths = generator.normal(size=blobs), generator.uniform(0.15, 0.5, blobs)
        for x in origins:
            distance = 2 - 2 * x @ centres.T  # squared, along the chord
            yield (heights * np.exp(-distance / (2 * widths**2))).sum(-1)

    def frame(q: Array) -> Array:
        return q[None]

    return solve_all(states, frame, range(first, first + trajectories), frames=frames, progress=progress)


def _velocity(x: Array) -> Array:
    return np.cross(TURN + 2 * x @ SHEAR, x)


def _trace_back(x: Array, time: float) -> Array:
    h = -time / STEPS
    for _ in range(STEPS):
        k1 = _velocity(x)
        k2 = _velocity(x + h / 2 * k1)
        k3 = _velocity(x + h / 2 * k2)
        k4 = _velocity(x + h * k3)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        x = x / np.linalg.norm(x, axis=-1, keepdims=True)
    return x
