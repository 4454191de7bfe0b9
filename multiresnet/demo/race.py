"""Training several tasks for the same time, in turns: a machine that changes speed is fair to all of them.

A turn is one `Trainer.fit` of a few seconds that picks the optimiser up where the last turn of that task left
it. Only
training counts as time: neither the start of a turn nor validation does. (Threads that hand over a baton
would do as well, but memory allocation outside the main thread makes a training step up to 1.5 times slower.)
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from torch import Tensor

from multiresnet.data import TrajectoryDataModule
from multiresnet.tasks import SurrogateTask

__all__ = ["Curve", "race"]

Curve = list[tuple[float, float]]
Report = Callable[[str, float, float], None]


class _TurnTimer(Timer):
    """Lightning's timer with a clock that runs in the turns only; keeps the optimiser for the next turn."""

    def __init__(self, name: str, *, seconds: float, report: Report) -> None:
        super().__init__(duration=timedelta(seconds=seconds), verbose=False)
        self.name, self.report = name, report
        self.turn_ends = 0.0
        self._spent = 0.0
        self._since: float | None = None
        self._optimizer_state: dict[str, Any] | None = None

    def time_elapsed(self, stage: str = "train") -> float:
        """Seconds of training so far."""
        return self._spent + (time.monotonic() - self._since if self._since is not None else 0.0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Pick the optimiser up."""
        if self._optimizer_state is not None:
            trainer.optimizers[0].load_state_dict(self._optimizer_state)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Start the clock at the first batch of a turn."""
        if self._since is None:
            self._since = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Stop at the end of the turn."""
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        elapsed = self.time_elapsed()
        self.report(self.name, elapsed, float(trainer.callback_metrics["train/loss"]))
        trainer.should_stop = elapsed >= self.turn_ends
        if trainer.should_stop:
            self._spent, self._since = elapsed, None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the optimiser."""
        self._optimizer_state = trainer.optimizers[0].state_dict()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's notes on the machine, which every turn would repeat."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for note in ("does not have many workers", "LeafSpec", "no `val_dataloader`"):
                warnings.filterwarnings("ignore", message=f".*{note}")
            yield
    finally:
        logger.setLevel(level)


def _trainer(timer: _TurnTimer) -> Trainer:
    return Trainer(
        accelerator="gpu" if torch.cuda.is_available() else "cpu",
        devices=1,
        max_epochs=-1,
        gradient_clip_val=1.0,
        callbacks=[timer],
        limit_val_batches=0,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


@torch.no_grad()
def _error(task: SurrogateTask, batches: list[dict[str, Tensor]]) -> float:
    task.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    pairs = [(batch["input"].to(task.device), batch["target"].to(task.device)) for batch in batches]
    error = [task.rollout_error(x, y).mean(1) for x, y in pairs]
    task.train()
    return float(torch.cat(error).mean())


def race(
    tasks: Mapping[str, SurrogateTask],
    data: TrajectoryDataModule,
    *,
    seconds: float,
    turns: int = 12,
    validation_batches: int = 8,
    report: Report = lambda name, elapsed, loss: None,
) -> dict[str, tuple[Curve, int]]:
    """Train every task for `seconds`, in `turns` turns each.

    Args:
        tasks: by name, with their statistics set; trained in place.
        data: set up already; every task sees the same batches in the same order.
        seconds: training time of each task.
        turns: how often each one gets the machine; the validation error is taken after each.
        validation_batches: how many batches of the validation split that takes at most.
        report: called as report(name, seconds trained, loss) after every step.

    Returns:
        for each task its validation curve, [(seconds trained, relative L2 error of the next frames), ...],
        and its number of steps.
    """
    batches = list(islice(data.val_dataloader(), validation_batches))
    timers = {name: _TurnTimer(name, seconds=seconds, report=report) for name in tasks}
    loaders = {name: data.train_dataloader() for name in tasks}  # kept over the turns: the shuffling goes on
    curves: dict[str, Curve] = {name: [(0.0, _error(task, batches))] for name, task in tasks.items()}
    with _quiet():
        trainers = {name: _trainer(timer) for name, timer in timers.items()}
        for turn in range(1, turns + 1):
            for name, task in tasks.items():
                timers[name].turn_ends = seconds * turn / turns
                try:
                    trainers[name].fit(task, train_dataloaders=loaders[name])
                except SystemExit as error:  # what Lightning makes of Ctrl-C
                    raise KeyboardInterrupt from error
                curves[name].append((timers[name].time_elapsed(), _error(task, batches)))
    return {name: (curves[name], trainers[name].global_step) for name in tasks}
