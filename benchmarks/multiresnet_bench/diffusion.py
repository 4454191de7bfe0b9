"""Diffusion: the quality of samples at equal training time, networks trained as `DiffusionTask` trains them.

Sets, unpacked from the archives in `--data` and kept in `--keep`: Fashion-MNIST (28²) and the training images of CIFAR-10 (32²,
5,000 of them held out); or any source of `ImageDataModule`. Conditional on the class; v-prediction, cosine schedule. KID and FID
between held-out images and 20-step DPM-Solver++ samples, in the features of a small classifier of the same set: they
compare networks on one set and are not those of Inception features.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multiresnet.atomic import write_atomically
from multiresnet.data import ImageDataModule
from multiresnet.tasks import DiffusionTask, FeatureClassifier, quality, train_classifier
from multiresnet.tasks.diffusion.quality import images_and_labels
from multiresnet_bench import arguments, contest, packed, plots, race
from multiresnet_bench.jobs import Row

SETS = ("fashion", "cifar")
NETWORKS = (
    "multiresnet",
    "multiresnet-attention",
    "multiresnet-transformer",
    "multiresnet-two-sweeps",
    "residual-unet",
    "residual-unet-attention",
    "residual-unet-transformer",
    "diffusers-unet",
)
EMB_CHANNELS = 128
LOOKS = 512  # validation images that the curves are made of
SAMPLES = 1000
MEASURE = contest.Measure("kid", "KID of 20-step samples", "validation loss")
FIGURES = [
    ["kid", "KID", ".4f"],
    ["fid", "FID", ".2f"],
    ["val", "validation loss", ".4f"],
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `multiresnet-bench diffusion`."""
    arguments.add_contest(parser, seconds=150.0, networks=NETWORKS, reference="residual-unet", known=arguments.BY_NAME)
    parser.add_argument(
        "--set",
        default="fashion",
        metavar="NAME",
        help=f"{', '.join(SETS)}, or a folder or .npz file (default fashion)",
    )
    arguments.add_archives(parser)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All networks, learning rates and seeds."""
    return contest.contest(options, arguments.by_name(options, NETWORKS), BENCH)


def prepare(options: argparse.Namespace) -> None:
    """Unpack a set that is not there yet, and train the classifier that judges; with `--quick` the digits of scikit-learn."""
    if options.quick:
        options.set = "digits"
    elif options.set in SETS:
        packed.find(options.set, options.keep, options.data)
    if not (judge := judge_path(options.set, options.keep)).exists():
        images, labels = real_images(options.set, options.keep, "train", 10_000)
        if labels is None:
            raise ValueError(
                f"{options.set} has no labels, and KID needs the features of a classifier: put each class in a folder"
            )
        classifier = train_classifier(images, labels, epochs=2 if options.quick else 10)
        write_atomically(judge, lambda file: torch.save(classifier.state_dict(), file))


def judge_path(name: str, keep: Path) -> Path:
    return keep / f"judge-{Path(name).stem}.pt"


def load(name: str, keep: Path) -> ImageDataModule:
    """The data module of a set, set up, with the same split for every seed."""
    if name in SETS:
        data = ImageDataModule(packed.find(name, keep), key="x_train")
    else:
        data = ImageDataModule(name)
    data.setup()
    return data


def real_images(name: str, keep: Path, split: str, count: int) -> tuple[Tensor, Tensor | None]:
    """The first images of "train" or "test", in [-1, 1], and their classes; the validation images where there is no test set."""
    if name not in SETS:
        data = load(name, keep)
        images, labels = images_and_labels(data.train_dataloader() if split == "train" else data.val_dataloader())
        return images[:count], None if labels is None else labels[:count]
    with np.load(packed.find(name, keep)) as file:
        x, y = file[f"x_{split}"][:count], file[f"y_{split}"][:count]
    x = x[:, None] if x.ndim == 3 else np.moveaxis(x, -1, 1)
    return torch.from_numpy(x).float() / 127.5 - 1, torch.from_numpy(y).long()


def problem_of(data: ImageDataModule) -> race.Problem:
    return race.Problem(
        data.channels,
        data.channels,
        (data.size, data.size),
        data.boundary,
        emb_channels=EMB_CHANNELS,
        classes=data.classes,
    )


def job(task: Row) -> Row:
    """Train one network, draw images, and compare them with real ones."""
    keep = Path(task["keep"])
    data = load(task["set"], keep)
    problem = problem_of(data)
    model = race.begin(task, problem)
    data.seed = task["seed"]  # of the order; the split is the same for all
    diffusion = DiffusionTask(model, emb_channels=EMB_CHANNELS, lr=task["learning_rate"])
    x0, label = images_and_labels([batch for batch, _ in zip(data.val_dataloader(), range(LOOKS // data.batch_size))])

    def score(trained: DiffusionTask) -> float:
        return float(
            trained.fixed_loss(
                x0.to(trained.device), None if label is None else label.to(trained.device), range(len(x0))
            )
        )

    row = race.cost(model, problem) | race.fit(diffusion, data, task, score)
    if not race.reported(task, row):
        return row | {"kid": None, "fid": None}
    images, labels = real_images(task["set"], keep, "test", 5000)
    judge = FeatureClassifier(problem.in_channels, problem.classes)
    judge.load_state_dict(torch.load(judge_path(task["set"], keep), weights_only=True))
    count = 32 if task["quick"] else SAMPLES
    figures = quality(diffusion, (images, labels), n=count, features=judge.eval(), steps=20)
    return row | {key: figures[key] for key in ("kid", "fid", "kid_of_data")}


BENCH = contest.Bench(prepare, load, problem_of, job, MEASURE, FIGURES)
plot = plots.training
