"""A progress bar on a terminal, a line for each validation elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ProgressBar, RichProgressBar

__all__ = ["Progress"]


def Progress() -> Callback:
    """Rich's bar where there is a terminal; in a log file, which a bar would fill, one line for each validation."""
    return _Bar() if sys.stdout.isatty() else _Lines()


class _Bar(RichProgressBar):
    """Without the number of the logger's folder."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}


class _Lines(ProgressBar):
    """`epoch 3  step 120  0:01:05  train/loss 0.21  val/loss 0.25`."""

    def __init__(self) -> None:
        super().__init__()
        self._began = time.monotonic()

    def disable(self) -> None:
        """Nothing to switch off: Lightning calls this in all processes but the first, where nothing is printed."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._began = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line."""
        if trainer.is_global_zero and not trainer.sanity_checking and trainer.state.fn == "fit":
            minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
            scalars: dict[str, Any] = trainer.progress_bar_metrics
            figures = "  ".join(f"{name} {float(value):.4g}" for name, value in scalars.items())
            place = f"epoch {trainer.current_epoch}  step {trainer.global_step}"
            print(f"{place}  {minutes}:{seconds:02d}  {figures}", flush=True)
