"""Drawing in validation: when, and from which weights."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from .base import Task

__all__ = ["ValidationPictures"]


class ValidationPictures(Callback):
    """Calls `draw` in every n-th validation, with averaged weights where there are some, in the first process.

    Raises:
        ValueError: at the start of a training without validation, or of a task of another kind.
    """

    kind: type[Task]  # of the task that is drawn

    def __init__(self, every_n_epochs: int) -> None:
        self.every_n_epochs = every_n_epochs

    @abstractmethod
    def draw(self, task: Any, batch: Any, folder: Path, step: int) -> None:
        """Write pictures of the task, after so many steps, into the run folder."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what would never draw."""
        name = type(self).__name__
        if not isinstance(pl_module, self.kind):
            raise ValueError(f"{name} needs a task of the kind {self.kind.__name__}, got a {type(pl_module).__name__}")
        if not trainer.enable_validation:
            raise ValueError(f"{name} draws in validation; give the data a validation part, or leave it out")

    # the first hook of validation in which the averaged weights are in place, whatever the order of the callbacks
    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Draw from the first batch."""
        due = (trainer.current_epoch + 1) % self.every_n_epochs == 0 and not trainer.sanity_checking
        if not batch_idx and not dataloader_idx and due and trainer.is_global_zero:
            self.draw(pl_module, batch, Path(trainer.default_root_dir), trainer.global_step)
