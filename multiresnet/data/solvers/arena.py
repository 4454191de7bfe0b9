"""Writing trajectories as HDF5 in PDEArena's layout.

Taken from PDEArena's own generator and readers (pdedatagen/navier_stokes.py, pdearena/data/twod/datapipes/navierstokes2d.py
and .../oned/datapipes/kuramotosivashinsky1d.py): a group "train", "valid" or "test" with

* in 2-D the scalar field `u` (n, t, x, y) and, where there is a velocity, its components `vx` and `vy`; x comes first;
* in 1-D the field `pde_{t}-{x}` (n, t, x), named after its size;
* the grid, per trajectory: `t` (n, t), `x` (n, x), `y` (n, y), and the spacings `dt`, `dx`, `dy` (n,).

Ours differ from theirs in three points: float32 in place of float64; the grid is where the values are, and its spacing
length / points (theirs runs from edge to edge); the file has attributes. PDEArena finds the split of a file by its name,
and its reader of 2-D files asks for `vx` and `vy`, which vorticity alone does not have.
A steady problem, which PDEArena has not, is two arrays `input` and `target` (n, channel, y, x) outside any group.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

__all__ = ["write_arena", "write_steady"]


def write_arena(
    path: Path,
    trajectories: Iterable[NDArray[np.float32]],
    *,
    count: int,
    split: str,
    fields: tuple[str, ...],
    spacing: tuple[float, float],
    offset: float = 0.0,
    attributes: Mapping[str, Any],
) -> None:
    """Write trajectories (time, channel, *space) of equal size, one at a time.

    Args:
        path: the HDF5 file, overwritten.
        trajectories: `count` arrays with one or two space axes, in the order (y, x).
        count: how many there are.
        split: name of the group.
        fields: one name per channel.
        spacing: of time and space.
        offset: of the first grid point from zero, in spacings.
        attributes: of the file; what is not a number or text becomes JSON.
    """
    dt, dx = spacing
    with h5py.File(path, "w") as file:
        _describe(file, attributes)
        group = file.create_group(split)
        for index, trajectory in enumerate(trajectories):
            frames, space = trajectory.shape[0], trajectory.shape[:1:-1]  # (x, y)
            if index == 0:
                names = fields if len(space) == 2 else (f"pde_{frames}-{space[0]}",)
                for name in names:
                    group.create_dataset(name, (count, frames, *space), dtype=np.float32)
                for name, points, step, start in (
                    ("t", frames, dt, 0.0),
                    *((axis, n, dx, offset) for axis, n in zip("xy", space)),
                ):
                    group[name] = np.tile((np.arange(points) + start) * step, (count, 1))
                    group[f"d{name}"] = np.full(count, step)
            for channel, name in enumerate(names):
                group[name][index] = trajectory[:, channel].swapaxes(1, -1)


def write_steady(
    path: Path,
    samples: Iterable[NDArray[np.float32]],
    *,
    count: int,
    fields: tuple[str, ...],
    attributes: Mapping[str, Any],
) -> None:
    """Write samples (field, channel, *space), each field as an array (sample, channel, *space)."""
    with h5py.File(path, "w") as file:
        _describe(file, attributes)
        for index, sample in enumerate(samples):
            for name, values in zip(fields, sample, strict=True):
                file.require_dataset(name, (count, *values.shape), dtype=np.float32)[index] = values


def _describe(file: h5py.File, attributes: Mapping[str, Any]) -> None:
    for name, value in attributes.items():
        file.attrs[name] = value if isinstance(value, (str, int, float)) else json.dumps(value, sort_keys=True)
