"""A run that is killed and started again ends as the one that was never stopped: weights, optimiser, validation, to the bit.

As a script this file is the run (`train FOLDER OPTIONS`), and a driver that kills it and starts it again (`drive FOLDER OPTIONS
MOMENT...`); the driver forks, so that a start does not cost an import of torch.
"""

import json
import multiprocessing
import os
import random
import signal
import stat
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import LightningDataModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from multiresnet.data import ImageDataModule, TrajectoryDataModule
from multiresnet.data.loading import Draw, make_loader
from multiresnet.hvae import Resolution
from multiresnet.tasks import DiffusionTask, HVAENetwork, HVAETask, SurrogateTask
from multiresnet.tasks.base import Task
from multiresnet.tasks.checkpointing import AtomicCheckpointIO, checkpoints, newest_whole_checkpoint
from multiresnet.tasks.network import Network, NetworkSize
from multiresnet.tasks.staged import StagedTraining

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*Checkpoint directory .* exists and is not empty:UserWarning",
    "ignore:.*WeightAveraging callback with a model that overrides:UserWarning",
)


TINY = Network(options={"channels": (16, 16), "num_blocks": 1})


class Images(Dataset[Tensor]):
    def __init__(self, length: int) -> None:
        self.images = torch.randn(length, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, at: Any) -> Tensor:
        if not isinstance(at, Draw):
            return self.images[at]
        noise = np.random.default_rng(at.seed).standard_normal((1, 8, 8))
        return self.images[at.index] + 0.1 * torch.from_numpy(noise).float()


class Data(LightningDataModule):
    def __init__(self, length: int, num_workers: int) -> None:
        super().__init__()
        self.length, self.num_workers = length, num_workers

    def train_dataloader(self) -> DataLoader[Any]:
        return make_loader(Images(self.length), batch_size=3, shuffle=True, num_workers=self.num_workers, seed=5)

    def val_dataloader(self) -> DataLoader[Any]:
        return make_loader(Images(5), batch_size=3, shuffle=False)


class Denoiser(Task):
    """Random numbers in every step."""

    def __init__(self) -> None:
        super().__init__(TINY, lr=1e-2, weight_decay=0.01, warmup=0.1)

    def read_data(self, data: Any) -> dict[str, Any]:
        return {"channels": 1}

    def network_size(self) -> NetworkSize:
        return NetworkSize(in_channels=1, out_channels=1)

    def training_step(self, x: Tensor, batch_idx: int) -> Tensor:
        model, (x,) = self.at_stage(x)
        return (model(F.dropout(x, 0.2) + 0.3 * torch.randn_like(x)) - x).square().mean()

    def validation_step(self, x: Tensor, batch_idx: int) -> None:
        self.log("val/loss", (self.model(x) - x).square().mean(), batch_size=len(x))


class Keep(Callback):
    """Keeps every validation in `validation.txt`."""

    def on_validation_end(self, trainer: Trainer, *_: Any) -> None:
        if not trainer.sanity_checking:
            with open(Path(trainer.default_root_dir) / "validation.txt", "a") as file:
                file.write(f"{trainer.global_step} {trainer.callback_metrics['val/loss'].item()!r}\n")


class Slow(Callback):
    """Long enough steps to be killed in."""

    def on_train_batch_end(self, *_: Any) -> None:
        time.sleep(0.01)


def denoiser(length: int = 20, num_workers: int = 0) -> tuple[Task, LightningDataModule]:
    return Denoiser(), Data(length, num_workers)


def surrogate(**options: Any) -> tuple[Task, LightningDataModule]:
    flow = np.random.default_rng(0).normal(size=(6, 6, 1, 8, 8))
    data = TrajectoryDataModule(flow, boundary="periodic", batch_size=3, unroll_steps=2)
    return SurrogateTask(TINY, training="pushforward", unroll_steps=2, noise=0.1), data


def diffusion(**options: Any) -> tuple[Task, LightningDataModule]:
    return DiffusionTask(TINY), ImageDataModule("digits", batch_size=200)


def hvae(**options: Any) -> tuple[Task, LightningDataModule]:
    network = HVAENetwork(
        resolutions=(Resolution(0, 8, cells=2), Resolution(2, 8)), options={"share": "per_resolution"}
    )
    return HVAETask(network, kl_warmup=0.5), ImageDataModule("digits", batch_size=200)


MAKE = {"denoiser": denoiser, "surrogate": surrogate, "diffusion": diffusion, "hvae": hvae}


