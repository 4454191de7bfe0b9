"""Networks on the space of their data, against the same networks on a box of pixels: `SurrogateTask`, equal time and parameters.

- poisson: forcing to solution of Poisson's equation on 65² vertices, u = 0 on the boundary. Hats, which vanish there, against
  Haar, as it is and with its boundary values set to zero.
- triangle: the next frame of heat on a triangle of 1024 cells. Convolutions over the 12 cells that share a corner, or the 3 that
  share a side, against those on the square that stores the cells, siblings in blocks of 2 x 2 (arXiv 2305.19638).
- sphere: the next frame of tracers that a flow carries over the poles. 3072 cells of HEALPix against 39 x 78 latitudes and
  longitudes, which crowd at the poles: there a third of the cells cover an eighth of the area. So that network is trained
  twice, its cells counting alike in the loss, and by their area. Errors are by area; near the poles is beyond 60 degrees.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multiresnet import StaticFields
from multiresnet.atomic import write_atomically
from multiresnet.data import PairDataModule, TrajectoryDataModule, poisson, sphere_advection, triangle_heat
from multiresnet.spaces import Sphere
from multiresnet.tasks import SurrogateTask, relative_squared_error
from multiresnet_bench import arguments, contest, pde, plots, race
from multiresnet_bench.jobs import Row

Arrays = dict[str, NDArray[Any]]
GRID = {"Haar": {"spatial_dims": 2, "boundary": "replicate"}}
GLOBE = {"Haar": {"spatial_dims": 2, "boundary": ["replicate", "periodic"]}}
SQUARE = {"Haar": {"spatial_dims": 2, "boundary": "zeros"}}
BY_AREA = "longitudes and latitudes, loss by area"
# set -> name -> options of `race.build`; the first is the reference
CONTESTANTS: dict[str, dict[str, dict[str, Any]]] = {
    "poisson": {
        "Haar": {"space": GRID},
        "Haar, boundary set to zero": {"space": GRID, "dirichlet": "jump"},
        "Haar times the distance": {"space": GRID, "dirichlet": "distance"},
        "Hat": {"space": {"Hat": {"spatial_dims": 2}}},
    },
    "triangle": {
        "square layout": {"space": SQUARE},
        "triangle, corners": {"space": {"Triangle": {"depth": 5, "boundary": "replicate"}}},
        "triangle, sides": {"space": {"Triangle": {"depth": 5, "touching": "side", "boundary": "replicate"}}},
    },
    "sphere": {
        "longitudes and latitudes": {"space": GLOBE},
        BY_AREA: {"space": GLOBE},
        "HEALPix": {"space": {"Sphere": {"nside": 16}}},
    },
}
FRACTIONS = (0.7, 0.1, 0.2)
MEASURE = contest.Measure("error", "relative L2 error", "validation error")
FIGURES = [
    ["error", "relative L2", ".4f"],
    ["rollout", "after ten steps", ".3f"],
    ["violation", "largest |u| on the boundary", ".1e"],
    ["poles", "near the poles", ".4f"],
    ["poles_rollout", "there after ten steps", ".3f"],
]


def globe(rows: int = 39) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Longitudes and latitudes of the centres of `rows` x `2 rows` equal angles."""
    latitude = ((np.arange(rows) + 0.5) / rows - 0.5) * np.pi
    longitude = (np.arange(2 * rows) + 0.5) / rows * np.pi
    return tuple(np.meshgrid(longitude, latitude))  # type: ignore[return-value]


def solve_poisson(count: int) -> Arrays:
    f, u = poisson(6 * count)
    return {"input": f, "target": u}


def solve_triangle(count: int) -> Arrays:
    return {"u": triangle_heat(5, trajectories=count)}


def solve_sphere(count: int) -> Arrays:
    make = functools.partial(sphere_advection, trajectories=count)
    return {"cells": make(*(part.numpy() for part in Sphere(16).coordinates())), "grid": make(*globe())}


