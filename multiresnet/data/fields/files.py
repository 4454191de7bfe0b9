"""Trajectories (trajectory, time, channel, *space) in files of any known layout, opened when first read."""

from __future__ import annotations

import os
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multiresnet.data.stores import close, open_store, reading
from multiresnet.spaces.boundary import Boundary

from .layout import Layout
from .pdearena import SPLITS
from .readers import read_layout

__all__ = ["Trajectories", "TrajectoryArray", "TrajectoryFile", "check_layout"]


class Trajectories(ABC):
    """What all sources of trajectories are: arrays in all but that only what is indexed gets read.

    `source[i]` and `source[i, times]` are the frames (time, channel, *space) of trajectory i, `source[i, t]` is one of
    them; further indices go to the frames. Files are opened at the first read in each process and never before, so a
    source can be pickled and sent to data-loading workers.

    Attributes:
        shape: (trajectory, time, channel, *space); the time of the longest trajectory.
        dtype: of the values.
        lengths: frames of each trajectory.
        boundary: the boundary condition that the data state, or that is known of the data set; else None.
        channel_names: one for each channel.
        parameter_names: of the physical parameters, P of them.
        parameters: (trajectory, P), float64.
        splits: trajectories of "train", "val" and "test", where the data set says so.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    lengths: tuple[int, ...]
    boundary: Boundary | None
    channel_names: tuple[str, ...]
    parameter_names: tuple[str, ...]
    parameters: NDArray[np.float64]
    splits: dict[str, list[int]]

    @abstractmethod
    def read(self, trajectory: int, times: slice) -> NDArray[Any]:
        """Frames (time, channel, *space) of one trajectory."""

    def close(self) -> None:  # noqa: B027 (nothing to close in memory)
        """Close what is open; the next read opens it again."""

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def where(self, trajectory: int) -> str:
        """The file of a trajectory, for messages."""
        return "the array"

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> NDArray[Any]:
        trajectory, *rest = index if isinstance(index, tuple) else (index,)
        if not isinstance(trajectory, (int, np.integer)):
            raise TypeError(f"the first index is one trajectory, an integer; got {trajectory!r}")
        if not -len(self) <= trajectory < len(self):
            raise IndexError(f"trajectory {trajectory} of {len(self)}")
        trajectory = int(trajectory) % len(self)
        times = rest[0] if rest else slice(None)
        if isinstance(times, slice):
            return self.read(trajectory, times)[(slice(None), *rest[1:])]
        time = range(self.lengths[trajectory])[times]
        return np.asarray(self.read(trajectory, slice(time, time + 1))[(0, *rest[1:])])


class TrajectoryArray(Trajectories):
    """An array (trajectory, time, channel, *space) in memory, as a source of trajectories."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.lengths = (array.shape[1],) * len(array)
        self.boundary, self.splits = None, {}
        self.channel_names, self.parameter_names = tuple(str(i) for i in range(array.shape[2])), ()
        self.parameters = np.zeros((len(array), 0))

    def read(self, trajectory: int, times: slice) -> NDArray[Any]:
        """Frames (time, channel, *space) of one trajectory."""
        return np.asarray(self.array[trajectory, times])


