"""Two processes (gloo, CPU) train what one process trains on the same global batch; levels can be sharded over them.

As a script this file is what the processes run: `SCRIPT PART FOLDER`.
"""

import copy
import multiprocessing
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from lightning import LightningDataModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.utils.data import DataLoader, Dataset

from multiresnet.data import ImageDataModule
from multiresnet.data.loading import Draw, make_loader
from multiresnet.hvae import Resolution
from multiresnet.models import MultiResNet, ResidualUNet
from multiresnet.tasks import HVAENetwork, HVAETask
from multiresnet.tasks.base import Task
from multiresnet.tasks.checkpointing import AtomicCheckpointIO, StepCheckpoint, newest_whole_checkpoint
from multiresnet.tasks.compute import ShardedLevels, shard_levels
from multiresnet.tasks.network import Network, NetworkSize

SMALL: dict[str, Any] = {"channels": (16, 16), "num_blocks": 1}
GLOBAL_BATCH = 4


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
    """22 examples: with 4 in a batch the last one is not full."""

    def __init__(self, processes: int, validated: int) -> None:
        super().__init__()
        self.batch_size, self.validated = GLOBAL_BATCH // processes, validated

    def train_dataloader(self) -> DataLoader[Any]:
        return make_loader(Images(22), batch_size=self.batch_size, shuffle=True, seed=5)

    def val_dataloader(self) -> DataLoader[Any]:
        return make_loader(Images(self.validated), batch_size=self.batch_size, shuffle=False)


class Copy(Task):
    def __init__(self) -> None:
        super().__init__(Network(options=SMALL), lr=1e-3, weight_decay=0.01, warmup=0.1)

    def read_data(self, data: Any) -> dict[str, Any]:
        return {"channels": 1}

    def network_size(self) -> NetworkSize:
        return NetworkSize(in_channels=1, out_channels=1)

    def training_step(self, x: Tensor, batch_idx: int) -> Tensor:
        return (self.model(x) - x).square().mean()

    def on_after_backward(self) -> None:
        without = [name for name, p in self.named_parameters() if p.grad is None]
        assert not without, without

    def validation_step(self, x: Tensor, batch_idx: int) -> None:
        self.log("val/loss", (self.model(x) - x).square().mean(), batch_size=len(x), sync_dist=True)


def fit(folder: Path, validated: int = 8, **options: Any) -> dict[str, Any]:
    """Train in `folder`, from its newest checkpoint; weights and metrics, on every process."""
    seed_everything(3, verbose=False)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        gradient_clip_val=0.1,  # the norm of all processes' gradients
        callbacks=[*options.pop("callbacks", []), StepCheckpoint(folder, every_n_steps=4, keep=3)],
        plugins=[AtomicCheckpointIO()],
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(Copy(), Data(options["devices"], validated), ckpt_path=newest_whole_checkpoint(folder))
    weights = torch.load(folder / "step=12.ckpt", weights_only=True)["state_dict"]
    return {"weights": weights, "val/loss": float(trainer.callback_metrics["val/loss"])}


def run_two_and_one(folder: Path) -> None:
    found = {"two": fit(folder / "two", devices=2, strategy="ddp_fork")}  # forks come before anything else has run
    for step in (8, 12):
        (folder / "two" / f"step={step}.ckpt").rename(folder / f"first-{step}.ckpt")
    found["two, resumed"] = fit(folder / "two", devices=2, strategy="ddp_fork")
    found["two, 5 validated"] = fit(folder / "five", devices=2, strategy="ddp_fork", validated=5)
    found["one"] = fit(folder / "one", devices=1)
    torch.save(found, folder / "found.pt")


def run_hvae(folder: Path) -> None:
    """Random latents: two processes train as two processes do, and are resumed."""
    found = {}
    for name in ("whole", "resumed"):
        seed_everything(3, verbose=False)
        network = HVAENetwork(resolutions=(Resolution(0, 8, cells=2), Resolution(2, 8)))
        trainer = Trainer(
            accelerator="cpu",
            devices=2,
            strategy="ddp_fork",
            max_steps=6,
            callbacks=[StepCheckpoint(folder / "hvae", every_n_steps=3, keep=3)],
            plugins=[AtomicCheckpointIO()],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        data = ImageDataModule("digits", batch_size=64)
        trainer.fit(HVAETask(network), data, ckpt_path=newest_whole_checkpoint(folder / "hvae"))
        found[name] = torch.load(folder / "hvae" / "step=6.ckpt", weights_only=True)["state_dict"]
        (folder / "hvae" / "step=6.ckpt").unlink()
    torch.save(found, folder / "found.pt")


def shard(rank: int, folder: Path, processes: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=processes)
    mesh = init_device_mesh("cpu", (processes,))
    networks: dict[str, Callable[[], nn.Module]] = {
        "MultiResNet": lambda: MultiResNet(2, 1, **SMALL),
        "strict": lambda: MultiResNet(2, 1, **SMALL, merge="strict", patch_levels=0),
        "ResidualUNet": lambda: ResidualUNet(2, 1, **SMALL),
    }
    found = {}
    for name, build in networks.items():
        torch.manual_seed(0)
        whole = build()
        for p in whole.parameters():
            nn.init.normal_(p, std=0.1)
        sharded, x = copy.deepcopy(whole), torch.randn(4, 2, 12, 12)
        shard_levels(sharded, mesh)
        held = sum(p.to_local().numel() for p in sharded.parameters()) / sum(p.numel() for p in whole.parameters())
        y, wanted = sharded(x.chunk(processes)[rank]), whole(x)
        (y.square().mean() + 0).backward()
        wanted.square().mean().backward()
        pairs = zip(sharded.parameters(), whole.parameters())
        gradients = max(float((p.grad.full_tensor() - q.grad).abs().max()) for p, q in pairs)
        output = float((y - wanted.chunk(processes)[rank]).detach().abs().max())
        found[name] = {"held": held, "output": output, "gradients": gradients, "units": _units(sharded)}
    if rank == 0:
        torch.save(found, folder / "found.pt")
    dist.barrier()
    dist.destroy_process_group()


def _units(model: nn.Module) -> int:
    return sum(type(module).__name__.startswith("FSDP") for module in model.modules())


def run_shards(folder: Path) -> None:
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=shard, args=(rank, folder, 2)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]


