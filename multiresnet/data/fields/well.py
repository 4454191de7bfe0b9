"""The layout of The Well, a collection of simulations of physical systems (Ohana et al., arXiv 2412.00568).

Taken from its documentation (`docs/data_format.md`) and, where that leaves a choice, from how its own reader takes the
files (`the_well/data/datasets.py` of PolymathicAI/the_well); certain but for two points, marked below:

    attributes           n_spatial_dims, n_trajectories, grid_type, dataset_name, simulation_parameters
    dimensions/          attribute spatial_dims names the space axes in the order of the arrays; arrays time and one each
    boundary_conditions/ a group each: attributes bc_type ("WALL", "OPEN", "PERIODIC", any case) and associated_dims, array
                         mask, true where the condition holds, over those axes
    scalars/             attribute field_names; numbers, possibly per trajectory and per time
    t0_fields/           attribute field_names; scalar fields (trajectory, time, *space)
    t1_fields/           vectors, (..., D); t2_fields/ tensors, (..., D, D)

Each field has the attributes sample_varying, time_varying and dim_varying: it lacks the axes along which it is constant
(for space axes the documentation says so, the reader expects a single entry: both are taken). A tensor may also have its
components on one axis of D * D.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multiresnet.data.stores import attributes, plain
from multiresnet.spaces.boundary import Boundary, Rule

from .layout import SPACE, Field, Group, Layout, axis_sizes

__all__ = ["NEEDS", "well_layout"]

NEEDS = "The Well: the groups dimensions, boundary_conditions and t0_fields, t1_fields or t2_fields"

_RULES: dict[str, Rule] = {"PERIODIC": "periodic", "WALL": "reflect", "OPEN": "replicate"}


def well_layout(store: Any) -> Layout | None:
    """The layout of an open file of The Well; None if it is not one.

    Channels are the scalar fields, then the components of vectors (velocity_x, ...), then of tensors (D_xx, D_xy, ...).
    Fields that are constant in time are channels too, repeated at every time. Parameters are the scalars that are
    constant in time. Walls become "reflect", open sides "replicate": our choice, as the files do not say what a field
    does at its wall.
    """
    orders = [order for order in range(3) if len(store.get(f"t{order}_fields", ()))]
    if "dimensions" not in store or not orders:
        return None
    dims = _names(store["dimensions"].attrs["spatial_dims"])
    fields = [
        _field(store[f"t{order}_fields/{name}"], f"t{order}_fields/{name}", order, dims)
        for order in orders
        for name in _listed(store[f"t{order}_fields"])
    ]
    known = {letter: store["dimensions"][dim].shape[-1] for letter, dim in zip(SPACE, dims)}
    if "n_trajectories" in store.attrs:
        known["n"] = int(store.attrs["n_trajectories"])
    sizes = axis_sizes(store, fields, t=store["dimensions/time"].shape[-1], **known)
    count = sizes.get("n", 1)
    return Layout(
        fields=tuple(fields),
        groups=(Group("", count, sizes["t"]),),
        space=tuple(sizes[letter] for letter in SPACE[: len(dims)]),
        boundary=_boundary(store.get("boundary_conditions", {}), dims),
        parameters=_parameters(store.get("scalars", {}), count),
    )


def _names(value: Any) -> list[str]:
    names = plain(value)
    return [names] if isinstance(names, str) else list(names)


def _listed(group: Any) -> list[str]:
    """Names of the arrays of a group, in the order of its attribute field_names."""
    listed = [name for name in _names(group.attrs.get("field_names", [])) if name in group]
    return listed + [name for name in group if name not in listed]


def _field(array: Any, path: str, order: int, dims: list[str]) -> Field:
    given = attributes(array)
    varies = given.get("dim_varying", [True] * len(dims))
    lead = "n" * bool(given.get("sample_varying", True)) + "t" * bool(given.get("time_varying", True))
    space = SPACE[: len(dims)]
    shorter = "".join(letter for letter, along in zip(space, varies) if along)
    choices = [lead + s + c for s in (space, shorter) for c in ("c" * order, "c")]
    axes = next((choice for choice in choices if _fits(choice, array.shape, len(dims) ** order)), None)
    if axes is None:
        raise ValueError(
            f"{path} has shape {tuple(array.shape)}, which does not fit its attributes: sample_varying and time_varying "
            f"give {len(lead)} axes, the space axes are {', '.join(dims)}, and it is of tensor order {order}"
        )
    name = path.rpartition("/")[2]
    components = ["".join(letters) for letters in product(dims, repeat=order)]
    return Field(path, axes, tuple(f"{name}_{c}" if c else name for c in components))


def _fits(axes: str, shape: tuple[int, ...], components: int) -> bool:
    return len(axes) == len(shape) and math.prod(shape[len(axes.rstrip("c")) :]) == components


def _boundary(conditions: Any, dims: list[str]) -> Boundary:
    """(lower, upper) rule of each axis: open unless a mask covers a side, the whole side if it is a wall."""
    sides = [["OPEN", "OPEN"] for _ in dims]
    kinds = {name: str(plain(conditions[name].attrs["bc_type"])).upper() for name in conditions}
    for name, kind in sorted(
        kinds.items(), key=lambda item: item[1] == "PERIODIC"
    ):  # these last: they hold on both sides
        if kind not in _RULES:
            raise ValueError(f"boundary condition {name} is of the type {kind!r}; The Well has {', '.join(_RULES)}")
        along = _names(conditions[name].attrs["associated_dims"])
        mask: NDArray[np.bool_] = np.asarray(conditions[name]["mask"]).astype(bool)
        for i, dim in enumerate(along):
            faces = np.moveaxis(mask, mask.ndim - len(along) + i, 0)
            for side, face in enumerate((faces[0], faces[-1])):
                if kind == "PERIODIC" or (face.all() if kind == "WALL" else face.any()):
                    sides[dims.index(dim)][side] = kind
    return tuple((_RULES[low], _RULES[high]) for low, high in sides)


def _parameters(scalars: Any, count: int) -> dict[str, NDArray[np.float64]]:
    found = {}
    for name in _listed(scalars) if len(scalars) else ():
        if not attributes(scalars[name]).get("time_varying", False):
            values = np.asarray(scalars[name], dtype=np.float64).reshape(-1)
            if values.size in (1, count):
                found[name] = np.broadcast_to(values, count)
    return found
