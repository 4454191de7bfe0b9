"""Periodic scalar equations u_t + u u_x = L u on a line, L diagonal in Fourier space: Burgers, Kuramoto-Sivashinsky.

Pseudo-spectral with the 2/3 rule in space; in time exponential time differencing with fourth-order Runge-Kutta (Cox and
Matthews 2002), its coefficients by contour integrals (Kassam and Trefethen 2005): L is exact and never limits the step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.fft import irfft, rfft

from .solving import whole_intervals

__all__ = ["ETDRK4", "evolve_line"]


class ETDRK4:
    """One step of dv/dt = linear * v + nonlinear(v) for modes v of shape (..., modes).

    Args:
        linear: (modes,), real.
        dt: time step.

    Examples:
        >>> import torch
        >>> scheme = ETDRK4(torch.tensor([-1000.0]), dt=0.5)
        >>> round(scheme.step(torch.tensor([1.0]), lambda v: 0 * v + 1000).item(), 9)     # a stiff relaxation to one
        1.0
    """

    def __init__(self, linear: Tensor, dt: float) -> None:
        z = linear.double() * dt
        # means over a circle around z, whose lower half mirrors the upper one: no cancellation near z = 0
        points = 32
        circle = torch.exp(1j * math.pi * (torch.arange(points, dtype=torch.float64) + 0.5) / points)
        r = z[:, None] + circle

        def mean(values: Tensor) -> Tensor:
            return dt * values.real.mean(1)

        self.whole, self.half = torch.exp(z), torch.exp(z / 2)
        self.stage = mean(torch.expm1(r / 2) / r)
        self.first = mean((-4 - r + torch.exp(r) * (4 - 3 * r + r**2)) / r**3)
        self.middle = mean((2 + r + torch.exp(r) * (r - 2)) / r**3) * 2
        self.last = mean((-4 - 3 * r - r**2 + torch.exp(r) * (4 - r)) / r**3)

    def step(self, v: Tensor, nonlinear: Callable[[Tensor], Tensor]) -> Tensor:
        """The modes one time step later."""
        moved = self.half * v
        n1 = nonlinear(v)
        a = moved + self.stage * n1
        n2 = nonlinear(a)
        n3 = nonlinear(moved + self.stage * n2)
        n4 = nonlinear(self.half * a + self.stage * (2 * n3 - n1))
        return self.whole * v + self.first * n1 + self.middle * (n2 + n3) + self.last * n4


def evolve_line(
    u: Tensor,
    symbol: Callable[[Tensor], Tensor],
    *,
    frames: int,
    interval: float,
    length: float,
    dt: float,
) -> Iterator[Tensor]:
    """Solve u_t + u u_x = L u and yield u after each interval; the mean of u never changes.

    Args:
        u: (..., n), real, at x = 0, length / n, ...; used in float64. Wavenumbers of n / 3 and above are removed first.
        symbol: what L does to exp(i k x), a real function of k.
        frames: how many times to yield.
        interval: time between two of them.
        length: of the period.
        dt: longest time step.

    Raises:
        ValueError: when the solution blows up, or holds waves up to the shortest that the grid keeps; says what to do.
    """
    n = u.shape[-1]
    if n < 8:
        raise ValueError(f"u must be (..., n) with n >= 8, got {tuple(u.shape)}")
    if not (interval > 0 and frames >= 0):
        raise ValueError(f"interval must be > 0 and frames >= 0, got interval={interval}, frames={frames}")
    whole = torch.arange(n // 2 + 1, dtype=torch.float64)
    keep = whole < n / 3
    k = whole * (2 * math.pi / length)
    steps = whole_intervals(interval, dt)
    scheme = ETDRK4(symbol(k), interval / steps)
    factor = -0.5j * k * keep
    shortest = keep & (whole > 0.9 * n / 3)

    def nonlinear(v: Tensor) -> Tensor:
        out: Tensor = factor * rfft(irfft(v, n=n).square())
        return out

    v = rfft(u.detach().double())
    noise, v = 1e-10 * v.abs().amax(-1), v * keep
    for frame in range(frames):
        for _ in range(steps):
            v = scheme.step(v, nonlinear)
        time = interval * (frame + 1)
        size = v[..., 1:].abs().amax(-1)
        if not size.isfinite().all():
            raise ValueError(
                f"the solution blew up before time {time:g} (time step {interval / steps:g}, {n} points): "
                f"take a smaller dt, e.g. {dt / 2:g}"
            )
        if (v[..., shortest].abs().amax(-1) > torch.maximum(1e-2 * size, noise)).any():
            raise ValueError(
                f"{n} points do not resolve the solution at time {time:g}: raise `resolution` (or `size`) or the viscosity"
            )
        yield irfft(v, n=n)
