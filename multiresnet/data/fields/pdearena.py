"""The layouts of PDEArena (Gupta and Brandstetter, arXiv 2209.15616): many files for each of train, valid and test.

Taken from what writes and reads them in github.com/pdearena/pdearena (`pdedatagen/navier_stokes.py`, `maxwell.py`,
`pdearena/data/*/datapipes*`); certain for HDF5, less so for Zarr, whose files another solver writes:

    HDF5 (.h5)    a group train, valid or test (the file's name has it too) with
                  2-D smoke      u, vx, vy (N, T, X, Y); x, y (N, X), t (N, T); dt, dx, dy, buo_y (N,)
                  1-D            pde_<T>-<X> (N, T, X) or (N, T, C, X); dt, dx and, in places, v (N,)
                  3-D Maxwell    d_field, h_field (N, T, X, Y, Z, 3)
    Zarr          train.zarr, valid.zarr, test.zarr: 2-D shallow water on a sphere, pres (N, T, lat, lon) and u, v
                  (N, T, 1, lat, lon); its vorticity is left out

Other arrays of the same shape in a group are channels as well, so a data set of one's own may be in this layout. The
boundary condition is the attribute `boundary` of the file or of the group where there is one; else a wall ("reflect")
for smoke, "periodic" in one dimension, "replicate" for Maxwell (the middle part of a larger box), and latitude
"replicate", longitude "periodic" on the sphere. Parameters are the numbers per trajectory: buo_y, v, dt, dx, ...
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from multiresnet.spaces.boundary import Boundary

from .layout import SPACE, Field, Group, Layout, axis_sizes

__all__ = ["NEEDS", "SPLITS", "pdearena_layout"]

NEEDS = (
    "PDEArena: a group train, valid or test with u, vx, vy (N, T, X, Y), or pde_... (N, T, X), or d_field and h_field"
)
SPLITS = {"train": "train", "valid": "val", "val": "val", "validation": "val", "test": "test"}

_ORDER = ("u", "vx", "vy", "vz")
_NO_FIELDS = ("t", "x", "y", "z")


def pdearena_layout(store: Any, path: Path) -> Layout | None:
    """The layout of an open file of PDEArena; None if it is not one.

    Raises:
        ValueError: the groups of the file hold different fields.
    """
    if path.suffix.lower() == ".zarr" and all(name in store for name in ("pres", "u", "v")):
        return _sphere(store)
    modes = [name for name in SPLITS if name in store and hasattr(store[name], "keys")]
    modes = [name for name in modes if _fields(store[name])]
    if not modes:
        return None
    fields = _fields(store[modes[0]])
    groups, parameters, sizes = [], [], dict[str, int]()
    for mode in modes:
        group = store[mode]
        if _fields(group) != fields:
            raise ValueError(f"{path.name}: the groups {modes[0]} and {mode} hold different fields")
        sizes = axis_sizes(group, fields, **{letter: sizes[letter] for letter in SPACE if letter in sizes})
        groups.append(Group(f"{mode}/", sizes["n"], sizes["t"], SPLITS[mode]))
        names = [name for name in sorted(group) if getattr(group[name], "shape", None) == (sizes["n"],)]
        parameters.append({name: np.asarray(group[name], dtype=np.float64) for name in names})
    common = [name for name in parameters[0] if all(name in other for other in parameters)]
    return Layout(
        fields=fields,
        groups=tuple(groups),
        space=tuple(sizes[letter] for letter in SPACE if letter in sizes),
        boundary=_boundary(fields),
        parameters={name: np.concatenate([part[name] for part in parameters]) for name in common},
    )


def _fields(group: Any) -> tuple[Field, ...]:
    """The arrays of a group that are fields: those of the most axes, three at least."""
    ranks = {name: len(group[name].shape) for name in group if hasattr(group[name], "shape") and name not in _NO_FIELDS}
    rank = max(ranks.values(), default=0)
    names = sorted((name for name in ranks if ranks[name] == rank >= 3), key=lambda n: (*_ORDER, n).index(n))
    return tuple(_field(name, group[name].shape) for name in names)


def _field(name: str, shape: tuple[int, ...]) -> Field:
    rank = len(shape)
    if name.startswith("pde_") and rank == 4:
        return Field(name, "ntcx", tuple(f"u{i}" for i in range(shape[2])))
    if name.startswith("pde_"):
        return Field(name, "ntx", ("u",))
    if name in ("d_field", "h_field") or rank == 6:
        dims = SPACE[: rank - 3]
        return Field(name, f"nt{dims}c", tuple(f"{name.removesuffix('_field')}_{dim}" for dim in "xyz"[: shape[-1]]))
    return Field(name, "nt" + SPACE[: rank - 2], (name,))


def _boundary(fields: tuple[Field, ...]) -> Boundary | None:
    names = {item.path for item in fields}
    if {"u", "vx", "vy"} <= names:
        return "reflect"
    if any(name.startswith("pde_") for name in names):
        return "periodic"
    return "replicate" if "d_field" in names else None


def _sphere(store: Any) -> Layout:
    names = ("pres", "u", "v")
    fields = tuple(Field(name, "ntxy" if len(store[name].shape) == 4 else "ntcxy", (name,)) for name in names)
    sizes = axis_sizes(store, fields)
    return Layout(fields, (Group("", sizes["n"], sizes["t"]),), (sizes["x"], sizes["y"]), ("replicate", "periodic"))
