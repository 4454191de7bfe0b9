"""The trajectories of all files of a folder, as one source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multiresnet.data.stores import data_files

from .files import Trajectories, TrajectoryFile

__all__ = ["TrajectoryFolder", "open_trajectories"]


class TrajectoryFolder(Trajectories):
    """The trajectories of all files in a folder and below, one after the other in the order of the files' names.

    Files in folders `train`, `valid` (or `val`) and `test`, or with these words in their names, make up these splits.
    The files must agree in channels, space and boundary condition; parameters are those that all of them have.

    Args:
        path: the folder.
        key: as for `TrajectoryFile`.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no data file in it, or files that do not fit together.
    """

    def __init__(self, path: str | Path, *, key: str | Sequence[str] | None = None) -> None:
        self.path = Path(path)
        self.files = [TrajectoryFile(file, key=key) for file in data_files(self.path)]
        first = self.files[0]
        for other in self.files[1:]:
            for word in ("channel_names", "boundary"):
                if getattr(first, word) != getattr(other, word):
                    raise ValueError(_apart(word, first, other))
            if first.shape[2:] != other.shape[2:]:
                raise ValueError(_apart("shape", first, other))
        self.lengths = tuple(length for file in self.files for length in file.lengths)
        self.shape = (len(self.lengths), max(self.lengths), *first.shape[2:])
        self.dtype = np.result_type(*(file.dtype for file in self.files))
        self.boundary, self.channel_names = first.boundary, first.channel_names
        common = [n for n in first.parameter_names if all(n in file.parameter_names for file in self.files)]
        self.parameter_names = tuple(common)
        columns = [file.parameters[:, [file.parameter_names.index(n) for n in common]] for file in self.files]
        self.parameters = np.concatenate(columns)
        self._starts = np.cumsum([0] + [len(file) for file in self.files])
        self.splits = {
            name: [int(start) + i for start, file in zip(self._starts, self.files) for i in file.splits.get(name, [])]
            for name in dict.fromkeys(name for file in self.files for name in file.splits)
        }
        self._recent: list[TrajectoryFile] = []

    def where(self, trajectory: int) -> str:
        """The name of the file that has this trajectory."""
        return self._find(trajectory)[0].where(0)

    def read(self, trajectory: int, times: slice) -> NDArray[Any]:
        """Frames (time, channel, *space) of one trajectory."""
        file, local = self._find(trajectory)
        if file not in self._recent:
            self._recent.append(file)
            if len(self._recent) > 64:  # operating systems limit the number of open files
                self._recent.pop(0).close()
        return file.read(local, times)

    def _find(self, trajectory: int) -> tuple[TrajectoryFile, int]:
        number = int(np.searchsorted(self._starts, trajectory, side="right")) - 1
        return self.files[number], trajectory - int(self._starts[number])

    def close(self) -> None:
        """Close all files; reads open them again."""
        for file in self.files:
            file.close()
        self._recent = []


def open_trajectories(path: str | Path, *, key: str | Sequence[str] | None = None) -> TrajectoryFile | TrajectoryFolder:
    """The trajectories of a file, or of all files of a folder (a .zarr folder counts as a file)."""
    path = Path(path)
    folder = path.is_dir() and path.suffix.lower() != ".zarr"
    return TrajectoryFolder(path, key=key) if folder else TrajectoryFile(path, key=key)


def _apart(word: str, first: TrajectoryFile, other: TrajectoryFile) -> str:
    return (
        f"the files of a folder must agree in their {word}: {first.path.name} has {getattr(first, word)}, "
        f"{other.path.name} has {getattr(other, word)}"
    )
