"""The layouts of PDEBench (Takamoto et al., arXiv 2210.07182): one file per equation and parameter, in four forms.

Taken from the scripts that write and read the files in github.com/pdebench/PDEBench (`Data_Merge.py`, `fno/utils.py`,
`gen_diff_react.py`, `gen_diff_sorp.py`, `sim_radial_dam_break.py`, `data_io.py`); certain for the arrays:

    1-D scalar           tensor (N, T, X), x-coordinate, t-coordinate; attributes Nu, beta, rho
    compressible flow    density, pressure, Vx[, Vy[, Vz]], each (N, T, X[, Y[, Z]]); attributes eta, zeta, M
    2-D reaction etc.    a group 0000, 0001, ... per sample, with data (T, X[, Y], C) and grid/
    2-D incompressible   velocity (N, T, X, Y, 2), particles (N, T, X, Y, 1), force (N, X, Y, 2)
    Darcy flow           tensor (N, 1, X, Y) and nu (N, X, Y): steady, for `PairDataModule`

The files do not state their boundary condition. It follows from the names of the released files, where the generating
scripts are clear about it (`BOUNDARIES`); a file by another name has none. Parameters are the numbers among the file's
attributes, or else those in its name ("..._Nu0.01.hdf5"); the released names were not checked against every file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multiresnet.data.stores import attributes
from multiresnet.spaces.boundary import Boundary

from .layout import SPACE, Field, Group, Layout, axis_sizes

__all__ = ["BOUNDARIES", "NEEDS", "pdebench_layout"]

NEEDS = (
    "PDEBench: tensor (N, T, X); or density, pressure, Vx, ...; or groups 0000, 0001, ... with data (T, *space, C); "
    "or velocity and particles"
)

# a part of the file's name -> what the generating script does at the sides
BOUNDARIES: dict[str, Boundary] = {
    "periodic": "periodic",
    "trans": "replicate",  # compressible flow, outgoing: zero gradient
    "advection": "periodic",
    "burgers": "periodic",
    "reacdiff": "periodic",
    "diff-sorp": "replicate",  # a fixed value to the left and a flux condition to the right; no rule here is either
    "diff-react": "replicate",  # no flux, on cell centres
    "rdb": "replicate",  # radial dam break: zero gradient
    "ns_incom": "reflect",  # closed box: as the walls of The Well
}
_FLOW = ("density", "pressure", "Vx", "Vy", "Vz")
_NUMBER = re.compile(r"(?<![A-Za-z])(Nu|Rho|beta|Eta|Zeta|M)(\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?=_|$)", re.IGNORECASE)


def pdebench_layout(store: Any, path: Path) -> Layout | None:
    """The layout of an open file of PDEBench; None if it is not one.

    Raises:
        ValueError: a Darcy file, which has no time.
    """
    found = _fields(store)
    if found is None:
        return None
    fields, groups = found
    sizes = axis_sizes(store[groups[0]] if groups else store, fields)
    count = len(groups) or sizes["n"]
    parts = [Group(f"{name}/", 1, sizes["t"]) for name in groups] or [Group("", count, sizes["t"])]
    return Layout(
        fields=tuple(fields),
        groups=tuple(parts),
        space=tuple(sizes[letter] for letter in SPACE if letter in sizes),
        boundary=next((rule for part, rule in BOUNDARIES.items() if part in path.name.lower()), None),
        parameters=_parameters(store, path, count),
    )


def _fields(store: Any) -> tuple[list[Field], list[str]] | None:
    """The fields, and the names of the groups if each trajectory has one."""
    if "tensor" in store:
        rank = len(store["tensor"].shape)
        if "nu" in store:
            raise ValueError("a steady problem (tensor for given nu, no time): use PairDataModule")
        planes = rank == 4 and "y-coordinate" in store
        return ([Field("tensor", "nt" + SPACE[: rank - 2], ("u",))], []) if rank == 3 or planes else None
    if "density" in store:
        axes = "nt" + SPACE[: len(store["density"].shape) - 2]
        return [Field(name, axes, (name,)) for name in _FLOW if name in store], []
    if "velocity" in store and "particles" in store:
        names = [name for name in ("velocity", "particles", "force") if name in store]
        return [_vector(name, store[name].shape, time=name != "force") for name in names], []
    groups = sorted(name for name in store if name.isdigit() and hasattr(store[name], "keys"))
    groups = [name for name in groups if "data" in store[name]]
    if not groups:
        return None
    shape = store[groups[0]]["data"].shape
    return [Field("data", "t" + SPACE[: len(shape) - 2] + "c", tuple("uvw"[: shape[-1]]))], groups


def _vector(name: str, shape: tuple[int, ...], *, time: bool) -> Field:
    dims = SPACE[: len(shape) - 2 - time]
    names = tuple(f"{name}_{dim}" for dim in dims) if shape[-1] > 1 else (name,)
    return Field(name, "n" + "t" * time + dims + "c", names)


def _parameters(store: Any, path: Path, count: int) -> dict[str, NDArray[np.float64]]:
    stated = {k: v for k, v in attributes(store).items() if isinstance(v, (int, float)) and k != "latestIndex"}
    stated = stated or {name: float(value) for name, value in _NUMBER.findall(path.stem)}
    return {name.lower(): np.full(count, float(value)) for name, value in stated.items()}
