"""Membranes in electron microscopy (ISBI 2012): what sweeps, skips and the split of blocks change, at equal training time.

Random 256 x 256 crops with flips and quarter turns of 20 sections; selection on 4, report on 6 consecutive sections
(512 x 512, whole). Loss and report: binary cross-entropy of the membrane; IoU of the membrane at probability 1/2.
"""

from __future__ import annotations

import argparse
import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor

import multiresnet as mrn
from multiresnet_bench.pde import build
from multiresnet_bench.train import Recipe, add_training_arguments, mean_and_sd, plan, run_jobs, train

OURS: dict[str, Any] = {"build": "MultiResNet", "norm": "group"}
TWO: dict[str, Any] = OURS | {"channels": (32, 48, 64, 96), "sweeps": 2}
CLASSIC: dict[str, Any] = {"build": "ResidualUNet"}

VARIANTS: dict[str, dict[str, Any]] = {
    "residual u-net": CLASSIC,
    "residual u-net, more in the decoder": CLASSIC
    | {"channels": (32, 48, 64, 80), "num_blocks": (1, 2, 2, 2), "encoder_blocks": 1},
    "one sweep": OURS,
    "one sweep, packet": OURS | {"skip": "packet"},
    "one sweep, scattering": OURS | {"skip": "scattering"},
    "two sweeps, (1,1,1,1) then (1,2,2,1)": TWO | {"num_blocks": ((1, 1, 1, 1), (1, 2, 2, 1))},
    "two sweeps, (2,0,0,0) then (1,2,2,2)": TWO | {"num_blocks": ((2, 0, 0, 0), (1, 2, 2, 2))},
    "two sweeps, (1,1,0,0) then (1,1,2,2)": TWO | {"num_blocks": ((1, 1, 0, 0), (1, 1, 2, 2))},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``multiresnet-bench segmentation``."""
    add_training_arguments(parser, seconds=120.0, variants=VARIANTS, chosen=VARIANTS)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("MULTIRESNET_DATA", "../shared/data")))


def load(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Sections and membrane masks of a split, (N, 1, 512, 512) float32 each."""
    path = folder / "isbi2012_512.npz"
    if not path.exists():
        raise SystemExit(f"no {path}: pass the folder that holds it with --data")
    with np.load(path) as file:
        chosen = file[f"{split}_idx"]
        x, cell = file["x"][chosen], file["y"][chosen]
        train = file["x"][file["train_idx"]]
    image = (torch.from_numpy(x).float()[:, None] - train.mean()) / train.std()
    return image, 1.0 - torch.from_numpy(cell).float()[:, None]


def synthetic(count: int) -> tuple[Tensor, Tensor]:
    """Blurred noise and where it is positive: for ``--quick``, which needs no data."""
    noise = torch.randn(count, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    return noise, (F.avg_pool2d(noise, 5, 1, 2) > 0).float()


def job(task: dict[str, Any]) -> dict[str, Any]:
    """Train and evaluate one model: a row."""
    torch.set_num_threads(1)
    torch.manual_seed(task["seed"])
    folder = Path(task["data"])
    x, y = synthetic(8) if task["quick"] else load(folder, "train")
    held_out = synthetic(4) if task["quick"] else load(folder, task["split"])
    generator = torch.Generator().manual_seed(task["seed"])
    crop = min(256, x.shape[-1] // 2)

    def draw(high: int) -> int:
        return int(torch.randint(high, (), generator=generator))

    def batches() -> Any:
        while True:
            pairs = []
            for _ in range(2):
                n, top, left = draw(len(x)), draw(x.shape[-2] - crop + 1), draw(x.shape[-1] - crop + 1)
                pair = torch.stack([x[n], y[n]])[..., top : top + crop, left : left + crop]
                pair = torch.rot90(pair, draw(4), (-2, -1))
                pairs.append(pair.flip(-1) if draw(2) else pair)
            batch = torch.stack(pairs, 1)
            yield batch[0], batch[1]

    model: Any = build(task["options"], 1, 1, mrn.spaces.Haar(2, "reflect"))
    recipe = Recipe(seconds=task["seconds"], learning_rate=task["learning_rate"])
    info = train(model, batches(), F.binary_cross_entropy_with_logits, recipe)
    bce, iou = evaluate(model, *held_out)
    macs = mrn.count_macs(copy.deepcopy(model), (256, 256))
    row = {"variant": task["variant"], "seed": task["seed"], "parameters": mrn.count_parameters(model), "macs": macs}
    return row | {"bce": bce, "iou": iou, **info}


@torch.no_grad()
def evaluate(model: torch.nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Mean binary cross-entropy, and IoU of the membrane over all pixels."""
    logits = torch.cat([model(section[None]) for section in x])
    predicted, true = logits > 0, y > 0.5
    iou = (predicted & true).sum() / (predicted | true).sum().clamp(min=1)
    return F.binary_cross_entropy_with_logits(logits, y).item(), iou.item()


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All variants, seeds and learning rates."""
    tasks = plan(options, VARIANTS)
    raw = run_jobs(job, tasks, log=options.out.with_suffix(".jsonl"), jobs=options.jobs)
    rows = mean_and_sd(raw, "variant", ("bce", "iou", "steps", "step_seconds"))
    columns = [
        ["variant", "model", "s"],
        ["parameters", "parameters", ",d"],
        ["macs", "MACs", ".3g"],
        ["bce", "BCE", ".4f"],
        ["iou", "IoU of the membrane", ".3f"],
        ["steps", "steps in the time", ".0f"],
        ["seeds", "seeds", "d"],
    ]
    return {"rows": rows, "raw": raw, "columns": columns}


def table(result: dict[str, Any]) -> Table:
    """Mean ± sd over the seeds."""
    view = Table("model", "parameters", "BCE", "IoU", "steps", title="ISBI 2012 membranes, equal training time")
    for r in result["rows"]:
        scores = [f"{r[k]:.4f} ± {r[k + '_sd']:.4f}" for k in ("bce", "iou")]
        view.add_row(r["variant"], f"{r['parameters']:,}", *scores, f"{r['steps']:.0f}")
    return view
