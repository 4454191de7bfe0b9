"""Finished trajectories as files of their own, until all are there."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multiresnet.atomic import write_atomically

__all__ = ["Shards", "runs"]


class Shards:
    """A folder with `request.json`, written first and removed last, and one .npy for each of `count` trajectories.

    Every file is whole, or has another name.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     shards = Shards(Path(folder) / "flow.h5.partial", count=3)
        ...     shards.record({"seed": 0})
        ...     shards.save(1, np.zeros(2, np.float32))
        ...     shards.request(), shards.missing()
        ({'seed': 0}, [0, 2])
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count

    def path(self, index: int) -> Path:
        """Of one trajectory."""
        return self.folder / f"{index:06d}.npy"

    def request(self) -> dict[str, Any] | None:
        """What the trajectories are of; None if there are none, {} if nobody knows."""
        file = self.folder / "request.json"
        if file.exists():
            return dict(json.loads(file.read_text()))
        return {} if any(self.folder.glob("*.npy")) else None

    def record(self, request: Mapping[str, Any]) -> None:
        """Say what the trajectories are of, before the first one is saved."""
        if self.request() is None:
            self.folder.mkdir(exist_ok=True)
            write_atomically(self.folder / "request.json", lambda file: file.write_text(json.dumps(request)))

    def missing(self) -> list[int]:
        """Trajectories that are not there."""
        return [index for index in range(self.count) if not self.path(index).exists()]

    def save(self, index: int, trajectory: NDArray[np.float32]) -> None:
        """Keep one trajectory."""
        write_atomically(self.path(index), lambda file: np.save(file, trajectory))

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        for index in range(self.count):
            try:
                yield np.load(self.path(index))
            except (ValueError, EOFError) as error:
                raise ValueError(f"{str(self.path(index))!r} is damaged, remove it and start again: {error}") from error

    def remove(self) -> None:
        """Remove what was written here, and the folder unless it holds something else."""
        for file in (*self.folder.glob("*.npy"), *self.folder.glob("*.unfinished.json")):
            file.unlink()
        (self.folder / "request.json").unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()


def runs(indices: list[int], longest: int) -> Iterator[range]:
    """Cut rising numbers into runs of consecutive ones.

    Examples:
        >>> list(runs([0, 1, 2, 5, 6], longest=2))
        [range(0, 2), range(2, 3), range(5, 7)]
    """
    start = 0
    for end in range(1, len(indices) + 1):
        if end == len(indices) or end - start == longest or indices[end] != indices[end - 1] + 1:
            yield range(indices[start], indices[end - 1] + 1)
            start = end
