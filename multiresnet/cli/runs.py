"""The checkpoints in a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from multiresnet.tasks.base import Task
from multiresnet.tasks.checkpoints import newest_whole_checkpoint

__all__ = ["CHECKPOINTS", "checkpoint_to_use", "load_task"]

CHECKPOINTS = "checkpoints"
T = TypeVar("T", bound=Task)


def checkpoint_to_use(place: Path) -> Path:
    """A checkpoint file as it is; of a run folder the best one, else the newest.

    Raises:
        FileNotFoundError: there is none.
    """
    if place.is_file():
        return place
    best = place / CHECKPOINTS / "best.ckpt"
    found = best if best.is_file() else newest_whole_checkpoint(place / CHECKPOINTS)
    if found is None:
        raise FileNotFoundError(f"no checkpoint in {str(place)!r}: give a folder that `multiresnet fit` has written")
    return found


def load_task(kind: type[T], place: Path) -> T:
    """The trained task of a run, ready for use."""
    task: T = kind.load_from_checkpoint(checkpoint_to_use(place), map_location="cpu", weights_only=True)
    return task.eval()
