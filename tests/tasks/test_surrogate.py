import datetime
import math
import warnings

import numpy as np
import pytest
import torch
from lightning import Trainer
from torch import nn

from multiresnet.data import TrajectoryDataModule
from multiresnet.tasks import SurrogateTask, relative_squared_error
from multiresnet.tasks.finite import first_non_finite


class Affine(nn.Module):
    """x -> scale x + shift, the first `out` channels."""

    def __init__(self, scale=1.0, shift=0.0, out=None):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.tensor(scale)), nn.Parameter(torch.tensor(shift))
        self.out = out

    def forward(self, x):
        return (self.scale * x + self.shift)[:, : self.out]


def shifting(trajectories=12, frames=9, size=16):
    """Waves that move one grid point per frame: a 3-point convolution predicts them exactly."""
    rng = np.random.default_rng(0)
    start = np.fft.irfft(rng.normal(size=(trajectories, 5)) + 1j * rng.normal(size=(trajectories, 5)), n=size) * size
    return np.stack([np.roll(start, t, axis=-1) for t in range(frames)], axis=1)[:, :, None]


def trainer(**options):
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(accelerator="cpu", devices=1, gradient_clip_val=1.0, **(quiet | options))


def convolution():
    return nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular", bias=False)


def test_errors_by_hand():
    truth, prediction = torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 3.0]])
    torch.testing.assert_close(relative_squared_error(prediction, truth), torch.tensor([1 / 25]))
    task = SurrogateTask(Affine(), mean=[1.0], std=[2.0])
    x, y = torch.full((1, 1, 1, 4), 5.0), torch.full((1, 1, 1, 4), 9.0)  # standardised: 2 and 4
    torch.testing.assert_close(task.rollout_error(x, y), torch.tensor([[0.5]]))
    torch.testing.assert_close(task.persistence_error(x, y), torch.tensor([[0.5]]))
    with pytest.raises(ValueError, match=r"\(1, 2\) and truth \(1, 3\)"):
        relative_squared_error(truth, torch.ones(1, 3))


def test_the_model_sees_standardised_frames_and_answers_in_data_units():
    seen = []

    class Spy(Affine):
        def forward(self, x):
            seen.append(x)
            return super().forward(x)

    task = SurrogateTask(Spy(scale=2.0), mean=[10.0, -1.0], std=[5.0, 0.5])
    x = torch.randn(3, 1, 2, 4, 6)
    y = task(x)
    mean, std = torch.tensor([10.0, -1.0]).view(2, 1, 1), torch.tensor([5.0, 0.5]).view(2, 1, 1)
    torch.testing.assert_close(seen[0], ((x - mean) / std).squeeze(1))
    torch.testing.assert_close(y, 2 * (x - mean) + mean)


def test_time_is_folded_oldest_frame_first():
    x = torch.arange(3.0).view(1, 3, 1, 1) * 10 + torch.arange(2.0).view(1, 1, 2, 1)
    y = SurrogateTask(Affine(out=2), input_steps=3)(x)  # the first two channels: the oldest frame
    torch.testing.assert_close(y, x[:, :1])


@pytest.mark.parametrize("output_steps, steps", [(1, 4), (2, 4), (2, 5), (3, 1)])
def test_rollout_feeds_predictions_back(output_steps, steps):
    class Count(nn.Module):
        def forward(self, x):  # the next numbers after the last frame
            return x[:, -1:] + torch.arange(1.0, output_steps + 1).view(-1, 1)

    task = SurrogateTask(Count(), input_steps=2, output_steps=output_steps)
    x = torch.tensor([5.0, 6.0]).view(1, 2, 1, 1).expand(2, 2, 1, 8)
    y = task.rollout(x, steps)
    assert y.shape == (2, steps, 1, 8)
    torch.testing.assert_close(y[1, :, 0, 3], torch.arange(7.0, 7.0 + steps))
    with pytest.raises(ValueError, match="steps must be >= 1"):
        task.rollout(x, 0)


def test_learns_a_shift_and_rolls_it_out():
    data = TrajectoryDataModule(shifting(), boundary="periodic", batch_size=16, rollout_steps=8)
    task = SurrogateTask(convolution(), lr=0.05)
    fit = trainer(max_steps=150, max_epochs=-1)
    fit.fit(task, data)
    one, rolled = fit.test(task, data, verbose=False)
    assert one["test/one_step_rel_l2"] < 0.02 and rolled["test/rollout_rel_l2"] < 0.2
    assert len(task.rollout_curve) == 8 and task.rollout_curve[0] < task.rollout_curve[-1]
    weights = task.model.weight.detach().flatten()
    torch.testing.assert_close(weights, torch.tensor([1.0, 0.0, 0.0]), atol=0.02, rtol=0)


