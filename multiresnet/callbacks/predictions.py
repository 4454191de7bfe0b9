"""Predictions on disk, under the names of the inputs, with a contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from matplotlib import colormaps
from numpy.typing import NDArray
from torch import Tensor

from .contact_sheet import Example, draw_contact_sheet, examples
from .figures import save_image

__all__ = ["PredictionWriter"]


class PredictionWriter(BasePredictionWriter):
    """Write what `predict_step` returns, batch by batch, so that nothing piles up in memory.

    Masks become `<name>.png` with class indices as values and a palette as colours (volumes: `<name>.npy`, or `.nii.gz`
    with the geometry of the input); fields `window_00000.npy`, (time, channel, *space); images `00000.png`. The first
    `count` of them stand in `contact_sheet.png`.

    Args:
        folder: made if it does not exist.
        count: rows of the contact sheet.
    """

    def __init__(self, folder: str | Path, *, count: int = 8) -> None:
        super().__init__("batch")
        self.folder, self.count = Path(folder), count
        self._rows: list[Example] = []
        self._written = 0

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self._rows, self._written = [], 0

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write one batch."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if isinstance(prediction, dict) and "mask" in prediction:
            root = Path(getattr(getattr(trainer, "datamodule", None), "image_root", None) or ".")
            for name, mask in zip(prediction["name"], prediction["mask"]):
                write_mask(self.folder, name, np.asarray(mask.cpu()), root / name)
        elif isinstance(prediction, dict) and "prediction" in prediction:
            for i, frames in enumerate(prediction["prediction"], start=self._written):
                np.save(self.folder / f"window_{i:05d}.npy", frames.float().cpu().numpy())
        else:
            write_images(self.folder, prediction, first=self._written)
        self._written += len(next(iter(prediction.values())) if isinstance(prediction, dict) else prediction)
        if len(self._rows) < self.count:
            self._rows += examples(batch, prediction)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the contact sheet and say where everything is."""
        if self._rows:
            draw_contact_sheet(self.folder / "contact_sheet.png", self._rows[: self.count])
        print(f"{self._written} prediction{'s' * (self._written != 1)} in {self.folder}")


def write_images(folder: Path, images: Tensor, *, first: int = 0) -> None:
    """Write (N, 1 or 3, H, W) in [-1, 1] as `00000.png`, ..., counted from `first`."""
    for i, image in enumerate(images, start=first):
        picture = ((image.float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte().movedim(0, -1).squeeze(-1)
        save_image(folder / f"{i:05d}.png", picture.numpy())


def write_mask(folder: Path, name: str, mask: NDArray[Any], source: Path) -> Path:
    """Write a mask of class indices under the name of its input; returns the path."""
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    stem = target.name.removesuffix(".gz").rpartition(".")[0] or target.name
    if mask.ndim == 2:
        path = target.with_name(f"{stem}.png")
        save_image(path, mask.astype(np.uint8), palette=_palette())
    elif source.name.endswith((".nii", ".nii.gz")) and source.is_file():
        import nibabel

        nifti: Any = nibabel  # without annotations that hold
        path = target.with_name(f"{stem.removesuffix('.nii')}.nii.gz")
        nifti.save(nifti.Nifti1Image(mask.astype(np.uint8), nifti.load(source).affine), path)
    else:
        path = target.with_name(f"{stem}.npy")
        np.save(path, mask)
    return path


def _palette() -> list[int]:
    """Black, then the colours of the contact sheet; 8-bit r, g, b in turns."""
    colours = np.round(np.array(colormaps["tab20"].colors) * 255).astype(int)  # type: ignore[attr-defined]
    return [0, 0, 0, *np.resize(colours, (255, 3)).flatten().tolist()]