SETS: dict[str, Callable[[int], Arrays]] = {
    "poisson": solve_poisson,
    "triangle": solve_triangle,
    "sphere": solve_sphere,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `multiresnet-bench spaces`."""
    names = [f"{', '.join(members)} ({name})" for name, members in CONTESTANTS.items()]
    arguments.add_contest(
        parser, seconds=60.0, networks=("all of the set",), reference="the first of the set", known="; ".join(names)
    )
    parser.set_defaults(reference=None)
    parser.add_argument("--set", default="poisson", choices=tuple(SETS), help="default poisson")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All contestants of the set."""
    known = CONTESTANTS[options.set]
    options.reference = options.reference or next(iter(known))
    chosen = arguments.by_name(options, tuple(known))
    if unknown := [name for name in chosen if name not in known]:
        raise ValueError(f"unknown contestants {unknown}; those of {options.set}: {', '.join(known)}")
    if options.macs is not None or options.match == "macs":
        raise ValueError("networks on different spaces are matched in parameters: give --params, or nothing")
    return contest.contest(options, {name: known[name] for name in chosen}, BENCH)


def path_of(name: str, keep: Path) -> Path:
    return keep / f"space-{name}.npz"


def prepare(options: argparse.Namespace) -> None:
    """Solve a set that is not there yet; with `--quick` a few samples of it, in a file of their own."""
    if options.quick:
        options.keep = options.keep / "quick"
    path = path_of(options.set, options.keep)
    if not path.exists():
        print(f"solving {options.set} into {path} ...", flush=True)
        arrays = SETS[options.set](8 if options.quick else 168)
        write_atomically(path, lambda file: np.savez(file, **arrays))


def load(name: str, keep: Path, space: str = "") -> Any:
    """The data module of a set in the layout of a space (that of the reference by default), set up."""
    with np.load(path_of(name, keep)) as file:
        arrays = dict(file)
    if name == "poisson":
        data: Any = PairDataModule((arrays["input"], arrays["target"]), boundary="replicate", batch_size=8)
    else:
        if name == "sphere":
            u = arrays["cells" if space == "Sphere" else "grid"]
        else:
            u = arrays["u"] if space == "Triangle" else in_square(arrays["u"])
        data = TrajectoryDataModule(u, boundary="replicate", fractions=FRACTIONS, batch_size=8)
    data.setup()
    data.positions = positions(space) if name == "sphere" else None
    return data


def in_square(u: NDArray[Any]) -> NDArray[Any]:
    """Cells of a quadtree (..., 4**depth) as (..., 2**depth, 2**depth), every 2 x 2 block four siblings."""
    depth = (u.shape[-1].bit_length() - 1) // 2
    digits = u.reshape(*u.shape[:-1], *(2, 2) * depth)  # row and column of each digit, coarsest first
    first = u.ndim - 1
    rows, columns = range(first, first + 2 * depth, 2), range(first + 1, first + 2 * depth, 2)
    return digits.transpose(*range(first), *rows, *columns).reshape(*u.shape[:-1], 2**depth, 2**depth)


def positions(space: str) -> Tensor:
    """(3, *cells): the unit vector to each cell of the sphere. The flow is fixed, so a network must know where it is."""
    if space == "Sphere":
        return Sphere(16).directions().T.float()
    longitude, latitude = globe()
    across = np.cos(latitude)
    return torch.from_numpy(
        np.stack([across * np.cos(longitude), across * np.sin(longitude), np.sin(latitude)])
    ).float()


def problem_of(data: Any) -> race.Problem:
    size = tuple(data.source.shape[3:]) if hasattr(data, "source") else tuple(data.sources[0].shape[3:])
    channels = data.channels + (0 if data.positions is None else len(data.positions))
    return race.Problem(channels, getattr(data, "target_channels", data.channels), size, "replicate")


class ByArea(SurrogateTask):
    """The same, with the cells of `globe` weighted by their area in the loss."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, truth, emb = self._read(batch)
        prediction = self._stepper(self.model)(x, emb)
        weight = torch.from_numpy(globe()[1]).cos().sqrt().to(x)
        loss = relative_squared_error(weight * prediction, weight * truth).mean()
        self.guard(loss, self.model, x.flatten(1, 2))
        return loss


def job(task: Row) -> Row:
    """Train and test one contestant."""
    [space] = task["network"]["space"]
    data = load(task["set"], Path(task["keep"]), space)
    problem = problem_of(data)
    model = race.begin(task, problem)
    cost = race.cost(model, problem)
    if data.positions is not None:
        model = StaticFields(model, data.positions)
    data.seed = task["seed"]  # of the order; the split is the same for all
    steady = task["set"] == "poisson"
    kind = ByArea if task["model"] == BY_AREA else SurrogateTask
    surrogate = kind(model, target="absolute" if steady else "delta", lr=task["learning_rate"])
    row = cost | race.fit(surrogate, data, task, pde.scorer(data))
    if not race.reported(task, row):
        return row | {key: None for key, *_ in FIGURES}
    return row | measured(surrogate, data, task["set"], space)


def measured(surrogate: SurrogateTask, data: Any, name: str, space: str) -> Row:
    """The figures of a trained task on the test data."""
    loaders = data.test_dataloader()
    one, *rollouts = loaders if isinstance(loaders, (list, tuple)) else [loaders]
    row: Row = {key: None for key, *_ in FIGURES}
    if name != "sphere":
        weights = {"": torch.ones(())}
    else:
        latitude = Sphere(16).coordinates()[1] if space == "Sphere" else torch.from_numpy(globe()[1])
        area = torch.ones_like(latitude) if space == "Sphere" else latitude.cos()
        weights = {"": area, "poles": area * (latitude.abs() > np.pi / 3)}
    for key, area in weights.items():
        row[key or "error"] = error(surrogate, one, area)[0]
        for many in rollouts:
            row[f"{key}_rollout" if key else "rollout"] = error(surrogate, many, area)[-1]
    if name == "poisson":
        rim = []
        for batch in one:
            u = predict(surrogate, batch)
            rim += [u[..., 0, :], u[..., -1, :], u[..., 0], u[..., -1]]
        row["violation"] = max(float(part.abs().max()) for part in rim)
    return row


def error(surrogate: SurrogateTask, loader: Any, weights: Tensor) -> list[float]:
    """Mean over the samples of the weighted relative L2 error of each frame."""
    errors = []
    for batch in loader:
        truth = batch["target"]
        wrong = (weights * (predict(surrogate, batch) - truth).square()).flatten(2).sum(2)
        errors.append((wrong / (weights * truth.square()).flatten(2).sum(2)).sqrt())
    return [float(value) for value in torch.cat(errors).mean(0)]


@torch.no_grad()
def predict(surrogate: SurrogateTask, batch: Any) -> Tensor:
    device = surrogate.device
    return surrogate.rollout(batch["input"].to(device), batch["target"].shape[1]).cpu()


BENCH = contest.Bench(prepare, load, problem_of, job, MEASURE, FIGURES)
plot = plots.training
