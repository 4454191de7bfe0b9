"""One training loop for every model: the same seconds, the same schedule, the same optimiser, interruptible.

The clock is the CPU time of the process, one torch thread for each job, so that jobs side by side don't shorten each
other's training. Warm-up and cosine follow the clock: every model sees the whole schedule, a cheap one in more steps.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Recipe:
    """AdamW with betas (0.9, 0.99), linear warm-up, cosine to zero, gradients clipped to norm 1."""

    seconds: float = 100.0
    learning_rate: float = 3e-3
    warm_up: float = 0.05
    weight_decay: float = 1e-5


def train(
    model: nn.Module,
    batches: Iterator[Batch],
    loss_of: Callable[[Tensor, Tensor], Tensor],
    recipe: Recipe,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, float]:
    """Train in place for ``recipe.seconds``; returns the number of steps and the seconds of one step."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=recipe.weight_decay
    )
    model.train()
    start, steps = clock(), 0
    while (progress := (clock() - start) / recipe.seconds) < 1:
        warm = min(1.0, progress / recipe.warm_up)
        rate = recipe.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = rate
        x, y = next(batches)
        loss = loss_of(model(x), y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        steps += 1
    model.eval()
    return {"steps": steps, "step_seconds": (clock() - start) / max(steps, 1)}


def add_training_arguments(
    parser: argparse.ArgumentParser, *, seconds: float, variants: Iterable[str], chosen: Iterable[str]
) -> None:
    """Options of every training benchmark, as :func:`plan` and :func:`run_jobs` read them."""
    parser.add_argument(
        "--seconds", type=float, default=seconds, help="training time of each run, CPU seconds of one thread"
    )
    parser.add_argument("--learning-rate", type=float, nargs="+", default=[3e-3])
    parser.add_argument("--variants", nargs="+", default=list(chosen), metavar="NAME", help="; ".join(variants))
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, one thread each")


def plan(options: argparse.Namespace, variants: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """One task for each seed, learning rate and chosen variant; seeds run first to last, so that all variants advance."""
    unknown = set(options.variants) - set(variants)
    if unknown:
        raise ValueError(f"unknown variants {sorted(unknown)}; known: {', '.join(variants)}")
    return [
        {
            "variant": name if len(options.learning_rate) == 1 else f"{name}, lr {rate:g}",
            "options": variants[name],
            "seed": seed,
            "seconds": 1.0 if options.quick else options.seconds,
            "learning_rate": rate,
            "split": options.split,
            "data": str(options.data),
            "quick": options.quick,
        }
        for seed in range(options.seeds)
        for rate in options.learning_rate
        for name in options.variants
    ]


def run_jobs(
    job: Callable[[dict[str, Any]], dict[str, Any]], tasks: Sequence[dict[str, Any]], *, log: Path, jobs: int
) -> list[dict[str, Any]]:
    """Rows of all tasks, in their order. Each is appended to ``log`` when it is done; a restarted run skips what is there."""
    log.parent.mkdir(parents=True, exist_ok=True)
    done = dict(_read(log))
    todo = [task for task in tasks if _key(task) not in done]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool, log.open("a") as file:
        running = {pool.submit(job, task): task for task in todo}
        for future in as_completed(running):
            key, row = _key(running[future]), future.result()
            done[key] = row
            file.write("\n" + json.dumps([key, row]))  # the line before may be one that a killed run left unfinished
            file.flush()
            print(f"{len(done)}/{len(tasks)}", {k: v for k, v in row.items() if k != "options"}, flush=True)
    log.unlink()  # complete: a later run, perhaps of other code, starts anew
    return [done[_key(task)] for task in tasks]


def _read(log: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for line in log.read_text().splitlines() if log.exists() else ():
        try:
            key, row = json.loads(line)
        except ValueError:  # the line of a killed run
            continue
        yield key, row


def _key(task: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(task, sort_keys=True, default=str).encode()).hexdigest()[:16]


def mean_and_sd(rows: Sequence[dict[str, Any]], by: str, keys: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of equal ``by``, in order of appearance, as one: mean and standard deviation of ``keys``, the rest of the first."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row[by], []).append(row)
    merged = []
    for group in groups.values():
        row = {k: v for k, v in group[0].items() if k not in (*keys, "seed")} | {"seeds": len(group)}
        for key in keys:
            values = torch.tensor([float(r[key]) for r in group], dtype=torch.float64)
            row[key] = values.mean().item()
            row[f"{key}_sd"] = values.std().item() if len(group) > 1 else 0.0
        merged.append(row)
    return merged
