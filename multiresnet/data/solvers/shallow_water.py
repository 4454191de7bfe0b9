"""Two-dimensional nonlinear shallow water over a flat bottom, in a periodic box or between walls.

    h_t + (h u)_x + (h v)_y = 0,        (h u)_t + (h u u + g h h / 2)_x + (h u v)_y = 0,        the same for v

Finite volumes, second order: MUSCL with van Leer's limiter on (h, u, v), the HLLC flux, and the two-stage SSP
Runge-Kutta scheme. Mass is conserved to rounding, momentum too in a periodic box; hydraulic jumps are captured, and
still water stays still. A wall mirrors the water and turns the velocity across it round.

Shapes: states are (B, 3, ny, nx), the channels h, u (along x, the last axis) and v (along y); cells are squares, their
values cell averages.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from multiresnet.spaces.boundary import Boundary, parse_boundary

from .random_fields import Waves, random_field
from .solving import check_physics, check_request, solve_all

__all__ = ["ShallowWaterPhysics", "evolve_shallow_water", "shallow_water"]


@dataclass(frozen=True)
class ShallowWaterPhysics:
    """The water, its initial state and how finely it is solved.

    Attributes:
        gravity: length / time^2, > 0.
        depth: mean depth; long waves move at sqrt(gravity * depth).
        length: side of the box along x.
        height: initial deviation of ln h, root mean square, >= 0; 0.1 gives waves that steepen into jumps.
        swirl: initial speed of a divergence-free flow, root mean square, as a fraction of the wave speed, >= 0.
        waves: the initial state holds up to this many whole waves per box side.
        resolution: cells per side of the solver, a multiple of the output size; None takes twice the output size.
        cfl: Courant number of the time step, <= 1.
    """

    gravity: float = 1.0
    depth: float = 1.0
    length: float = 1.0
    height: float = 0.1
    swirl: float = 0.1
    waves: int = 4
    resolution: int | None = None
    cfl: float = 0.8

    def __post_init__(self) -> None:
        check_physics(self, positive=("gravity", "depth", "length", "waves", "cfl"), nonnegative=("height", "swirl"))
        if self.cfl > 1:
            raise ValueError(f"ShallowWaterPhysics.cfl must be <= 1 for stability, got {self.cfl}")


def evolve_shallow_water(
    state: Tensor,
    *,
    frames: int,
    interval: float,
    boundary: Boundary = "periodic",
    physics: ShallowWaterPhysics | None = None,
) -> Iterator[Tensor]:
    """Solve from a given state and yield it after each interval.

    Args:
        state: (B, 3, ny, nx): h > 0, u, v; used in float64. The states of a batch share their time steps.
        frames: how many times to yield.
        interval: time between two of them.
        boundary: "periodic" or "reflect" (walls), for both axes or for (y, x).
        physics: gravity, length and cfl; the grid is the one given.

    Yields:
        (B, 3, ny, nx), float64.

    Raises:
        ValueError: on a wrong shape or boundary, or when water runs out somewhere; says what to do.

    Examples:
        >>> import torch
        >>> still = torch.tensor([2.0, 0.0, 0.0]).double()[None, :, None, None].expand(1, 3, 4, 8)
        >>> (after,) = evolve_shallow_water(still, frames=1, interval=0.5, boundary="reflect")
        >>> torch.equal(after, still)
        True
    """
    physics = physics or ShallowWaterPhysics()
    walls = _walls(boundary)
    if state.ndim != 4 or state.shape[1] != 3 or min(state.shape[2:]) < 2:
        raise ValueError(f"state must be (B, 3, ny, nx) with h, u, v on at least 2 x 2 cells, got {tuple(state.shape)}")
    if not (interval > 0 and frames >= 0):
        raise ValueError(f"interval must be > 0 and frames >= 0, got interval={interval}, frames={frames}")
    w = state.detach().double()
    if not (w[:, 0] > 0).all():
        raise ValueError(f"the depth h must be > 0 everywhere, got {float(w[:, 0].min())}")
    q = torch.cat([w[:, :1], w[:, :1] * w[:, 1:]], 1)
    dx, speed = physics.length / w.shape[-1], _speed(w, physics.gravity)
    for frame in range(frames):
        left = interval
        while left > 0:
            steps = math.ceil(left * speed / (physics.cfl * dx))
            dt = left / steps
            middle = q + dt * _tendency(w, physics.gravity, dx, walls)
            q = (q + middle + dt * _tendency(_primitive(middle), physics.gravity, dx, walls)) / 2
            w = _primitive(q)
            speed = _speed(w, physics.gravity)
            if not math.isfinite(speed):
                raise ValueError(
                    f"the water ran out or the solution blew up before time {interval * (frame + 1):g}: "
                    "take a smaller cfl, a smaller `height` or a smaller `swirl`"
                )
            left = left - dt if steps > 1 else 0.0
        yield w


def _walls(boundary: Boundary) -> tuple[bool, bool]:
    sides = parse_boundary(boundary, 2)
    if any(pair not in (("periodic",) * 2, ("reflect",) * 2) for pair in sides):
        raise ValueError(f'boundary must be "periodic" or "reflect" (walls), or one of them per axis, got {boundary!r}')
    return sides[0][0] == "reflect", sides[1][0] == "reflect"


def _speed(w: Tensor, gravity: float) -> float:
    """Of the fastest waves along x and along y, summed; not finite where there is no water."""
    return float((w[:, 1:].abs() + (gravity * w[:, :1]).sqrt()).amax((0, 2, 3)).sum())


def _primitive(q: Tensor) -> Tensor:
    return torch.cat([q[:, :1], q[:, 1:] / q[:, :1]], 1)


def _tendency(w: Tensor, gravity: float, dx: float, walls: tuple[bool, bool]) -> Tensor:
    """d/dt of (h, h u, h v): what flows in through the faces."""
    along_x = _flux(w, gravity, walls[1])
    turned = w[:, [0, 2, 1]].mT  # y is x of the box turned round its diagonal
    along_y = _flux(turned, gravity, walls[0])[:, [0, 2, 1]].mT
    return (along_x.diff(dim=-1) + along_y.diff(dim=-2)) / -dx


def _flux(w: Tensor, gravity: float, wall: bool) -> Tensor:
    """HLLC flux of (h, h u, h v) through the nx + 1 faces across x, (B, 3, ny, nx + 1)."""
    if wall:
        mirror = w.new_tensor([1.0, -1.0, 1.0])[:, None, None]
        w = torch.cat([w[..., :2].flip(-1) * mirror, w, w[..., -2:].flip(-1) * mirror], -1)
    else:
        w = F.pad(w, (2, 2, 0, 0), mode="circular")
    difference = w.diff(dim=-1)
    a, b = difference[..., :-1], difference[..., 1:]
    half_slope = torch.where(a * b > 0, a * b / (a + b), 0.0)  # van Leer: half the harmonic mean of the differences
    hl, ul, vl = (w[..., 1:-2] + half_slope[..., :-1]).unbind(1)
    hr, ur, vr = (w[..., 2:-1] - half_slope[..., 1:]).unbind(1)
    cl, cr = (gravity * hl).sqrt(), (gravity * hr).sqrt()
    sl = torch.minimum(ul - cl, ur - cr).clamp_max(0)  # bounds of the wave fan
    sr = torch.maximum(ul + cl, ur + cr).clamp_min(0)
    ml, mr = hl * ul, hr * ur
    pl, pr = ml * ul + gravity / 2 * hl**2, mr * ur + gravity / 2 * hr**2
    mass = (sr * ml - sl * mr + sl * sr * (hr - hl)) / (sr - sl)
    momentum = (sr * pl - sl * pr + sl * sr * (mr - ml)) / (sr - sl)
    return torch.stack([mass, momentum, mass * torch.where(mass > 0, vl, vr)], 1)  # v is carried by the water


def _initial(seed: int, index: int, n: int, walls: tuple[bool, bool], physics: ShallowWaterPhysics) -> Tensor:
    """Random smooth surface and divergence-free flow, (1, 3, n, n); the same for every n."""
    generator = np.random.default_rng([seed, index])
    centres, corners = (np.arange(n) + 0.5) / n, np.arange(n + 1) / n

    def wave(points: NDArray[np.float64], kind: Waves) -> NDArray[np.float64]:
        kinds: tuple[Waves, Waves] = (kind if walls[0] else "periodic", kind if walls[1] else "periodic")
        return random_field(generator, (points, points), kinds, lambda k: k**-2.0, cutoff=physics.waves)

    surface, stream = wave(centres, "even"), wave(corners, "odd")
    h = np.exp(physics.height * surface / np.sqrt(np.mean(surface**2)))
    # the flow through each face, averaged over the two faces of a cell; no water crosses a wall, where the stream is 0
    u, v = np.diff(stream, axis=0), -np.diff(stream, axis=1)
    flow = np.stack([u[:, 1:] + u[:, :-1], v[1:] + v[:-1]])
    speed = physics.swirl * math.sqrt(physics.gravity * physics.depth)
    flow *= speed / np.sqrt(np.mean((flow**2).sum(0)))
    return torch.from_numpy(np.concatenate([physics.depth * h[None] / h.mean(), flow]))[None]


def shallow_water(
    trajectories: int = 20,
    frames: int = 21,
    size: int = 64,
    *,
    interval: float = 0.05,
    boundary: Boundary = "periodic",
    physics: ShallowWaterPhysics | None = None,
    seed: int = 0,
    first: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Trajectories of shallow water from a random smooth surface and flow.

    Args:
        trajectories: how many.
        frames: kept per trajectory; the first is the initial state.
        size: cells per side of a frame, at least 4; solved finer (`ShallowWaterPhysics.resolution`) and averaged to this.
        interval: time between frames.
        boundary: "periodic" or "reflect" (walls), for both axes or for (y, x).
        physics: the water and the time step; None means `ShallowWaterPhysics()`.
        seed: trajectory i depends on (seed, i) only.
        first: index of the first trajectory.
        progress: called as progress(done, total) after every frame, by one thread at a time.

    Returns:
        float32 array (trajectory, time, channel, y, x) with the channels h, u (along x) and v (along y). The averages of
        u and v over cells are weighted with h, as momentum is.

    Raises:
        ValueError: on impossible arguments, or when water runs out somewhere.

    Examples:
        >>> shallow_water(2, frames=3, size=16, boundary=("reflect", "periodic")).shape
        (2, 3, 3, 16, 16)
    """
    physics = physics or ShallowWaterPhysics()
    check_request(trajectories=trajectories, frames=frames, interval=interval, seed=seed, first=first)
    resolution = physics.resolution or 2 * size
    if size < 4 or resolution % size:
        raise ValueError(f"need size >= 4 and a resolution that is a multiple of it, got {size} and {resolution}")
    walls, factor = _walls(boundary), resolution // size

    def states(index: int) -> Iterable[Tensor]:
        w = _initial(seed, index, resolution, walls, physics)
        later = evolve_shallow_water(w, frames=frames - 1, interval=interval, boundary=boundary, physics=physics)
        return chain([w], later)

    def frame(w: Tensor) -> NDArray[np.float64]:
        h = w[:, :1]
        return _primitive(F.avg_pool2d(torch.cat([h, h * w[:, 1:]], 1), factor))[0].numpy()

    return solve_all(states, frame, range(first, first + trajectories), frames=frames, progress=progress)
