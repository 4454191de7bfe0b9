"""The viscous Burgers equation on a periodic line, u_t + u u_x = viscosity * u_xx: waves steepen into shocks and merge."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .etdrk4 import evolve_line
from .solving import check_physics, check_request, solve_all
from .spectral import spectral_resample

__all__ = ["BurgersPhysics", "burgers", "evolve_burgers"]


@dataclass(frozen=True)
class BurgersPhysics:
    """The equation, its initial state and how finely it is solved.

    Attributes:
        viscosity: length^2 / time, > 0; a shock of height d is about 4 viscosity / d wide.
        length: of the period.
        speed: root mean square of the initial u.
        waves: the initial state holds 1 .. `waves` whole waves.
        resolution: grid points of the solver; None takes four times the output size.
        dt: longest time step.
    """

    viscosity: float = 0.05
    length: float = 2 * math.pi
    speed: float = 0.7
    waves: int = 4
    resolution: int | None = None
    dt: float = 0.005

    def __post_init__(self) -> None:
        check_physics(self, positive=("viscosity", "length", "speed", "waves", "dt"))


def evolve_burgers(
    u: Tensor, *, frames: int, interval: float, physics: BurgersPhysics | None = None
) -> Iterator[Tensor]:
    """Solve from a given state (..., n) and yield it, float64, after each interval.

    Raises:
        ValueError: when the solution blows up or its shocks are not resolved; says what to do.

    Examples:
        >>> import torch
        >>> x = torch.arange(64, dtype=torch.float64) * (2 * torch.pi / 64)
        >>> (u,) = evolve_burgers(1e-6 * torch.sin(x), frames=1, interval=2.0, physics=BurgersPhysics(viscosity=0.1))
        >>> round(u.max().item() * 1e6, 4)           # too weak to steepen: decays as exp(-viscosity k^2 t)
        0.8187
    """
    physics = physics or BurgersPhysics()
    return evolve_line(
        u,
        lambda k: -physics.viscosity * k**2,
        frames=frames,
        interval=interval,
        length=physics.length,
        dt=physics.dt,
    )


def burgers(
    trajectories: int = 100,
    frames: int = 41,
    size: int = 256,
    *,
    interval: float = 0.1,
    physics: BurgersPhysics | None = None,
    seed: int = 0,
    first: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Trajectories of the viscous Burgers equation from random smooth states of zero mean.

    Args:
        trajectories: how many.
        frames: kept per trajectory; the first is the initial state.
        size: points of a frame, at least 8; solved finer (`BurgersPhysics.resolution`) and truncated to this.
        interval: time between frames.
        physics: the equation; None means `BurgersPhysics()`.
        seed: trajectory i depends on (seed, i) only.
        first: index of the first trajectory.
        progress: called as progress(done, total) after every frame, by one thread at a time.

    Returns:
        float32 array (trajectory, time, channel, x) with one channel.

    Raises:
        ValueError: on impossible arguments, or shocks that the solver does not resolve.

    Examples:
        >>> burgers(2, frames=3, size=64).shape
        (2, 3, 1, 64)
    """
    physics = physics or BurgersPhysics()
    check_request(trajectories=trajectories, frames=frames, interval=interval, seed=seed, first=first)
    resolution = physics.resolution or 4 * size
    if size < 8 or resolution < size or 3 * physics.waves >= resolution:
        raise ValueError(
            f"need 8 <= size <= resolution and resolution > 3 waves, got size={size}, "
            f"BurgersPhysics.resolution={resolution}, waves={physics.waves}"
        )

    def states(index: int) -> Iterable[Tensor]:
        u = random_line(np.random.default_rng([seed, index]), resolution, physics.waves) * physics.speed
        return chain([u], evolve_burgers(u, frames=frames - 1, interval=interval, physics=physics))

    def frame(u: Tensor) -> NDArray[np.float64]:
        return spectral_resample(u, size, spatial_dims=1)[None].numpy()

    return solve_all(states, frame, range(first, first + trajectories), frames=frames, progress=progress)


def random_line(generator: np.random.Generator, n: int, waves: int) -> Tensor:
    """A periodic random function (n,) of 1 .. `waves` whole waves, with zero mean and mean square one."""
    a, b = torch.from_numpy(generator.standard_normal((2, waves, 1)))
    phase = torch.arange(1, waves + 1)[:, None] * (torch.arange(n, dtype=torch.float64) * (2 * math.pi / n))
    u: Tensor = (a * phase.cos() + b * phase.sin()).sum(0)
    u *= ((a.square() + b.square()).sum() / 2).rsqrt()
    return u
