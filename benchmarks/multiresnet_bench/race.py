"""One loop for every network: `Trainer.fit` of a task of `multiresnet.tasks` for the same time, on a clock that stops to validate.

On a CPU the clock is the CPU time of the process and every run has one thread, so that runs side by side don't shorten each
other's training; on a GPU it is the wall clock. Warm-up and cosine follow the clock: every network sees the whole schedule,
a cheap one in more steps. With `--steps` all make the same number of steps, and two runs of one seed agree to the bit.

A contest has two rounds. In the first every network trains once with each learning rate of a grid, for a part of the
time; the rate with the best validation score is its own. In the second every network runs with its rate and each seed.
"""

from __future__ import annotations

import argparse
import copy
import logging
import math
import os
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Timer
from torch import Tensor, nn

import multiresnet as mrn
from multiresnet.spaces.boundary import Boundary
from multiresnet.tasks import Task
from multiresnet_bench import models
from multiresnet_bench.jobs import Job, Row, mean_and_sd, run_jobs

POINTS = 10  # of a learning curve
Score = Callable[[Any], float]
# A network is a name of `models`, or options of one of ours with the key "build".
Networks = Mapping[str, "str | dict[str, Any]"]
COST = [
    ["params", "parameters", ",d"],
    ["macs", "MACs", ".3g"],
    ["saved", "saved, MB a sample", ".2f"],
]
TIME = [
    ["step_ms", "step, ms", ".0f"],
    ["steps", "steps", ".0f"],
    ["time_ratio", "time to the reference's error", ".2f"],
    ["learning_rate", "learning rate", ".0e"],
    ["seeds", "seeds", "d"],
]


@dataclass(frozen=True)
class Problem:
    """What a data set asks of a network; `size` is that of the fields that it costs are counted at."""

    in_channels: int
    out_channels: int
    size: tuple[int, ...]
    boundary: Boundary
    emb_channels: int = 0
    classes: int = 0

    @property
    def space(self) -> mrn.spaces.Haar:
        return mrn.spaces.Haar(len(self.size), self.boundary)


@dataclass(frozen=True)
class Measure:
    """What is reported first, from the row's `key`, and how the validation score of the curves is called."""

    key: str
    label: str
    curve_label: str
    lower_is_better: bool = True


def add_arguments(
    parser: argparse.ArgumentParser, *, seconds: float, networks: Sequence[str], reference: str, known: Sequence[str]
) -> None:
    """Options of every benchmark that trains, as `contest` reads them."""
    listed = ", ".join(known)
    parser.add_argument(
        "--models",
        nargs="+",
        metavar="NAME",
        help=f"default {' '.join(networks)}; of {listed}, or package.module:function",
    )
    parser.add_argument(
        "--reference", metavar="NAME", default=reference, help=f"of times and budgets (default {reference})"
    )
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--params", type=int, metavar="N", help="parameters of each (default: those of the reference)")
    budget.add_argument("--macs", type=int, metavar="N", help="multiply-accumulates of each, instead")
    budget.add_argument("--match", choices=("params", "macs", "nothing"), default="params", help="with the reference")
    add_length(parser, seconds)
    rates = models.LEARNING_RATES
    parser.add_argument(
        "--learning-rates",
        type=float,
        nargs="+",
        default=list(rates),
        metavar="LR",
        help=f"grid of which each network takes its best (default {' '.join(f'{rate:g}' for rate in rates)})",
    )
    parser.add_argument(
        "--tuning",
        type=float,
        default=0.4,
        metavar="PART",
        help="of a run's time, for each rate of the grid (default 0.4)",
    )
    parser.add_argument("--split", choices=("val", "test"), default="test", help="val: don't look at the test data")
    add_machine(parser)


def add_length(parser: argparse.ArgumentParser, seconds: float) -> None:
    """`--seconds` or `--steps`."""
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--seconds",
        type=float,
        nargs="+",
        default=[seconds],
        metavar="S",
        help=f"training time of a run; several: a run of each (default {seconds:g})",
    )
    length.add_argument("--steps", type=int, metavar="N", help="steps of a run, instead: reproducible to the bit")


