"""Where the trajectories of a data set lie inside a file: which arrays, and what each of their axes means."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multiresnet.checks import closest
from multiresnet.spaces.boundary import Boundary

__all__ = ["SPACE", "Field", "Group", "Layout", "axis_sizes"]

SPACE = "xyz"  # letters of the space axes, in the order of the arrays


@dataclass(frozen=True)
class Field:
    """One array of a file, one or more channels of a frame.

    Attributes:
        path: name of the array, within its group.
        axes: a letter for each axis of the array: `n` trajectory, `t` time, `c` components (`cc` for a tensor), `x`, `y`,
            `z` space. What an array does not vary along, it lacks, or it has a single entry there; it is repeated.
        names: of its channels.
        keep: the components that are read; None is all.
    """

    path: str
    axes: str
    names: tuple[str, ...]
    keep: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Group:
    """A part of a file that has the arrays of some trajectories.

    Attributes:
        path: empty, or with a slash at its end.
        trajectories: how many.
        frames: of each.
        split: "train", "val" or "test" if the data set says so.
    """

    path: str
    trajectories: int
    frames: int
    split: str | None = None


@dataclass(frozen=True)
class Layout:
    """All that is needed to read a frame: (trajectory, time) -> (channel, *space).

    Attributes:
        fields: arrays, in the order of the channels.
        groups: parts of the file, in the order of the trajectories.
        space: size of a frame.
        boundary: what the data set states.
        parameters: physical parameters, by name, one value per trajectory.
    """

    fields: tuple[Field, ...]
    groups: tuple[Group, ...]
    space: tuple[int, ...]
    boundary: Boundary | None = None
    parameters: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Of all channels, in order."""
        return tuple(name for item in self.fields for name in item.names)

    @cached_property
    def _starts(self) -> list[int]:
        """First trajectory of each group."""
        return [0, *accumulate(group.trajectories for group in self.groups)][:-1]

    def select(self, names: Sequence[str]) -> Layout:
        """Only these fields or channels, in this order.

        Raises:
            ValueError: one of them is not there.
        """
        chosen: list[Field] = []
        for name in names:
            whole = [item for item in self.fields if item.path == name]
            if not whole and name not in self.channel_names:
                known = dict.fromkeys([item.path for item in self.fields] + list(self.channel_names))
                raise ValueError(f"no field {name!r}{closest(name, known)}; the data hold {', '.join(known)}")
            chosen += whole or [
                replace(item, names=(name,), keep=(item.names.index(name),))
                for item in self.fields
                if name in item.names
            ]
        return replace(self, fields=tuple(chosen))

    def read(self, store: Any, trajectory: int, times: slice) -> NDArray[Any]:
        """Frames (time, channel, *space) of one trajectory of an open file."""
        number = bisect_right(self._starts, trajectory) - 1
        group, trajectory = self.groups[number], trajectory - self._starts[number]
        frames = len(range(*times.indices(group.frames)))
        dims = SPACE[: len(self.space)]
        parts = [_read_field(store[group.path + item.path], item, trajectory, times, dims) for item in self.fields]
        shaped = [np.broadcast_to(part, (frames, part.shape[1], *self.space)) for part in parts]
        return shaped[0] if len(shaped) == 1 else np.concatenate(shaped, axis=1)


def _read_field(array: Any, item: Field, trajectory: int, times: slice, dims: str) -> NDArray[Any]:
    """One array as (time, channel, *space), with a single entry on the axes that it lacks."""
    place = {"n": trajectory, "t": times}
    part = np.asarray(array[tuple(place.get(axis, slice(None)) for axis in item.axes)])
    axes = item.axes.replace("n", "")
    if "c" in axes:  # the two axes of a tensor become one
        at = axes.index("c")
        part = part.reshape(*part.shape[:at], -1, *part.shape[at + axes.count("c") :])
        axes = axes.replace("cc", "c")
        part = part if item.keep is None else part.take(item.keep, axis=at)
    wanted = "tc" + dims
    part = part.transpose([axes.index(axis) for axis in wanted if axis in axes])
    return part[tuple(slice(None) if axis in axes else None for axis in wanted)]


def axis_sizes(arrays: Mapping[str, Any], fields: Sequence[Field], **known: int) -> dict[str, int]:
    """Size along each letter of `Field.axes`, from the shapes of the arrays (and what is known already).

    Raises:
        ValueError: two arrays disagree, or one has not as many axes as letters.
    """
    sizes = dict(known)
    for item in fields:
        shape = tuple(arrays[item.path].shape)
        if len(shape) != len(item.axes):
            raise ValueError(f"{item.path} has shape {shape}, wanted {len(item.axes)} axes ({', '.join(item.axes)})")
        for axis, size in zip(item.axes, shape, strict=True):
            if axis != "c" and size != 1 and sizes.setdefault(axis, size) not in (1, size):
                raise ValueError(f"{item.path} has shape {shape}: {size} along {axis}, where others have {sizes[axis]}")
            sizes[axis] = max(size, sizes.get(axis, 1))
    return sizes
