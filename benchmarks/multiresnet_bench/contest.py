"""A contest of networks in two rounds: each finds its learning rate, then all run with every seed.

In the first round every network trains once with each rate of a grid, for a part of the time; the rate with the best validation
score is its own. In the second every network runs with its rate and each seed, for the whole time.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import multiresnet as mrn
from multiresnet_bench import models, timing
from multiresnet_bench.jobs import Job, Row, mean_and_sd, run_jobs
from multiresnet_bench.race import Network, Problem, build, cost

Networks = Mapping[str, Network]
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
class Measure:
    """What is reported first, from the row's `key`, and how the validation score of the curves is called."""

    key: str
    label: str
    curve_label: str
    lower_is_better: bool = True


@dataclass(frozen=True)
class Bench:
    """What differs between benchmarks.

    Args:
        prepare: makes the set that the options ask for, if it is not there yet.
        load: the data module of a set, by its name and the folder of sets.
        problem_of: what that asks of a network.
        job: a task to a row, with "val", "curve", the figures and what `race.fit` and `race.cost` return.
        measure: the first figure.
        figures: columns of the accuracies.
    """

    prepare: Callable[[argparse.Namespace], None]
    load: Callable[[str, Path], Any]
    problem_of: Callable[[Any], Problem]
    job: Job
    measure: Measure
    figures: Sequence[list[str]]


def contest(options: argparse.Namespace, networks: Networks, bench: Bench) -> dict[str, Any]:
    """Both rounds: a result with a row for each network and time, and every run in "raw".

    Args:
        options: the parsed command line.
        networks: by the name in the table.
        bench: on what they compete.
    """
    timing.check_device(options.device)
    bench.prepare(options)
    problem = bench.problem_of(bench.load(options.set, options.keep))
    budget = find_budget(options, networks, problem)
    missing = {name: why for name, network in networks.items() if (why := why_not(network, problem, budget))}
    if options.reference in missing:
        raise ValueError(f"the reference {options.reference}: {missing[options.reference]}")
    runners = {name: network for name, network in networks.items() if name not in missing}
    log = options.out.with_suffix(".jsonl")
    lengths: list[Row] = (
        [{"seconds": seconds, "steps": None} for seconds in sorted(set(options.seconds))]
        if options.steps is None
        else [{"seconds": None, "steps": options.steps}]
    )

    def task(name: str, length: Row, rate: float, seed: int, split: str) -> Row:
        where = {key: str(value) for key, value in vars(options).items() if key in ("set", "keep")}
        run = {"model": name, "network": runners[name], "budget": None if budget is None else asdict(budget)}
        how = {"learning_rate": rate, "seed": seed, "split": split, "device": options.device, "quick": options.quick}
        return {**run, **length, **how, **where}

    grid = options.learning_rates if len(options.learning_rates) > 1 else []
    short = shortened(lengths[-1], options.tuning)
    trials = [task(name, short, rate, 0, "val") for rate in grid for name in runners]
    tuning = run_jobs(bench.job, trials, log=log, jobs=options.jobs)
    rates = {name: best_rate(name, tuning, bench.measure) if grid else options.learning_rates[0] for name in runners}
    finals = [
        task(name, length, rates[name], seed, options.split)
        for seed in range(options.seeds)
        for length in lengths
        for name in runners
    ]
    raw = run_jobs(bench.job, finals, log=log, jobs=options.jobs)

    keys = [key for key, *_ in bench.figures]
    add_time_ratios(raw, options.reference, bench.measure)
    rows = mean_and_sd(raw, by=("model", "limit"), keys=[*keys, "val", "step_ms", "steps", "seconds", "time_ratio"])
    rows += [{"model": f"{name}: {why}"} for name, why in missing.items()]
    columns = [
        ["model", "model", ""],
        *([["limit", "budget", ""]] if len(lengths) > 1 else []),
        *COST,
        *bench.figures,
        *TIME,
    ]
    config = {"matched": None if budget is None else asdict(budget), "problem": asdict(problem)}
    return {
        "rows": rows,
        "columns": [column for column in columns if any(row.get(column[0]) is not None for row in rows)],
        "measure": asdict(bench.measure),
        "raw": raw,
        "tuning": tuning,
        "config": config,
    }


def shortened(length: Row, part: float) -> Row:
    """A part of the seconds or of the steps, of these at least one."""
    seconds, steps = length["seconds"], length["steps"]
    return {"seconds": seconds and part * seconds, "steps": steps and max(1, round(part * steps))}


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


def why_not(network: Network, problem: Problem, budget: models.Budget | None) -> str | None:
    """Why a network cannot be had here, if it cannot."""
    try:
        build(network, problem, budget)
    except (models.MissingPackage, models.Unsuitable) as error:
        return str(error)
    return None


def best_rate(name: str, tuning: Sequence[Row], measure: Measure) -> float:
    """The learning rate with the best validation score; runs that diverged don't count."""
    sign = 1 if measure.lower_is_better else -1
    scores = {row["learning_rate"]: sign * float(row["val"]) for row in tuning if row["model"] == name}
    finite = {rate: score for rate, score in scores.items() if math.isfinite(score)}
    if not finite:
        raise ValueError(f"{name} diverged at all learning rates, {list(scores)}: add smaller ones, --learning-rates")
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