def add_machine(parser: argparse.ArgumentParser) -> None:
    """`--device`, `--jobs` and `--keep`."""
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument(
        "--jobs", type=int, default=2, metavar="N", help="runs side by side, one thread each (default 2)"
    )
    parser.add_argument(
        "--keep",
        type=Path,
        default=Path("benchmarks/data"),
        metavar="FOLDER",
        help="of sets that were solved or unpacked",
    )


def add_archives(parser: argparse.ArgumentParser) -> None:
    """`--data`, for the benchmarks on real sets."""
    default = Path(os.environ.get("MULTIRESNET_DATA", "../shared/data"))
    parser.add_argument(
        "--data",
        type=Path,
        default=default,
        metavar="FOLDER",
        help=f"that holds the archives of the sets (default {default})",
    )


def by_name(options: argparse.Namespace, default: Sequence[str]) -> Networks:
    """The reference and the chosen models. With `--quick`, one of the default and three steps of a small one."""
    if options.quick:
        options.steps, options.tuning, options.jobs = options.steps or 3, 0.5, 1
        options.learning_rates = options.learning_rates[-1:]
        options.params = options.params or (None if options.macs else 30_000)
    names = options.models or (default[:1] if options.quick else default)
    return {name: name for name in [options.reference, *names]}


# ---- the contest -----------------------------------------------------------------------------------------------------


def contest(
    options: argparse.Namespace,
    job: Job,
    networks: Networks,
    *,
    problem: Problem,
    measure: Measure,
    figures: Sequence[list[str]],
) -> dict[str, Any]:
    """Both rounds: a result with a row for each network and time, and every run in "raw".

    Args:
        options: the parsed command line.
        job: a task to a row, with "val", "curve", the figures and what `fit` and `cost` return.
        networks: by the name in the table.
        problem: for the budget.
        measure: the first figure.
        figures: columns of the accuracies.
    """
    budget = find_budget(options, networks, problem)
    missing = {name: why for name, network in networks.items() if (why := why_not(network, problem, budget))}
    if options.reference in missing:
        raise ValueError(f"the reference {options.reference}: {missing[options.reference]}")
    runners = {name: network for name, network in networks.items() if name not in missing}
    log = options.out.with_suffix(".jsonl")

    def task(name: str, rate: float, seed: int, seconds: float | None, steps: int | None, split: str) -> Row:
        given = {k: str(v) for k, v in vars(options).items() if k in ("set", "keep")}
        run = {"model": name, "network": runners[name], "budget": None if budget is None else asdict(budget)}
        limit = {"seconds": seconds, "steps": steps, "seed": seed, "learning_rate": rate, "split": split}
        return {**run, **limit, "device": options.device, "quick": options.quick, **given}

    lengths: list[tuple[float | None, int | None]] = (
        [(s, None) for s in options.seconds] if options.steps is None else [(None, options.steps)]
    )
    part = options.tuning
    longest_s, longest_n = lengths[-1]
    grid = [
        task(
            name,
            rate,
            0,
            None if longest_s is None else part * longest_s,
            None if longest_n is None else max(1, round(part * longest_n)),
            "val",
        )
        for rate in options.learning_rates
        for name in runners
        if len(options.learning_rates) > 1
    ]
    tuning = run_jobs(job, grid, log=log, jobs=options.jobs)
    rates = {name: best_rate(name, tuning, measure, options.learning_rates) for name in runners}
    finals = [
        task(name, rates[name], seed, seconds, steps, options.split)
        for seed in range(options.seeds)
        for seconds, steps in lengths
        for name in runners
    ]
    raw = run_jobs(job, finals, log=log, jobs=options.jobs)
    log.unlink(missing_ok=True)  # complete: a later run, perhaps of other code, starts anew

    keys = [key for key, *_ in figures]
    add_time_ratios(raw, options.reference, measure)
    rows = mean_and_sd(raw, by=("model", "limit"), keys=[*keys, "val", "step_ms", "steps", "seconds", "time_ratio"])
    rows += [{"model": f"{name}: {why}"} for name, why in missing.items()]
    columns = [["model", "model", ""], *([["limit", "budget", ""]] if len(lengths) > 1 else []), *COST, *figures, *TIME]
    config = {"matched": None if budget is None else asdict(budget), "problem": asdict(problem)}
    return {
        "rows": rows,
        "columns": [column for column in columns if any(row.get(column[0]) is not None for row in rows)],
        "measure": asdict(measure),
        "raw": raw,
        "tuning": tuning,
        "config": config,
    }


