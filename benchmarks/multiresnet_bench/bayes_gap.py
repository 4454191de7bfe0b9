"""How far networks stay from the optimum, on data of which it is known: noisy images with a hidden tree of causes.

Images of 32 x 32 pixels are the leaves of a tree with four children a node and eight states (arXiv 2404.18444). Belief propagation
gives the best denoiser and the best classifier exactly, so the excess risk is measured without the noise of the risk itself:
the mean square distance to the exact posterior mean, or the divergence of the predicted from the exact probabilities of the
label. Every network is trained on the same samples, of several numbers, and reported on others.

`belief-propagation` is the same passes with random potentials to begin with, trained like the others.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import multiresnet as mrn
from multiresnet.graphical import BeliefPropagationUNet, GenerativeHierarchicalModel
from multiresnet.spaces import Haar
from multiresnet.tasks import Task
from multiresnet_bench import arguments, contest, models, plots, race
from multiresnet_bench.jobs import Row
from multiresnet_bench.peers import Ports

STATES, NOISE, STRENGTH = 8, 0.5, 2.5
LEVELS = 5
TASKS = ("denoise", "classify")
HERE = "multiresnet_bench.bayes_gap:"
NETWORKS = {
    "residual-unet": "residual-unet",
    "multiresnet": "multiresnet",
    "resnet": f"{HERE}resnet",
    "convnet": f"{HERE}convnet",
    "belief-propagation": f"{HERE}belief_propagation",
}
SAMPLES = (100, 1000, 10_000)
BATCH = 32
KNOWN = f"{', '.join(list(NETWORKS)[2:])}, {arguments.BY_NAME}"
MEASURE = contest.Measure("excess", "excess risk", "excess risk on validation samples")
FIGURES = [
    ["excess", "excess risk", ".4f"],
    ["part", "over the least risk", ".3f"],
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `multiresnet-bench bayes-gap`."""
    arguments.add_contest(
        parser,
        seconds=30.0,
        networks=tuple(NETWORKS),
        reference="residual-unet",
        known=KNOWN,
    )
    parser.add_argument("--set", default="denoise", choices=TASKS, help="what is learned (default denoise)")
    parser.add_argument(
        "--samples",
        type=arguments.count,
        nargs="+",
        metavar="N",
        help=f"to train on (default {' '.join(map(str, SAMPLES))})",
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """A contest for each number of samples."""
    samples = options.samples or ([16, 32] if options.quick else list(SAMPLES))
    names = arguments.by_name(options, tuple(NETWORKS))
    networks = {name: NETWORKS.get(name, name) for name in names}
    what, results = options.set, []
    for count in samples:
        options.set = f"{what}-{count}"
        result = contest.contest(options, networks, BENCH)
        for kind in ("rows", "raw", "tuning"):
            for row in result[kind]:
                row["samples"] = count
        results.append(result)
    options.set = what
    joined = {kind: [row for result in results for row in result[kind]] for kind in ("rows", "raw", "tuning")}
    note = (
        "Excess risk: mean square distance to the exact posterior mean."
        if what == "denoise"
        else "Excess risk: divergence from the exact probabilities, nats."
    )
    first = results[0]
    return {**first, **joined, "columns": [["samples", "samples", ",d"], *first["columns"]], "note": note, "task": what}


class Samples(lightning.LightningDataModule):
    """Noisy images with what is to be said of them: `truth` to learn from, `best` to be measured by.

    Args:
        what: `"denoise"` or `"classify"`.
        count: samples to train on.
    """

    def __init__(self, what: str, count: int) -> None:
        super().__init__()
        self.what, self.count, self.seed = what, count, 0
        self.tree = GenerativeHierarchicalModel.random(LEVELS, states=STATES, strength=STRENGTH)

    @functools.cached_property
    def train(self) -> dict[str, Tensor]:
        """`x` and `truth`."""
        return self.draw(self.count, 1, best=False)

    @functools.cached_property
    def val(self) -> dict[str, Tensor]:
        """`x`, `truth` and `best`."""
        return self.draw(200, 2)

    @functools.cached_property
    def test(self) -> dict[str, Tensor]:
        """`x`, `truth` and `best`."""
        return self.draw(500, 3)

    @torch.no_grad()
    def draw(self, count: int, seed: int, *, best: bool = True) -> dict[str, Tensor]:
        """`x` (N, 1, *size), `truth` and, where wanted, `best`; the same samples are the first of more."""
        found: dict[str, list[Tensor]] = {"x": [], "truth": [], **({"best": []} if best else {})}
        exact = BeliefPropagationUNet(self.tree, task=self.what, noise=NOISE)
        for block in range(math.ceil(count / 100)):
            generator = torch.Generator().manual_seed(1_000_000 * seed + block)
            label, states = self.tree.sample(100, generator=generator)
            clean = self.tree.values[states]
            x = clean + NOISE * torch.randn(clean.shape, generator=generator)
            found["x"].append(x.unsqueeze(1))
            found["truth"].append(clean.unsqueeze(1) if self.what == "denoise" else label)
            if best:
                found["best"].append(exact(x.unsqueeze(1)))
        return {key: torch.cat(parts)[:count] for key, parts in found.items()}

    def train_dataloader(self) -> DataLoader[Any]:
        part = self.train
        generator = torch.Generator().manual_seed(self.seed)
        return DataLoader(
            TensorDataset(part["x"], part["truth"]),
            min(BATCH, len(part["x"])),
            shuffle=True,
            drop_last=True,
            generator=generator,
        )


class Regression(Task):
    """Least squares of the clean image, or cross-entropy of the label."""

    def __init__(self, model: nn.Module, *, what: str, lr: float) -> None:
        super().__init__(model, lr=lr, weight_decay=0.0, warmup=0.1)
        self.what = what

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.model(x)
        if self.what == "denoise":
            return y
        answered = y.ndim == 2  # belief propagation: with log-probabilities
        return y if answered else y.flatten(2).mean(2).log_softmax(1)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, truth = batch
        said = self(x)
        loss = F.mse_loss(said, truth) if self.what == "denoise" else F.nll_loss(said, truth)
        self.guard(loss, self.model, x)
        return loss

    @torch.no_grad()
    def excess(self, part: Mapping[str, Tensor]) -> float:
        """Risk above the least that is possible, exact but for the average over samples."""
        said = torch.cat([self(x) for x in part["x"].split(100)])
        if self.what == "denoise":
            return float((said - part["best"]).square().mean())
        return float((part["best"].exp() * (part["best"] - said)).sum(1).mean())


def least_risk(part: Mapping[str, Tensor], what: str) -> float:
    """The risk of the optimum itself: no network has less."""
    if what == "denoise":
        return float((part["best"] - part["truth"]).square().mean())
    return float(-(part["best"].exp() * part["best"]).sum(1).mean())


def prepare(options: argparse.Namespace) -> None:
    """Samples are drawn where they are needed."""


def load(name: str, keep: Path) -> Samples:
    what, _, count = name.partition("-")
    return Samples(what, int(count))


def problem_of(data: Samples) -> race.Problem:
    return race.Problem(1, 1 if data.what == "denoise" else STATES, data.tree.size, "replicate")


def job(task: Row) -> Row:
    """Train and test one network."""
    what = task["set"].partition("-")[0]
    data = load(task["set"], Path(task["keep"]))
    problem = problem_of(data)
    model = race.begin(task, problem)
    data.seed = task["seed"]
    cost = race.cost(model, problem)
    regression = Regression(model, what=what, lr=task["learning_rate"])
    row = cost | race.fit(regression, data, task, lambda trained: trained.excess(data.val))
    if not race.reported(task, row):
        return row | {key: None for key, *_ in FIGURES}
    excess, least = regression.excess(data.test), least_risk(data.test, what)
    return row | {"excess": excess, "part": excess / least}


def _budget(params: int | None) -> models.Budget | None:
    return None if params is None else models.Budget(params)


def _resnet(ports: Ports, width: int) -> nn.Module:
    return mrn.MultiResNet(ports.in_channels, ports.out_channels, channels=(width,), num_blocks=6, space=ports.space)


def _convnet(ports: Ports, width: int) -> nn.Module:
    widths = [ports.in_channels, *[width] * 11, ports.out_channels]
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [ports.space.conv(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def resnet(in_channels: int, out_channels: int, *, space: Haar, params: int | None = None) -> nn.Module:
    """Residual blocks at full resolution."""
    return models.scaled(_resnet, 32, 8)(Ports(in_channels, out_channels, space), _budget(params))


def convnet(in_channels: int, out_channels: int, *, space: Haar, params: int | None = None) -> nn.Module:
    """Twelve convolutions at full resolution with ReLUs between them, nothing else."""
    return models.scaled(_convnet, 32, 1)(Ports(in_channels, out_channels, space), _budget(params))


def belief_propagation(in_channels: int, out_channels: int, *, space: Haar) -> nn.Module:
    """The true tree's shape with other potentials."""
    start = GenerativeHierarchicalModel.random(LEVELS, states=STATES, strength=0.5, seed=1)
    return BeliefPropagationUNet(start, task="denoise" if out_channels == 1 else "classify", noise=NOISE)


def plot(result: Mapping[str, Any]) -> Figure:
    """Excess risk against the number of samples."""
    return plots.against(result, "samples", "samples to train on")


BENCH = contest.Bench(prepare, load, problem_of, job, MEASURE, FIGURES)
