import pytest
import torch
from lightning import Trainer
from torch import nn
from torch.utils.data import DataLoader

import multiresnet as mrn
from multiresnet.tasks.base import Task
from multiresnet.tasks.resolutions import coarsen, project_to_outputs
from multiresnet.tasks.staged import StagedTraining

SPACE = mrn.spaces.Haar(2, "periodic")


class Regression(Task):
    """(x, y) -> mean squared error on the grid of the stage; remembers what it saw."""

    def __init__(self, model, **options):
        super().__init__(model, **{"lr": 1e-2, "weight_decay": 0.0, "warmup": 0.1, **options})
        self.seen = []

    def training_step(self, batch, batch_idx):
        model, (x, y) = self.at_stage(*batch)
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.seen.append((self.stage, tuple(x.shape[2:]), rate))
        loss = (model(x) - y).square().mean()
        self.guard(loss, model, x)
        return loss


def net(**options):
    return mrn.MultiResNet(1, 1, space=SPACE, **{"channels": (16, 16, 16), "num_blocks": 1, **options})


def loader():
    x = torch.randn(12, 1, 16, 12)
    return DataLoader(list(zip(x, x.roll(1, -1))), batch_size=3)


def fit(task, staged, **options):
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(
        accelerator="cpu", devices=1, callbacks=[staged], **quiet, **({"max_steps": 20, "max_epochs": -1} | options)
    )
    trainer.fit(task, loader())
    return trainer


@pytest.mark.parametrize("parts", [{"fractions": (0.25, 0.25, 0.5)}, {"steps": (5, 5, None)}, {"steps": (5, 5, 10)}])
def test_stages_in_order_on_their_grids(parts):
    task = Regression(net())
    fit(task, StagedTraining(**parts))
    stages, sizes, rates = zip(*task.seen)
    assert stages == (0,) * 5 + (1,) * 5 + (2,) * 10
    assert sizes == ((4, 3),) * 5 + ((8, 6),) * 5 + ((16, 12),) * 10
    # each stage rises from almost nothing and comes down again
    for start, stop in ((0, 5), (5, 10), (10, 20)):
        assert rates[start] < 0.2 * max(rates[start:stop]) and rates[stop - 1] < 0.5 * max(rates[start:stop])
    assert task.stage is None and task.span == (0.0, 1.0)


def test_fewer_stages_than_levels_are_the_finest_ones():
    task = Regression(net())
    fit(task, StagedTraining(fractions=(0.5, 0.5)))
    assert {stage for stage, *_ in task.seen} == {1, 2}


@pytest.mark.parametrize(
    "build",
    [
        net,
        lambda: net(sweeps=2, num_blocks=((1, 1, 1), (1, 1, 1))),
        lambda: net(norm="batch", skip="approximation"),
        lambda: mrn.ResidualUNet(1, 1, space=SPACE, channels=(16, 16, 16), norm="batch"),
        lambda: net(patch_levels=0, merge="strict"),
    ],
)
def test_a_frozen_stage_gives_the_same_bits_ever_after(build):
    model = build()
    x = [torch.randn(2, 1, 16 >> (2 - i), 12 >> (2 - i)) for i in range(2)]
    kept, changed = {}, []

    class Watch(StagedTraining):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            before = pl_module.stage
            output = outputs(before) if before in (0, 1) else None
            super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
            if output is not None and pl_module.stage != before:
                kept[before] = output

    def outputs(i):
        model.eval()
        with torch.no_grad():
            y = model.stage(i)(x[i])
        model.train()
        return y

    task = Regression(model)
    fit(task, Watch(fractions=(0.3, 0.3, 0.4), freeze=True))
    for i, before in kept.items():
        assert torch.equal(before, outputs(i))
        changed.append(i)
    assert changed == [0, 1]
    assert all(p.requires_grad for p in model.parameters())


def test_without_freezing_the_coarse_stage_goes_on_learning():
    model = net()
    x = torch.randn(2, 1, 4, 3)
    task = Regression(model)
    fit(task, StagedTraining(steps=(10, None)), max_steps=10 + 1)
    before = model.stage(1)(x.repeat(1, 1, 2, 2)).detach()
    fit(task, StagedTraining(steps=(1, None)))
    assert not torch.equal(before, model.stage(1)(x.repeat(1, 1, 2, 2)))


