"""How far networks stay from the optimum, on data of which it is known: noisy images with a hidden tree of causes.

Images of 32 x 32 pixels are the leaves of a tree with four children a node and eight states (arXiv 2404.18444). Belief propagation
gives the best denoiser and the best classifier exactly, so the excess risk is measured without the noise of the risk itself:
the mean square distance to the exact posterior mean, or the divergence of the predicted from the exact probabilities of the
label. Every network is trained on the same samples, of several numbers, and reported on others. Labels are learned on a tree of
transition probabilities, where they are equally likely and images tell them apart.

`belief-propagation` is the same passes with random potentials to begin with, trained like the others. With `--over depth` the
networks are of several depths, on the largest number of samples.
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

UNETS: dict[str, Any] = {"residual-unet": mrn.ResidualUNet, "multiresnet": mrn.MultiResNet}
STATES, NOISE, STRENGTH = 8, 0.5, 2.5
LEVELS = 5
TASKS = ("denoise", "classify")
HERE = "multiresnet_bench.bayes_gap:"
NETWORKS: dict[str, race.Network] = {
    "residual-unet": {"function": f"{HERE}unet", "kind": "residual-unet"},
    "multiresnet": {"function": f"{HERE}unet", "kind": "multiresnet"},
    "multiresnet-patched": "multiresnet",
    "resnet": f"{HERE}resnet",
    "convnet": f"{HERE}convnet",
    "belief-propagation": f"{HERE}belief_propagation",
}
SAMPLES = (100, 1000, 10_000)
HALVINGS, LAYERS = (1, 2, 3, 4, 5), (4, 8, 12, 16)  # of U-Nets, and of networks at one resolution
BATCH = 32
KNOWN = f"{', '.join(NETWORKS)} (of this benchmark), {arguments.BY_NAME}"
MEASURE = contest.Measure("excess", "excess risk", "excess risk on validation samples")
FIGURES = [
    ["excess", "excess risk", ".5f"],
    ["part", "over the least risk", ".4f"],
]
LEFT_OUT = ("saved", "time_ratio", "step_ms")  # what matters here is what can be learned, not how fast
OVER = {"samples": ["samples", "samples", ",d"], "depth": ["layers", "convolutions in a row", "d"]}


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
    parser.add_argument("--over", default="samples", choices=tuple(OVER), help="what varies (default samples)")
    parser.add_argument(
        "--samples",
        type=arguments.count,
        nargs="+",
        metavar="N",
        help=f"to train on (default {' '.join(map(str, SAMPLES))})",
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """A contest for each number of samples, or of networks of several depths."""
    samples = options.samples or ([16, 32] if options.quick else list(SAMPLES))
    names = arguments.by_name(options, tuple(NETWORKS))
    networks = {name: NETWORKS.get(name, name) for name in names}
    if options.over == "depth":
        samples, networks = samples[-1:], at_depths(networks)
        options.reference = next(iter(networks))
    what, results = options.set, []
    for count in samples:
        options.set = f"{what}-{count}"
        result = contest.contest(options, networks, BENCH)
        for row in itertools.chain(result["rows"], result["raw"], result["tuning"]):
            row["samples"] = count
            row["model"] = row["model"].partition("@")[0]
        results.append(result)
    options.set = what
    joined = {kind: [row for result in results for row in result[kind]] for kind in ("rows", "raw", "tuning")}
    note = (
        "Excess risk: mean square distance to the exact posterior mean."
        if what == "denoise"
        else "Excess risk: divergence from the exact probabilities, nats."
    )
    first = results[0]
    columns = [column for column in first["columns"] if column[0] not in LEFT_OUT]
    columns.insert(1, OVER[options.over])
    return {**first, **joined, "columns": columns, "note": note, "task": what, "over": OVER[options.over]}


def at_depths(networks: Mapping[str, race.Network]) -> dict[str, race.Network]:
    """Each network with each number of halvings or layers, NAME@NUMBER; those that have one depth are left out."""
    found: dict[str, race.Network] = {}
    for name, network in networks.items():
        if name in UNETS:
            for n in HALVINGS:
                found[f"{name}@{n}"] = {"function": f"{HERE}unet", "kind": name, "halvings": n}
        elif name in ("resnet", "convnet"):
            for n in LAYERS:
                found[f"{name}@{n}"] = {"function": network, "layers": n}
    if not found:
        raise ValueError(
            f"none of {', '.join(networks)} can be built at several depths; choose of {', '.join(NETWORKS)}"
        )
    return found


class Samples(lightning.LightningDataModule):
    """Noisy images with what is to be said of them: `truth` to learn from, `best` to be measured by.

    Args:
        what: `"denoise"` or `"classify"`.
        count: samples to train on.
    """

    def __init__(self, what: str, count: int) -> None:
        super().__init__()
        self.what, self.count, self.seed = what, count, 0
        self.tree = GenerativeHierarchicalModel.random(
            LEVELS, states=STATES, strength=STRENGTH, transitions=what == "classify"
        )

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
    cost = race.cost(model, problem) | {"layers": longest_chain(model(torch.zeros(1, 1, *problem.size)))}
    regression = Regression(model, what=what, lr=task["learning_rate"])
    row = cost | race.fit(regression, data, task, lambda trained: trained.excess(data.val))
    if not race.reported(task, row):
        return row | {key: None for key, *_ in FIGURES}
    excess, least = regression.excess(data.test), least_risk(data.test, what)
    return row | {"excess": excess, "part": excess / least}


def longest_chain(y: Tensor) -> int:
    """Convolutions one after the other on the longest way from the input to y."""
    lengths: dict[Any, int] = {}
    waiting = [y.grad_fn]
    while waiting:
        node = waiting[-1]
        before = [parent for parent, _ in node.next_functions if parent is not None] if node is not None else []
        if missing := [parent for parent in before if parent not in lengths]:
            waiting += missing
            continue
        lengths[waiting.pop()] = max((lengths[parent] for parent in before), default=0) + (
            "Convolution" in type(node).__name__
        )
    return lengths[y.grad_fn]


def _budget(params: int | None) -> models.Budget | None:
    return None if params is None else models.Budget(params)


def _resnet(ports: Ports, width: int, *, layers: int) -> nn.Module:
    blocks = max(1, layers // 2)  # of two convolutions each
    ends = ports.in_channels, ports.out_channels
    return mrn.MultiResNet(*ends, channels=(width,), num_blocks=blocks, patch_levels=0, space=ports.space)


def _convnet(ports: Ports, width: int, *, layers: int) -> nn.Module:
    widths = [ports.in_channels, *[width] * (layers - 1), ports.out_channels]
    parts: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        parts += [ports.space.conv(a, b), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def resnet(
    in_channels: int, out_channels: int, *, space: Haar, params: int | None = None, layers: int = 12
) -> nn.Module:
    """Residual blocks at full resolution."""
    make = functools.partial(_resnet, layers=layers)
    return models.scaled(make, 32, 8)(Ports(in_channels, out_channels, space), _budget(params))


def convnet(
    in_channels: int, out_channels: int, *, space: Haar, params: int | None = None, layers: int = 12
) -> nn.Module:
    """Convolutions at full resolution with ReLUs between them, nothing else."""
    make = functools.partial(_convnet, layers=layers)
    return models.scaled(make, 32, 1)(Ports(in_channels, out_channels, space), _budget(params))


def unet(
    in_channels: int, out_channels: int, *, space: Haar, params: int | None = None, kind: str, halvings: int = 3
) -> nn.Module:
    """A U-Net without patches, as pixels differ from their neighbours here; all levels as wide, two blocks at the finest."""

    def make(ports: Ports, width: int) -> nn.Module:
        layout = {"channels": (width,) * (halvings + 1), "num_blocks": (2,) + (1,) * halvings, "patch_levels": 0}
        return UNETS[kind](ports.in_channels, ports.out_channels, space=ports.space, **layout)

    return models.scaled(make, 16, 1)(Ports(in_channels, out_channels, space), _budget(params))


def belief_propagation(in_channels: int, out_channels: int, *, space: Haar) -> nn.Module:
    """The true tree's shape with other potentials."""
    start = GenerativeHierarchicalModel.random(LEVELS, states=STATES, strength=0.5, seed=1)
    return BeliefPropagationUNet(start, task="denoise" if out_channels == 1 else "classify", noise=NOISE)


def plot(result: Mapping[str, Any]) -> Figure:
    """Excess risk against the number of samples, or against depth."""
    key, label, _ = result["over"]
    return plots.against(result, key, "samples to train on" if key == "samples" else label)


BENCH = contest.Bench(prepare, load, problem_of, job, MEASURE, FIGURES)
