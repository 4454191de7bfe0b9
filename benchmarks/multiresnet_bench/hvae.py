"""Hierarchical VAEs with and without shared weights, at equal depth and equal training time.

Both have the same cells at the same resolutions; with shared weights those of a resolution are one cell, repeated with shorter
steps, which takes half as many steps of twice the length in every second step of the training. Reported on images of the test
set: the evidence lower bound, in bits for each value and in nats for an image, and the bound of the same weights with twice as
many steps of half the length, without training again. Three more have shared weights: one is trained without the coarse steps,
two have a state that is normalised after each cell, which takes from a cell what tells it how far it is: without and with the
time in its place. The picture follows samples of the prior through the cells: the state's root mean square, and its spread
between samples. Below are samples of the first seed, half of them at a lower temperature.

Images are black and white (`--likelihood bernoulli`, the default) or 8-bit (`logistic`).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

import multiresnet as mrn
from multiresnet.data import ImageDataModule
from multiresnet.hvae import HVAE, Resolution, trace
from multiresnet.tasks import HVAETask
from multiresnet.tasks.diffusion.sample_pictures import picture_grid
from multiresnet_bench import arguments, diffusion, packed, pictures, plots, race
from multiresnet_bench.jobs import Row, mean_and_sd, run_jobs

FINE = "per resolution, no coarse steps in training"
MODELS: dict[str, dict[str, Any]] = {
    "none": {},
    "per resolution": {"share": "per_resolution"},
    FINE: {"share": "per_resolution"},
    "per resolution, state normalised": {"share": "per_resolution", "normalise_state": True},
    "per resolution, state normalised, time told": {
        "share": "per_resolution",
        "normalise_state": True,
        "time_embedding": True,
    },
}
LATENTS, TESTED = 8, 2000
SHOWN, TEMPERATURES = 8, (1.0, 0.7)
CHAIN = {"state": "root mean square of the state", "spread": "spread between samples"}
MEASURE = {"key": "bits", "label": "bits per value", "lower_is_better": True}
FIGURES = [
    ["bits", "bits per value", ".4f"],
    ["nats", "nats", ".2f"],
    ["deeper", "with twice the steps", ".4f"],
    ["train_steps", "training steps", ".0f"],
    ["step_ms", "ms a step", ".0f"],
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `multiresnet-bench hvae`."""
    parser.add_argument("--set", default="fashion", help=f"{', '.join(diffusion.SETS)}, or digits (default fashion)")
    parser.add_argument("--likelihood", default="bernoulli", choices=("bernoulli", "logistic"))
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, metavar="NAME", default=list(MODELS), help=f"of {'; '.join(MODELS)}"
    )
    parser.add_argument("--learning-rate", type=arguments.positive, default=1e-2, metavar="LR", help="default 1e-2")
    arguments.add_length(parser, 120.0)
    arguments.add_machine(parser)
    arguments.add_archives(parser)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All with every seed."""
    if options.quick:
        options.set, options.steps, options.jobs = "digits", options.steps or 3, 1
    elif options.set in diffusion.SETS:
        packed.find(options.set, options.keep, options.data)
    kept = ("set", "likelihood", "learning_rate", "steps", "device", "quick")
    shared = {key: getattr(options, key) for key in kept} | {"keep": str(options.keep)}
    shared["seconds"] = None if options.steps else options.seconds[0]
    tasks = [shared | {"model": name, "seed": seed} for seed in range(options.seeds) for name in options.models]
    raw = run_jobs(job, tasks, log=options.out.with_suffix(".jsonl"), jobs=options.jobs)
    rows = mean_and_sd(raw, by=("model",), keys=[key for key, *_ in FIGURES])
    columns = [
        ["model", "shared weights", ""],
        ["params", "parameters", ",d"],
        ["cells", "cells", "d"],
        *FIGURES,
        ["seeds", "seeds", "d"],
    ]
    config = {"problem": options.set, "likelihood": options.likelihood}
    return {"rows": rows, "columns": columns, "raw": raw, "measure": MEASURE, "config": config}


def job(task: Row) -> Row:
    """Train one, and measure it on test images."""
    keep = Path(task["keep"])
    data = diffusion.load(task["set"], keep)
    data.seed = task["seed"]
    race.settle(task["seed"])
    model = network(data, task["model"], task["likelihood"])
    refine = (1.0,) if task["model"] == FINE else (0.5, 1.0)
    trained = HVAETask(model, classes=0, lr=task["learning_rate"], refine=refine)
    images, _ = diffusion.real_images(task["set"], keep, "test", 32 if task["quick"] else TESTED)
    images = model.likelihood.quantise(images)
    row = race.fit(trained, data, task, lambda _: 0.0)

    @torch.no_grad()
    def bound(model: HVAE) -> Tensor:
        seed = torch.Generator().manual_seed(0)
        bounds: list[Tensor] = [model(x, generator=seed).elbo for x in images.to(trained.device).split(100)]
        return torch.cat(bounds).mean()

    found = bound(model.eval())
    chain = trace(model, n=256, generator=torch.Generator().manual_seed(0))
    return {
        **{key: row[key] for key in ("model", "seed", "step_ms")},
        "train_steps": row["steps"],
        "params": mrn.count_parameters(model),
        "cells": model.num_latents,
        "nats": -float(found),
        "bits": float(model.bits_per_dim(found)),
        "deeper": float(model.bits_per_dim(bound(model.refined(2)))),
        "chain": {key: getattr(chain, key) for key in ("level", *CHAIN)},
        "samples": [] if task["seed"] else [samples(model)],
    }


def samples(model: HVAE) -> str:
    """Samples of the prior side by side, those of each temperature from the same random numbers."""
    images = [
        model.sample(SHOWN, temperature=temperature, generator=torch.Generator().manual_seed(0))
        for temperature in TEMPERATURES
    ]
    return pictures.packed(picture_grid(torch.cat(images), columns=2 * SHOWN))


def network(data: ImageDataModule, name: str, likelihood: str) -> HVAE:
    """Six cells at each resolution down to four pixels, one at the finest if that is large, one at a single pixel."""
    level, side, resolutions = 0, data.size, list[Resolution]()
    while side >= 4:
        cells = 1 if side > 16 else 6
        resolutions.append(Resolution(level, 16 if side > 16 else 32, cells, cells, hidden=16))
        level, side = level + 1, math.ceil(side / 2)
    while side > 1:
        level, side = level + 1, math.ceil(side / 2)
    resolutions.append(Resolution(level, 32, hidden=16))
    return HVAE(
        data.channels,
        size=(data.size, data.size),
        resolutions=resolutions,
        space=mrn.spaces.Haar(2, data.boundary),
        latent_channels=LATENTS,
        likelihood=likelihood,  # type: ignore[arg-type]
        **MODELS[name],
    )


def plot(result: Mapping[str, Any]) -> Figure:
    """Along the chain of samples, mean over the seeds; samples of the first one."""
    return plots.chains(result["raw"], CHAIN)
