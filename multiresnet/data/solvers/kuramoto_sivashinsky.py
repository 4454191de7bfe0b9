"""The Kuramoto-Sivashinsky equation on a periodic line, u_t + u u_x + u_xx + viscosity * u_xxxx = 0: chaos in 1-D.

Long waves, |k| < viscosity^(-1/2), grow; the product moves their energy to short ones, which decay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .burgers import random_line
from .etdrk4 import evolve_line
from .solving import check_physics, check_request, solve_all, whole_intervals
from .spectral import spectral_resample

__all__ = ["KuramotoSivashinskyPhysics", "evolve_kuramoto_sivashinsky", "kuramoto_sivashinsky"]


@dataclass(frozen=True)
class KuramotoSivashinskyPhysics:
    """The equation and how finely it is solved.

    Attributes:
        viscosity: of the fourth derivative, > 0; length^2 where u_xx has the factor one.
        length: of the period; about length / 9 humps fit in, and it must exceed 2 pi sqrt(viscosity) for any to grow.
        resolution: grid points of the solver; None takes 3/2 of the output size.
        dt: longest time step.
    """

    viscosity: float = 1.0
    length: float = 64.0
    resolution: int | None = None
    dt: float = 0.05

    def __post_init__(self) -> None:
        check_physics(self, positive=("viscosity", "length", "dt"))


def evolve_kuramoto_sivashinsky(
    u: Tensor, *, frames: int, interval: float, physics: KuramotoSivashinskyPhysics | None = None
) -> Iterator[Tensor]:
    """Solve from a given state (..., n) and yield it, float64, after each interval.

    Raises:
        ValueError: when the solution blows up or is not resolved; says what to do.

    Examples:
        >>> import torch
        >>> x = torch.arange(64, dtype=torch.float64) * (64 / 64)
        >>> k = 6 * 2 * torch.pi / 64
        >>> (u,) = evolve_kuramoto_sivashinsky(1e-6 * torch.sin(k * x), frames=1, interval=4.0)
        >>> bool(torch.allclose(u, 1e-6 * torch.sin(k * x) * torch.exp(torch.tensor(4.0 * (k**2 - k**4))), atol=1e-10))
        True
    """
    physics = physics or KuramotoSivashinskyPhysics()
    return evolve_line(
        u,
        lambda k: k**2 - physics.viscosity * k**4,
        frames=frames,
        interval=interval,
        length=physics.length,
        dt=physics.dt,
    )


def kuramoto_sivashinsky(
    trajectories: int = 100,
    frames: int = 101,
    size: int = 256,
    *,
    interval: float = 0.5,
    spin_up: float = 100.0,
    physics: KuramotoSivashinskyPhysics | None = None,
    seed: int = 0,
    first: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Trajectories on the attractor of the Kuramoto-Sivashinsky equation.

    Args:
        trajectories: how many, each from its own random state of zero mean.
        frames: kept per trajectory.
        size: points of a frame, at least 8; solved finer (`KuramotoSivashinskyPhysics.resolution`) and truncated to this.
        interval: time between frames.
        spin_up: time solved and thrown away first, to reach the attractor; rounded up to whole intervals.
        physics: the equation; None means `KuramotoSivashinskyPhysics()`.
        seed: trajectory i depends on (seed, i) only.
        first: index of the first trajectory.
        progress: called as progress(done, total) after every frame, by one thread at a time.

    Returns:
        float32 array (trajectory, time, channel, x) with one channel.

    Raises:
        ValueError: on impossible arguments, or a grid that does not resolve the solution.

    Examples:
        >>> kuramoto_sivashinsky(2, frames=3, size=96, spin_up=1.0).shape
        (2, 3, 1, 96)
    """
    physics = physics or KuramotoSivashinskyPhysics()
    check_request(trajectories=trajectories, frames=frames, interval=interval, seed=seed, first=first, spin_up=spin_up)
    resolution = physics.resolution or 3 * size // 2
    if size < 8 or resolution < size:
        raise ValueError(
            f"need 8 <= size <= KuramotoSivashinskyPhysics.resolution, got size={size}, resolution={resolution}"
        )
    before = whole_intervals(spin_up, interval)

    def states(index: int) -> Iterable[Tensor]:
        u, more = random_line(np.random.default_rng([seed, index]), resolution, waves=3), before + frames - 1
        return chain([u], evolve_kuramoto_sivashinsky(u, frames=more, interval=interval, physics=physics))

    def frame(u: Tensor) -> NDArray[np.float64]:
        return spectral_resample(u, size, spatial_dims=1)[None].numpy()

    indices = range(first, first + trajectories)
    return solve_all(states, frame, indices, frames=frames, skip=before, progress=progress)