def test_a_stage_learns_the_projected_problem():
    """Averaging is what the coarse grid can represent: targets that the stage can reach are reached."""
    model = net(channels=(16, 16))
    x = torch.randn(64, 1, 8, 8)
    y = mrn.haar_analysis(x, spatial_dims=2)[0].repeat_interleave(2, -1).repeat_interleave(2, -2)  # blocks of means
    task = Regression(model, lr=3e-3)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    staged = StagedTraining(fractions=(0.98, 0.02), freeze=True)
    Trainer(accelerator="cpu", max_steps=300, max_epochs=-1, callbacks=[staged], **quiet).fit(
        task, DataLoader(list(zip(x, y)), batch_size=16)
    )
    coarse_x, coarse_y = coarsen(model, x, 0), coarsen(model, y, 0)
    error = (model.stage(0)(coarse_x) - coarse_y).square().mean() / coarse_y.square().mean()
    assert error < 0.02


def test_projected_targets_are_means():
    model = net(patch_levels=0)
    x = torch.randn(1, 1, 8, 8)
    coarse, middle, fine = project_to_outputs(model, x, model.forward_resolutions(x))
    assert fine is x
    torch.testing.assert_close(middle, nn.functional.avg_pool2d(x, 2))
    torch.testing.assert_close(coarse, nn.functional.avg_pool2d(x, 4))


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "not both"),
        ({"fractions": (0.5, 0.5), "steps": (1, 2)}, "not both"),
        ({"fractions": (0.5, 0.6)}, "sum to 1"),
        ({"fractions": (1.5, -0.5)}, "positive"),
        ({"steps": (None, 3)}, "only the last"),
        ({"steps": (0, 3)}, ">= 1"),
    ],
)
def test_parts_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        StagedTraining(**options)


def test_refused_at_the_start_of_training():
    with pytest.raises(ValueError, match="4 stages asked for, the network has 3"):
        fit(Regression(net()), StagedTraining(fractions=(0.25,) * 4))
    with pytest.raises(ValueError, match="take 30 steps, the training has only 20"):
        fit(Regression(net()), StagedTraining(steps=(30, None)))
    with pytest.raises(ValueError, match="around Conv2d"):
        fit(Regression(nn.Conv2d(1, 1, 1)), StagedTraining(fractions=(0.5, 0.5)))
    with pytest.raises(ValueError, match="fractions where time"):
        fit(Regression(net()), StagedTraining(steps=(3, None)), max_steps=-1, max_time="00:00:00:05")


def test_a_resumed_run_is_in_the_right_stage(tmp_path):
    task = Regression(net())
    trainer = fit(task, StagedTraining(fractions=(0.25, 0.25, 0.5)), max_steps=20, limit_train_batches=4)
    assert len(task.seen) == 20
    first = Regression(net())
    staged = StagedTraining(fractions=(0.25, 0.25, 0.5))

    class Stop(StagedTraining):
        def on_train_batch_end(self, trainer, pl_module, *args):
            if trainer.global_step == 8:
                trainer.save_checkpoint(tmp_path / "a.ckpt")

    fit(first, Stop(fractions=(0.25, 0.25, 0.5)))
    second = Regression(net())
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    again = Trainer(accelerator="cpu", max_steps=20, max_epochs=-1, callbacks=[staged], **quiet)
    again.fit(second, loader(), ckpt_path=tmp_path / "a.ckpt")
    assert [stage for stage, *_ in second.seen] == [1, 1] + [2] * 10
    assert trainer.global_step == again.global_step == 20


def test_warm_up_is_as_long_for_a_stage_as_for_the_whole_training():
    """Adam begins anew: a warm-up of a tenth of a short stage is a few steps, and can kill the network."""
    task = Regression(net(), warmup=0.05)
    fit(task, StagedTraining(fractions=(0.1, 0.9)), max_steps=200)
    rates = [rate for _, _, rate in task.seen]
    assert max(range(20), key=rates.__getitem__) == 10
    assert 20 + max(range(180), key=rates[20:].__getitem__) == 30
