"""The task: what is learned, steps that are left out, labels, checkpoints, pictures."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer, seed_everything
from torch import Tensor, nn

from multiresnet.data import ImageDataModule
from multiresnet.hvae import HVAE, Resolution
from multiresnet.tasks import HVAENetwork, HVAEPictures, HVAETask, MovingAverage
from multiresnet.tasks.hvae.network import HVAESize

SMALL = (Resolution(0, 16, cells=2), Resolution(1, 16, cells=3), Resolution(3, 16))


def network(**options: Any) -> HVAENetwork:
    return HVAENetwork(resolutions=SMALL, options={"latent_channels": 4, **options})


def fit(task: HVAETask, folder: Path | None = None, *, batch_size: int = 32, **options: Any) -> Trainer:
    seed_everything(0, verbose=False)
    arguments: dict[str, Any] = {"max_steps": 3, "max_epochs": -1, "gradient_clip_val": 1.0, **options}
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **arguments,
    )
    trainer.fit(task, ImageDataModule("digits", batch_size=batch_size))
    return trainer


def test_it_learns() -> None:
    """Independent pixels with the best probability each have a bound of their entropy; the network finds a better one."""
    layout = (Resolution(0, 16), Resolution(1, 32, cells=3), Resolution(3, 32))
    task = HVAETask(HVAENetwork(layout, {"share": "per_resolution", "likelihood": "bernoulli"}), classes=0, lr=1e-2)
    trainer = fit(task, max_steps=300, batch_size=64)
    data = ImageDataModule("digits", batch_size=400)
    data.setup()
    x = torch.cat([batch["image"] for batch in data.train_dataloader()])
    p = (x > 0).double().mean(0)
    independent = float(torch.special.entr(p).sum() + torch.special.entr(1 - p).sum())
    (found,) = trainer.validate(task, data, verbose=False)
    assert found["val/nats"] < 0.97 * independent
    assert found["val/loss"] == pytest.approx(found["val/nats"] / 64 / math.log(2), rel=1e-4)
    parts = [value for name, value in found.items() if name.startswith("val/kl_level_")]
    assert len(parts) == 3 and 0 < sum(parts) < found["val/nats"]


def test_a_tighter_bound_in_validation() -> None:
    task = HVAETask(network(), classes=0, bound_samples=8)
    trainer = fit(task, max_steps=2)
    data = ImageDataModule("digits", batch_size=32)
    (found,) = trainer.validate(task, data, verbose=False)
    assert found["val/bound"] < found["val/loss"]
    x = torch.cat([task.read(batch)[0] for batch in data.val_dataloader()])
    bound = task.hvae.bits_per_dim(task.hvae.log_likelihood(x, samples=8)).mean()
    assert found["val/bound"] == pytest.approx(float(bound), rel=1e-3)


def test_a_step_with_a_large_gradient_is_left_out() -> None:
    task = HVAETask(network(), classes=0, skip_above=1e-6, weight_decay=0.1)
    before: dict[str, Tensor] = {}
    task.on_train_start = lambda: before.update({k: v.clone() for k, v in task.state_dict().items()})  # type: ignore[method-assign]
    trainer = fit(task)
    assert all(torch.equal(before[name], value) for name, value in task.state_dict().items())
    assert float(trainer.callback_metrics["train/skipped"]) == 3


def test_divergences_are_warmed_up() -> None:
    class Known(HVAETask):
        weights: list[float] = []

        def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
            x, _ = self.read(batch)
            torch.manual_seed(0)
            loss = super().training_step(batch, batch_idx)
            torch.manual_seed(0)
            evidence = self.model(x)
            bits = (
                self.hvae.bits_per_dim(evidence.log_likelihood).mean(),
                -self.hvae.bits_per_dim(evidence.kl.sum(1)).mean(),
            )
            self.weights.append(float(((loss - bits[0]) / -bits[1] * -1).detach()))
            return loss

    task = Known(network(), classes=0, kl_warmup=0.5)
    with torch.no_grad():
        fit(task, max_steps=1)
    task = Known(network(start="gaussian"), classes=0, kl_warmup=0.5)
    task.weights = []
    fit(task, max_steps=8)
    assert task.weights == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1, 1, 1], abs=1e-3)


def test_steps_are_coarse_and_fine_in_turn() -> None:
    seen: list[int] = []
    task = HVAETask(HVAENetwork((Resolution(0, 8, cells=5), Resolution(1, 8)), {"share": "per_resolution"}), classes=0)
    task.on_fit_start = lambda: task.hvae.register_forward_hook(  # type: ignore[method-assign,assignment]
        lambda module, x, evidence: seen.append(evidence.kl.shape[1])
    )
    fit(task, max_steps=3, limit_val_batches=0)
    assert seen == [4, 6, 4]  # 1 + 1 and 2 or 4 of the run


def test_coarse_steps_in_training_make_fine_ones_free() -> None:
    """Cells that see one length of step learn its error too: twice the steps then cost more of the bound."""

    def cost(refine: tuple[float, ...]) -> float:
        layout = (Resolution(0, 16, cells=5), Resolution(1, 16, cells=5), Resolution(3, 16))
        network = HVAENetwork(layout, {"share": "per_resolution", "latent_channels": 4})
        task = HVAETask(network, classes=0, lr=1e-2, refine=refine)
        fit(task, max_steps=150, batch_size=64, limit_val_batches=0)
        (x,) = (batch["image"] for batch in ImageDataModule("digits", batch_size=400).val_dataloader())
        model = task.hvae.eval()
        x, seed = model.likelihood.quantise(x), torch.Generator()
        with torch.no_grad():
            found, finer = (float(m(x, generator=seed.manual_seed(0)).elbo.mean()) for m in (model, model.refined(2)))
        return finer / found - 1

    costs = cost((0.5, 1.0)), cost((1.0,))
    assert costs[0] < 0.01 and costs[0] < costs[1] / 3, costs


def test_labels_and_pictures(tmp_path: Path) -> None:
    task = HVAETask(network(), drop_label=0.2)
    callbacks = [MovingAverage(0.9), HVAEPictures(n=20)]
    fit(task, tmp_path, max_steps=2, val_check_interval=2, callbacks=callbacks)
    assert task.num_classes == 10 and task.hvae.emb_channels == 64
    assert (tmp_path / "samples" / "step-00000002.png").exists() and (tmp_path / "chain.png").exists()
    images = task.sample(3, label=4, seed=1)
    assert torch.equal(images, task.sample(3, label=torch.tensor([4, 4, 4]), seed=1))
    assert task.sample(2, seed=0, batch_size=1).shape == (2, 1, 8, 8)
    assert not torch.equal(task.sample(3, label=4, seed=1, refine=2.0), images)
    with pytest.raises(ValueError, match="labels must be 0 ... 9"):
        task.sample(1, label=11)


def test_checkpoint_holds_the_network_whole(tmp_path: Path) -> None:
    task = HVAETask(network(share=2, time_embedding=True))
    trainer = fit(task)
    trainer.save_checkpoint(tmp_path / "it.ckpt")
    again = HVAETask.load_from_checkpoint(tmp_path / "it.ckpt", weights_only=True)
    assert isinstance(again.hvae, HVAE) and again.hvae.config == task.hvae.config
    assert torch.equal(again.sample(2, label=3, seed=0), task.sample(2, label=3, seed=0))


def test_suggested_resolutions() -> None:
    def levels(*size: int) -> list[tuple[int, int]]:
        return [(r.level, r.cells) for r in HVAENetwork().build(HVAESize(1, size)).resolutions]

    assert levels(64, 64) == [(0, 2), (1, 4), (2, 4), (3, 4), (4, 4), (6, 1)]
    assert levels(3, 3) == [(0, 4), (2, 1)] and levels(1, 1) == [(0, 1)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kl_warmup": 2.0}, "0 <= kl_warmup <= 1"),
        ({"skip_above": 0.0}, "skip_above > 0"),
        ({"classes": -1}, "classes >= 0"),
        ({"bound_samples": 0}, "bound_samples must be"),
        ({"refine": ()}, "refine must be one or more positive numbers"),
        ({"refine": (1.0, 0.0)}, "refine must be one or more positive numbers"),
        ({"lr": 0.0}, "lr > 0"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HVAETask(network(), **options)


def test_bad_uses() -> None:
    with pytest.raises(TypeError, match="must be a multiresnet.hvae.HVAE"):
        HVAETask(nn.Linear(1, 1))  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="no network yet"):
        HVAETask().sample(1)
    with pytest.raises(ValueError, match="the data have 10 classes, the network emb_channels=0"):
        fit(HVAETask(network().build(HVAESize(1, (8, 8)))))
    task = HVAETask(network().build(HVAESize(1, (8, 8))), classes=0)
    with pytest.raises(ValueError, match=r"must be in \[-1, 1\]"):
        task.training_step({"image": torch.full((2, 1, 8, 8), 5.0)}, 0)
