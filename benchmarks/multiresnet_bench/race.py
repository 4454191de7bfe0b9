"""One run of a network: `Trainer.fit` of a task of `multiresnet.tasks` for a given time, on a clock that stops to validate.

On a CPU the clock is the CPU time of the process and every run has one thread, so that runs side by side don't shorten each
other's training; on a GPU it is the wall clock. Warm-up and cosine follow the clock: every network sees the whole schedule,
a cheap one in more steps. With a number of steps instead of seconds, two runs of one seed agree to the bit.
"""

from __future__ import annotations

import copy
import logging
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import lightning
import torch
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Timer
from torch import Tensor, nn

import multiresnet as mrn
from multiresnet import pretrained
from multiresnet.spaces.boundary import Boundary
from multiresnet.tasks import Task
from multiresnet_bench import models
from multiresnet_bench.jobs import Row

POINTS = 10  # of a learning curve
Score = Callable[[Any], float]
Network = (
    str | dict[str, Any]
)  # a name of `models`; or options of one of ours, with "build", or of a function, with "function"


@dataclass(frozen=True)
class Problem:
    """What a data set asks of a network; `size` is that of the fields that it costs are counted at."""

    in_channels: int
    out_channels: int
    size: tuple[int, ...]
    boundary: Boundary
    emb_channels: int = 0
    classes: int = 0

    @property
    def space(self) -> mrn.spaces.Haar:
        return mrn.spaces.Haar(len(self.size), self.boundary)


def build(network: Network, problem: Problem, budget: models.Budget | None) -> nn.Module:
    """A network of `models` by name, or one of ours by its options; "dirichlet" is a weight for zero on the boundary."""
    given: dict[str, Any] = {"space": problem.space, "emb_channels": problem.emb_channels}
    if isinstance(network, str):
        network = {"function": network}
    if "function" in network:
        name, options = network["function"], {key: value for key, value in network.items() if key != "function"}
        ends = problem.in_channels, problem.out_channels
        return models.build(name, *ends, budget=budget, classes=problem.classes, options=options, **given)
    options = {**given, **network}
    if isinstance(options["space"], dict):
        options["space"] = pretrained.from_json(options["space"])
    kind, weight = getattr(mrn, options.pop("build", "MultiResNet")), options.pop("dirichlet", None)
    options |= {"in_channels": problem.in_channels, "out_channels": problem.out_channels}
    model = kind(**options) if budget is None else mrn.match_budget(kind, **asdict(budget), **options)
    return model if weight is None else mrn.Constrained(model, mrn.conditions.Dirichlet(0.0, weight=weight))


def begin(task: Row, problem: Problem) -> nn.Module:
    """Threads, seeds, and the network of a task with the weights of its seed."""
    settle(task["seed"])
    budget = None if task["budget"] is None else models.Budget(**task["budget"])
    return build(task["network"], problem, budget)