def run_sharded_training(folder: Path) -> None:
    """Lightning starts the second process by running this script again."""
    from lightning.pytorch.strategies import ModelParallelStrategy

    def strategy() -> Any:
        return ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1, save_distributed_checkpoint=False)

    found = fit(folder / "sharded", devices=2, strategy=strategy(), callbacks=[ShardedLevels()])
    if os.environ.get("LOCAL_RANK", "0") == "0":
        torch.save({"sharded": found}, folder / "found.pt")


def run(part: str, folder: Path) -> dict[str, Any]:
    with open(folder / "output.txt", "w") as output:
        command = [sys.executable, __file__, part, str(folder)]
        code = subprocess.run(command, stdout=output, stderr=output, timeout=300).returncode
    assert code == 0, (folder / "output.txt").read_text()
    found: dict[str, Any] = torch.load(folder / "found.pt", weights_only=True)
    return found


def largest_difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def test_two_processes_train_what_one_trains(tmp_path: Path) -> None:
    found = run("two", tmp_path)
    one, two = found["one"], found["two"]
    assert largest_difference(one["weights"], two["weights"]) < 1e-6
    assert largest_difference(torch.load(tmp_path / "one" / "step=4.ckpt")["state_dict"], one["weights"]) > 1e-4
    assert two["val/loss"] == pytest.approx(one["val/loss"], rel=1e-5)
    # resumed at step 4 of 12, in the middle of an epoch
    assert largest_difference(found["two, resumed"]["weights"], two["weights"]) == 0
    assert found["two, resumed"]["val/loss"] == two["val/loss"]
    # 5 examples on 2 processes: Lightning's sampler gives the first one to both
    task = Copy.load_from_checkpoint(tmp_path / "five" / "step=12.ckpt").eval()
    images = Images(5).images
    with torch.no_grad():
        errors = (task.model(images) - images).square().mean((1, 2, 3))
    doubled = float(torch.cat([errors, errors[:1]]).mean())
    assert found["two, 5 validated"]["val/loss"] == pytest.approx(doubled, rel=1e-5)


def test_two_processes_train_an_hvae_and_go_on(tmp_path: Path) -> None:
    found = run("hvae", tmp_path)
    assert largest_difference(found["whole"], found["resumed"]) == 0
    start = torch.load(tmp_path / "hvae" / "step=3.ckpt", weights_only=True)["state_dict"]
    assert largest_difference(start, found["whole"]) > 1e-4


def test_sharded_levels_compute_the_same(tmp_path: Path) -> None:
    found = run("shards", tmp_path)
    assert found.keys() == {"MultiResNet", "strict", "ResidualUNet"}
    for name, result in found.items():
        assert result["units"] == 3, name  # two levels and the rest
        assert result["output"] < 1e-5 and result["gradients"] < 1e-5, name
        assert 0.45 < result["held"] < 0.55, name


@pytest.mark.slow
def test_sharded_training_is_training(tmp_path: Path) -> None:
    sharded = run("training", tmp_path)["sharded"]
    for later in ("step=8.ckpt", "step=12.ckpt"):
        (tmp_path / "sharded" / later).unlink()
    resumed = run("training", tmp_path)["sharded"]
    assert largest_difference(sharded["weights"], resumed["weights"]) == 0
    one = fit(tmp_path / "one", devices=1)
    assert largest_difference(sharded["weights"], one["weights"]) < 1e-6


def test_sharded_levels_name_the_strategy_that_they_need(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ModelParallelStrategy.*got SingleDeviceStrategy"):
        fit(tmp_path, devices=1, callbacks=[ShardedLevels()])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    parts = {"two": run_two_and_one, "hvae": run_hvae, "shards": run_shards, "training": run_sharded_training}
    parts[sys.argv[1]](Path(sys.argv[2]))
