"""Exact marginals of a quadtree behind a segmentation network: what they change, on the same logits.

Each network is trained as `multiresnet-bench segmentation` trains it, and frozen. Its logits of the validation images fit what
follows it: a scale and a bias (temperature scaling, which any calibration has to beat), or a `QuadtreeCRF`. Reported on test
images: Dice, the expected calibration error over 15 bins of confidence, and the cross-entropy of a pixel. `pixels` is a network
that sees one pixel at a time, so that all smoothness is left to what follows.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_calibration_error

from multiresnet.graphical import QuadtreeCRF
from multiresnet.tasks import OverlapMetrics, SegmentationTask
from multiresnet.tasks.segmentation.labels import Labels
from multiresnet_bench import arguments, plots, race, segmentation
from multiresnet_bench.jobs import Row, mean_and_sd, run_jobs

NETWORKS: dict[str, race.Network] = {
    "multiresnet-segmentation": "multiresnet-segmentation",
    "pixels": "multiresnet_bench.crf:pixels",
}
CROP, BATCH, BINS = 192, 8, 15
Parts = Sequence[tuple[Tensor, Tensor]]  # logits (1, 1, *size) and mask of each image
FIGURES = [["dice", "Dice", ".4f"], ["ece", "calibration error", ".4f"], ["nll", "cross-entropy, nats", ".4f"]]
MEASURE = {"key": "ece", "label": "expected calibration error", "lower_is_better": True}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `multiresnet-bench crf`."""
    parser.add_argument(
        "--models",
        nargs="+",
        metavar="NAME",
        default=list(NETWORKS),
        help=f"default {' '.join(NETWORKS)}; of {arguments.BY_NAME}",
    )
    parser.add_argument("--set", default="nuclei", metavar="NAME", help="nuclei (default), membranes, or a folder")
    parser.add_argument("--learning-rate", type=arguments.positive, default=3e-3, metavar="LR", help="default 3e-3")
    parser.add_argument("--levels", type=arguments.count, default=4, metavar="N", help="of the quadtrees (default 4)")
    parser.add_argument(
        "--fit-steps", type=arguments.count, default=200, metavar="N", help="of what follows (default 200)"
    )
    arguments.add_length(parser, 60.0)
    arguments.add_machine(parser)
    arguments.add_archives(parser)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Every network with every seed, and what follows it."""
    if options.quick:
        options.steps, options.fit_steps, options.levels, options.jobs = options.steps or 3, 3, 2, 1
        options.models = options.models[-1:]
    segmentation.prepare(options)
    data = segmentation.load(options.set, options.keep)
    if data.mode != "binary":
        raise ValueError(f"the quadtree is compared on binary sets, and {options.set} has {data.classes} classes")
    kept = ("learning_rate", "levels", "fit_steps", "steps", "device")
    shared = {key: getattr(options, key) for key in kept} | {"set": str(options.set), "keep": str(options.keep)}
    shared |= {"seconds": None if options.steps else options.seconds[0], "budget": None}
    tasks = [
        shared | {"model": name, "network": NETWORKS.get(name, name), "seed": seed}
        for name in options.models
        for seed in range(options.seeds)
    ]
    runs = run_jobs(job, tasks, log=options.out.with_suffix(".jsonl"), jobs=options.jobs)
    raw = [{**run, **row} for run in runs for row in run["after"]]
    for row in raw:
        del row["after"]
    rows = mean_and_sd(raw, by=("model", "layer"), keys=[*(key for key, *_ in FIGURES), "layer_ms"])
    columns = [
        ["model", "network", ""],
        ["layer", "followed by", ""],
        *FIGURES,
        ["layer_ms", "ms a megapixel", ".0f"],
        ["seeds", "seeds", "d"],
    ]
    return {"rows": rows, "columns": columns, "raw": raw, "measure": MEASURE, "config": {"problem": options.set}}


def job(task: Row) -> Row:
    """Train a network, fit what follows, report on test images."""
    data = segmentation.load(task["set"], Path(task["keep"]))
    model = race.begin(task, segmentation.problem_of(data))
    data.seed = task["seed"]
    trained = SegmentationTask(model, lr=task["learning_rate"])
    row = race.fit(trained, data, task, lambda _: 0.0)

    @torch.no_grad()
    def logits(loader: Any) -> Parts:
        batches = ((batch["image"].to(trained.device), batch["mask"]) for batch in loader)
        return [(trained.whole_logits(image).cpu(), mask) for image, mask in batches]

    known, new = logits(data.val_dataloader()), logits(data.test_dataloader())
    layers = {
        "nothing": nn.Identity(),
        "scale and bias": ScaleAndBias(),
        "quadtree": QuadtreeCRF(1, levels=task["levels"]),
    }
    after = []
    for name, layer in layers.items():
        torch.manual_seed(task["seed"])
        fit(layer, known, steps=task["fit_steps"])
        after.append({"layer": name, **report(layer, new, trained.labels)})
    return {key: row[key] for key in ("model", "seed", "steps", "seconds")} | {"after": after}


class ScaleAndBias(nn.Module):
    """Temperature scaling with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.bias = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))

    def forward(self, logits: Tensor) -> Tensor:
        return self.scale * logits + self.bias


