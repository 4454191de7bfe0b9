"""PDE surrogates, next frame and ten-step rollout: networks at equal training time, trained as `SurrogateTask` trains them.

Sets: driven turbulence (vorticity, periodic) of 64² or 128² cells, shallow water (depth and velocity, periodic) of 64² cells,
both by `multiresnet.data.solvers`, 168 trajectories of 21 frames, solved on the first call and kept in `--keep`; or any file that
`TrajectoryDataModule` reads. 120, 16 and 32 trajectories are for training, selection and report.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray

from multiresnet.atomic import write_atomically
from multiresnet.data import TrajectoryDataModule, navier_stokes, shallow_water
from multiresnet.tasks import SurrogateTask
from multiresnet_bench import arguments, contest, plots, race
from multiresnet_bench.jobs import Row

SETS: dict[str, Callable[[], NDArray[np.float32]]] = {
    "navier-stokes": partial(navier_stokes, 168),
    "navier-stokes-128": partial(navier_stokes, 168, size=128),
    "shallow-water": partial(shallow_water, 168),
    "quick": partial(navier_stokes, 8, frames=6, size=16, spin_up=0.5),
}
LOOKS = 16  # validation batches that the curves are made of
FRACTIONS = (120 / 168, 16 / 168, 32 / 168)
NETWORKS = (
    "multiresnet-surrogate",
    "residual-unet-tuned",
    "residual-unet",
    "residual-unet-paper",
    "monai-unet",
    "diffusers-unet",
    "well-unet-classic",
    "well-unet-convnext",
    "neuralop-fno",
    "neuralop-uno",
)
MEASURE = contest.Measure("rollout", "relative L2 error after a ten-step rollout", "validation error of one step")
FIGURES = [
    ["one_step", "one step, relative L2", ".4f"],
    ["rollout", "after ten steps", ".3f"],
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `multiresnet-bench pde`."""
    arguments.add_contest(
        parser, seconds=100.0, networks=NETWORKS, reference="residual-unet-tuned", known=arguments.BY_NAME
    )
    add_set(parser)


def add_set(parser: argparse.ArgumentParser) -> None:
    """`--set`."""
    sets = ", ".join(name for name in SETS if name != "quick")
    parser.add_argument(
        "--set",
        default="navier-stokes",
        metavar="NAME",
        help=f"{sets}, or a file of trajectories (default navier-stokes)",
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All networks, learning rates and seeds."""
    return contest.contest(options, arguments.by_name(options, NETWORKS), BENCH)


def path_of(name: str, folder: Path) -> Path:
    return folder / f"{name.replace('-', '_')}.npy" if name in SETS else Path(name)


def prepare(options: argparse.Namespace) -> None:
    """Solve a set that is not there yet; the file is whole or absent."""
    if options.quick:
        options.set = "quick"
    path = path_of(options.set, options.keep)
    if options.set in SETS and not path.exists():
        print(f"solving {options.set} into {path} ...", flush=True)
        write_atomically(path, lambda file: np.save(file, SETS[options.set]()))


def load(name: str, folder: Path, *, unroll_steps: int = 1) -> TrajectoryDataModule:
    """The data module of a set, set up, with the same split for every seed."""
    if name not in SETS:
        data = TrajectoryDataModule(name, batch_size=8, unroll_steps=unroll_steps)
    else:
        flow, fractions = np.load(path_of(name, folder)), (0.5, 0.25, 0.25) if name == "quick" else FRACTIONS
        data = TrajectoryDataModule(
            flow, boundary="periodic", fractions=fractions, batch_size=8, unroll_steps=unroll_steps
        )
    data.setup()
    return data


def problem_of(data: TrajectoryDataModule) -> race.Problem:
    return race.Problem(data.channels, data.channels, tuple(data.source.shape[3:]), data.boundary)


def scorer(data: TrajectoryDataModule) -> race.Score:
    """The mean relative L2 error of one step on the first validation batches."""
    looked_at = [batch for batch, _ in zip(data.val_dataloader(), range(LOOKS))]

    def score(trained: SurrogateTask) -> float:
        errors = [
            trained.rollout_error(batch["input"].to(trained.device), batch["target"].to(trained.device)).mean()
            for batch in looked_at
        ]
        return float(torch.stack(errors).mean())

    return score


def job(task: Row) -> Row:
    """Train and test one network."""
    data = load(task["set"], Path(task["keep"]))
    model = race.begin(task, problem_of(data))
    data.seed = task["seed"]  # of the order; the split is the same for all
    return train_and_test(task, data, SurrogateTask(model, target="delta", lr=task["learning_rate"]))


def train_and_test(
    task: Row, data: TrajectoryDataModule, surrogate: SurrogateTask, *, callbacks: Sequence[Callback] = ()
) -> Row:
    """The row of a task that was set up."""
    row = race.cost(surrogate.model, problem_of(data))
    row |= race.fit(surrogate, data, task, scorer(data), callbacks=callbacks)
    if not race.reported(task, row):
        return row | {"one_step": None, "rollout": None}
    figures = race.test(surrogate, data, task["device"])
    return row | {"one_step": figures["test/one_step_rel_l2"], "rollout": figures["test/rollout_last_rel_l2"]}


BENCH = contest.Bench(prepare, load, problem_of, job, MEASURE, FIGURES)
plot = plots.training
