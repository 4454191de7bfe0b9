"""A contact sheet: a few examples with the truth and what the network makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from matplotlib import colormaps
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from .figures import Sparingly, save_figure

__all__ = ["Example", "ContactSheet", "draw_contact_sheet", "examples"]

Array = NDArray[Any]
_COLOURS = ListedColormap([(0.0, 0.0, 0.0), *colormaps["tab20"](np.arange(20))])  # class 0 is black


@dataclass(frozen=True)
class Example:
    """One row: arrays (C, *space) for fields, (*space) of integers for masks; `None` where there is none."""

    name: str
    input: Array
    prediction: Array
    truth: Array | None = None


class ContactSheet(Callback):
    """Draw `examples.png` into `folder` after every validation, from the first `count` validation batches.

    Works for the batches and predictions of `SegmentationTask` and `SurrogateTask`; others have pictures of their own.
    """

    def __init__(self, folder: str | Path, *, count: int = 6) -> None:
        self.path, self.count = Path(folder) / "examples.png", count
        self._batches: list[dict[str, Any]] = []
        self._drawing = Sparingly()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Hold on to the first batches."""
        if isinstance(batch, dict) and {"mask", "target"} & batch.keys() and len(self._batches) < self.count:
            self._batches.append(batch)

    @torch.no_grad()
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Predict a few of each batch and draw."""
        batches, self._batches = self._batches, []
        sharded = pl_module.device_mesh is not None  # one process alone cannot run such a network
        if trainer.sanity_checking or not trainer.is_global_zero or not batches or sharded:
            return
        each = -(-self.count // len(batches))
        few = [{key: value[:each] for key, value in batch.items()} for batch in batches]
        rows = [row for i, batch in enumerate(few) for row in examples(batch, pl_module.predict_step(batch, i))]
        if rows:
            self._drawing(lambda: draw_contact_sheet(self.path, rows[: self.count]))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw what was put off."""
        self._drawing.finish()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Draw what was put off."""
        self._drawing.finish()


def examples(batch: dict[str, Any], output: Any) -> list[Example]:
    """The rows of one batch and of what `predict_step` returned for it; empty for outputs of another kind."""
    if not isinstance(output, dict):
        return []
    if "mask" in output:
        names = list(output["name"])
        truths = batch["mask"] if "mask" in batch else [None] * len(names)
        triples = zip(names, batch["image"], output["mask"], truths)
        return [
            Example(name, _array(x), _classes(y, x), None if t is None else _classes(t, x)) for name, x, y, t in triples
        ]
    if "prediction" in output:
        inputs, targets = batch["input"][:, -1], batch["target"][:, -1]
        step = f"step {batch['target'].shape[1]}"
        return [
            Example(step, _array(x), _array(y), _array(t))
            for x, y, t in zip(inputs, output["prediction"][:, -1], targets)
        ]
    return []


def _array(x: Tensor) -> Array:
    array: Array = x.detach().float().cpu().numpy()
    return array


def _classes(mask: Any, image: Tensor) -> Array:
    """(*space) of class indices; of several labels (K, *space) at one place the last is shown, counted from 1."""
    array: Array = np.asarray(torch.as_tensor(mask).cpu())
    if array.ndim == image.ndim:
        array = (array.astype(int) * np.arange(1, len(array) + 1).reshape(-1, *(1,) * (array.ndim - 1))).max(0)
    return array


def draw_contact_sheet(path: Path, rows: Sequence[Example]) -> None:
    """Columns: input, truth (if there is one), prediction, and for fields the error; volumes by their middle plane."""
    masks = rows[0].prediction.dtype.kind in "iub"
    titles = ["input", *(["truth"] if rows[0].truth is not None else []), "prediction"]
    titles += ["error"] if not masks and rows[0].truth is not None else []
    height, width = (rows[0].input.shape[-2:]) if rows[0].input.ndim > 2 else (1, 1.5)
    cell = 2.4 * min(max(height / width, 0.4), 2.0)
    figure = Figure(figsize=(2.4 * len(titles) + 0.3, cell * len(rows) + 0.2), layout="compressed")
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for row, line in zip(rows, axes):
        panels = [row.input, *([row.truth] if row.truth is not None else []), row.prediction]
        panels += [row.prediction - row.truth] if "error" in titles and row.truth is not None else []
        for title, ax, panel in zip(titles, line, panels):
            if masks and title != "input":
                _show_mask(ax, panel)
            else:
                like = None if masks else row.truth if row.truth is not None else row.prediction
                _show_field(ax, panel, like=like, error=title == "error")
            ax.set_xticks([])
            ax.set_yticks([])
            if row is rows[0]:
                ax.set_title(title)
        line[0].set_ylabel(row.name[-24:], fontsize=7)
    save_figure(figure, path)


def _plane(x: Array, dims: int) -> Array:
    """The middle plane of a volume: (..., d, h, w) -> (..., h, w)."""
    return x[..., x.shape[-3] // 2, :, :] if dims == 3 else x


def _show_mask(ax: Any, mask: Array) -> None:
    plane = _plane(mask, mask.ndim)
    ignored = (plane < 0) | (plane >= 250)  # they stay grey
    ax.set_facecolor("0.6")
    ax.imshow(np.ma.masked_where(ignored, plane % 21), cmap=_COLOURS, vmin=0, vmax=20, interpolation="nearest")


def _show_field(ax: Any, x: Array, *, like: Array | None, error: bool) -> None:
    space = x.ndim - 1
    if space == 1:
        ax.plot(x[0])
        if like is not None:
            low, high = float(like[0].min()), float(like[0].max())
            middle, half = (low + high) / 2, 0.6 * (high - low) or 1.0
            ax.set_ylim((0 if error else middle) - half, (0 if error else middle) + half)
        return
    plane = _plane(x, space)
    if like is None and len(plane) >= 3:
        low, high = np.quantile(plane[:3], (0.002, 0.998))  # dark pictures are stretched, as imshow does with grey ones
        ax.imshow(np.clip((np.moveaxis(plane[:3], 0, -1) - low) / max(high - low, 1e-6), 0, 1))
        return
    field = plane[0]
    if like is None:
        ax.imshow(field, cmap="gray")
        return
    high = float(np.quantile(np.abs(like[0]), 0.998)) or 1.0
    signed = float(like[0].min()) < -0.05 * high or float(field.min()) < -0.05 * high
    ax.imshow(field, cmap="RdBu_r" if signed else "viridis", vmin=-high if signed else 0, vmax=high)