class TrajectoryFile(Trajectories):
    """The trajectories of one file; see `Trajectories` for what it has.

    The layout is told from what the file holds: The Well, PDEArena and PDEBench (HDF5; PDEArena's Zarr too), or plain
    arrays in a .npz, .npy, HDF5 or Zarr file, of which one is (trajectory, time, channel, *space). A plain file may say
    more in attributes or arrays of the names `boundary`, `channel_names`, `parameters` (trajectory, P) and
    `parameter_names`. A .npz file is read whole on the first access.

    Args:
        path: the file; the ending says what it is.
        key: name of the array in a plain file, None for the only one with at least four axes; in the other layouts the
            fields or channels to take, in order, None for all.
        layout: where the frames are in the file, if it is none of these.

    Raises:
        FileNotFoundError, PermissionError: no such file, or not for us.
        ValueError: unreadable file, unknown ending or layout, no such key, or several arrays and no key.
    """

    def __init__(
        self, path: str | Path, *, key: str | Sequence[str] | None = None, layout: Layout | None = None
    ) -> None:
        self.path = Path(path)
        self._open: tuple[int, Any] | None = None
        store = open_store(self.path)
        try:
            with reading(self.path):
                self.layout = layout = layout or read_layout(store, self.path, key)
                self.dtype = np.result_type(*(store[layout.groups[0].path + item.path].dtype for item in layout.fields))
        finally:
            close(store)
        self.key = layout.fields[0].path
        self.lengths = tuple(group.frames for group in layout.groups for _ in range(group.trajectories))
        channels = len(layout.channel_names)
        self.shape = (len(self.lengths), max(self.lengths, default=0), channels, *layout.space)
        self.boundary, self.channel_names = layout.boundary, layout.channel_names
        self.parameter_names = tuple(layout.parameters)
        columns = [np.asarray(values, dtype=np.float64) for values in layout.parameters.values()]
        self.parameters = np.stack(columns, 1) if columns else np.zeros((len(self.lengths), 0))
        splits = [group.split for group in layout.groups for _ in range(group.trajectories)]
        self.splits = _by_name([split or _split_in_name(self.path) for split in splits])

    def where(self, trajectory: int) -> str:
        """The name of the file."""
        return str(self.path)

    def read(self, trajectory: int, times: slice) -> NDArray[Any]:
        """Frames (time, channel, *space) of one trajectory."""
        # a handle must not cross a fork: each process opens its own
        if self._open is None or self._open[0] != os.getpid():
            self._open = (os.getpid(), open_store(self.path))
        with reading(self.path):
            return self.layout.read(self._open[1], trajectory, times)

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        if self._open is not None and self._open[0] == os.getpid():
            close(self._open[1])
        self._open = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None}


def check_layout(array: NDArray[Any] | Trajectories) -> None:
    """Raise or warn when an array is not (trajectory, time, channel, *space) of real numbers."""
    shape, dtype = tuple(array.shape), np.dtype(array.dtype)
    wanted = "(trajectory, time, channel, *space) with 1, 2 or 3 space axes"
    if not 4 <= len(shape) <= 6:
        hint = ": one trajectory? a[None] adds the first axis; (trajectory, time, x)? a[:, :, None] adds channels"
        hint = hint if len(shape) == 3 else ""
        raise ValueError(f"data must be {wanted}, that is 4 to 6 axes; got {len(shape)}, shape {shape}{hint}")
    if 0 in shape:
        raise ValueError(f"data must not have an empty axis, got shape {shape}")
    if dtype.kind == "c":
        raise TypeError(f"data are complex ({dtype}): store real and imaginary part as two channels")
    if dtype.kind not in "fiub":
        raise TypeError(f"data must be numbers, got dtype {dtype}")
    if len(shape) > 4 and shape[-1] <= 4 and shape[2] > 16:
        warnings.warn(f"shape {shape} looks channels-last; wanted {wanted}: move the axis first", stacklevel=3)
    elif len(shape) == 4 and shape[2] > 16:
        warnings.warn(
            f"shape {shape} is read as {shape[2]} channels on a line of {shape[3]} points; "
            "if these are 2-D fields, add the channel axis with a[:, :, None]",
            stacklevel=3,
        )


def _split_in_name(path: Path) -> str | None:
    """The split that the name of the folder or a word of the file's name says."""
    words = [path.parent.name.lower(), *re.split(r"[_.\-]", path.stem.lower())]
    return next((SPLITS[word] for word in words if word in SPLITS), None)


def _by_name(splits: list[str | None]) -> dict[str, list[int]]:
    return {
        name: [i for i, split in enumerate(splits) if split == name] for name in dict.fromkeys(filter(None, splits))
    }
