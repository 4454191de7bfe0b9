"""The kinds of data that `generate` makes, with their default options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .burgers import BurgersPhysics, burgers
from .darcy import DarcyPhysics, darcy
from .kuramoto_sivashinsky import KuramotoSivashinskyPhysics, kuramoto_sivashinsky
from .navier_stokes import Physics, navier_stokes
from .shallow_water import ShallowWaterPhysics, shallow_water

__all__ = ["GENERATORS", "Generator"]


@dataclass(frozen=True)
class Generator:
    """One kind of data.

    Attributes:
        help: what it is, in a line.
        solve: called with `trajectories`, `seed`, `first`, `physics` and all of `options` by keyword; returns float32
            (trajectory, time, channel, *space), where a steady problem has two times, input and target.
        physics: the default, a frozen dataclass with an attribute `length`; any of its attributes may be changed.
        options: those it takes (of size, frames, interval, spin_up, boundary) with their defaults.
        fields: names of the arrays in the file, one per channel; of input and target in a steady problem.
        boundary: what the file states, unless it is an option.
        offset: of the first grid point from the edge of the box, in grid spacings.
        steady: no time axis in the file.
        revision: a higher number for every change that alters the data.
    """

    help: str
    solve: Callable[..., NDArray[np.float32]]
    physics: Any
    options: Mapping[str, Any]
    fields: tuple[str, ...]
    boundary: str = "periodic"
    offset: float = 0.0
    steady: bool = False
    revision: int = 1


def _darcy(*, trajectories: int, **options: Any) -> NDArray[np.float32]:
    return np.stack(darcy(trajectories, **options), axis=1)


GENERATORS: Mapping[str, Generator] = {
    "navier-stokes": Generator(
        "vorticity of forced two-dimensional turbulence on a periodic square",
        navier_stokes,
        Physics(),
        {"size": 64, "frames": 21, "interval": 0.5, "spin_up": 5.0},
        fields=("u",),
    ),
    "navier-stokes-decaying": Generator(
        "vorticity of decaying two-dimensional turbulence on a periodic square",
        navier_stokes,
        Physics(viscosity=1e-3, drag=0.0, forcing=0.0),
        {"size": 64, "frames": 21, "interval": 0.5, "spin_up": 1.0},
        fields=("u",),
    ),
    "shallow-water": Generator(
        "height and velocity of nonlinear shallow water in a periodic box or between walls",
        shallow_water,
        ShallowWaterPhysics(),
        {"size": 64, "frames": 21, "interval": 0.05, "boundary": "periodic"},
        fields=("u", "vx", "vy"),
        offset=0.5,
    ),
    "burgers": Generator(
        "viscous Burgers equation on a periodic line, from smooth random states",
        burgers,
        BurgersPhysics(),
        {"size": 256, "frames": 41, "interval": 0.1},
        fields=("pde",),
    ),
    "kuramoto-sivashinsky": Generator(
        "Kuramoto-Sivashinsky equation on a periodic line: chaos in one dimension",
        kuramoto_sivashinsky,
        KuramotoSivashinskyPhysics(),
        {"size": 256, "frames": 101, "interval": 0.5, "spin_up": 100.0},
        fields=("pde",),
    ),
    "darcy": Generator(
        "steady Darcy flow: random permeability (input) and its pressure (target), zero on the boundary",
        _darcy,
        DarcyPhysics(),
        {"size": 64},
        fields=("input", "target"),
        boundary="zeros",
        offset=0.5,
        steady=True,
    ),
}
"""By name, as `multiresnet data generate NAME` takes it."""
