"""Two-dimensional incompressible Navier-Stokes on a periodic square, in vorticity form.

    dw/dt + u . grad w = viscosity * laplacian(w) - drag * w + forcing,        u = (d psi/dy, -d psi/dx),
    -laplacian(psi) = w

Pseudo-spectral in space with the 2/3 rule, so that energy and enstrophy are conserved by the discrete
nonlinear term; fourth-order Runge-Kutta in time behind an integrating factor, so that viscosity and drag are
exact and never limit the step. The forcing puts a constant power into the ring |k| ~ `forcing_wavenumber`. It
is a function of the state alone (no noise, no hidden pattern), hence one frame determines the next, and the
flow keeps the symmetries of the square torus.

Shapes: w is (B, n, n) in space and (B, n, n // 2 + 1), complex, in wavenumbers. The last axis is x, the one
before is y.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fft import irfft2, rfft2

from .solving import check_physics, check_request, solve_all, whole_intervals
from .spectral import spectral_resample, velocity, wavenumbers

__all__ = ["Physics", "evolve", "navier_stokes"]


@dataclass(frozen=True)
class Physics:
    """The equation and how finely it is solved.

    Attributes:
        viscosity: kinematic viscosity, length^2 / time, >= 0.
        drag: linear (Rayleigh) drag, 1 / time, >= 0; it stops the inverse cascade from filling the box.
        forcing: power per area that the forcing puts in, length^2 / time^3, >= 0; 0 gives a decaying flow.
        forcing_wavenumber: centre of the forced ring, in whole waves per box.
        forcing_width: the ring is |k - forcing_wavenumber| <= forcing_width.
        length: side of the box.
        resolution: grid points per side of the solver; None takes 3/2 of the output size, the least for which
            the 2/3 rule keeps every wavenumber of the output. Rounded up to an even number.
        dt: longest time step.
    """

    viscosity: float = 5e-4
    drag: float = 0.1
    forcing: float = 0.06
    forcing_wavenumber: float = 4.0
    forcing_width: float = 1.0
    length: float = 2 * math.pi
    resolution: int | None = None
    dt: float = 0.025

    def __post_init__(self) -> None:
        check_physics(
            self, positive=("length", "dt", "forcing_wavenumber"), nonnegative=("viscosity", "drag", "forcing")
        )


class _Operator:
    """The multipliers of one n x n grid: everything that does not change along a trajectory."""

    def __init__(self, physics: Physics, n: int) -> None:
        self.n, self.forcing = n, physics.forcing
        whole_x, whole_y = wavenumbers(n)
        self.keep = (whole_x < n / 3) & (whole_y.abs() < n / 3)
        unit = 2 * math.pi / physics.length
        kx, ky = unit * whole_x, unit * whole_y
        square = kx**2 + ky**2
        inverse = torch.where(square > 0, 1 / square, 0.0)
        self.linear = -physics.viscosity * square - physics.drag
        self.velocity = torch.stack([1j * ky * inverse, -1j * kx * inverse]).unsqueeze(1)
        # curl of div(u u), written with two products only: (dxx - dyy)(u v) + dxy(v v - u u)
        self.advection = (torch.stack([kx**2 - ky**2, kx * ky]) * self.keep).unsqueeze(1)
        distance = ((whole_x**2 + whole_y**2).sqrt() - physics.forcing_wavenumber).abs()
        self.ring = ((distance <= physics.forcing_width) & self.keep & (square > 0)).flatten().nonzero().squeeze(1)
        # energy per area is the sum of these times |w_k|^2 (Parseval; a k with kx > 0 stands for k and -k)
        weight = torch.where(whole_x > 0, 1.0, 0.5).expand(n, -1)
        self.ring_energy = (weight * inverse).flatten()[self.ring] / n**4

    def tendency(self, w: Tensor) -> Tensor:
        """All but the linear part: minus the advection, plus the forcing; both (B, n, n // 2 + 1)."""
        u, v = irfft2(self.velocity * w, s=(self.n, self.n))
        products = rfft2(torch.stack([u * v, (v - u) * (v + u)]))
        out: Tensor = products.mul_(self.advection).sum(0)
        if self.forcing > 0:
            ring = w.flatten(1)[:, self.ring]
            energy = (ring.abs().square() * self.ring_energy).sum(1, keepdim=True)
            # d energy / dt = 2 a energy when dw/dt = a w on the ring
            rate = self.forcing / (2 * energy).clamp_min(1e-12)
            out.flatten(1)[:, self.ring] += rate * ring
        return out

    def step(self, w: Tensor, dt: float, half: Tensor) -> Tensor:
        """One classical Runge-Kutta step in the variable exp(-linear t) w; `half` is exp(linear dt / 2)."""
        moved = half * w
        k1 = self.tendency(w)
        k2 = self.tendency(moved + (dt / 2) * half * k1)
        k3 = self.tendency(moved + (dt / 2) * k2)
        k4 = self.tendency(half * (moved + dt * k3))
        return half * (moved + (dt / 6) * (half * k1 + 2 * (k2 + k3))) + (dt / 6) * k4


def evolve(
    vorticity: Tensor,
    *,
    frames: int,
    interval: float,
    physics: Physics | None = None,
    start: float = 0.0,
) -> Iterator[Tensor]:
    """Solve from a given vorticity and yield it after each interval.

    Args:
        vorticity: (B, n, n), real; used in float64. Wavenumbers of n / 3 and above are removed first.
        frames: how many times to yield.
        interval: time between two of them.
        physics: the equation; `resolution` is not used here, the grid is the one given.
        start: the time of `vorticity`; it only appears in error messages.

    Yields:
        (B, n, n), float64, at the times start + interval, start + 2 interval, ...

    Raises:
        ValueError: on a wrong shape, or when the solution blows up; the message names the time and the fix.

    Examples:
        >>> import torch
        >>> x = torch.arange(16, dtype=torch.float64) * (2 * torch.pi / 16)
        >>> w = 2 * torch.cos(x) * torch.cos(x)[:, None]      # Taylor-Green: decays as exp(-2 viscosity t)
        >>> viscous = Physics(viscosity=0.1, drag=0.0, forcing=0.0)
        >>> (after,) = evolve(w[None], frames=1, interval=1.0, physics=viscous)
        >>> bool(torch.allclose(after[0], w * torch.exp(torch.tensor(-0.2))))
        True
    """
    physics = physics or Physics()
    if vorticity.ndim != 3 or vorticity.shape[1] != vorticity.shape[2] or vorticity.shape[1] < 4:
        raise ValueError(f"vorticity must be (B, n, n) with n >= 4, got {tuple(vorticity.shape)}")
    if not (interval > 0 and frames >= 0):
        raise ValueError(f"interval must be > 0 and frames >= 0, got interval={interval}, frames={frames}")
    n = vorticity.shape[-1]
    operator = _Operator(physics, n)
    steps = whole_intervals(interval, physics.dt)
    dt = interval / steps
    half = torch.exp(operator.linear * dt / 2)
    w = rfft2(vorticity.detach().to(torch.float64)) * operator.keep
    for frame in range(frames):
        for _ in range(steps):
            w = operator.step(w, dt, half)
        out = irfft2(w, s=(n, n))
        if not out.isfinite().all():
            time = start + interval * (frame + 1)
            raise ValueError(
                f"the flow blew up before time {time:g} (time step {dt:g}, {n} x {n} grid): "
                f"take a smaller dt, e.g. Physics(dt={dt / 2:g}), more viscosity, or less forcing"
            )
        yield out


def _initial(seed: int, index: int, n: int, physics: Physics) -> Tensor:
    """Random phases around the forced ring, with about the energy of the steady state; (n, n)."""
    state = np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(state) >> 1)
    # drawn on a grid that does not depend on n: a finer solver starts from the same flow
    noise = torch.randn(32, 32, dtype=torch.float64, generator=generator)
    whole_x, whole_y = wavenumbers(32)
    radius = (whole_x**2 + whole_y**2).sqrt()
    ring = torch.exp(-((radius - min(physics.forcing_wavenumber, 8.0)) ** 2) / 4) * (radius > 0)
    w = spectral_resample(irfft2(rfft2(noise) * ring, s=(32, 32)), n)
    energy = velocity(w, length=physics.length).square().sum(0).mean() / 2
    wanted = 0.4 * physics.forcing / physics.drag if physics.forcing * physics.drag > 0 else 0.2
    return w * (wanted / energy).sqrt()


