"""The task: targets, labels, guidance, stages, averaged weights, checkpoints."""

import copy

import diffusers
import numpy as np
import pytest
import torch
from lightning import LightningDataModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from torch import nn
from torch.utils.data import Dataset

from multiresnet import MultiResNet
from multiresnet.data.loading import make_loader
from multiresnet.tasks.diffusion.moving_average import MovingAverage
from multiresnet.tasks.diffusion.parametrisation import PREDICTIONS, denoised, input_scale, output_of
from multiresnet.tasks.diffusion.task import DiffusionTask
from multiresnet.tasks.network import Network
from multiresnet.tasks.resolutions import coarsen
from multiresnet.tasks.staged import StagedTraining

SMALL = {"channels": (16, 16), "num_blocks": 1, "patch_levels": 0}


class Images(Dataset):
    def __init__(self, images, labels=None):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, key):
        i = getattr(key, "index", key)
        return {"image": self.images[i]} | ({} if self.labels is None else {"label": self.labels[i]})


class Data(LightningDataModule):
    spatial_dims, boundary = 2, "zeros"

    def __init__(self, n=48, size=8, classes=3, batch_size=16, images=None):
        super().__init__()
        random = torch.Generator().manual_seed(0)
        images = torch.rand(n, 1, size, size, generator=random) * 2 - 1 if images is None else images
        labels = torch.arange(len(images)) % classes if classes else None
        self.images, self.batch_size = Images(images, labels), batch_size
        self.channels, self.size, self.classes = images.shape[1], images.shape[-1], classes

    def train_dataloader(self):
        return make_loader(self.images, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self):
        return make_loader(self.images, batch_size=self.batch_size, shuffle=False)


class Known(nn.Module):
    """The best network for x0 ~ N(means[label], std^2), called as those of diffusers are."""

    def __init__(self, prediction, levels, means=(0.3,), std=0.5):
        super().__init__()
        self.prediction, self.levels, self.means, self.std = prediction, levels, torch.tensor(means), std

    def forward(self, sample, timestep, class_labels=None):
        if self.prediction == "edm":
            sigma = (4 * timestep.double()).exp()
        else:
            sigmas = self.levels.sigmas.log().numpy()
            sigma = torch.from_numpy(np.exp(np.interp(timestep.double(), np.arange(len(sigmas)), sigmas)))
        sigma = sigma.view(-1, 1, 1, 1)
        x = sample / input_scale(self.prediction, sigma)
        mean = self.means[class_labels if class_labels is not None else torch.zeros(len(x), dtype=torch.int64)]
        x0 = (mean.view(-1, 1, 1, 1) * sigma**2 + self.std**2 * x) / (sigma**2 + self.std**2)
        return output_of(self.prediction, x0, x, sigma).float()


def known(prediction, means=(0.3,), **options):
    task = DiffusionTask(nn.Identity(), prediction=prediction, **options)
    task.model = Known(prediction, task.levels, means)
    return task


def small(**options):
    """A task around a network with random weights, also those that begin as zero."""
    network = options.pop("network", SMALL)
    task = DiffusionTask(MultiResNet(1, 1, emb_channels=32, **network), **options)
    with torch.no_grad():
        for parameter in task.model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    task.configure_model()
    return task