def test_learning_rate_follows_the_steps():
    data = TrajectoryDataModule(shifting(), boundary="periodic")
    task, rates = SurrogateTask(convolution(), lr=0.01, warmup=0.25), []
    task.on_train_batch_end = lambda *_: rates.append(task.trainer.optimizers[0].param_groups[0]["lr"])
    trainer(max_steps=40, max_epochs=-1).fit(task, data)
    assert rates.index(max(rates)) in (9, 10) and max(rates) == pytest.approx(0.01, rel=0.1)
    assert rates[5] == pytest.approx(0.01 * 6 / 10, rel=0.25)
    assert rates[-1] < 1e-4


def test_learning_rate_follows_the_time():
    data = TrajectoryDataModule(shifting(), boundary="periodic")
    task = SurrogateTask(convolution())
    fit = trainer(max_time=datetime.timedelta(seconds=0.5), max_epochs=-1)
    fit.fit(task, data)
    assert task.progress() == 1.0 and fit.optimizers[0].param_groups[0]["lr"] < 1e-4


def test_a_checkpoint_holds_the_statistics_and_plain_values_only(tmp_path):
    data = TrajectoryDataModule(3 + 2 * shifting(), boundary="periodic")
    task = SurrogateTask(convolution(), lr=0.01)
    fit = trainer(max_steps=3, max_epochs=-1)
    fit.fit(task, data)
    fit.save_checkpoint(tmp_path / "a.ckpt")
    kept = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert kept["hyper_parameters"]["mean"] == data.mean and kept["hyper_parameters"]["lr"] == 0.01
    again = SurrogateTask.load_from_checkpoint(tmp_path / "a.ckpt", model=convolution())
    x = torch.from_numpy(shifting()[:2, :1]).float()
    torch.testing.assert_close(again(x), task(x), rtol=0, atol=0)


def test_training_goes_on_from_a_checkpoint(tmp_path):
    data = TrajectoryDataModule(shifting(), boundary="periodic", batch_size=200)  # one batch per epoch

    def run(task, steps, **options):
        fit = trainer(max_steps=steps, max_epochs=-1)
        fit.fit(task, data, **options)
        return fit

    torch.manual_seed(0)
    whole = SurrogateTask(convolution(), warmup=0.0)
    run(whole, 6)
    torch.manual_seed(0)
    first = SurrogateTask(convolution(), warmup=0.0)
    run(first, 3).save_checkpoint(tmp_path / "a.ckpt")
    second = SurrogateTask(convolution(), warmup=0.0)
    fit = run(second, 6, ckpt_path=tmp_path / "a.ckpt")
    assert fit.global_step == 6
    assert not torch.equal(second.model.weight, first.model.weight)


def test_a_module_without_parameters_is_refused():
    with pytest.raises(ValueError, match="Identity has no trainable parameter"):
        trainer(max_steps=1).fit(SurrogateTask(nn.Identity()), TrajectoryDataModule(shifting()))


def test_the_first_non_finite_module_is_named():
    class Log(nn.Module):
        def forward(self, x):
            return x.log()

    model = nn.Sequential(convolution(), Log(), convolution())
    with pytest.raises(ValueError, match=r"step 0: the first module with a non-finite output is 1 \(Log\)"):
        trainer(max_steps=1).fit(SurrogateTask(model), TrajectoryDataModule(shifting()))
    assert not model[1]._forward_hooks
    assert first_non_finite(convolution(), torch.ones(1, 1, 4)) is None


def test_a_collapse_to_persistence_is_noticed():
    class Nothing(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, x):
            return x + 0 * self.weight

    data = TrajectoryDataModule(shifting(), boundary="periodic")
    with pytest.warns(UserWarning, match="collapsed to its baseline") as notes:
        trainer(max_steps=200, max_epochs=-1).fit(SurrogateTask(Nothing()), data)
    assert sum("collapsed" in str(note.message) for note in notes) == 1
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*collapsed")
        trainer(max_steps=200, max_epochs=-1).fit(SurrogateTask(convolution(), lr=0.05), data)


@pytest.mark.parametrize(
    "model, x, words",
    [
        (Affine(), torch.zeros(2, 2, 1, 8), r"the second axis is time, input_steps=1"),
        (Affine(), torch.zeros(2, 1, 8), r"\(B, 1, C, \*space\), got \(2, 1, 8\)"),
        (nn.Conv1d(1, 3, 1), torch.zeros(2, 1, 1, 8), r"returned \(2, 3, 8\), wanted \(2, 1, 8\)"),
    ],
)
def test_wrong_shapes_are_explained(model, x, words):
    with pytest.raises(ValueError, match=words):
        SurrogateTask(model)(x)


@pytest.mark.parametrize("options", [{"lr": 0.0}, {"warmup": 1.0}, {"mean": [0.0]}, {"input_steps": 0}])
def test_bad_options_are_explained(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        SurrogateTask(Affine(), **options)


def test_a_typo_is_an_error():
    with pytest.raises(TypeError, match="learning_rate"):
        SurrogateTask(Affine(), learning_rate=1.0)


def test_progress_without_a_trainer_is_zero():
    task = SurrogateTask(Affine())
    assert task.progress() == 0.0 and math.isinf(task._total_steps)
