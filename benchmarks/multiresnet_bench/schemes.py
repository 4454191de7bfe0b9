"""Training schemes of `multiresnet.tasks` for one network, at equal training time: one step, unrolled, pushforward, staged.

The data and the network of `multiresnet-bench pde`. Time is the CPU time of the process without validation. The time to a
target is when the validation error of the *whole* network, linear between validations, first falls below it for good.
"""

from __future__ import annotations

import argparse
import time
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from rich.table import Table

import multiresnet as mrn
from multiresnet.data import TrajectoryDataModule
from multiresnet.tasks import Network, StagedTraining, SurrogateTask
from multiresnet_bench.pde import load
from multiresnet_bench.train import add_training_arguments, mean_and_sd, plan, run_jobs

FRACTIONS = (120 / 168, 16 / 168, 32 / 168)
TARGETS = (0.30, 0.25, 0.20)  # relative L2 error of one step

VARIANTS: dict[str, dict[str, Any]] = {
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


class CpuClock(Timer):
    """Lightning's timer on the CPU time of the process; validates ten times, off the clock."""

    def __init__(self, seconds: float, batches: list[Any]) -> None:
        super().__init__(duration=timedelta(seconds=seconds), verbose=False)
        self.seconds, self.batches = seconds, batches
        self.curve: list[tuple[float, float]] = []
        self._began, self._paused = 0.0, 0.0

    def time_elapsed(self, stage: str = "train") -> float:
        return time.process_time() - self._began - self._paused if self._began else 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = time.process_time()

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        elapsed = self.time_elapsed()
        if elapsed >= self.seconds * (len(self.curve) + 1) / 20:
            pause = time.process_time()
            pl_module.eval()
            errors = [pl_module.rollout_error(batch["input"], batch["target"]).mean() for batch in self.batches]
            pl_module.train()
            self.curve.append((elapsed, float(torch.stack(errors).mean())))
            self._paused += time.process_time() - pause
        super().on_train_batch_end(trainer, pl_module, *args, **kwargs)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``multiresnet-bench schemes``."""
    add_training_arguments(parser, seconds=240.0, variants=VARIANTS, chosen=tuple(VARIANTS)[:4])
    parser.add_argument("--data", type=Path, default=Path("benchmarks/data/navier_stokes.npy"), help="made if absent")


def job(task: dict[str, Any]) -> dict[str, Any]:
    """Train and evaluate one scheme: a row."""
    torch.set_num_threads(1)
    lightning.seed_everything(task["seed"], verbose=False)
    warnings.filterwarnings("ignore", module="lightning")
    options = dict(task["options"])
    stages, freeze = options.pop("stages", None), options.pop("freeze", False)
    flow = load(Path(task["data"]), task["quick"]).numpy()
    data = TrajectoryDataModule(
        flow,
        boundary="periodic",
        fractions=(0.5, 0.25, 0.25) if task["quick"] else FRACTIONS,
        unroll_steps=options.get("unroll_steps", 1) if not task["quick"] else min(options.get("unroll_steps", 1), 3),
    )
    data.setup()
    if task["quick"] and "unroll_steps" in options:
        options["unroll_steps"] = min(options["unroll_steps"], 3)
    surrogate = SurrogateTask(Network(preset="surrogate"), lr=task["learning_rate"], **options)
    clock = CpuClock(task["seconds"], list(data.val_dataloader())[:8])
    callbacks = [clock, *([StagedTraining(fractions=stages, freeze=freeze)] if stages else [])]
    quiet: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(
        max_epochs=-1, gradient_clip_val=1.0, limit_val_batches=0, num_sanity_val_steps=0, callbacks=callbacks, **quiet
    )
    trainer.fit(surrogate, data)
    figures = {k: v for row in Trainer(**quiet).test(surrogate, data, verbose=False) for k, v in row.items()}
    return {
        "variant": task["variant"],
        "seed": task["seed"],
        "parameters": mrn.count_parameters(surrogate.model),
        "one_step": figures["test/one_step_rel_l2"],
        "rollout": figures["test/rollout_last_rel_l2"],
        "persistence": figures["test/persistence_rollout_last_rel_l2"],
        "steps": trainer.global_step,
        "curve": clock.curve,
    }


def time_to(curve: list[tuple[float, float]], target: float) -> float | None:
    """When the error falls below `target` and stays there, linear between the points; None if it never does.

    >>> time_to([(1.0, 3.0), (2.0, 1.0)], 2.0)
    1.5
    """
    for (t0, e0), (t1, e1) in reversed(list(zip(curve, curve[1:]))):
        if e1 > target:
            break
        if e0 > target:
            return t0 + (t1 - t0) * (e0 - target) / (e0 - e1)
    return None


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All schemes, seeds and learning rates."""
    raw = run_jobs(job, plan(options, VARIANTS), log=options.out.with_suffix(".jsonl"), jobs=options.jobs)
    for row in raw:
        row |= {f"seconds_to_{target:g}": time_to(row["curve"], target) for target in TARGETS}
    times = [f"seconds_to_{target:g}" for target in TARGETS]
    rows = mean_and_sd(raw, "variant", ("one_step", "rollout", "steps"))
    for row in rows:
        row.pop("curve")
        for name in times:
            values = [r[name] for r in raw if r["variant"] == row["variant"]]
            row[name] = (
                None if None in values else sum(values) / len(values)
            )  # where one never arrived there is no mean
    columns = [
        ["variant", "training", "s"],
        ["one_step", "one step, relative L2", ".4f"],
        ["rollout", "at the end of a 10-step rollout", ".3f"],
        *([f"seconds_to_{target:g}", f"seconds to {target:g}", ".0f"] for target in TARGETS),
        ["steps", "steps in the time", ".0f"],
        ["seeds", "seeds", "d"],
    ]
    return {"rows": rows, "raw": raw, "columns": columns}


def table(result: dict[str, Any]) -> Table:
    """Mean ± sd over the seeds."""
    view = Table("training", "one step", "10-step rollout", *(f"s to {target:g}" for target in TARGETS), "steps")
    for r in result["rows"]:
        errors = [f"{r['one_step']:.4f} ± {r['one_step_sd']:.4f}", f"{r['rollout']:.3f} ± {r['rollout_sd']:.3f}"]
        times = ["–" if r[f"seconds_to_{t:g}"] is None else f"{r[f'seconds_to_{t:g}']:.0f}" for t in TARGETS]
        view.add_row(r["variant"], *errors, *times, f"{r['steps']:.0f}")
    return view
