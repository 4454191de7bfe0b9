"""Compiled, channels last, in bfloat16, accumulated: the same network and the same training."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningDataModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from multiresnet.models import MultiResNet
from multiresnet.tasks.base import Task
from multiresnet.tasks.compute import Compute, default_precision
from multiresnet.tasks.network import Network, NetworkSize

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning")
SMALL: dict[str, Any] = {"channels": (16, 16), "num_blocks": 1}


class Data(LightningDataModule):
    def __init__(self, shape: tuple[int, ...] = (2, 8, 8), batch_size: int = 4) -> None:
        super().__init__()
        self.images = torch.randn(12, *shape, generator=torch.Generator().manual_seed(0))
        self.batch_size = batch_size

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.images, batch_size=self.batch_size)  # type: ignore[arg-type]

    val_dataloader = test_dataloader = predict_dataloader = train_dataloader


class Copy(Task):
    def __init__(self, model: nn.Module | Network | None = None, lr: float = 1e-3) -> None:
        super().__init__(Network(options=SMALL) if model is None else model, lr=lr, weight_decay=0.01, warmup=0.1)

    def read_data(self, data: Any) -> dict[str, Any]:
        return {"spatial_dims": data.images.ndim - 2}

    def network_size(self) -> NetworkSize:
        return NetworkSize(2, 2, spatial_dims=self.facts["spatial_dims"])

    def training_step(self, x: Tensor, batch_idx: int) -> Tensor:
        return (self.model(x) - x).square().mean()

    def validation_step(self, x: Tensor, batch_idx: int) -> None:
        self.log("val/loss", self.training_step(x, batch_idx))

    test_step = validation_step

    def predict_step(self, x: Tensor, batch_idx: int) -> Tensor:
        return self.model(x)


def trainer(folder: Path, *callbacks: Any, **options: Any) -> Trainer:
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    return Trainer(
        accelerator="cpu", callbacks=list(callbacks), default_root_dir=folder, max_epochs=1, **quiet, **options
    )


def fitted(folder: Path, *callbacks: Any, data: Data | None = None, **options: Any) -> Copy:
    torch.manual_seed(0)
    task = Copy()
    trainer(folder, *callbacks, **options).fit(task, data or Data())
    return task


def largest_difference(a: nn.Module, b: nn.Module) -> float:
    weights, others = a.state_dict(), b.state_dict()
    assert weights.keys() == others.keys()
    return max(float((weights[name] - others[name]).abs().max()) for name in weights)


# ---- channels last ---------------------------------------------------------------------------------------------


class Formats:
    """The memory formats of what the first convolution gets."""

    def __init__(self, model: nn.Module) -> None:
        self.seen: set[bool] = set()
        conv = next(m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d)))
        conv.register_forward_pre_hook(self.look)

    def look(self, conv: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        layout = torch.channels_last if inputs[0].ndim == 4 else torch.channels_last_3d
        self.seen.add(inputs[0].is_contiguous(memory_format=layout))


@pytest.mark.parametrize(
    ("shape", "layout"), [((2, 8, 8), torch.channels_last), ((2, 8, 8, 8), torch.channels_last_3d)]
)
def test_channels_last_everywhere_and_the_same_weights(
    shape: tuple[int, ...], layout: torch.memory_format, tmp_path: Path
) -> None:
    data = Data(shape)
    task = fitted(tmp_path, Compute(channels_last=True), data=data)
    weights = [p for p in task.parameters() if p.ndim == len(shape) + 1]
    assert weights and all(p.is_contiguous(memory_format=layout) for p in weights)
    assert largest_difference(task, fitted(tmp_path, data=data)) < 1e-5
    formats = Formats(task.model)
    runs = trainer(tmp_path, Compute(channels_last=True))
    runs.validate(task, data, verbose=False)
    runs.test(task, data, verbose=False)
    runs.predict(task, data)
    assert formats.seen == {True}
    assert not task.model._forward_pre_hooks  # nothing is left behind


def test_a_network_from_a_checkpoint_is_laid_out_too(tmp_path: Path) -> None:
    task = fitted(tmp_path)
    path = tmp_path / "a.ckpt"
    task.trainer.save_checkpoint(path)
    fresh = Copy(Network(options=SMALL))
    trainer(tmp_path, Compute(channels_last=True)).test(fresh, Data(), ckpt_path=str(path), verbose=False)
    conv = max(fresh.model.parameters(), key=lambda p: p.ndim * p.numel())
    assert conv.is_contiguous(memory_format=torch.channels_last) and not conv.is_contiguous()


def test_channels_last_needs_two_or_three_dimensions(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="for 2-D and 3-D networks; MultiResNet has no such"):
        fitted(tmp_path, Compute(channels_last=True), data=Data((2, 8)))


# ---- precision -------------------------------------------------------------------------------------------------


def test_matmul_precision_is_set_while_it_runs_and_put_back(tmp_path: Path) -> None:
    seen = []

    class Watching(Copy):
        def training_step(self, x: Tensor, batch_idx: int) -> Tensor:
            seen.append(torch.get_float32_matmul_precision())
            return super().training_step(x, batch_idx)

    before = torch.get_float32_matmul_precision()
    trainer(tmp_path, Compute(matmul_precision="medium")).fit(Watching(), Data())
    assert set(seen) == {"medium"} and torch.get_float32_matmul_precision() == before
    with pytest.raises(ValueError, match="matmul_precision"):
        Compute(matmul_precision="low")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("gpu", "capabilities", "wanted"),
    [
        (True, {}, "bf16-mixed"),
        (False, {"avx512_bf16": True}, "32-true"),  # an old GPU: what its CPU can do does not matter
        (None, {"avx512_bf16": True}, "bf16-mixed"),
        (None, {"amx_bf16": True}, "bf16-mixed"),
        (None, {"avx2": True, "avx512_bf16": False}, "32-true"),
        (None, None, "32-true"),  # a torch that does not tell
    ],
)
def test_default_precision(
    gpu: bool | None, capabilities: dict[str, bool] | None, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bool(gpu))
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    if capabilities is not None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert default_precision() == wanted


def test_bfloat16_trains_float32_weights(tmp_path: Path) -> None:
    task = fitted(tmp_path, precision="bf16-mixed")
    assert {p.dtype for p in task.parameters()} == {torch.float32}
    assert 0 < largest_difference(task, fitted(tmp_path)) < 4e-2


# ---- compiled --------------------------------------------------------------------------------------------------


@pytest.mark.compile
def test_compiled_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same weights under the same names; the code of the kernels is torch's business, so its eager backend will do."""
    real, calls = torch.compile, []

    def eager(function: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(function)
        return real(function, backend="eager")

    monkeypatch.setattr(torch, "compile", eager)
    task = fitted(tmp_path, Compute(compile=True, channels_last=True))
    assert len(calls) == 1 and type(task.model) is MultiResNet
    task.trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert not any("_orig_mod" in name for name in torch.load(tmp_path / "a.ckpt", weights_only=True)["state_dict"])
    assert largest_difference(Copy.load_from_checkpoint(tmp_path / "a.ckpt"), task) == 0
    assert largest_difference(task, fitted(tmp_path)) < 1e-5
    copy.deepcopy(task.model)  # as the moving average does


@pytest.mark.compile
def test_a_checkpoint_of_a_wrapped_network_loads_without_the_wrapper(tmp_path: Path) -> None:
    task = fitted(tmp_path)
    task.model = torch.compile(task.model, backend="eager")  # type: ignore[assignment]
    task.trainer.save_checkpoint(path := tmp_path / "a.ckpt")
    names = torch.load(path, weights_only=True)["state_dict"].keys()
    assert all(name.startswith("model._orig_mod.") for name in names)
    weights = task.model._orig_mod.state_dict()
    for model in (None, MultiResNet(2, 2, **SMALL)):  # built from the checkpoint, or given
        loaded = Copy.load_from_checkpoint(path, **({"model": model} if model else {}))
        assert all(torch.equal(value, weights[name]) for name, value in loaded.model.state_dict().items())
    wrapped = Copy.load_from_checkpoint(path, model=torch.compile(MultiResNet(2, 2, **SMALL), backend="eager"))
    assert all(torch.equal(value, weights[name]) for name, value in wrapped.model._orig_mod.state_dict().items())


# ---- accumulated -----------------------------------------------------------------------------------------------


def test_accumulated_batches_are_one_large_batch(tmp_path: Path) -> None:
    large = fitted(tmp_path, data=Data(batch_size=6))
    accumulated = fitted(tmp_path, data=Data(batch_size=2), accumulate_grad_batches=3)
    assert largest_difference(large, accumulated) < 1e-6
    assert largest_difference(large, fitted(tmp_path, data=Data(batch_size=2))) > 1e-4
