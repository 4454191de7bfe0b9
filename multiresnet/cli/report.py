"""What `fit` says: at the start what it found, at the end where everything is."""

from __future__ import annotations

import os
from datetime import timedelta
from functools import singledispatch
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, Timer

from multiresnet.data import ImageDataModule, ImageMaskDataModule, PairDataModule, TrajectoryDataModule

from .runs import CHECKPOINTS

__all__ = ["Report", "describe"]


class Report(Callback):
    """Print a few lines before and after the training.

    Args:
        folder: the run folder.
        adapt_logging: log at least once in an epoch, however few its steps.
    """

    def __init__(self, folder: Path, *, adapt_logging: bool = True) -> None:
        self.folder, self.adapt_logging, self.trained = folder, adapt_logging, False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Data and network."""
        network: Any = getattr(pl_module, "model", pl_module)
        if trainer.is_global_zero:
            data = getattr(trainer, "datamodule", None)
            print(f"data: {describe(data)}")
            print(f"network: {type(network).__name__}, {sum(p.numel() for p in network.parameters()):,} parameters")

    def on_train_start(self, trainer: Any, pl_module: LightningModule) -> None:
        """How long, and on what."""
        self.trained = True
        steps = trainer.num_training_batches
        if self.adapt_logging:
            trainer.log_every_n_steps = int(max(1, min(trainer.log_every_n_steps, steps)))
        limits = []
        if trainer.max_epochs not in (None, -1):
            limits += [f"{_many(int(trainer.max_epochs), 'epoch')} of {_many(int(steps), 'batch', 'es')}"]
        if trainer.max_steps != -1:
            limits += [_many(trainer.max_steps, "step")]
        left = [timer.time_remaining("train") for timer in trainer.callbacks if isinstance(timer, Timer)]
        limits += [str(timedelta(seconds=round(seconds))) for seconds in left if seconds is not None]
        processes = f"{trainer.world_size} x " * (trainer.world_size > 1)
        if trainer.is_global_zero:
            where = f"{trainer.precision} on {processes}{trainer.strategy.root_device.type}, in {self.folder}"
            print(f"training: {', or '.join(limits) or 'until stopped'}, {where}", flush=True)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """What came out, and what to type next; here, as the progress bar has gone."""
        if stage != "fit" or not trainer.is_global_zero:
            return
        if not self.trained:
            print(
                f"nothing left to do at step {trainer.global_step}: raise --trainer.max_epochs, max_steps or max_time"
            )
        for best in trainer.checkpoint_callbacks:
            if isinstance(best, ModelCheckpoint) and best.best_model_score is not None:
                print(
                    f"best {best.monitor} {float(best.best_model_score):.4g}: {os.path.relpath(best.best_model_path)}"
                )
        made = [self.folder / name for name in ("curves.png", "examples.png", "samples")]
        print(
            f"pictures: {', '.join(str(path) for path in made if path.exists()) or 'none, as there was no validation'}"
        )
        if any((self.folder / CHECKPOINTS).glob("*.ckpt")):
            print(f"next: multiresnet {'sample' if hasattr(pl_module, 'sample') else 'test'} {self.folder}", flush=True)


@singledispatch
def describe(data: Any) -> str:
    """A data module in a line, after its `setup`."""
    return type(data).__name__


@describe.register
def _(data: ImageMaskDataModule) -> str:
    total = max(sum(data.class_counts), 1)
    shares = ", ".join(f"{i}: {count / total:.1%}" for i, count in enumerate(data.class_counts[:8]))
    sizes = " to ".join(_by(size) for size in dict.fromkeys((data.sizes[0], data.sizes[-1])))
    crops = f"crops of {_by(data.crop_size)}" if data.crop_size else "not cropped"
    counts = ", ".join(f"{len(pairs)} {split}" for split, pairs in data.splits.items())
    return f"{counts} images, {_many(data.channels, 'channel')}, {sizes}, {crops}; pixels of classes {shares}"


@describe.register
def _(data: TrajectoryDataModule) -> str:
    frames = sorted({min(data.source.lengths), max(data.source.lengths)})
    counts = ", ".join(f"{len({part[0] for part in parts})} {split}" for split, parts in data.segments.items())
    parameters = f", parameters {', '.join(data.parameter_names)}" if data.parameters else ""
    return (
        f"{counts} trajectories of {' to '.join(map(str, frames))} frames, {_many(data.channels, 'channel')} "
        f"({', '.join(data.channel_names[:8])}) on {_by(data.source.shape[3:])}, boundary {_boundary(data)}{parameters}"
    )


@describe.register
def _(data: PairDataModule) -> str:
    counts = ", ".join(f"{len(parts)} {split}" for split, parts in data.segments.items())
    channels = f"{_many(data.channels, 'channel')} to {data.target_channels}"
    return f"{counts} samples, {channels} on {_by(data.sources[0].shape[3:])}, boundary {_boundary(data)}"


@describe.register
def _(data: ImageDataModule) -> str:
    classes = f"{data.classes} classes" if data.classes else "no labels"
    return f"{len(data.found.images)} images, {_many(data.channels, 'channel')}, {data.size} x {data.size}, {classes}"


def _boundary(data: Any) -> str:
    return data.boundary if isinstance(data.boundary, str) else _by(data.boundary)


def _by(lengths: Any) -> str:
    return " x ".join(map(str, lengths))


def _many(count: int, word: str, plural: str = "s") -> str:
    return f"{count} {word}{plural if count != 1 else ''}"
