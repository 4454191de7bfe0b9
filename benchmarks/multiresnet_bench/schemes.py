"""Training schemes of `multiresnet.tasks` for one network, at equal training time: one step, unrolled, pushforward, staged.

The sets and the clock of `multiresnet-bench pde`. The time to a target is when the validation error of the *whole* network,
linear between validations, first falls below it for good.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from multiresnet.models import PRESETS
from multiresnet.tasks import StagedTraining, SurrogateTask
from multiresnet_bench import arguments, contest, pde, plots, race
from multiresnet_bench.jobs import Row, mean_and_sd, run_jobs

TARGETS = (0.30, 0.25, 0.20)  # relative L2 error of one step

SCHEMES: dict[str, dict[str, Any]] = {
    "one step": {},
    "unrolled 2": {"training": "unrolled", "unroll_steps": 2},
    "one step, then unrolled 2": {"training": "unrolled", "unroll_steps": 2, "unroll_from": 0.5},
    "one step, then unrolled 4": {"training": "unrolled", "unroll_steps": 4, "unroll_from": 0.7},
    "pushforward 2": {"training": "pushforward", "unroll_steps": 2},
    "one step, then pushforward 2": {"training": "pushforward", "unroll_steps": 2, "unroll_from": 0.5},
    "noise 0.02": {"noise": 0.02},
    "staged": {"stages": (0.05, 0.1, 0.2, 0.65)},
    "staged, short": {"stages": (0.02, 0.03, 0.05, 0.9)},
    "staged, frozen": {"stages": (0.05, 0.1, 0.2, 0.65), "freeze": True},
    "deep supervision": {"deep_supervision": True},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `multiresnet-bench schemes`."""
    chosen = tuple(SCHEMES)[:4]
    parser.add_argument(
        "--schemes", nargs="+", choices=SCHEMES, metavar="NAME", default=chosen, help=f"of {'; '.join(SCHEMES)}"
    )
    arguments.add_length(parser, 240.0)
    parser.add_argument("--learning-rate", type=arguments.positive, default=3e-3, metavar="LR", help="default 3e-3")
    arguments.add_machine(parser)
    pde.add_set(parser)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All schemes and seeds."""
    if options.quick:
        options.steps, options.jobs = options.steps or 3, 1
    pde.prepare(options)
    length = {"seconds": None if options.steps else options.seconds[-1], "steps": options.steps}
    where = {"set": str(options.set), "keep": str(options.keep), "device": options.device, "split": "test"}
    tasks = [
        {"model": name, "seed": seed, "learning_rate": options.learning_rate, **length, **where}
        for seed in range(options.seeds)
        for name in options.schemes
    ]
    raw = run_jobs(job, tasks, log=options.out.with_suffix(".jsonl"), jobs=options.jobs)
    times = [f"seconds_to_{target:g}" for target in TARGETS]
    for row in raw:
        row |= {name: contest.time_to(row["curve"], target) for name, target in zip(times, TARGETS)}
    columns = [
        ["model", "training", ""],
        ["one_step", "one step, relative L2", ".4f"],
        ["rollout", "after ten steps", ".3f"],
        *([name, f"seconds to {target:g}", ".0f"] for name, target in zip(times, TARGETS)),
        ["steps", "steps", ".0f"],
        ["seeds", "seeds", "d"],
    ]
    rows = mean_and_sd(raw, by=("model",), keys=["one_step", "rollout", "steps", *times])
    measure = contest.Measure("one_step", "relative L2 error of one step", "validation error of one step")
    return {"rows": rows, "raw": raw, "columns": columns, "measure": asdict(measure)}


def job(task: Row) -> Row:
    """Train and test one scheme."""
    options = dict(SCHEMES[task["model"]])
    stages, freeze = options.pop("stages", None), options.pop("freeze", False)
    data = pde.load(task["set"], Path(task["keep"]), unroll_steps=options.get("unroll_steps", 1))
    network = {"build": "MultiResNet", **PRESETS["surrogate"]}
    model = race.begin({**task, "network": network, "budget": None}, pde.problem_of(data))
    surrogate = SurrogateTask(model, lr=task["learning_rate"], **options)
    staged = [StagedTraining(fractions=stages, freeze=freeze)] if stages else []
    return pde.train_and_test(task, data, surrogate, callbacks=staged)


plot = plots.curves
