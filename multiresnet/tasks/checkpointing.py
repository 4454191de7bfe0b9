"""Checkpoints that are whole or not there, and from which a run goes on as if it had never stopped."""

from __future__ import annotations

import re
import warnings
import zipfile
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint

from multiresnet.atomic import write_atomically

__all__ = ["AtomicCheckpointIO", "StepCheckpoint", "checkpoints", "newest_whole_checkpoint"]

NAME = re.compile(r"step=(\d+)\.ckpt")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a local checkpoint next to its place, syncs it to the disk, and renames it: `Trainer(plugins=[...])`.

    Lightning's own plugin builds the whole file in memory, writes it to the system's temporary folder, and moves it from
    there without a sync. Where that folder is another file system the move is a copy, and a process killed meanwhile leaves
    half a file under the final name. Remote paths (`s3://...`) are left to Lightning.

    Examples:
        >>> from lightning import Trainer
        >>> trainer = Trainer(plugins=[AtomicCheckpointIO()], accelerator="cpu", logger=False)
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """`torch.save`, atomically."""
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: torch.save(checkpoint, file))


class StepCheckpoint(Checkpoint):
    """Saves `step=N.ckpt` every `every_n_steps` optimiser steps and at the end of the training; the newest `keep` stay.

    A checkpoint holds the state between two batches, after the validation, epoch end and stage change that come there, and
    never one with gradients half accumulated. So `trainer.fit(..., ckpt_path=newest_whole_checkpoint(folder))` repeats
    nothing and skips nothing. Needs `Trainer(plugins=[AtomicCheckpointIO()])` to be safe against kills while it writes.

    Args:
        folder: where to save; `None` means `checkpoints` in the trainer's `default_root_dir`. One folder for each run.
        every_n_steps: optimiser steps from one checkpoint to the next.
        keep: how many to keep; two, so that one is left if the newest is damaged.

    Raises:
        ValueError: `every_n_steps` or `keep` below 1.
    """

    def __init__(self, folder: str | Path | None = None, *, every_n_steps: int, keep: int = 2) -> None:
        if every_n_steps < 1 or keep < 1:
            raise ValueError(f"every_n_steps and keep must be >= 1, got {every_n_steps} and {keep}")
        self.folder = None if folder is None else Path(folder)
        self.every_n_steps, self.keep = every_n_steps, keep
        self._seen = 0  # the last step that was looked at
        self._due: dict[str, Any] | None = None  # where the training was when a checkpoint became due

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A step that was resumed from is saved already."""
        self._seen, self._due = trainer.global_step, None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the place in the training, if a checkpoint is due; validation may still come."""
        if trainer.global_step != self._seen and not getattr(trainer, "fast_dev_run", False):
            self._seen = trainer.global_step
            if self._seen % self.every_n_steps == 0:
                self._due = _place(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Save what is due, now that all that belongs to the last batch is done."""
        if self._due is not None:
            self._save(trainer)
            self._due = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put in the place that was noted: the next batch has been fetched meanwhile."""
        if self._due is not None:
            checkpoint["loops"]["fit_loop"] = self._due

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end, so that a run that is started once more has nothing left to do."""
        self._due = None
        if not getattr(trainer, "fast_dev_run", False):
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        folder = self.folder or Path(trainer.default_root_dir) / "checkpoints"
        step = trainer.global_step
        trainer.save_checkpoint(folder / f"step={step}.ckpt", weights_only=False)
        # what is later than this one is damaged (else it had been resumed from) and will be overwritten
        older = [path for path, number in _numbered(folder) if number <= step]
        for path in older[self.keep :]:
            trainer.strategy.remove_checkpoint(path)


def checkpoints(
    folder: str | Path,
    *,
    every_n_steps: int,
    keep: int = 2,
    monitor: str | None = None,
    mode: Literal["min", "max"] = "min",
) -> list[Callback]:
    """Callbacks that keep the newest `keep` checkpoints to go on from, and `best.ckpt` by a validation metric.

    Args:
        folder: one for each run.
        every_n_steps: optimiser steps from one checkpoint to the next.
        keep: see `StepCheckpoint`.
        monitor: metric that says which is best, e.g. "val/loss"; `None` keeps no best.
        mode: whether the smallest or the largest is best.

    Examples:
        >>> [type(c).__name__ for c in checkpoints("runs/a", every_n_steps=500, monitor="val/loss")]
        ['ModelCheckpoint', 'StepCheckpoint']
    """
    periodic = StepCheckpoint(folder, every_n_steps=every_n_steps, keep=keep)
    if monitor is None:
        return [periodic]
    best = ModelCheckpoint(
        dirpath=folder,
        filename="best",
        monitor=monitor,
        mode=mode,
        save_on_train_epoch_end=False,
        enable_version_counter=False,  # a repeated validation overwrites, it does not add best-v1
    )
    return [best, periodic]


def newest_whole_checkpoint(folder: str | Path) -> Path | None:
    """The `step=N.ckpt` with the largest N that is whole; damaged ones are passed over with a warning.

    Whole means that every byte is there and agrees with its checksum, which `torch.load` does not look at. Give the result
    to `trainer.fit(..., ckpt_path=...)`: `None`, when there is none yet, starts from the beginning.

    Raises:
        ValueError: a file is whole but does not load with `weights_only=True`: somebody put an object into it.

    Examples:
        >>> newest_whole_checkpoint("no/such/run") is None
        True
    """
    for path, _ in _numbered(Path(folder)):
        if reason := _damage(path):
            warnings.warn(f"the checkpoint {path} is damaged ({reason}); taking the one before", stacklevel=2)
            continue
        try:
            torch.load(path, map_location="meta", mmap=True, weights_only=True)
        except Exception as error:
            raise ValueError(
                f"the checkpoint {path} is whole but cannot be loaded with weights_only=True: keep hyperparameters and "
                f"callback states plain (numbers, texts, lists, tensors). {error}"
            ) from error
        return path
    return None


def _numbered(folder: Path) -> list[tuple[Path, int]]:
    """The files `step=N.ckpt` of a folder with their N, largest first."""
    matches = [(path, NAME.fullmatch(path.name)) for path in folder.glob("step=*.ckpt")]
    return sorted(((path, int(m[1])) for path, m in matches if m), key=lambda item: -item[1])


def _damage(path: Path) -> str | None:
    """What is wrong with a file that `torch.save` wrote; `None` if nothing is."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
        return f"{path.stat().st_size} bytes, {error}"
    return f"wrong checksum of {broken}" if broken else None


def _place(trainer: Trainer) -> dict[str, Any]:
    """The state of the fit loop at the end of a batch, in the one form from which Lightning goes on rightly.

    After a restart at the end of an epoch Lightning's count of begun epochs is one behind, and a second restart would then
    begin the epoch again; and its loaders count on when `limit_train_batches` has ended an epoch.
    """
    state = deepcopy(trainer.fit_loop.state_dict())
    for counts in (progress := state["epoch_progress"]).values():
        counts["processed"] = counts["completed"] = progress["current"]["processed"]
        counts["ready"] = counts["started"] = counts["processed"] + 1
    if trainer.is_last_batch:
        for loader in state["state_dict"].get("combined_loader", []):
            if "batches" in loader:
                loader["batches"] = 0
    return state