def navier_stokes(
    trajectories: int = 20,
    frames: int = 21,
    size: int = 64,
    *,
    interval: float = 0.5,
    spin_up: float = 5.0,
    physics: Physics | None = None,
    seed: int = 0,
    first: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Trajectories of driven two-dimensional turbulence: the vorticity at equal intervals.

    Args:
        trajectories: how many, each from its own random flow.
        frames: frames kept per trajectory.
        size: side of the frames, at least 8; the flow is solved finer (`Physics.resolution`) and truncated to
            this.
        interval: time between frames.
        spin_up: time solved and thrown away first, for the flow to forget how it was drawn; rounded up to
            whole intervals.
        physics: the equation and the time step; None means `Physics()`.
        seed: trajectory i depends on (seed, i) only; the global random state is neither read nor changed.
        first: index of the first trajectory.
        progress: called as progress(done, total) after every frame, by one thread at a time.

    Returns:
        float32 array (trajectory, time, channel, y, x) with one channel.

    Raises:
        ValueError: on impossible arguments, or if the solution blows up (with the time and the fix).

    Examples:
        >>> flow = navier_stokes(2, frames=3, size=16, spin_up=0.5)
        >>> flow.shape, flow.dtype.name
        ((2, 3, 1, 16, 16), 'float32')
    """
    physics = physics or Physics()
    resolution = physics.resolution if physics.resolution is not None else 3 * size // 2
    resolution += resolution % 2
    check_request(trajectories=trajectories, frames=frames, interval=interval, seed=seed, first=first, spin_up=spin_up)
    if size < 8 or resolution < size:
        raise ValueError(f"need 8 <= size <= Physics.resolution, got size={size}, resolution={resolution}")
    if physics.forcing > 0 and physics.forcing_wavenumber >= resolution / 3:
        raise ValueError(
            f"forcing_wavenumber={physics.forcing_wavenumber:g} is not resolved by {resolution} points "
            f"(the 2/3 rule keeps wavenumbers below {resolution / 3:g}): raise size or Physics.resolution"
        )
    before = whole_intervals(spin_up, interval)

    def states(index: int) -> Iterable[Tensor]:
        w, more = _initial(seed, index, resolution, physics)[None], before + frames - 1
        return chain([w], evolve(w, frames=more, interval=interval, physics=physics, start=-before * interval))

    def frame(w: Tensor) -> NDArray[np.float64]:
        return spectral_resample(w, size).numpy()

    indices = range(first, first + trajectories)
    return solve_all(states, frame, indices, frames=frames, skip=before, progress=progress)