def settle(seed: int) -> None:
    """One thread, a quiet Lightning, the seed."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    lightning.seed_everything(seed, verbose=False)


class Clock(Timer):
    """Lightning's timer on the CPU time of the process, or on the wall clock of a GPU; validates off the clock.

    Args:
        score: of the task, in evaluation mode and without gradients.
        seconds: when to stop; None leaves that to the trainer's `max_steps`.
        steps: that number.
        device: of the network.
    """

    def __init__(self, score: Score, *, seconds: float | None, steps: int | None, device: str) -> None:
        super().__init__(duration=None if seconds is None else timedelta(seconds=seconds), verbose=False)
        self.score, self.seconds, self.steps = score, seconds, steps
        self.curve: list[tuple[float, float]] = []
        self.gpu = torch.device(device).type == "cuda"
        self._began: float | None = None
        self._paused = 0.0

    def now(self) -> float:
        if self.gpu:
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def time_elapsed(self, stage: str = "train") -> float:
        return 0.0 if self._began is None else self.now() - self._began - self._paused

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = self.now()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        elapsed = self.time_elapsed()
        done = elapsed / self.seconds if self.seconds is not None else trainer.global_step / (self.steps or 1)
        if done >= (len(self.curve) + 1) / POINTS and done < 1:
            self.look(pl_module, elapsed)
        super().on_train_batch_end(trainer, pl_module, *args, **kwargs)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.look(pl_module, self.time_elapsed())

    @torch.no_grad()
    def look(self, pl_module: LightningModule, elapsed: float) -> None:
        """Add a point to the curve, and its time to the pause."""
        pause = self.now()
        pl_module.eval()
        self.curve.append((elapsed, self.score(pl_module)))
        pl_module.train()
        self._paused += self.now() - pause


def trainer_options(device: str) -> dict[str, Any]:
    return {
        "accelerator": "gpu" if torch.device(device).type == "cuda" else "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }


def fit(task: Task, data: LightningDataModule, row: Row, score: Score, *, callbacks: Sequence[Callback] = ()) -> Row:
    """Train in place; "steps", "seconds", "step_ms", "curve", its last value "val", and what the row says of the run.

    Args:
        task: around the network.
        data: set up.
        row: the task of the job, with "seconds" or "steps".
        score: on validation data.
        callbacks: more of them.
    """
    clock = Clock(score, seconds=row["seconds"], steps=row["steps"], device=row["device"])
    trainer = Trainer(
        max_epochs=-1,
        max_steps=row["steps"] or -1,
        gradient_clip_val=1.0,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        callbacks=[clock, *callbacks],
        **trainer_options(row["device"]),
    )
    try:
        trainer.fit(task, data)
    except ValueError as error:  # a network that diverges has no score, but the others go on
        if "not finite" not in str(error):
            raise
        clock.curve.append((clock.time_elapsed(), math.nan))
    task.eval()
    seconds, value = clock.curve[-1]
    limit = f"{row['steps']} steps" if row["steps"] else f"{row['seconds']:g} s"
    return {
        **{key: row[key] for key in ("model", "seed", "learning_rate")},
        "limit": limit,
        "steps": trainer.global_step,
        "seconds": seconds,
        "step_ms": 1000 * seconds / max(1, trainer.global_step),
        "val": value,
        "curve": clock.curve,
    }


def reported(task: Row, row: Row) -> bool:
    """Whether to look at the test data: if that was asked for, and the run did not diverge."""
    return task["split"] == "test" and math.isfinite(row["val"])


def test(task: Task, data: LightningDataModule, device: str) -> dict[str, float]:
    """What the task logs on the test data."""
    results = Trainer(**trainer_options(device)).test(task, data, verbose=False)
    return {key: value for part in results for key, value in part.items()}


class _Called(nn.Module):
    """A network with all its inputs but the first."""

    def __init__(self, net: nn.Module, *rest: Tensor, in_channels: int) -> None:
        super().__init__()
        self.net, self.rest, self.in_channels = net, rest, in_channels

    def forward(self, x: Tensor) -> Any:
        y = self.net(x, *self.rest)
        return getattr(y, "sample", y)


def cost(model: nn.Module, problem: Problem) -> Row:
    """ "params", "macs" and "saved", megabytes (10^6) that autograd keeps for one sample of the problem's size."""
    rest: list[Tensor] = []
    if problem.emb_channels:  # a vector for ours, time and class for those of diffusers
        label = [torch.zeros(1, dtype=torch.int64)] if problem.classes else []
        rest = [torch.zeros(1, problem.emb_channels)] if isinstance(model, mrn.UNet) else [torch.zeros(1), *label]
    called = _Called(copy.deepcopy(model).cpu(), *rest, in_channels=problem.in_channels).eval()
    saved = mrn.count_saved_bytes(called, torch.zeros(1, problem.in_channels, *problem.size))
    macs = mrn.count_macs(called, problem.size)
    return {"params": mrn.count_parameters(model), "macs": macs, "saved": saved / 1e6}
