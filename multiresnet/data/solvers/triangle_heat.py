"""The heat equation on an insulated equilateral triangle, by finite volumes on the cells of `multiresnet.spaces.Triangle`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from multiresnet.spaces import Triangle

from .solving import check_request, solve_all

__all__ = ["triangle_heat"]

Array = NDArray[np.float64]
STEPS = 8  # of Crank and Nicolson, per frame


def triangle_heat(
    depth: int = 5,
    *,
    trajectories: int = 100,
    frames: int = 11,
    interval: float = 1e-3,
    blobs: int = 12,
    seed: int = 0,
    first: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Temperatures on an equilateral triangle of side 1 whose sides let no heat through; hot and cold discs at the start.

    Every cell exchanges heat with those across its sides, `side / distance = sqrt(3)` times the difference: the mean stays.

    Args:
        depth: of the `Triangle`, 4**depth cells.
        trajectories: how many.
        frames: of each.
        interval: time between frames.
        blobs: discs in each first state.
        seed: trajectory i depends on (seed, i) only.
        first: index of the first trajectory.
        progress: called as progress(done, total) after every frame.

    Returns:
        float32 (trajectory, time, 1, cells).

    Raises:
        ValueError: on impossible arguments.
        ImportError: no scipy.

    Examples:
        >>> u = triangle_heat(3, trajectories=2, frames=3)
        >>> u.shape, bool(abs(u[:, -1].mean(-1) - u[:, 0].mean(-1)).max() < 1e-5)
        ((2, 3, 1, 64), True)
    """
    try:
        from scipy.sparse import coo_array, eye_array
        from scipy.sparse.linalg import splu
    except ImportError as error:
        raise ImportError("heat on the triangle needs scipy: pip install 'multiresnet[pde]'") from error
    check_request(trajectories=trajectories, frames=frames, interval=interval, seed=seed, first=first)
    space = Triangle(depth, "side")
    table = space.table(0)[:, 1:]
    i, j = (
        part.numpy() for part in (torch.arange(len(table))[:, None].expand_as(table)[table >= 0], table[table >= 0])
    )
    rate = 4.0 * 4**depth  # sqrt(3) / area of a cell
    laplacian: Any = coo_array((np.full(len(i), rate), (i, j)), shape=(len(table),) * 2).tocsc()
    laplacian = laplacian - coo_array((np.asarray(laplacian.sum(1)), (np.arange(len(table)),) * 2)).tocsc()
    half: Any = interval / STEPS / 2 * laplacian
    solver = splu((eye_array(len(table)) - half).tocsc())
    forward = (eye_array(len(table)) + half).tocsr()
    to_equilateral = np.array([[1.0, 0.0], [0.5, np.sqrt(0.75)]])
    centres = space.centres().numpy() @ to_equilateral

    def states(index: int) -> Iterator[Array]:
        generator = np.random.default_rng([seed, index])
        u = np.zeros(len(table))
        middles = generator.dirichlet((1, 1, 1), blobs)[:, 1:] @ to_equilateral
        for middle, height, radius in zip(middles, generator.normal(size=blobs), generator.uniform(0.05, 0.2, blobs)):
            u += height * (np.linalg.norm(centres - middle, axis=1) < radius)
        yield u
        for _ in range(frames - 1):
            for _ in range(STEPS):
                u = solver.solve(forward @ u)
            yield u

    def frame(u: Array) -> Array:
        return u[None]

    return solve_all(states, frame, range(first, first + trajectories), frames=frames, progress=progress)
