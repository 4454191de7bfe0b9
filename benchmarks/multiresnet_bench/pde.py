"""Navier-Stokes, next frame: Multi-ResNets and residual U-Nets with the same blocks at equal training time.

Vorticity on 64 x 64 from :func:`multiresnet.data.solvers.navier_stokes`; 120 / 16 / 32 trajectories of 21 frames for training,
selection (``--split val``) and report (``--split test``).
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

import multiresnet as mrn
from multiresnet.tasks import relative_squared_error
from multiresnet_bench.train import Recipe, add_training_arguments, mean_and_sd, plan, run_jobs, train

SPLITS = {"train": slice(0, 120), "val": slice(120, 136), "test": slice(136, 168)}
OURS: dict[str, Any] = {"build": "MultiResNet", "norm": None}
TWO: dict[str, Any] = OURS | {"channels": (32, 48, 64, 96), "sweeps": 2}
CLASSIC: dict[str, Any] = {
    "build": "ResidualUNet",
    "channels": (32, 48, 64, 80),
    "num_blocks": 2,
    "encoder_blocks": (0, 1, 1, 1),
}

VARIANTS: dict[str, dict[str, Any]] = {
    "multiresnet": OURS,
    "multiresnet, compact": OURS | {"norm": "group", **mrn.PRESETS["compact"]},
    "multiresnet, two sweeps": TWO | {"num_blocks": ((2, 0, 0, 0), (1, 2, 2, 2))},
    "residual u-net": CLASSIC,
    "residual u-net, one block each": {"build": "ResidualUNet"},
    "residual u-net, paper": {"build": "ResidualUNet.paper", "hidden_channels": 11},
    "multiresnet, paper": {"build": "MultiResNet.paper", "hidden_channels": 11, "extra_blocks": 3},
    "multiresnet, group norm": OURS | {"norm": "group"},
    "multiresnet, approximation": OURS | {"skip": "approximation"},
    "multiresnet, packet": OURS | {"skip": "packet"},
    "multiresnet, scattering": OURS | {"skip": "scattering"},
    "residual u-net, no norm": CLASSIC | {"norm": None},
    "residual u-net, concat": CLASSIC | {"merge": "concat"},
}
MAIN = tuple(VARIANTS)[:6]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``multiresnet-bench pde``."""
    add_training_arguments(parser, seconds=100.0, variants=VARIANTS, chosen=MAIN)
    parser.add_argument("--data", type=Path, default=Path("benchmarks/data/navier_stokes.npy"), help="made if absent")


def build(
    options: dict[str, Any], in_channels: int, out_channels: int, space: mrn.spaces.Space, **more: Any
) -> torch.nn.Module:
    """A model of a variant: its options, and ``more`` where the layout knows it."""
    name, _, layout = options["build"].partition(".")
    cls = getattr(mrn, name)
    rest = {k: v for k, v in options.items() if k != "build"}
    if layout:
        return getattr(cls, layout)(in_channels, out_channels, space=space, **rest)
    return cls(in_channels, out_channels, space=space, **{**more, **rest})


def load(path: Path, quick: bool) -> Tensor:
    """(168, 21, 1, 64, 64) float32, solved on the first call and kept in ``path``."""
    if quick:
        from multiresnet.data import navier_stokes

        return torch.from_numpy(navier_stokes(8, frames=4, size=16, spin_up=0.5))
    if not path.exists():
        from multiresnet.data import navier_stokes

        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".part.npy")
        np.save(temporary, navier_stokes(168, seed=0))
        temporary.replace(path)
    return torch.from_numpy(np.load(path))


def job(task: dict[str, Any]) -> dict[str, Any]:
    """Train and evaluate one model: a row."""
    torch.set_num_threads(1)
    torch.manual_seed(task["seed"])
    data = load(Path(task["data"]), task["quick"])
    thirds = {"train": slice(0, 4), "val": slice(4, 6), "test": slice(6, 8)} if task["quick"] else SPLITS
    fields, held_out = data[thirds["train"]], data[thirds[task["split"]]]
    scale = fields.std()
    fields, held_out = fields / scale, held_out / scale
    generator = torch.Generator().manual_seed(task["seed"])

    def batches() -> Any:
        while True:
            trajectory = torch.randint(len(fields), (8,), generator=generator)
            frame = torch.randint(fields.shape[1] - 1, (8,), generator=generator)
            yield fields[trajectory, frame], fields[trajectory, frame + 1]

    model: Any = build(task["options"], 1, 1, mrn.spaces.Haar(2, "periodic"), delta=True)
    stepper = model if getattr(model, "delta", False) else _Delta(model)
    recipe = Recipe(seconds=task["seconds"], learning_rate=task["learning_rate"])
    info = train(stepper, batches(), lambda p, y: relative_squared_error(p, y).mean(), recipe)
    one_step, rollout = evaluate(stepper, held_out)
    return {
        "variant": task["variant"],
        "seed": task["seed"],
        "parameters": mrn.count_parameters(model),
        "macs": mrn.count_macs(copy.deepcopy(model), fields.shape[-2:]),
        "one_step": one_step,
        "rollout_10": rollout,
        **info,
    }


class _Delta(torch.nn.Module):
    """``x + net(x)`` for layouts that have no option for it."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(x)


@torch.no_grad()
def evaluate(model: torch.nn.Module, fields: Tensor) -> tuple[float, float]:
    """Mean relative squared error of one step, over all pairs of frames, and of the state after 10 (or all) steps."""
    one = torch.cat([relative_squared_error(model(f[:-1]), f[1:]) for f in fields]).mean().item()
    state, steps = fields[:, 0], min(10, fields.shape[1] - 1)
    for _ in range(steps):
        state = model(state)
    return one, relative_squared_error(state, fields[:, steps]).mean().item()


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All variants, seeds and learning rates."""
    tasks = plan(options, VARIANTS)
    load(options.data, options.quick)
    raw = run_jobs(job, tasks, log=options.out.with_suffix(".jsonl"), jobs=options.jobs)
    rows = mean_and_sd(raw, "variant", ("one_step", "rollout_10", "steps", "step_seconds"))
    columns = [
        ["variant", "model", "s"],
        ["parameters", "parameters", ",d"],
        ["macs", "MACs", ".3g"],
        ["one_step", "one step, relative squared error", ".4f"],
        ["rollout_10", "10-step rollout", ".3f"],
        ["steps", "steps in the time", ".0f"],
        ["seeds", "seeds", "d"],
    ]
    return {"rows": rows, "raw": raw, "columns": columns}


def table(result: dict[str, Any]) -> Table:
    """Mean ± sd over the seeds."""
    view = Table(
        "model", "parameters", "one step", "10-step rollout", "steps", title="Navier-Stokes, equal training time"
    )
    for r in result["rows"]:
        errors = [f"{r[k]:.4f} ± {r[k + '_sd']:.4f}" for k in ("one_step", "rollout_10")]
        view.add_row(r["variant"], f"{r['parameters']:,}", *errors, f"{r['steps']:.0f}")
    return view