def find_budget(options: argparse.Namespace, networks: Networks, problem: Problem) -> models.Budget | None:
    """What all are scaled to: a number, or what the reference has as it is."""
    if options.reference not in networks:
        raise ValueError(f"the reference {options.reference!r} is none of the networks: {', '.join(networks)}")
    if options.params is not None or options.macs is not None:
        at = problem.size if options.macs is not None else None
        return models.Budget(params=options.params, macs=options.macs, at=at)
    if options.match == "nothing":
        return None
    reference = build(networks[options.reference], problem, None)
    if options.match == "params":
        return models.Budget(params=mrn.count_parameters(reference))
    return models.Budget(macs=cost(reference, problem)["macs"], at=problem.size)


def why_not(network: str | dict[str, Any], problem: Problem, budget: models.Budget | None) -> str | None:
    """Why a network cannot be had here, if it cannot."""
    try:
        build(network, problem, budget)
    except (models.MissingPackage, models.Unsuitable) as error:
        return str(error)
    return None


def best_rate(name: str, tuning: Sequence[Row], measure: Measure, grid: Sequence[float]) -> float:
    """The learning rate with the best validation score; runs that diverged don't count."""
    if len(grid) == 1:
        return grid[0]
    sign = 1 if measure.lower_is_better else -1
    scores = {row["learning_rate"]: sign * float(row["val"]) for row in tuning if row["model"] == name}
    finite = {rate: score for rate, score in scores.items() if math.isfinite(score)}
    if not finite:
        raise ValueError(f"{name} diverged at every learning rate of {list(grid)}: add smaller ones, --learning-rates")
    return min(finite, key=finite.__getitem__)


def add_time_ratios(raw: Sequence[Row], reference: str, measure: Measure) -> None:
    """To each run "time_ratio": when it reached for good the reference's last score (mean over seeds, longest budget), by the
    reference's time; None where it never did.
    """
    runs = [row for row in raw if row["model"] == reference]
    longest = max(row["seconds"] for row in runs)
    ends = [row["curve"][-1] for row in runs if row["limit"] == max(runs, key=lambda r: r["seconds"])["limit"]]
    target = statistics.fmean(float(value) for _, value in ends)
    sign = 1 if measure.lower_is_better else -1
    for row in raw:
        curve = [(float(t), sign * float(value)) for t, value in row["curve"]]
        reached = time_to(curve, sign * target)
        row["time_ratio"] = None if reached is None else reached / longest


def time_to(curve: Sequence[tuple[float, float]], target: float) -> float | None:
    """When the error falls to `target` and stays there, linear between the points; None if it never does."""
    for (t0, e0), (t1, e1) in reversed(list(zip(curve, curve[1:]))):
        if not e1 <= target:
            break
        if not e0 <= target:
            return t0 + (t1 - t0) * (e0 - target) / (e0 - e1) if math.isfinite(e0) else t1
    else:
        return curve[0][0] if curve[0][1] <= target else None
    return None


# ---- one run ---------------------------------------------------------------------------------------------------------


def build(network: str | dict[str, Any], problem: Problem, budget: models.Budget | None) -> nn.Module:
    """A network of `models` by name, or one of ours by its options."""
    given: dict[str, Any] = {"space": problem.space, "emb_channels": problem.emb_channels}
    if isinstance(network, str):
        return models.build(
            network, problem.in_channels, problem.out_channels, budget=budget, classes=problem.classes, **given
        )
    options = {**given, **network}
    kind = getattr(mrn, options.pop("build"))
    if budget is None:
        return kind(problem.in_channels, problem.out_channels, **options)
    return mrn.match_budget(
        kind, **asdict(budget), in_channels=problem.in_channels, out_channels=problem.out_channels, **options
    )


