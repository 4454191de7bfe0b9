"""Learning curves of a run as one picture, drawn anew after every validation; they survive a restart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from matplotlib.figure import Figure
from torch import Tensor

from .figures import Sparingly, save_figure

__all__ = ["LearningCurves", "draw_curves"]

Curves = dict[str, list[tuple[int, float]]]


class LearningCurves(Callback):
    """Draw `curves.png` into `folder`: every logged scalar against the step, train and validation in one panel.

    A point for each validation: `train/...` is the mean over the batches since the one before. Saved in checkpoints.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / "curves.png"
        self.curves: Curves = {}
        self._drawing = Sparingly()
        self._sums: dict[str, list[Tensor]] = {}  # of what each training batch logged, and how many did

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add up, without waiting for the device."""
        for name, value in trainer.callback_metrics.items():
            if name.startswith("train/"):
                total, count = self._sums.get(name, [torch.zeros_like(value), torch.zeros_like(value)])
                self._sums[name] = [total + value.detach(), count + 1]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add a point to every curve and draw."""
        if trainer.sanity_checking or trainer.state.fn != "fit" or not trainer.is_global_zero:
            return
        means = {name: total / count for name, (total, count) in self._sums.items()}
        self._sums = {}
        for name, value in {**trainer.callback_metrics, **means}.items():
            points = self.curves.setdefault(name, [])
            if not points or points[-1][0] < trainer.global_step:
                points.append((trainer.global_step, float(value)))
        self._drawing(lambda: draw_curves(self.path, self.curves))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw what was put off."""
        self._drawing.finish()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Draw what was put off."""
        self._drawing.finish()

    def state_dict(self) -> dict[str, Any]:
        """The curves."""
        return {"curves": self.curves}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the saved curves."""
        self.curves = {name: [(int(x), float(y)) for x, y in points] for name, points in state_dict["curves"].items()}


def draw_curves(path: Path, curves: Mapping[str, list[tuple[int, float]]]) -> None:
    """One panel for each metric, e.g. `loss` with `train/loss` and `val/loss`; losses and errors on a log axis."""
    panels: dict[str, list[str]] = {}
    for name in sorted(curves):
        panels.setdefault(name.partition("/")[2] or name, []).append(name)
    columns = min(3, len(panels))
    rows = -(-len(panels) // max(columns, 1))
    if not panels:
        return
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for ax, (title, names) in zip(axes, panels.items()):
        for name in names:
            x, y = np.array(curves[name]).T
            ax.plot(x, y, marker="o", markersize=3, label=name.partition("/")[0])
        values = np.concatenate([np.array(curves[name])[:, 1] for name in names])
        if (values > 0).all() and values.max() > 5 * values.min():
            ax.set_yscale("log")
        ax.set(title=title, xlabel="step")
        ax.grid(alpha=0.3, which="both")
        ax.legend()
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    save_figure(figure, path)