def fit(layer: nn.Module, known: Parts, *, steps: int) -> None:
    """Cross-entropy on random crops of logits."""
    parameters = list(layer.parameters())
    if not parameters:
        return
    optimiser = torch.optim.Adam(parameters, 0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        for place in torch.randint(len(known), (BATCH,)).tolist():
            logits, mask = known[place]
            y, x = (int(torch.randint(max(1, n - CROP + 1), ())) for n in logits.shape[2:])
            window = (..., slice(y, y + CROP), slice(x, x + CROP))
            F.binary_cross_entropy_with_logits(layer(logits[window]), mask[window].unsqueeze(1).float()).backward()
        optimiser.step()
        schedule.step()


@torch.no_grad()
def report(layer: nn.Module, images: Parts, labels: Labels) -> Row:
    """Figures, time, and the reliability of each bin of probability: its mean, how often it was right, and its share."""
    overlap, started = OverlapMetrics(labels), time.process_time()
    answers = [layer(logits) for logits, _ in images]
    pixels = sum(answer.numel() for answer in answers)
    layer_ms = 1e9 * (time.process_time() - started) / pixels
    for answer, (_, mask) in zip(answers, images):
        overlap.update(labels.decide(answer), mask)
    logits = torch.cat([answer.flatten() for answer in answers])
    truth = torch.cat([mask.flatten() for _, mask in images])
    chances = logits.sigmoid()
    bins = (chances * BINS).long().clamp(max=BINS - 1)
    counts = torch.bincount(bins, minlength=BINS)
    mean, right = (torch.bincount(bins, v, BINS) / counts for v in (chances.double(), truth.double()))
    return {
        "dice": float(overlap.compute()["dice"]),
        "ece": float(binary_calibration_error(chances, truth, n_bins=BINS)),
        "nll": float(F.binary_cross_entropy_with_logits(logits, truth.float())),
        "layer_ms": layer_ms,
        "reliability": [part for part in zip(mean.tolist(), right.tolist(), counts.tolist()) if part[2]],
    }


def pixels(in_channels: int, out_channels: int) -> nn.Module:
    """Three convolutions with kernels of one pixel."""
    layers = [nn.Conv2d(in_channels, 32, 1), nn.GELU(), nn.Conv2d(32, 32, 1), nn.GELU(), nn.Conv2d(32, out_channels, 1)]
    return nn.Sequential(*layers)


def plot(result: Mapping[str, Any]) -> Figure:
    """Reliability of seed 0."""
    return plots.reliability([row for row in result["raw"] if row["seed"] == 0])
