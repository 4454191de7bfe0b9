"""The demo from data to pictures: generate or read, build, measure, race, evaluate, report."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import TextColumn
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader

import multiresnet as mrn
from multiresnet.atomic import write_atomically
from multiresnet.budget import count_macs, count_parameters, count_saved_bytes
from multiresnet.data import TrajectoryDataModule
from multiresnet.tasks import SurrogateTask

from .builders import build_models
from .measure import step_times
from .pictures import draw_fields, draw_rollout, draw_training
from .race import race
from .source import BATCH, DemoConfig, open_data, progress_bars

__all__ = ["run_demo"]

_MEMORY = 2**30  # bytes a training step may keep for its backward pass; larger fields get smaller batches


def run_demo(config: DemoConfig, *, console: Console | None = None) -> dict[str, Any]:
    """Run the demo; returns what it also writes to results.json.

    Raises:
        ValueError: on data that cannot be used; the message says why.
    """
    console, began = console or Console(), time.time()
    config.out.mkdir(parents=True, exist_ok=True)
    data = open_data(config, console)
    size, channels = tuple(data.source.shape[3:]), data.channels
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        models = build_models(channels, channels, size=size, boundary=data.boundary, quick=config.quick)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sample = torch.randn(1, channels, *size, device=device)
    costs = {name: _costs(model.to(device), sample) for name, model in models.items()}
    largest = max(cost["saved_bytes_per_sample"] for cost in costs.values())
    data.batch_size = max(1, min(BATCH, _MEMORY // max(1, largest)))
    batch = sample.expand(data.batch_size, *sample.shape[1:]).contiguous()
    with console.status("timing a training step of each model, in turns"):
        for name, median in step_times(models, batch, seconds=2 if config.quick else 8).items():
            costs[name]["step_seconds"] = median

    tasks = {name: SurrogateTask(model, mean=data.mean, std=data.std) for name, model in models.items()}
    slowest = max(cost["step_seconds"] for cost in costs.values())
    curves = _train(tasks, data, config, slowest, console)
    with console.status("evaluating on the test split"):
        results, still, example = _evaluate(tasks, data, device)
    for name, (curve, steps) in curves.items():
        results[name] |= {**costs[name], "steps": steps, "validation_curve": curve}

    table = _table(results, still, data, config)
    console.print(table)
    truth, predictions = example
    columns = sorted({step for step in (1, 5, 10) if step <= len(truth)} | {len(truth)})
    draw_fields(config.out / "fields.png", truth, predictions, columns)
    draw_rollout(config.out / "rollout.png", {name: r["rollout"] for name, r in results.items()}, still["rollout"])
    draw_training(config.out / "training.png", {name: curve for name, (curve, _) in curves.items()}, still["one_step"])
    _save_models(models, config, data, console)
    report = {
        "config": {key: str(value) if isinstance(value, Path) else value for key, value in asdict(config).items()},
        "data": {
            "shape": list(data.source.shape),
            "boundary": data.boundary,
            "mean": data.mean,
            "std": data.std,
            "segments": {name: len(parts) for name, parts in data.segments.items()},
            "batch_size": data.batch_size,
            "rollout_steps": data.rollout_steps,
        },
        "models": results,
        "persistence": still,
        "versions": {name: version(name) for name in ("torch", "lightning", "numpy")},
        "machine": {
            "python": platform.python_version(),
            "device": str(device),
            "threads": torch.get_num_threads(),
            "cores": os.cpu_count(),
        },
        "wall_seconds": time.time() - began,
    }
    write_atomically(config.out / "results.json", lambda file: file.write_text(json.dumps(report, indent=1)))
    console.print(f"fields.png, rollout.png, training.png and results.json are in {config.out}")
    return report


# ---- training and evaluation ---------------------------------------------------------------------------


def _costs(model: mrn.UNet, sample: Tensor) -> dict[str, Any]:
    return {
        "parameters": count_parameters(model),
        "macs_per_sample": count_macs(model, sample.shape[2:]),
        "saved_bytes_per_sample": count_saved_bytes(model, sample),
    }


def _train(
    tasks: Mapping[str, SurrogateTask],
    data: TrajectoryDataModule,
    config: DemoConfig,
    step_seconds: float,
    console: Console,
) -> dict[str, tuple[list[tuple[float, float]], int]]:
    seconds = config.training_seconds
    console.print(f"training each model for {seconds:g} s, in turns of {seconds / 12:.1f} s, batch {data.batch_size}")
    with progress_bars(console, TextColumn("loss {task.fields[loss]:.4f}")) as progress:
        bars = {name: progress.add_task(name, total=seconds, loss=math.nan) for name in tasks}
        return race(
            tasks,
            data,
            seconds=seconds,
            validation_batches=max(1, min(8, round(0.5 * seconds / 12 / step_seconds))),  # a fraction of a turn
            report=lambda name, elapsed, loss: progress.update(bars[name], completed=elapsed, loss=loss),
        )


@torch.no_grad()
def _evaluate(
    tasks: Mapping[str, SurrogateTask], data: TrajectoryDataModule, device: torch.device
) -> tuple[dict[str, dict[str, Any]], dict[str, Any], tuple[Any, dict[str, Any]]]:
    """Errors of each model and of persistence, and one rollout: truth and predictions, (time, C, *space)."""
    one_step, rollout = data.test_dataloader()

    def mean_error(error: Any, loader: DataLoader[dict[str, Tensor]]) -> list[float]:
        errors = [error(batch["input"].to(device), batch["target"].to(device)) for batch in loader]
        return torch.cat(errors).mean(0).tolist()

    first = next(iter(rollout))
    x, truth = (first[name][:1].to(device) for name in ("input", "target"))
    results, predictions = {}, {}
    for name, task in tasks.items():
        task.to(device).eval()
        curve = mean_error(task.rollout_error, rollout)
        results[name] = {"one_step": mean_error(task.rollout_error, one_step)[0], "rollout": curve}
        predictions[name] = task.rollout(x, truth.shape[1])[0].cpu().numpy()
    some = next(iter(tasks.values()))
    still = {
        "one_step": mean_error(some.persistence_error, one_step)[0],
        "rollout": mean_error(some.persistence_error, rollout),
    }
    return results, still, (truth[0].cpu().numpy(), predictions)


# ---- report --------------------------------------------------------------------------------------------


def _table(
    results: Mapping[str, dict[str, Any]],
    still: dict[str, Any],
    data: TrajectoryDataModule,
    config: DemoConfig,
) -> Table:
    """One row per quantity; the last model is the reference of the ratio."""
    names = list(results)
    table = Table(title=f"After {config.training_seconds:g} s of training each")
    table.add_column("", no_wrap=True)
    for name in (*names, "ratio", "persistence"):
        table.add_column(name, justify="right")
    table.caption_justify = "left"
    table.caption = (
        "MACs: forward pass of one sample. Memory: bytes kept for the backward pass of one sample, "
        "parameters excluded. Error: relative L2, |prediction - truth| / |truth| of a standardised frame, "
        "mean over the test windows."
    )

    def row(label: str, pick: Any, show: str, scale: float = 1.0, reference: float | None = None) -> None:
        values = [pick(results[name]) / scale for name in names]
        last = "" if reference is None else show.format(reference)
        table.add_row(label, *(show.format(v) for v in values), f"{values[0] / values[-1]:.2f}", last)

    steps = data.rollout_steps
    row("parameters", lambda r: r["parameters"], "{:,.0f}")
    row("MACs, M", lambda r: r["macs_per_sample"], "{:,.1f}", 1e6)
    row(f"step time, ms (batch {data.batch_size})", lambda r: r["step_seconds"], "{:.1f}", 1e-3)
    row("step memory, MB", lambda r: r["saved_bytes_per_sample"], "{:.2f}", 1e6)
    row("steps done", lambda r: r["steps"], "{:,.0f}")
    row("error, one step", lambda r: r["one_step"], "{:.4f}", reference=still["one_step"])
    row(f"error, rollout step {steps}", lambda r: r["rollout"][-1], "{:.4f}", reference=still["rollout"][-1])
    return table


def _save_models(
    models: Mapping[str, mrn.UNet], config: DemoConfig, data: TrajectoryDataModule, console: Console
) -> None:
    for name, model in models.items():
        model.cpu().save_pretrained(str(config.out / name))
    name = next(iter(models))
    console.print("\nTo use the first network (standardised values in and out; mean and std are in results.json):\n")
    console.print("    import multiresnet as mrn", highlight=False)
    console.print(f'    net = mrn.{name}.from_pretrained("{(config.out / name).as_posix()}")\n', highlight=False)
