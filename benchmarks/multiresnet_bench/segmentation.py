"""Segmentation from scratch: networks at equal training time, trained as `SegmentationTask` trains them.

Sets, unpacked from the archives in `--data` and kept in `--keep`: membranes in electron microscopy (ISBI 2012), nuclei in
microscopy (DSB 2018), street scenes (CamVid, 11 classes), the hippocampus in MRI (3-D); or any folder that
`ImageMaskDataModule` reads, with masks of 0 and 1. Training on random crops with flips and quarter turns (CamVid: left-right),
Dice and cross-entropy as loss; report on whole images.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from multiresnet.atomic import write_atomically
from multiresnet.data import Augment, ImageMaskDataModule
from multiresnet.tasks import OverlapMetrics, SegmentationTask
from multiresnet_bench import arguments, contest, packed, plots, race
from multiresnet_bench.jobs import Row

LOOKS, CORNER = 12, 256  # the curves are made of corners of so many validation images, of at most this side


@dataclass(frozen=True)
class Images:
    """How a set is cropped and read."""

    crop: tuple[int, ...] | Literal["auto"] = (128, 128)
    batch_size: int = 8
    options: dict[str, Any] = field(default_factory=dict)  # of ImageMaskDataModule


SETS = {
    "membranes": Images(options={"crops": 8}),
    "nuclei": Images(options={"channels": "rgb"}),
    "camvid": Images(
        options={"classes": 11, "ignore_index": 11, "augment": Augment((False, True), quarter_turns=False)}
    ),
    "hippocampus": Images((48, 64, 48), 2, {"classes": 3, "augment": Augment(quarter_turns=False)}),
}
NETWORKS = (
    "multiresnet-segmentation",
    "multiresnet",
    "residual-unet-segmentation",
    "residual-unet",
    "residual-unet-paper",
    "smp-resnet18",
    "smp-mobilenet",
    "smp-haar",
    "monai-unet",
    "monai-basicunet",
    "monai-segresnet",
    "well-unet-convnext",
)
MEASURE = contest.Measure("dice", "Dice on test images", "Dice on validation images", lower_is_better=False)
FIGURES = [
    ["dice", "Dice", ".3f"],
    ["iou", "IoU", ".3f"],
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `multiresnet-bench segmentation`."""
    arguments.add_contest(
        parser, seconds=120.0, networks=NETWORKS, reference="residual-unet-segmentation", known=arguments.BY_NAME
    )
    parser.add_argument(
        "--set", default="membranes", metavar="NAME", help=f"{', '.join(SETS)}, or a folder (default membranes)"
    )
    arguments.add_archives(parser)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All networks, learning rates and seeds."""
    return contest.contest(options, arguments.by_name(options, NETWORKS), BENCH)


def prepare(options: argparse.Namespace) -> None:
    """Unpack a set that is not there yet; with `--quick`, draw one: blurred noise and where it is positive."""
    if options.quick:
        options.set = str(options.keep / "quick.npz")
        noise = torch.rand(8, 1, 32, 32, generator=torch.Generator().manual_seed(0))
        arrays = {"images": noise.numpy(), "masks": (F.avg_pool2d(noise, 5, 1, 2)[:, 0] > 0.5).numpy()}
        write_atomically(Path(options.set), lambda file: np.savez(file, **arrays))
    elif options.set in SETS:
        packed.find(options.set, options.keep, options.data)


def load(name: str, keep: Path) -> ImageMaskDataModule:
    """The data module of a set, set up, with the same split for every seed."""
    images = SETS.get(name, Images("auto"))
    root = packed.find(name, keep) if name in SETS else Path(name)
    data = ImageMaskDataModule(root, crop=images.crop, batch_size=images.batch_size, **images.options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*images are grey")
        data.setup()
    if not data.splits["test"]:  # CamVid: its validation images are the report's, a tenth of the others for selection
        train = data.splits["train"]
        data.splits = {
            "train": [p for i, p in enumerate(train) if i % 10],
            "val": train[::10],
            "test": data.splits["val"],
        }
    return data


def problem_of(data: ImageMaskDataModule) -> race.Problem:
    channels = 1 if data.mode == "binary" else data.classes
    return race.Problem(data.channels, channels, tuple(data.crop_size), data.boundary)


def job(task: Row) -> Row:
    """Train and test one network."""
    data = load(task["set"], Path(task["keep"]))
    problem = problem_of(data)
    model = race.begin(task, problem)
    data.seed = task["seed"]  # of the order and the crops; the split is the same for all
    looked_at = [batch for batch, _ in zip(data.val_dataloader(), range(LOOKS))]
    segmentation = SegmentationTask(model, lr=task["learning_rate"])

    def score(trained: SegmentationTask) -> float:
        metrics = OverlapMetrics(trained.labels)
        for batch in looked_at:
            image, mask = (batch[key][..., :CORNER, :CORNER] for key in ("image", "mask"))
            logits = trained.whole_logits(image.to(trained.device))
            metrics.update(trained.labels.decide(logits).cpu(), mask)
        return float(metrics.compute()["dice"])

    row = race.cost(model, problem) | race.fit(segmentation, data, task, score)
    if not race.reported(task, row):
        return row | {"dice": None, "iou": None}
    figures = race.test(segmentation, data, task["device"])
    return row | {"dice": figures["test/dice"], "iou": figures["test/iou"]}


BENCH = contest.Bench(prepare, load, problem_of, job, MEASURE, FIGURES)
plot = plots.training
