import datetime
import math
import warnings

import numpy as np
import pytest
import torch
from lightning import Trainer
from torch import nn

import multiresnet as mrn
from multiresnet.data import TrajectoryDataModule, poisson
from multiresnet.data.fields.steady import PairDataModule
from multiresnet.tasks import SurrogateTask
from multiresnet.tasks.network import Network
from multiresnet.tasks.staged import StagedTraining
from multiresnet.tasks.surrogate.metrics import frame_errors, r_mse


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


def test_errors_in_standardised_values():
    task = SurrogateTask(Affine(), mean=[1.0], std=[2.0])
    x, y = torch.full((1, 1, 1, 4), 5.0), torch.full((1, 1, 1, 4), 9.0)  # standardised: 2 and 4
    torch.testing.assert_close(task.rollout_error(x, y), torch.tensor([[0.5]]))
    torch.testing.assert_close(task.persistence_error(x, y), torch.tensor([[0.5]]))


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
    fit = trainer(max_steps=100, max_epochs=-1)
    fit.fit(task, data)
    one, rolled = fit.test(task, data, verbose=False)
    assert one["test/one_step_rel_l2"] < 0.02 and rolled["test/rollout_last_rel_l2"] < 0.2
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
    assert kept["facts"]["mean"] == data.mean and kept["hyper_parameters"]["lr"] == 0.01
    again = SurrogateTask.load_from_checkpoint(tmp_path / "a.ckpt", model=convolution())
    x = torch.from_numpy(shifting()[:2, :1]).float()
    torch.testing.assert_close(again(x), task(x), rtol=0, atol=0)
    with pytest.raises(ValueError, match="model=..."):
        SurrogateTask.load_from_checkpoint(tmp_path / "a.ckpt")


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