def trainer(**options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(accelerator="cpu", devices=1, enable_model_summary=False, **(quiet | options))


# ---- known data -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("sampler, steps", [("ddim", 100), ("dpm-solver++", 60), ("edm-heun", 40)])
def test_samples_of_a_perfect_network_have_the_right_distribution(prediction, sampler, steps):
    task = known(prediction)
    x = task.sample(1000, size=(1, 3, 3), sampler=sampler, steps=steps, seed=0, clip=False)
    assert float(x.mean()) == pytest.approx(0.3, abs=0.015) and float(x.std()) == pytest.approx(0.5, rel=0.04)
    clipped = task.sample(100, size=(1, 3, 3), sampler=sampler, steps=20, seed=0)
    assert float(clipped.abs().max()) <= 1


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_perfect_network_has_the_least_loss(prediction):
    images = (0.3 + 0.5 * torch.randn(256, 1, 4, 4)).clamp(-1, 1)  # nearly normal
    best, off = (known(prediction, means=(mean,)) for mean in (0.3, 0.0))
    batch = {"image": images}
    for task in (best, off):
        task.log = lambda *_, **__: None
    assert best.validation_step(batch, 0) < 0.98 * off.validation_step(batch, 0)


def test_guidance_extrapolates_from_no_label_to_the_label():
    """Class m: N(m, s^2), no class: N(0, s^2). The guided denoiser is that of N(g m, s^2), so the samples are, too."""
    task = known("v", means=(0.2, -0.1, 0.0), classes=2)
    sigma = torch.tensor([0.1, 1.0, 10.0])
    x, label = torch.randn(3, 1, 2, 2), torch.tensor([0, 1, 0])
    with_label, without = task.denoise(x, sigma, label), task.denoise(x, sigma)
    torch.testing.assert_close(task.denoise(x, sigma, label, guidance=3.0), without + 3 * (with_label - without))
    for label, mean in ((0, 0.2), (1, -0.1)):
        x = task.sample(500, size=(1, 3, 3), label=label, guidance=3.0, steps=40, seed=0, clip=False)
        assert float(x.mean()) == pytest.approx(3 * mean, abs=0.02) and float(x.std()) == pytest.approx(0.5, rel=0.04)


class Mixture(nn.Module):
    """Velocity for +m or -m with probability 1/2, plus N(0, s^2): label 0 is +m, 1 is -m, 2 is none."""

    m, s = 0.6, 0.2

    def __init__(self, levels):
        super().__init__()
        self.levels = levels

    def posterior_mean(self, x, sigma, label):
        total = sigma**2 + self.s**2
        centre = torch.where(label == 2, torch.tanh(self.m * x / total), 1.0 - 2.0 * label) * self.m
        return (centre * sigma**2 + self.s**2 * x) / total

    def forward(self, sample, timestep, class_labels):
        sigma = self.levels.sigmas[timestep.long()].view(-1, 1, 1, 1)
        x, label = sample / input_scale("v", sigma), class_labels.view(-1, 1, 1, 1)
        return output_of("v", self.posterior_mean(x, sigma, label), x, sigma)


def test_guidance_in_a_mixture_of_two_classes():
    task = DiffusionTask(nn.Identity(), classes=2)
    task.model = net = Mixture(task.levels)
    sigma = task.levels.sigmas[torch.tensor([100, 500, 900])]
    x = torch.randn(3, 1, 1, 1, dtype=torch.float64)
    label = torch.zeros(3, dtype=torch.int64)
    guided, plain = (task.denoise(x, sigma, label, guidance=g) for g in (4.0, 1.0))
    s = sigma.view(-1, 1, 1, 1)
    shift = 3 * s**2 / (s**2 + net.s**2) * net.m * (1 - torch.tanh(net.m * x / (s**2 + net.s**2)))
    torch.testing.assert_close(guided - plain, shift, rtol=1e-4, atol=1e-5)
    assert (guided >= plain).all() and (guided > plain + 1).any()  # away from the other class


class Scale(nn.Module):
    """F = w x."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.0))

    def forward(self, x, emb):
        return self.w * x


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_training_finds_the_best_linear_network(prediction):
    s2 = 0.04  # variance of the data
    if prediction == "edm":
        sigma = np.exp(-1.2 + 1.2 * np.random.default_rng(0).normal(size=1_000_000))
        c_in, skip, out = 1 / np.sqrt(sigma**2 + 0.25), 0.25 / (sigma**2 + 0.25), 0.5 * sigma / np.sqrt(sigma**2 + 0.25)
        x_var, x0_x = s2 + sigma**2, s2
        slope = np.mean(c_in * (x0_x - skip * x_var) / out) / np.mean(c_in**2 * x_var)
    else:
        alphas = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod.double().numpy()
        a, b = np.sqrt(alphas), np.sqrt(1 - alphas)
        covariance = {"eps": b, "x0": a * s2, "v": a * b * (1 - s2)}[prediction]  # of the target with a x0 + b eps
        slope = covariance.mean() / (alphas * s2 + 1 - alphas).mean()
    images = (0.2 * torch.randn(2048, 1, 4, 4)).clamp(-1, 1)
    task = DiffusionTask(Scale(), prediction=prediction, lr=0.1)
    data = Data(images=images, classes=0, batch_size=256)
    trainer(max_steps=120, max_epochs=-1, limit_val_batches=0).fit(task, data)
    assert float(task.model.w.detach()) == pytest.approx(slope, abs=0.02)


# ---- levels and labels at the door ----------------------------------------------------------------------


def test_levels_in_any_shape_give_the_same():
    task, x = small(classes=0), torch.randn(3, 1, 8, 8)
    want = task.denoise(x, 0.7)
    for sigma in (torch.tensor(0.7), torch.full((3,), 0.7), torch.full((3, 1), 0.7)):
        torch.testing.assert_close(task.denoise(x, sigma), want, rtol=0, atol=0)
    assert task.denoise(x[:0], 0.7).shape == (0, 1, 8, 8)


@pytest.mark.parametrize(
    "options, arguments, words",
    [
        ({"classes": 0}, {"label": 1}, "trained without classes"),
        ({"classes": 0}, {"guidance": 2.0}, "trained without classes"),
        ({"classes": 3}, {"label": 4}, r"0 \.\.\. 2, got 4"),
        ({"classes": 3}, {"label": -1}, r"0 \.\.\. 2, got -1"),
        ({"classes": 3}, {"label": 0.5}, "label must be one integer"),
        ({"classes": 3}, {"label": [0, 1, 2]}, "label"),
        ({"classes": 3}, {"guidance": 2.0}, "give label="),
        ({"classes": 3, "drop_label": 0.0}, {}, "knows no 'no label'"),
        ({"classes": 3, "drop_label": 0.0}, {"label": 1, "guidance": 2.0}, "knows no 'no label'"),
        ({}, {"size": None}, "size of an image"),
        ({}, {"steps": 0}, "steps"),
        ({}, {"steps": 60, "sampler": "ddim"}, "steps must divide 1000, got 60"),
        ({}, {"sampler": diffusers.DDIMScheduler(), "steps": None}, "how many steps a DDIMScheduler takes"),
    ],
)
def test_bad_requests_are_explained(options, arguments, words):
    with pytest.raises(ValueError, match=words):
        small(**options).sample(2, **({"size": (1, 8, 8), "steps": 2} | arguments))


@pytest.mark.parametrize(
    "options, batch, words",
    [
        ({"classes": 3}, {}, "has 3 classes, the batch has no 'label'"),
        ({"classes": 3}, {"label": torch.tensor([0, 3])}, r"0 \.\.\. 2, got 0 \.\.\. 3"),
        ({}, {"label": torch.tensor([0, 1])}, "say classes="),
        ({}, {"image": torch.full((2, 1, 8, 8), 255.0)}, r"\[-1, 1\], got 255"),
    ],
)
def test_bad_batches_are_explained(options, batch, words):
    with pytest.raises(ValueError, match=words):
        small(**options).validation_step({"image": torch.zeros(2, 1, 8, 8)} | batch, 0)


@pytest.mark.parametrize(
    "model, options, error, words",
    [
        (MultiResNet(1, 1, **SMALL), {}, ValueError, "emb_channels=128"),
        (nn.Conv2d(1, 1, 1), {}, TypeError, r"Conv2d.forward\(input\) is not known"),
        (Scale(), {"deep_supervision": True}, ValueError, "Scale has one output"),
        (Scale(), {"prediction": "epsilon"}, ValueError, "did you mean 'eps'"),
        (Scale(), {"schedule": "cosin"}, ValueError, "did you mean 'cosine'"),
        (Scale(), {"drop_label": 1.0}, ValueError, "drop_label"),
    ],
)
def test_bad_networks_and_options_are_explained(model, options, error, words):
    with pytest.raises(error, match=words):
        DiffusionTask(model, **options).configure_model()


def test_a_task_without_a_network_says_so():
    with pytest.raises(RuntimeError, match="fit the task"):
        DiffusionTask().sample(1, size=(1, 8, 8))


def peer(classes):
    layout = {"block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4, "num_class_embeds": classes}
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "add_attention": False}
    return diffusers.UNet2DModel(sample_size=8, in_channels=1, out_channels=1, **layout, **blocks)


@pytest.mark.parametrize("classes, rows", [(0, None), (3, 4)])
def test_a_network_of_diffusers_trains_under_the_same_loop(classes, rows):
    task = DiffusionTask(peer(rows), prediction="edm")
    trainer(max_steps=2).fit(task, Data(classes=classes))
    assert task.conditioning is None
    assert task.sample(2, steps=2, label=1 if classes else None).shape == (2, 1, 8, 8)
    with pytest.raises(ValueError, match="num_class_embeds=9, wanted 4"):
        DiffusionTask(peer(9), classes=3).configure_model()


# ---- training -------------------------------------------------------------------------------------------


def test_labels_are_dropped_in_training_only(monkeypatch):
    task, seen = small(classes=3, drop_label=0.25), []
    task.log = lambda *_, **__: None
    task.conditioning.register_forward_pre_hook(lambda _, __, given: seen.append(given["label"]), with_kwargs=True)
    batch = {"image": torch.zeros(4000, 1, 2, 2), "label": torch.zeros(4000, dtype=torch.int64)}
    monkeypatch.setattr(task, "model", Scale())
    task.training_step(batch, 0)
    assert float((seen[0] == 3).float().mean()) == pytest.approx(0.25, abs=0.03)
    task.eval().validation_step(batch, 0)
    assert not seen[1].any()


def test_validation_is_the_same_whenever_and_in_whatever_batches():
    task = small(classes=3)
    losses = [trainer().validate(task, Data(batch_size=size), verbose=False)[0]["val/loss"] for size in (16, 16, 48, 5)]
    assert losses[0] == losses[1]
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-5)


@pytest.mark.parametrize("min_snr", [None, 5.0])
def test_the_loss_of_a_level_does_not_depend_on_its_resolution(min_snr):
    """A network that answers 0 has the loss of the noise itself, 1 at every level although averages of it are smaller."""
    deep, flat = (
        small(prediction="eps", deep_supervision=deep, min_snr=min_snr, network=SMALL | {"channels": (16, 16, 16)})
        for deep in (True, False)
    )
    losses = []
    for task in (deep, flat):
        for parameter in task.model.parameters():
            nn.init.zeros_(parameter)
        x0, sigma = torch.zeros(512, 1, 16, 16), torch.full((512,), 2.0)
        losses.append(float(task.train()._loss(x0, torch.randn_like(x0), sigma, None).detach()))
    assert losses == pytest.approx([1.0, 1.0], rel=0.02)  # min(SNR, 5) / SNR is 1, too: SNR = 1 / 4


STAGES = {"channels": (16, 16, 16), "num_blocks": 1, "patch_levels": 0, "skip": "approximation"}


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_stage_denoises_what_it_meets_in_the_whole_network(prediction):
    """Averages of x0 + sigma eps have noise sigma / 2^k, and stage i gives for them what the whole network has inside."""
    task = small(prediction=prediction, network=STAGES)
    x, sigma = torch.randn(2, 1, 16, 16, dtype=torch.float32), torch.tensor([0.5, 2.0])
    s = sigma.view(-1, 1, 1, 1)
    emb = task.conditioning(noise=task.levels.condition(sigma))
    inside = task.model.forward_resolutions(input_scale(prediction, s) * x, emb)
    for i, cells in enumerate((16, 4, 1)):
        coarse = coarsen(task.model, x, i)
        want = denoised(prediction, inside[i], coarse, s)
        task.stage = i
        torch.testing.assert_close(task.denoise(coarse, sigma / cells**0.5), want, rtol=1e-4, atol=1e-4)
        task.stage = None


@pytest.mark.parametrize("stage_noise, variance", [("consistent", 1 / 16), ("same", 1.0)])
def test_noise_that_a_stage_sees(stage_noise, variance):
    task, seen = small(prediction="eps", stage_noise=stage_noise, network=STAGES), []
    task.stage, task.log = 0, lambda *_, **__: None
    task.model.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    images = torch.zeros(256, 1, 16, 16)
    task.train().training_step({"image": images}, 0)
    alphas = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod
    noise = float((1 - alphas).mean())
    assert seen[0].shape == (256, 1, 4, 4)
    assert float(seen[0].var()) == pytest.approx(noise * variance, rel=0.08)
    assert task.sample(2, size=(1, 16, 16), steps=2).shape == (2, 1, 4, 4)


def test_staged_and_deep_training_runs():
    task = DiffusionTask(Network(options=STAGES), deep_supervision=True, classes=0)
    fit = trainer(max_steps=9, max_epochs=-1, callbacks=[StagedTraining(fractions=(0.3, 0.3, 0.4)), MovingAverage()])
    fit.fit(task, Data(size=9))
    assert task.stage is None and torch.isfinite(fit.callback_metrics["val/loss"])
    assert task.sample(2, steps=2).shape == (2, 1, 9, 9)


def test_1d_and_3d_fields():
    for dims in (1, 3):
        data = Data(n=8, classes=0, images=torch.rand(8, 2, *(5,) * dims))
        data.spatial_dims = dims
        task = DiffusionTask(Network(options=SMALL))
        trainer(max_steps=1).fit(task, data)
        assert task.sample(2, steps=2).shape == (2, 2, *(5,) * dims)


def test_prediction_gives_as_many_images_of_the_same_classes():
    task, data = DiffusionTask(Network(options=SMALL)), Data(n=20)
    trainer(max_steps=1).fit(task, data)
    images = torch.cat(trainer().predict(task, data.val_dataloader()))
    assert images.shape == (20, 1, 8, 8) and float(images.abs().max()) <= 1


def test_sampling_is_a_function_of_the_seed_and_leaves_the_modes_alone():
    task = small(classes=0).train()
    task.model.encoder.eval()
    one, two, other = (task.sample(3, size=(1, 8, 8), sampler="ddpm", steps=5, seed=seed) for seed in (1, 1, 2))
    torch.testing.assert_close(one, two, rtol=0, atol=0)
    assert not torch.equal(one, other)
    assert task.training and task.model.training and not task.model.encoder.training
    halves = task.sample(3, size=(1, 8, 8), steps=5, seed=1, batch_size=2)
    assert halves.shape == one.shape


# ---- averaged weights and checkpoints -------------------------------------------------------------------


class Record(Callback):
    """Weights after every step, and those that validation uses."""

    def __init__(self):
        self.training, self.validation = [], []

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.training.append(copy.deepcopy(pl_module.state_dict()))

    def on_validation_batch_start(self, trainer, pl_module, *_):
        self.validation.append(copy.deepcopy(pl_module.state_dict()))


def same(one, two, **tolerance):
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], **tolerance, msg=lambda text: f"{name}: {text}")  # noqa: B023


@pytest.mark.filterwarnings("ignore:.*overrides the configure_model:UserWarning")
@pytest.mark.parametrize("average", [EMAWeightAveraging(decay=0.9), MovingAverage(0.9)])
def test_averaged_weights_are_validated_saved_and_loaded(average, tmp_path):
    seed_everything(1, verbose=False)
    task, record = DiffusionTask(Network(options=SMALL)), Record()
    fit = trainer(max_epochs=2, callbacks=[average, record], num_sanity_val_steps=0)
    fit.fit(task, Data())  # 3 steps, validation, 3 steps, validation
    mean = record.training[0]
    for n, current in enumerate(record.training[1:], start=1):
        decay = 0.9 if isinstance(average, EMAWeightAveraging) else min(0.9, (1 + n) / (10 + n))
        mean = {name: decay * mean[name] + (1 - decay) * current[name] for name in mean}
        if n == 2:
            same(record.validation[0], mean, rtol=1e-5, atol=1e-6)
    same(record.validation[-1], mean, rtol=1e-5, atol=1e-6)
    same(task.state_dict(), mean, rtol=1e-5, atol=1e-6)
    fit.save_checkpoint(tmp_path / "end.ckpt")
    kept = torch.load(tmp_path / "end.ckpt", weights_only=True)
    same(kept["state_dict"], mean, rtol=1e-5, atol=1e-6)
    again = DiffusionTask.load_from_checkpoint(tmp_path / "end.ckpt")
    same(again.state_dict(), task.state_dict(), rtol=0, atol=0)
    assert again.num_classes == 3
    options = {"label": 1, "guidance": 2.0, "seed": 0, "steps": 3}
    torch.testing.assert_close(again.sample(2, **options), task.sample(2, **options), rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:.*overrides the configure_model:UserWarning")
@pytest.mark.parametrize("average", [lambda: EMAWeightAveraging(decay=0.9), lambda: MovingAverage(0.9)])
def test_a_resumed_run_ends_like_an_uninterrupted_one(average, tmp_path):
    def run(steps, **options):
        seed_everything(1, verbose=False)
        task = DiffusionTask(Network(options=SMALL))
        callbacks = [average(), *options.pop("callbacks", [])]
        trainer(max_steps=8, max_epochs=-1, num_sanity_val_steps=0, callbacks=callbacks).fit(task, Data(), **options)
        return task

    class Stop(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 5:  # in the middle of the second epoch
                trainer.save_checkpoint(tmp_path / "a.ckpt")
                trainer.should_stop = True

    whole = run(8)
    run(8, callbacks=[Stop()])
    kept = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert any(not torch.equal(kept["state_dict"][n], kept["current_model_state"][n]) for n in kept["state_dict"])
    resumed = run(8, ckpt_path=tmp_path / "a.ckpt")
    same(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_a_checkpoint_of_another_network_asks_for_it(tmp_path):
    task = DiffusionTask(Scale(), emb_channels=16)
    fit = trainer(max_steps=1)
    fit.fit(task, Data())
    fit.save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="model="):
        DiffusionTask.load_from_checkpoint(tmp_path / "a.ckpt")
    again = DiffusionTask.load_from_checkpoint(tmp_path / "a.ckpt", model=Scale())
    same(again.state_dict(), task.state_dict(), rtol=0, atol=0)