def begin(task: Row, problem: Problem) -> nn.Module:
    """Threads, seeds, and the network of a task with the weights of its seed."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    budget = None if task["budget"] is None else models.Budget(**task["budget"])
    lightning.seed_everything(task["seed"], verbose=False)
    return build(task["network"], problem, budget)


class Clock(Timer):
    """Lightning's timer on the CPU time of the process, or on the wall clock of a GPU; validates off the clock.

    Args:
        score: of the task, in evaluation mode and without gradients.
        seconds: when to stop; None leaves that to the trainer's `max_steps`.
        steps: that number.
        device: of the network.
    """

    def __init__(self, score: Score, *, seconds: float | None, steps: int | None, device: str) -> None:
        super().__init__(duration=None if seconds is None else timedelta(seconds=seconds), verbose=False)
        self.score, self.seconds, self.steps = score, seconds, steps
        self.curve: list[tuple[float, float]] = []
        self.gpu = torch.device(device).type == "cuda"
        self._began: float | None = None
        self._paused = 0.0

    def now(self) -> float:
        if self.gpu:
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def time_elapsed(self, stage: str = "train") -> float:
        return 0.0 if self._began is None else self.now() - self._began - self._paused

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = self.now()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        elapsed = self.time_elapsed()
        done = elapsed / self.seconds if self.seconds is not None else trainer.global_step / (self.steps or 1)
        if done >= (len(self.curve) + 1) / POINTS and done < 1:
            self.look(pl_module, elapsed)
        super().on_train_batch_end(trainer, pl_module, *args, **kwargs)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.look(pl_module, self.time_elapsed())

    @torch.no_grad()
    def look(self, pl_module: LightningModule, elapsed: float) -> None:
        """Add a point to the curve, and its time to the pause."""
        pause = self.now()
        pl_module.eval()
        self.curve.append((elapsed, self.score(pl_module)))
        pl_module.train()
        self._paused += self.now() - pause


def trainer_options(device: str) -> dict[str, Any]:
    return {
        "accelerator": "gpu" if torch.device(device).type == "cuda" else "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }


def fit(task: Task, data: LightningDataModule, row: Row, score: Score, *, callbacks: Sequence[Callback] = ()) -> Row:
    """Train in place; "steps", "seconds", "step_ms", "curve", its last value "val", and what the row says of the run.

    Args:
        task: around the network.
        data: set up.
        row: the task of the job, with "seconds" or "steps".
        score: on validation data.
        callbacks: more of them.
    """
    clock = Clock(score, seconds=row["seconds"], steps=row["steps"], device=row["device"])
    trainer = Trainer(
        max_epochs=-1,
        max_steps=row["steps"] or -1,
        gradient_clip_val=1.0,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        callbacks=[clock, *callbacks],
        **trainer_options(row["device"]),
    )
    trainer.fit(task, data)
    task.eval()
    seconds, value = clock.curve[-1]
    limit = f"{row['steps']} steps" if row["steps"] else f"{row['seconds']:g} s"
    return {
        **{key: row[key] for key in ("model", "seed", "learning_rate")},
        "limit": limit,
        "steps": trainer.global_step,
        "seconds": seconds,
        "step_ms": 1000 * seconds / trainer.global_step,
        "val": value,
        "curve": clock.curve,
    }


def test(task: Task, data: LightningDataModule, device: str) -> dict[str, float]:
    """What the task logs on the test data."""
    results = Trainer(**trainer_options(device)).test(task, data, verbose=False)
    return {key: value for part in results for key, value in part.items()}


class _Called(nn.Module):
    """A network with all its inputs but the first."""

    def __init__(self, net: nn.Module, *rest: Tensor, in_channels: int) -> None:
        super().__init__()
        self.net, self.rest, self.in_channels = net, rest, in_channels

    def forward(self, x: Tensor) -> Any:
        y = self.net(x, *self.rest)
        return getattr(y, "sample", y)


def cost(model: nn.Module, problem: Problem) -> Row:
    """ "params", "macs" and "saved", megabytes (10^6) that autograd keeps for one sample of the problem's size."""
    rest: list[Tensor] = []
    if problem.emb_channels:  # a vector for ours, time and class for those of diffusers
        ours = isinstance(model, mrn.UNet)
        rest = [torch.zeros(1, problem.emb_channels)] if ours else [torch.zeros(1), torch.zeros(1, dtype=torch.int64)]
    called = _Called(copy.deepcopy(model).cpu(), *rest, in_channels=problem.in_channels).eval()
    saved = mrn.count_saved_bytes(called, torch.zeros(1, problem.in_channels, *problem.size))
    macs = mrn.count_macs(called, problem.size)
    return {"params": mrn.count_parameters(model), "macs": macs, "saved": saved / 1e6}
