"""Checkpoints: atomic, checked before use, the newest kept, and a compiled network's readable without the compiler."""

import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.demos.boring_classes import BoringModel

from multiresnet.tasks.checkpointing import AtomicCheckpointIO, StepCheckpoint, checkpoints, newest_whole_checkpoint

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*Checkpoint directory .* exists and is not empty:UserWarning",
    "ignore:The '(train|val)_dataloader' does not have many workers",
)


def save(folder: Path, step: int, content: Any = None) -> Path:
    path = folder / f"step={step}.ckpt"
    AtomicCheckpointIO().save_checkpoint(content or {"step": step, "weight": torch.randn(1000)}, path)
    return path


def trainer(folder: Path, callbacks: list[Callback], **options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=1,
        **options,
    )


# ---- whole or not there ----------------------------------------------------------------------------------------


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, 1)
    before = path.read_bytes()

    def half(content: Any, file: Path) -> None:
        file.write_bytes(before[: len(before) // 2])
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="no space"):
        AtomicCheckpointIO().save_checkpoint({"step": 1}, path)
    assert path.read_bytes() == before
    assert newest_whole_checkpoint(tmp_path) == path  # the half file is not taken for one


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda d: (done.append(f"sync {os.fstat(d).st_size > 4000}"), sync(d)))
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append(f"{Path(a).parent == Path(b).parent}"), replace(a, b)))
    save(tmp_path / "new" / "folder", 1)
    assert done[:2] == ["sync True", "True"]
    with pytest.raises(TypeError, match="storage_options"):
        AtomicCheckpointIO().save_checkpoint({}, tmp_path / "a.ckpt", storage_options={})


# ---- the newest whole one --------------------------------------------------------------------------------------


def test_the_newest_is_the_one_with_the_most_steps(tmp_path: Path) -> None:
    assert newest_whole_checkpoint(tmp_path) is None
    for step in (900, 1000, 20):  # 1000 is neither the last in the alphabet nor the last written
        save(tmp_path, step)
    save(tmp_path, 0).rename(tmp_path / "best.ckpt")
    save(tmp_path, 0).rename(tmp_path / "step=2000.unfinished.ckpt")
    assert newest_whole_checkpoint(str(tmp_path)) == tmp_path / "step=1000.ckpt"


@pytest.mark.parametrize("part", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_passed_over(tmp_path: Path, part: float) -> None:
    before, newest = save(tmp_path, 3), save(tmp_path, 6)
    whole = newest.read_bytes()
    newest.write_bytes(whole[: int(part * len(whole))])
    with pytest.warns(UserWarning, match=r"step=6\.ckpt is damaged .*taking the one before"):
        assert newest_whole_checkpoint(tmp_path) == before
    newest.write_bytes(whole[:-1])  # one byte is enough
    with pytest.warns(UserWarning, match="damaged"):
        assert newest_whole_checkpoint(tmp_path) == before


def test_a_wrong_byte_is_found_although_torch_loads_it(tmp_path: Path) -> None:
    before, newest = save(tmp_path, 3), save(tmp_path, 6)
    with zipfile.ZipFile(newest) as archive:
        (data,) = (info for info in archive.infolist() if info.filename.endswith("data/0"))
    content = bytearray(newest.read_bytes())
    content[data.header_offset + 2000] ^= 1
    newest.write_bytes(content)
    torch.load(newest, weights_only=True)
    with pytest.warns(UserWarning, match="checksum of .*data/0"):
        assert newest_whole_checkpoint(tmp_path) == before


def test_nothing_whole_is_none_and_an_object_is_an_error(tmp_path: Path) -> None:
    save(tmp_path, 3).write_bytes(b"")
    with pytest.warns(UserWarning, match="damaged"):
        assert newest_whole_checkpoint(tmp_path) is None
    save(tmp_path, 6, {"hyper_parameters": {"root": Path("data")}})
    with pytest.raises(ValueError, match="weights_only=True: keep hyperparameters"):  # not: start from scratch
        newest_whole_checkpoint(tmp_path)


# ---- which ones are kept ---------------------------------------------------------------------------------------


class Fake(BoringModel):
    """Validation losses as given."""

    losses = (3.0, 1.0, 2.0, 4.0)

    def on_validation_epoch_end(self) -> None:
        self.log("val/loss", self.losses[self.current_epoch])


def test_two_newest_and_the_best_stay(tmp_path: Path) -> None:
    callbacks = checkpoints(tmp_path, every_n_steps=2, monitor="val/loss")
    run = trainer(tmp_path, callbacks, max_epochs=4, limit_train_batches=5)
    run.fit(Fake())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.ckpt", "step=18.ckpt", "step=20.ckpt"]
    assert run.checkpoint_callback is callbacks[0]  # what ckpt_path="best" asks
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["global_step"] == 10


def test_a_finished_run_started_again_changes_nothing(tmp_path: Path) -> None:
    def fit() -> tuple[torch.Tensor, dict[str, int]]:
        model = BoringModel()
        run = trainer(tmp_path, checkpoints(tmp_path, every_n_steps=3), max_steps=4)
        run.fit(model, ckpt_path=newest_whole_checkpoint(tmp_path))
        assert run.global_step == 4
        return model.layer.weight, {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}

    (first, files), (second, files_after) = fit(), fit()
    assert torch.equal(first, second)
    assert files == files_after and files.keys() == {"step=3.ckpt", "step=4.ckpt"}


def test_a_damaged_later_file_does_not_push_out_new_ones(tmp_path: Path) -> None:
    save(tmp_path, 9).write_bytes(b"broken")
    run = trainer(tmp_path, [StepCheckpoint(tmp_path, every_n_steps=2, keep=2)], max_steps=7)
    with pytest.warns(UserWarning, match=r"step=9\.ckpt is damaged"):
        run.fit(BoringModel(), ckpt_path=newest_whole_checkpoint(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step=6.ckpt", "step=7.ckpt", "step=9.ckpt"]


def test_none_is_saved_with_gradients_half_accumulated(tmp_path: Path) -> None:
    callbacks = [StepCheckpoint(every_n_steps=1, keep=100)]
    run = trainer(tmp_path, callbacks, max_epochs=2, limit_train_batches=5, accumulate_grad_batches=2)
    run.fit(BoringModel())
    found = {}
    for path in (tmp_path / "checkpoints").iterdir():
        loops = torch.load(path, weights_only=True)["loops"]["fit_loop"]
        found[path.name] = loops["epoch_loop.batch_progress"]["current"]["ready"]
    # the fifth batch of an epoch makes a step by itself; 6 is the end
    assert found == {f"step={n + 1}.ckpt": batches for n, batches in enumerate([2, 4, 5, 2, 4, 5])}


def test_nothing_is_written_by_fast_dev_run(tmp_path: Path) -> None:
    trainer(tmp_path, checkpoints(tmp_path, every_n_steps=1), fast_dev_run=True).fit(BoringModel())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"every_n_steps": 0}, {"every_n_steps": 5, "keep": 0}])
def test_numbers_below_one_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be >= 1"):
        StepCheckpoint("runs", **wrong)
