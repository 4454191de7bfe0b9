"""Diffusion at the resolution that the noise leaves: sampling with coarse stages, and training them first.

On images, one Multi-ResNet is trained in several ways with the same rate: whole; with a loss at all resolutions; in stages,
coarse first, for 0.7 of the time, shown the noise that a stage meets inside the whole network or the same schedule at every
size. Samples are drawn with the whole network, in fewer steps too, the first thing to try, and, where stages are trained, with
`AdaptiveResolutionSampler`; by DPM-Solver++ without and with fresh noise in every step. KID and FID as in
`multiresnet-bench diffusion`. Cost is that of the sampling in multiply-accumulates, and in seconds, by that of 20 steps
with the whole network.

`--set gaussian` has no network: on a random field every resolution has its exact denoiser, so what is left is the error
of leaving levels out. Reported is the bias of the energy of the worst band.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from multiresnet.diffusion import AdaptiveResolutionSampler, GaussianPyramid, band_energy, denoise_coarse
from multiresnet.graphical import GaussianField
from multiresnet.spaces import Haar
from multiresnet.tasks import DiffusionTask, FeatureClassifier, StagedTraining
from multiresnet.tasks.diffusion.quality import compare
from multiresnet.tasks.diffusion.samplers import draw, make_scheduler
from multiresnet_bench import arguments, diffusion, plots, race
from multiresnet_bench.jobs import Row, mean_and_sd, run_jobs

TRAININGS: dict[str, dict[str, Any]] = {
    "whole": {},
    "whole, 0.7 of the time": {"part": 0.7},
    "all resolutions": {"options": {"deep_supervision": True}},
    "staged, 0.7 of the time": {"part": 0.7, "stages": True},
    "staged on equal noise, 0.7 of the time": {"part": 0.7, "stages": True, "options": {"stage_noise": "same"}},
}
ADAPTIVE = ("all resolutions", "staged, 0.7 of the time")  # whose stages see what they meet when sampling
FRACTIONS = (0.1, 0.2, 0.7)  # of a staged training, the three finest stages
SNRS, SOLVERS = (0.05, 0.25), {"ODE": "dpm-solver++", "SDE": "sde-dpm-solver++"}
STEPS, FEWER, SAMPLES, HALVINGS = 20, 10, 1000, 2
FIELD, LEVELS, SCALE = (32, 32), 3, 0.5
IMAGES = {"key": "kid", "label": "KID of samples", "lower_is_better": True}
FIELDS = {"key": "bias", "label": "bias of the worst band", "lower_is_better": True}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `multiresnet-bench adaptive`."""
    parser.add_argument(
        "--set",
        default="fashion",
        metavar="NAME",
        help=f"{', '.join(diffusion.SETS)}, gaussian, or a folder or .npz file (default fashion)",
    )
    parser.add_argument("--learning-rate", type=arguments.positive, default=3e-3, metavar="LR", help="default 3e-3")
    arguments.add_length(parser, 60.0)
    arguments.add_machine(parser)
    arguments.add_archives(parser)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Every training with every seed, and its samples drawn in several ways."""
    gaussian = options.set == "gaussian"
    trainings = ["exact"] if gaussian else list(TRAININGS)
    if options.quick:
        options.steps, options.jobs, trainings = options.steps or 10, 1, trainings[2:4] or trainings
    if not gaussian:
        diffusion.prepare(options)
    shared = {"set": str(options.set), "keep": str(options.keep), "budget": None, "network": "multiresnet"}
    shared |= {key: getattr(options, key) for key in ("learning_rate", "steps", "device", "quick")}
    shared["seconds"] = None if options.steps else options.seconds[0]
    tasks = [shared | {"model": name, "seed": seed} for seed in range(options.seeds) for name in trainings]
    runs = run_jobs(field_job if gaussian else job, tasks, log=options.out.with_suffix(".jsonl"), jobs=options.jobs)
    raw = [{"model": run["model"], "seed": run["seed"], **row} for run in runs for row in run["sampled"]]
    measure, figures = (
        (FIELDS, [["bias", "bias of the worst band", ".4f"]])
        if gaussian
        else (
            IMAGES,
            [
                ["kid", "KID", ".4f"],
                ["fid", "FID", ".2f"],
                ["train_steps", "training steps", ".0f"],
                ["time", "time", ".2f"],
            ],
        )
    )
    rows = mean_and_sd(raw, by=("model", "sampling"), keys=[key for key, *_ in figures])
    columns = [
        ["model", "denoisers" if gaussian else "training", ""],
        ["sampling", "sampling", ""],
        ["cost", "cells looked at" if gaussian else "MACs", ".2f"],
        *figures,
        ["seeds", "seeds", "d"],
    ]
    return {"rows": rows, "columns": columns, "raw": raw, "measure": measure, "config": {"problem": options.set}}


def job(task: Row) -> Row:
    """Train one network, and draw samples in several ways."""
    keep, training = Path(task["keep"]), TRAININGS[task["model"]]
    data = diffusion.load(task["set"], keep)
    problem = diffusion.problem_of(data)
    model = race.begin(task, problem)
    data.seed = task["seed"]
    options = training.get("options", {})
    trained = DiffusionTask(model, emb_channels=diffusion.EMB_CHANNELS, lr=task["learning_rate"], **options)
    part = training.get("part", 1.0)
    shorter = {key: task[key] and type(task[key])(part * task[key]) for key in ("seconds", "steps")}
    callbacks = [StagedTraining(fractions=FRACTIONS)] if training.get("stages") else []
    row = race.fit(trained, data, {**task, **shorter}, lambda _: 0.0, callbacks=callbacks)

    count = 32 if task["quick"] else SAMPLES
    real, labels = diffusion.real_images(task["set"], keep, "test", 5000)
    judge = FeatureClassifier(problem.in_channels, problem.classes)
    judge.load_state_dict(torch.load(diffusion.judge_path(task["set"], keep), weights_only=True))
    label = None if labels is None else labels[torch.arange(count) % len(labels)]

    def drawn(name: str, solver: str, sample: Callable[..., Tensor], cost: float, steps: int = STEPS) -> Row:
        started = time.process_time()
        images = sample(count, sampler=SOLVERS[solver], steps=steps, label=label, seed=task["seed"])
        seconds = time.process_time() - started
        figures = compare(real, images, judge.eval())
        kept = {key: figures[key] for key in ("kid", "fid")}
        return {
            "sampling": f"{name}, {solver}, {steps} steps",
            "cost": cost * steps / STEPS,
            "seconds": seconds,
            **kept,
        }

    sampled = [drawn("whole", solver, trained.sample, 1.0, steps) for solver in SOLVERS for steps in (STEPS, FEWER)]
    if task["model"] in ADAPTIVE:
        space, size = model.space, problem.size
        pyramid = GaussianPyramid.of(data.train_dataloader(), halvings=HALVINGS, space=space)
        for solver, snr in itertools.product(SOLVERS, SNRS):
            adaptive = AdaptiveResolutionSampler(trained, pyramid, snr=snr)
            cost = adaptive.cost(asked(STEPS, trained), size)
            sampled.append(drawn(f"SNR {snr:g}", solver, adaptive.sample, cost))
    for other in sampled:
        other |= {"time": other["seconds"] / sampled[0]["seconds"], "train_steps": row["steps"]}
    return {"model": task["model"], "seed": task["seed"], "sampled": sampled}


def asked(steps: int, task: DiffusionTask) -> list[float]:
    """Noise levels at which the default sampler asks the network."""
    sigmas: list[float] = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        sigmas.append(float(sigma[0]))
        return x

    scheduler = make_scheduler("dpm-solver++", schedule=task.schedule, limits=task.levels.limits)
    draw(denoise, scheduler, torch.zeros(1, 1, 1), steps=steps)
    return sigmas


def field_job(task: Row) -> Row:
    """A random field, whose denoisers are known at every resolution: energies of the bands of samples, whole and adaptive."""
    torch.set_num_threads(1)
    space, fields = Haar(2, "periodic"), [GaussianField.power_law(FIELD, exponent=3.0)]
    for _ in range(LEVELS):
        fields.append(fields[-1].pooled())
    count, steps = (32, 5) if task["quick"] else (2000, 50)
    known = SCALE * fields[0].sample(4000, generator=torch.Generator().manual_seed(task["seed"]))[:, None]
    pyramid = GaussianPyramid.of(known, halvings=LEVELS, space=space, stationary=True)
    noise = torch.randn(count, 1, *FIELD, generator=torch.Generator().manual_seed(1000 + task["seed"]))
    scheduler = make_scheduler("dpm-solver++", schedule="cosine", limits=(0.01, 80.0))

    def best(k: int, x: Tensor, sigma: Tensor) -> Tensor:
        return SCALE * fields[k].denoise(x[:, 0], noise=float(sigma[0]), scale=SCALE)[:, None]

    def shrunk(k: int, x: Tensor, sigma: Tensor) -> Tensor:
        details: list[Tensor] = []
        for level in range(k):
            x, detail = space.analysis(x, level)
            details.append(detail)
        y = best(k, x, sigma / 2**k)
        for level in reversed(range(k)):
            gain = pyramid.energy[level] / (pyramid.energy[level] + float(sigma[0]) ** 2)
            y = space.synthesis(y, gain * details.pop(), [2 * n for n in y.shape[2:]], level)
        return y

    def corrected(k: int, x: Tensor, sigma: Tensor) -> Tensor:
        def normal(k: int, x: Tensor, sigma: Tensor) -> Tensor:
            return pyramid.images[k].denoise(x, sigma)

        return denoise_coarse(lambda a, s: best(k, a, s), normal, x, sigma, space=space, halvings=k)

    def energies(snr: float, leave_out: Callable[[int, Tensor, Tensor], Tensor]) -> tuple[Tensor, float]:
        cells: list[float] = []

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            k = sum(energy < snr * float(sigma[0]) ** 2 for energy in pyramid.energy)
            cells.append(0.25**k)
            return leave_out(k, x, sigma) if k else best(0, x, sigma)

        return band_energy(draw(denoise, scheduler, noise, steps=steps), levels=LEVELS), sum(cells) / len(cells)

    whole, _ = energies(0.0, corrected)
    sampled = [{"sampling": "whole", "cost": 1.0, "bias": 0.0}]
    for name, leave_out in {"adaptive": corrected, "details one by one": shrunk}.items():
        for snr in (0.05, 0.25, 1.0):
            found, cost = energies(snr, leave_out)
            bias = float((found / whole - 1).abs().max())
            sampled.append({"sampling": f"{name}, SNR {snr:g}", "cost": cost, "bias": bias})
    return {"model": task["model"], "seed": task["seed"], "sampled": sampled}


def plot(result: Mapping[str, Any]) -> Figure:
    """The measure against the cost of sampling; of images drawn by the stochastic solver."""
    rows = [row for row in result["rows"] if ", ODE, " not in row["sampling"]]
    return plots.against({**result, "rows": rows}, "cost", "cost of sampling, in parts of that with the whole network")