@pytest.mark.parametrize(
    "options",
    [
        {"lr": 0.0},
        {"warmup": 1.0},
        {"mean": [0.0]},
        {"input_steps": 0},
        {"training": "unroled"},
        {"training": "unrolled"},
        {"unroll_steps": 3},
        {"target": "change"},
        {"noise": -1.0},
        {"deep_supervision": True},
    ],
)
def test_bad_options_are_explained(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        SurrogateTask(Affine(), **options)


def test_a_typo_is_an_error():
    with pytest.raises(TypeError, match="learning_rate"):
        SurrogateTask(Affine(), learning_rate=1.0)


def test_progress_without_a_trainer_is_zero():
    task = SurrogateTask(Affine())
    assert task.progress() == 0.0 and math.isinf(task._total_steps)


# ---- delta and absolute --------------------------------------------------------------------------------


def small(**options):
    return Network(preset="surrogate", options={"channels": (16, 16), "num_blocks": 1, **options})


def own_network(**options):
    space = mrn.spaces.Haar(1, "periodic")
    return mrn.MultiResNet(1, 1, space=space, channels=(16, 16), num_blocks=1, **options)


def built(task, data=None):
    """The task after the data have settled it."""
    trainer(max_steps=1, limit_val_batches=0).fit(task, data or TrajectoryDataModule(shifting(), boundary="periodic"))
    return task.eval()


@torch.no_grad()
def test_the_last_frame_is_added_once():
    x = torch.randn(2, 1, 1, 16)
    for model, target, expected in (
        (own_network(delta=True), None, lambda net: net(x[:, 0])),
        (own_network(delta=True), "delta", lambda net: net(x[:, 0])),
        (own_network(), None, lambda net: net(x[:, 0])),
        (own_network(), "delta", lambda net: x[:, 0] + net(x[:, 0])),
        (Affine(0.5), None, lambda net: 0.5 * x[:, 0]),
        (Affine(0.5), "delta", lambda net: 1.5 * x[:, 0]),
    ):
        torch.testing.assert_close(SurrogateTask(model, target=target)(x)[:, 0], expected(model))
    with pytest.raises(ValueError, match="build it with delta=False"):
        SurrogateTask(own_network(delta=True), target="absolute")


@torch.no_grad()
@pytest.mark.parametrize(
    "options, inside, outside",
    [({}, True, False), ({"target": "absolute"}, False, False), ({"output_steps": 3}, False, True)],
)
def test_a_network_of_ours_adds_it_where_it_can(options, inside, outside):
    data = TrajectoryDataModule(shifting(), boundary="periodic", output_steps=options.get("output_steps", 1))
    task = built(SurrogateTask(small(), **options), data)
    assert task.model.delta == inside and task.model.space.boundary == "periodic"
    x = torch.randn(2, 1, 1, 16)
    z = (x - data.mean[0]) / data.std[0]
    expected = task.model(z[:, 0])[:, :, None] + z * outside
    torch.testing.assert_close(task(x), expected * data.std[0] + data.mean[0], rtol=1e-4, atol=1e-4)


# ---- training ------------------------------------------------------------------------------------------


def losses(task, batch, draws):
    """Training losses of one batch, with no trainer around the task."""
    task.log, task.guard = (lambda *_, **__: None), (lambda *_: None)
    return torch.stack([task.training_step(batch, 0) for _ in range(draws)]).detach()


def pair(steps):
    x = torch.from_numpy(shifting()).float()
    return {"input": x[:, :1], "target": x[:, 1 : 1 + steps]}


def test_pushforward_draws_the_number_of_steps():
    batch = pair(3)
    task = SurrogateTask(Affine(0.7), training="pushforward", unroll_steps=3)
    x, truth = batch["input"], batch["target"]
    expected = [
        ((0.7 ** (i + 1) * x[:, 0] - truth[:, i]).square().sum((1, 2)) / truth[:, i].square().sum((1, 2))).mean()
        for i in range(3)
    ]
    drawn = losses(task, batch, 300)
    counts = [int(torch.isclose(drawn, value).sum()) for value in expected]
    assert sum(counts) == 300 and min(counts) > 70


def test_unrolled_training_is_the_mean_of_all_steps():
    batch = pair(3)
    task = SurrogateTask(Affine(0.7), training="unrolled", unroll_steps=3)
    error = task.rollout_error(batch["input"], batch["target"])
    torch.testing.assert_close(losses(task, batch, 1)[0], error.square().mean())
    with pytest.raises(ValueError, match="need targets of 3 frames, got 2.*unroll_steps=3"):
        losses(task, pair(2), 1)


def test_noise_has_its_deviation_and_is_gone_in_validation():
    seen = []

    class Spy(Affine):
        def forward(self, x):
            seen.append(x.detach())
            return super().forward(x)

    x = 10 + 5 * torch.randn(64, 1, 2, 32, 32)
    task = SurrogateTask(Spy(), noise=0.3, mean=[10.0, 10.0], std=[5.0, 5.0])
    batch = (x, x)
    losses(task, batch, 1)
    noise = seen.pop() - task.input_scale(x)[:, 0]
    assert noise.mean().abs() < 0.005 and noise.std().item() == pytest.approx(0.3, rel=0.01)
    kurtosis = (noise / 0.3).pow(4).mean().item()
    assert kurtosis == pytest.approx(3, rel=0.05)  # Gaussian
    task.eval()
    task.log_dict = lambda *_, **__: None
    task.validation_step(batch, 0)
    torch.testing.assert_close(seen.pop(), task.input_scale(x)[:, 0])


def test_all_schemes_train_with_everything_on():
    data = TrajectoryDataModule(shifting(), boundary="periodic", unroll_steps=2)
    for training in ("unrolled", "pushforward"):
        task = SurrogateTask(small(), training=training, unroll_steps=2, noise=0.1, deep_supervision=True, lr=0.01)
        fit = trainer(max_steps=60, max_epochs=-1)
        fit.fit(task, data)
        assert fit.callback_metrics["val/rel_l2"] < 0.5  # persistence: 1.2 and more


def test_a_stage_trains_on_its_grid():
    class Watch(SurrogateTask):
        sizes = []

        def guard(self, loss, model, x, *rest):
            self.sizes.append((self.stage, x.shape[-1]))

    data = TrajectoryDataModule(shifting(), boundary="periodic", unroll_steps=2)
    task = Watch(small(), training="unrolled", unroll_steps=2, deep_supervision=True)
    fit = trainer(max_steps=4, max_epochs=-1, callbacks=[StagedTraining(steps=(2, 2))])
    fit.fit(task, data)
    assert task.sizes == [(0, 8), (0, 8), (1, 16), (1, 16)]


# ---- physical parameters -------------------------------------------------------------------------------


def two_directions(path):
    """Waves that move to the right where the parameter is 3, to the left where it is 5."""
    frames = shifting(trajectories=40)
    speed = np.where(np.arange(40) % 2, 3.0, 5.0)
    frames[speed == 5] = frames[speed == 5][:, ::-1]
    np.savez(path, frames=frames, parameters=speed[:, None], parameter_names=["speed"], boundary="periodic")
    return TrajectoryDataModule(path, batch_size=32, rollout_steps=4)


def test_parameters_tell_two_dynamics_apart(tmp_path):
    data = two_directions(tmp_path / "waves.npz")
    results, tasks = {}, {}
    for name, network in (("with", small()), ("without", small(emb_channels=0))):
        tasks[name] = task = SurrogateTask(network, lr=0.01)
        fit = trainer(max_steps=150, max_epochs=-1, limit_val_batches=0)
        fit.fit(task, data)
        results[name] = {k: v for part in fit.test(task, data, verbose=False) for k, v in part.items()}
        assert (task.conditioning is not None) == (name == "with")
        fit.save_checkpoint(tmp_path / f"{name}.ckpt")
    persistence = results["with"]["test/persistence_one_step_rel_l2"]
    assert (
        results["with"]["test/one_step_rel_l2"] < 0.15 < 0.5 < results["without"]["test/one_step_rel_l2"] < persistence
    )

    again = SurrogateTask.load_from_checkpoint(tmp_path / "with.ckpt")  # network, conditioning and facts rebuilt
    batch = next(iter(data.predict_dataloader()))
    kept, again = tasks["with"].eval(), again.eval()
    prediction = again.predict_step(batch)["prediction"]
    assert torch.equal(prediction, kept.predict_step(batch)["prediction"])
    other = again.predict_step({**batch, "parameters": 8 - batch["parameters"]})["prediction"]
    assert (other - prediction).norm() > 0.5 * prediction.norm()
    with pytest.raises(ValueError, match="'parameters' is missing"):
        again(batch["input"])


def test_a_conditioned_network_needs_parameters():
    model = own_network(emb_channels=8)
    with pytest.raises(ValueError, match="emb_channels=8, but the data have no physical parameters"):
        built(SurrogateTask(model))


# ---- checkpoints and evaluation ------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"output_steps": 2, "input_steps": 2}, {"target": "absolute"}])
def test_a_checkpoint_rebuilds_network_and_task(tmp_path, options):
    steps = {key: value for key, value in options.items() if key.endswith("steps")}
    data = TrajectoryDataModule(3 + 2 * shifting(), boundary=("replicate",), **steps)
    task = SurrogateTask(small(), **options)
    fit = trainer(max_steps=2, max_epochs=-1)
    fit.fit(task, data)
    fit.save_checkpoint(tmp_path / "a.ckpt")
    again = SurrogateTask.load_from_checkpoint(tmp_path / "a.ckpt")
    batch = next(iter(data.predict_dataloader()))
    ours, theirs = task.eval().predict_step(batch), again.eval().predict_step(batch)
    assert torch.equal(ours["prediction"], theirs["prediction"]) and torch.equal(theirs["target"], batch["target"])
    assert ours["prediction"].shape == batch["target"].shape
    before, after = fit.test(task, data, verbose=False), trainer().test(again, data, verbose=False)
    assert before == after


def test_what_tests_log_is_what_the_functions_say():
    data = TrajectoryDataModule(3 + 2 * shifting(size=32), boundary="periodic", rollout_steps=6, batch_size=3)
    task = built(SurrogateTask(Affine(0.9, 0.1)), data)
    logged = {k: v for part in trainer().test(task, data, verbose=False) for k, v in part.items()}
    one, rollout = data.test_dataloader()
    for name, loader in (("one_step", one), ("rollout", rollout)):
        x, y = (torch.cat([batch[key] for batch in loader]) for key in ("input", "target"))
        still = x.expand_as(y)
        guesses = {"": task.rollout(x, y.shape[1]).detach(), "persistence_": still}
        for who, guess in guesses.items():
            scaled = (task.target_scale(frames) for frames in (guess, y))
            errors = frame_errors(*scaled, boundary="periodic", units=task.target_scale.inverse)
            for key, value in errors.items():
                assert logged[f"test/{who}{name}_{key}"] == pytest.approx(value.mean().item(), rel=1e-4, abs=1e-4)
                if name == "rollout":
                    assert task.curves[who + key] == pytest.approx(value.mean(0).tolist(), rel=1e-4, abs=1e-4)
            if name == "rollout":
                last = errors["rel_l2"][:, -1].mean().item()
                assert logged[f"test/{who}rollout_last_rel_l2"] == pytest.approx(last, rel=1e-4)
                assert logged[f"test/{who}rollout_r_mse"] == pytest.approx(r_mse(guess, y).mean().item(), rel=1e-4)
    assert task.rollout_curve == task.curves["rel_l2"] and "test/one_step_r_mse" not in logged


def test_validation_rolls_out_where_targets_are_longer():
    data = TrajectoryDataModule(shifting(), boundary="periodic", output_steps=3)
    task = built(SurrogateTask(Affine(0.9)), data)
    logged = trainer().validate(task, data, verbose=False)[0]
    x, y = (torch.cat([batch[key] for batch in data.val_dataloader()]) for key in ("input", "target"))
    errors = task.rollout_error(x, y)
    assert logged["val/loss"] == pytest.approx(errors[:, 0].square().mean().item(), rel=1e-4)
    assert logged["val/rel_l2"] == pytest.approx(errors[:, 0].mean().item(), rel=1e-4)
    assert logged["val/rollout_rel_l2"] == pytest.approx(errors.mean().item(), rel=1e-4)


def test_a_steady_problem_has_other_fields_out():
    """One field in, two others out: its difference and its square."""
    x = shifting(trajectories=40)[:, 0]
    data = PairDataModule((x, np.concatenate([np.roll(x, -1, -1) - x, x**2], 1)), boundary="periodic", spatial_dims=1)
    task = SurrogateTask(small(delta=True), lr=0.01)
    fit = trainer(max_steps=100, max_epochs=-1)
    fit.fit(task, data)
    assert not task.model.delta and task.model.out_channels == 2
    logged = fit.test(task, data, verbose=False)[0]
    assert logged["test/one_step_rel_l2"] < 0.5 and not any("persistence" in key for key in logged)
    batch = next(iter(data.predict_dataloader()))
    torch.testing.assert_close(task.predict_step(batch)["prediction"], task(batch["input"]))
    with pytest.raises(ValueError, match="cannot be fed back"):
        task.rollout(batch["input"], 2)


def test_data_with_another_number_of_frames_are_refused():
    with pytest.raises(ValueError, match="gives 2 input frames, the task takes 1"):
        built(SurrogateTask(small()), TrajectoryDataModule(shifting(), input_steps=2))


def test_unrolling_begins_in_the_middle_of_the_training():
    class Counting(nn.Conv1d):
        calls = 0

        def forward(self, x):
            self.calls += self.training
            return super().forward(x)

    model = Counting(1, 1, 3, padding=1, padding_mode="circular")
    data = TrajectoryDataModule(shifting(), boundary="periodic", unroll_steps=3)
    task = SurrogateTask(model, training="unrolled", unroll_steps=3, unroll_from=0.5)
    trainer(max_steps=10, max_epochs=-1, limit_val_batches=0).fit(task, data)
    assert model.calls == 5 * 1 + 5 * 3
    with pytest.raises(ValueError, match="0 <= unroll_from < 1, got 1.0"):
        SurrogateTask(model, unroll_from=1.0)


@pytest.mark.parametrize("space", [mrn.spaces.Hat(2), mrn.spaces.Haar(2, "replicate")])
def test_data_are_scaled_but_not_shifted_where_zero_means_something(space):
    """So a boundary that is zero for the network is zero in the units of the data."""
    forcing, solution = poisson(12, size=9)
    data = PairDataModule((forcing + 3, solution + 5 * (solution != 0)), boundary="replicate", batch_size=4)
    net = mrn.MultiResNet(1, 1, space=space, channels=(8, 8), num_blocks=1)
    model = net if isinstance(space, mrn.spaces.Hat) else mrn.Constrained(net, mrn.conditions.Dirichlet(0.0))
    task = SurrogateTask(model)
    Trainer(max_steps=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False).fit(
        task, data
    )
    assert task.target_scale.mean.abs().max() == task.input_scale.mean.abs().max() == 0
    assert abs(float(task.target_scale.std) - data.target_std[0]) < 1e-6
    with torch.no_grad():
        u = task.eval()(torch.from_numpy(forcing[:2])[:, None])
    assert u[..., 0, :].abs().max() == u[..., -1].abs().max() == 0 < u.abs().max()
