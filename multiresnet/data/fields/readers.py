"""Telling the layout of a file: The Well, PDEArena, PDEBench, or one plain array (trajectory, time, channel, *space)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from multiresnet.data.stores import attributes, list_arrays, plain
from multiresnet.spaces.boundary import Boundary

from . import pdearena, pdebench, well
from .layout import SPACE, Field, Group, Layout

__all__ = ["listing", "read_layout", "said", "stated_boundary"]


def read_layout(store: Any, path: Path, key: str | Sequence[str] | None = None) -> Layout:
    """The layout of an open file.

    Args:
        store: what `open_store` returns.
        path: of the file; its name tells more about some data sets.
        key: name of the array of a plain file; fields or channels, in order, of the others. None takes all there is.

    Raises:
        ValueError: none of the layouts, something missing in it, or nothing by the name of `key`.
    """
    try:
        return _read_layout(store, path, key)
    except KeyError as error:
        raise ValueError(f"{path.name} is incomplete for its layout: {error.args[0]}") from error
    except ValueError as error:
        raise error if path.name in str(error) else ValueError(f"{path.name}: {error}") from error


def _read_layout(store: Any, path: Path, key: str | Sequence[str] | None) -> Layout:
    names = None if key is None else [key] if isinstance(key, str) else list(key)
    if path.suffix.lower() in (".h5", ".hdf5", ".zarr"):
        found = well.well_layout(store) or pdearena.pdearena_layout(store, path)
        if found is None and not (names and len(names) == 1 and _is_plain(store, names[0])):
            found = pdebench.pdebench_layout(store, path)
        if found is not None:
            groups = (store[group.path] for group in found.groups[:1] if group.path)
            stated = [facts["boundary"] for facts in map(attributes, (store, *groups)) if "boundary" in facts]
            found = replace(found, boundary=stated_boundary(stated[0])) if stated else found
            return found if names is None else found.select(names)
    if names is not None and len(names) != 1:
        raise ValueError(f"{path.name} is a file of plain arrays: name one of them, not {names}")
    return _plain_layout(store, path, names[0] if names else None)


def _is_plain(store: Any, name: str) -> bool:
    """Whether an array is named whose rank is that of a plain one."""
    return name in store and len(getattr(store[name], "shape", ())) >= 5


def _plain_layout(store: Any, path: Path, key: str | None) -> Layout:
    arrays = list_arrays(store)
    name = _choose(arrays, key, path)
    shape = tuple(arrays[name].shape)
    known = said(store, arrays, name)
    count, channels = (shape + (1, 1, 1))[0], (shape + (1, 1, 1))[2]
    given = known.get("channel_names")
    names = given if given and len(given) == channels else [str(i) for i in range(channels)]
    values = np.asarray(known.get("parameters", np.zeros((count, 0))), dtype=np.float64).reshape(count, -1)
    titles = known.get("parameter_names") or [f"parameter {i}" for i in range(values.shape[1])]
    return Layout(
        fields=(Field(name, "ntc" + SPACE[: len(shape) - 3], tuple(map(str, names))),),
        groups=(Group("", count, (shape + (1, 1))[1]),),
        space=shape[3:],
        boundary=known.get("boundary"),
        parameters=dict(zip(map(str, titles), values.T, strict=True)),
    )


def said(store: Any, arrays: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What a plain file says of its array, by attributes or by small arrays beside it."""
    beside = ("boundary", "channel_names", "parameters", "parameter_names")
    found = {word: plain(np.asarray(store[word])[()]) for word in beside if word in arrays}
    facts = {**attributes(store), **attributes(store[name] if hasattr(store, "attrs") else None), **found}
    return {**facts, "boundary": stated_boundary(facts["boundary"])} if "boundary" in facts else facts


def _choose(arrays: Mapping[str, Any], key: str | None, path: Path) -> str:
    if key is not None:
        if key not in arrays:
            raise ValueError(f"{path.name} has no array {key!r}; it holds {listing(arrays)}")
        return key
    candidates = [name for name, array in arrays.items() if len(array.shape) >= 4] or list(arrays)
    if len(candidates) != 1:
        raise ValueError(
            f"{path.name} holds {listing(arrays)}: name the one that is (trajectory, time, channel, *space), key=... or --key. "
            f"Known layouts: {well.NEEDS}. {pdearena.NEEDS}. {pdebench.NEEDS}."
        )
    return candidates[0]


def listing(arrays: Mapping[str, Any]) -> str:
    """Names and shapes of the first dozen arrays, for messages."""
    listed = [f"{name} {tuple(array.shape)}" for name, array in arrays.items()]
    return ", ".join(listed[:12]) + (f" and {len(listed) - 12} more" if len(listed) > 12 else "") or "nothing"


def stated_boundary(stated: Any) -> Boundary:
    """A boundary condition from text ("periodic", or JSON such as '["periodic", "zeros"]') or a list of texts.

    Examples:
        >>> stated_boundary('["periodic", ["zeros", "replicate"]]')
        ('periodic', ('zeros', 'replicate'))
    """
    value = plain(stated)
    if isinstance(value, str):
        value = json.loads(value) if value.startswith("[") else value
    if isinstance(value, str):
        return cast(Boundary, value)
    return cast(Boundary, tuple(stated_boundary(axis) for axis in value))