def train(folder: Path, options: dict[str, Any], *callbacks: Callback) -> None:
    """The command that is started again and again; OPTIONS: the names popped here, and those of the trainer."""
    own = dict(options)
    every, make = own.pop("every", 3), MAKE[own.pop("task", "denoiser")]
    given = {key: own.pop(key) for key in ("length", "num_workers") if key in own}
    averaging = [EMAWeightAveraging(decay=0.9)] if own.pop("ema", False) else []
    staged = [StagedTraining(fractions=(0.4, 0.6), freeze=True)] if own.pop("staged", False) else []
    seed_everything(3, verbose=False)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        deterministic=True,
        callbacks=[
            *staged,
            *averaging,
            *callbacks,
            Keep(),
            *checkpoints(folder, every_n_steps=every, monitor="val/loss"),
        ],
        plugins=[AtomicCheckpointIO()],
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **own,
    )
    task, data = make(**given)
    trainer.fit(task, data, ckpt_path=newest_whole_checkpoint(folder))


def outcome(folder: Path) -> dict[str, Any]:
    """All that a finished run has left behind."""
    last = torch.load(newest_whole_checkpoint(folder) or "", weights_only=True)
    best = torch.load(folder / "best.ckpt", weights_only=True)
    kept = ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers", "global_step")
    (score,) = (state["best_model_score"] for key, state in best["callbacks"].items() if "ModelCheckpoint" in key)
    lines = [line.split() for line in (folder / "validation.txt").read_text().splitlines()]
    return {
        "last": {key: last.get(key) for key in (*kept, "epoch")},
        "best": {key: best.get(key) for key in kept},
        "score": score,
        "logged steps": last["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"],
        "validation": sorted({(int(step), float(value)) for step, value in lines}),  # as a set: repeats must agree
    }


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return [] if torch.equal(a, b) else [where]
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [found for key in a for found in differences(a[key], b[key], f"{where}/{key}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        return [found for i, pair in enumerate(zip(a, b)) for found in differences(*pair, f"{where}/{i}")]
    return [] if type(a) is type(b) and a == b else [f"{where}: {a} != {b}"]


# ---- stopped by an exception, in one process: every moment of the loop ----------------------------------------


class Stopped(BaseException):
    pass


class StopAt(Callback):
    def __init__(self, batch: int, hook: str) -> None:
        self.batch, self.hook = batch, hook

    def _look(self, trainer: Trainer, hook: str) -> None:
        if trainer.fit_loop.total_batch_idx == self.batch and hook == self.hook:
            raise Stopped

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self._look(trainer, "start")

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._look(trainer, "end")

    def on_validation_end(self, trainer: Trainer, *_: Any) -> None:
        self._look(trainer, "validation")


# 7 batches an epoch; each list is one run, stopped once for each of its entries
SOME_MOMENTS = [
    [(5, "end")],
    [(6, "end")],
    [(13, "validation")],
    [(7, "start"), (9, "end"), (10, "start"), (15, "end")],
]
EVERY_MOMENT = [[(b, h)] for b in (0, 4, 5, 6, 7, 8, 13, 14, 15, 20) for h in ("start", "end", "validation")] + [
    [(a, "end"), (b, "end"), (b + 1, "start")] for a in (4, 6, 7) for b in (7, 9, 13, 14)
]
SETTINGS: dict[str, dict[str, Any]] = {
    "averaged": {"max_epochs": 3, "ema": True, "every": 1},
    "hvae": {"task": "hvae", "max_epochs": 3, "every": 1},
    "accumulated, validated in the epoch": {
        "max_steps": 11,
        "accumulate_grad_batches": 2,
        "val_check_interval": 3,
        "every": 1,
    },
}
MORE_SETTINGS: dict[str, dict[str, Any]] = {
    "rare": {"max_epochs": 3},
    "surrogate": {"task": "surrogate", "max_epochs": 3, "ema": True, "every": 1},
    "diffusion": {"task": "diffusion", "max_epochs": 3, "every": 2},
    "steps": {"max_steps": 20, "every": 1},
    "staged": {"max_steps": 20, "staged": True, "every": 1},
    "accumulated": {"max_steps": 11, "accumulate_grad_batches": 2, "every": 2, "ema": True},
    "validated across epochs": {
        "max_steps": 20,
        "val_check_interval": 4,
        "check_val_every_n_epoch": None,
        "every": 1,
    },
    "validated every second epoch": {"max_epochs": 4, "check_val_every_n_epoch": 2, "every": 1},
    "limited": {"max_epochs": 3, "limit_train_batches": 5, "every": 1},
    "one batch an epoch": {"max_epochs": 15, "length": 3, "every": 1},
    "at the ends of epochs": {"max_epochs": 3, "every": 7},
}


def check_stops(folder: Path, options: dict[str, Any], runs: list[list[tuple[int, str]]]) -> None:
    train(folder / "whole", options)
    wanted = outcome(folder / "whole")
    for number, stops in enumerate(runs):
        for stop in stops:
            try:
                train(folder / str(number), options, StopAt(*stop))
            except Stopped:
                continue
        train(folder / str(number), options)
        assert differences(outcome(folder / str(number)), wanted) == [], f"stopped at {stops}"


@pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS.keys())
def test_stopped_and_resumed(options: dict[str, Any], tmp_path: Path) -> None:
    check_stops(tmp_path, options, SOME_MOMENTS)


@pytest.mark.slow
@pytest.mark.parametrize("options", (SETTINGS | MORE_SETTINGS).values(), ids=(SETTINGS | MORE_SETTINGS).keys())
def test_stopped_at_every_moment(options: dict[str, Any], tmp_path: Path) -> None:
    check_stops(tmp_path, options, EVERY_MOMENT)


# ---- killed, in processes of their own ---------------------------------------------------------------------


def train_until_killed(folder: Path, options: dict[str, Any], moment: str) -> None:
    """MOMENT: seconds after which the driver kills, or `write:N`: the N-th checkpoint kills when half of it is written."""
    if moment.startswith("write:"):
        left, sync = [int(moment.removeprefix("write:"))], os.fsync

        def cut_and_die(descriptor: int) -> None:
            status = os.fstat(descriptor)
            left[0] -= stat.S_ISREG(status.st_mode)  # the folder is synced as well
            if left[0] == 0:
                os.ftruncate(descriptor, status.st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            sync(descriptor)

        os.fsync = cut_and_die
    train(folder, options, Slow())


def drive(folder: Path, options: dict[str, Any], moments: list[str]) -> None:
    """Start, kill, and start again until a run ends by itself; write down how each one ended."""
    fork = multiprocessing.get_context("fork")
    train_whole = fork.Process(target=train, args=(folder / "whole", options))
    train_whole.start()
    train_whole.join()
    ends = [train_whole.exitcode]
    for moment in [*moments, "never"]:
        process = fork.Process(target=train_until_killed, args=(folder / "killed", options, moment))
        process.start()
        if moment[0].isdigit():
            process.join(float(moment))
            process.kill()
        process.join()
        ends.append(process.exitcode)
        found = newest_whole_checkpoint(folder / "killed")
        print(moment, process.exitcode, found and found.name, flush=True)
    (folder / "ends.json").write_text(json.dumps(ends))


def check_kills(folder: Path, options: dict[str, Any], moments: list[str]) -> list[int]:
    command = [sys.executable, __file__, "drive", str(folder), json.dumps(options), *moments]
    folder.mkdir(exist_ok=True)
    with open(
        folder / "output.txt", "w"
    ) as output:  # not a pipe: the workers of a killed run would hold it for seconds
        code = subprocess.run(command, stdout=output, stderr=output, timeout=600).returncode
    said = (folder / "output.txt").read_text()
    assert code == 0, said
    ends: list[int] = json.loads((folder / "ends.json").read_text())
    assert ends[0] == ends[-1] == 0, said
    assert differences(outcome(folder / "killed"), outcome(folder / "whole")) == [], said
    return ends


def test_killed_and_resumed(tmp_path: Path) -> None:
    options = {"max_epochs": 4, "accumulate_grad_batches": 2, "num_workers": 2, "ema": True, "every": 2}
    ends = check_kills(tmp_path, options, ["write:2", "1.5"])
    assert ends[1] == -signal.SIGKILL


@pytest.mark.slow
def test_killed_at_many_moments(tmp_path: Path) -> None:
    chance = random.Random(0)
    for number, options in enumerate(
        (
            {"max_epochs": 12, "every": 1},
            {"max_epochs": 12, "every": 3, "num_workers": 2, "ema": True, "accumulate_grad_batches": 2},
        )
    ):
        moments = [f"{chance.uniform(0.1, 1.5):.3f}" for _ in range(20)]
        moments += [f"write:{chance.randint(1, 5)}" for _ in range(10)]
        chance.shuffle(moments)
        ends = check_kills(tmp_path / str(number), options, moments)
        assert ends.count(-signal.SIGKILL) >= 10


@pytest.mark.slow
def test_the_same_command_again(tmp_path: Path) -> None:
    options = {"max_epochs": 30, "every": 3}
    chance = random.Random(1)
    command = [sys.executable, __file__, "train", str(tmp_path / "killed"), json.dumps(options)]
    for _ in range(6):
        process = subprocess.Popen(command)
        while not list((tmp_path / "killed").glob("step=*")) and process.poll() is None:
            time.sleep(0.1)
        time.sleep(chance.uniform(0, 8))
        process.kill()
        process.wait()
    assert subprocess.run(command, timeout=300).returncode == 0
    train(tmp_path / "whole", options)
    assert differences(outcome(tmp_path / "killed"), outcome(tmp_path / "whole")) == []


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if sys.argv[1] == "train":
        train_until_killed(Path(sys.argv[2]), json.loads(sys.argv[3]), "never")
    else:
        drive(Path(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4:])
