"""What is in a run folder: checkpoints to use, and the settings that a continuation has to keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch

from multiresnet.tasks.base import Task
from multiresnet.tasks.checkpointing import newest_whole_checkpoint

__all__ = ["CHECKPOINTS", "checkpoint_to_use", "differences", "load_task", "task_name"]

CHECKPOINTS = "checkpoints"
# Beginnings of settings that may change between a run and its continuation.
_FREE = (
    "trainer.max_",
    "trainer.enable_",
    "trainer.log_every",
    "trainer.profiler",
    "trainer.num_nodes",
    "trainer.devices",
    "trainer.strategy",
    "trainer.accelerator",
    "data.init_args.num_workers",
    "ckpt_path",
    "save_every",
    "out",
    "config",
)
T = TypeVar("T", bound=Task)


def checkpoint_to_use(place: Path) -> Path:
    """A checkpoint file as it is; of a run folder the best one, else the newest.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is no checkpoint, or not a whole one.
    """
    best = place / CHECKPOINTS / "best.ckpt"
    found = next((file for file in (place, best) if file.is_file()), None) or newest_whole_checkpoint(
        place / CHECKPOINTS
    )
    if found is None:
        raise FileNotFoundError(
            f"no checkpoint in {str(place)!r}: give a folder in which `multiresnet fit` has saved one"
        )
    try:
        torch.load(found, map_location="meta", mmap=True, weights_only=True)
    except Exception as error:  # of many kinds
        raise ValueError(f"{str(found)!r} is no checkpoint, or a damaged one; give another with --ckpt_path") from error
    return found


def load_task(kind: type[T], place: Path) -> T:
    """The trained task of a run, ready for use.

    Raises:
        ValueError: what was trained is another task.
    """
    path = checkpoint_to_use(place)
    try:
        task: T = kind.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise ValueError(f"{str(path)!r} holds no {kind.__name__} ({error})") from error
    return task.eval()


def task_name(place: Path) -> str:
    """Class of the task of a run, e.g. `"DiffusionTask"`."""
    checkpoint = torch.load(checkpoint_to_use(place), map_location="cpu", mmap=True, weights_only=True)
    return str(checkpoint.get("task", "DiffusionTask"))


def differences(there: Any, here: Any) -> list[str]:
    """The settings of a run (`there`) that a continuation would change and may not; `name: there / here`.

    Examples:
        >>> differences({"model": {"lr": 0.1}, "out": "a"}, {"model": {"lr": 0.2}, "out": "b"})
        ['model.lr: 0.1 / 0.2']
    """
    old, new = _flat(there), _flat(here)
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key) and not key.startswith(_FREE)]
    return [f"{key}: {old.get(key, 'not set')} / {new.get(key, 'not set')}" for key in keys]


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(config, dict):
        return {k: v for key, value in config.items() for k, v in _flat(value, f"{prefix}.{key}".lstrip(".")).items()}
    return {prefix: config}
