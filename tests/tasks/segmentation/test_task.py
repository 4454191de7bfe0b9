"""The task around networks of ours and of others: training, evaluation, prediction, checkpoints, errors."""

import math
import warnings
from types import SimpleNamespace

import monai.networks.nets
import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from lightning import LightningDataModule, Trainer, seed_everything
from torch import nn
from torch.utils.data import DataLoader

from multiresnet import MultiResNet
from multiresnet.spaces import Haar
from multiresnet.tasks.network import Network
from multiresnet.tasks.resolutions import resolution_weights
from multiresnet.tasks.segmentation.labels import Target
from multiresnet.tasks.segmentation.losses import SegmentationLoss
from multiresnet.tasks.segmentation.task import SegmentationTask


def discs(count, size=(24, 20), classes=2, ignore=None):
    """Grey images of a disc with noise, and its mask; classes - 1 kinds of discs by brightness."""
    grid = torch.stack(torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij"), -1).float()
    examples = []
    for i in range(count):
        centre = torch.stack([torch.randint(5, n - 5, ()) for n in size]).float()
        inside = (grid - centre).norm(dim=-1) < 4.5
        kind = 1 + i % (classes - 1)
        image = (inside * kind / (classes - 1) + 0.1 * torch.randn(size)).unsqueeze(0)
        mask = inside.long() * kind
        if ignore is not None:
            mask[..., :2] = ignore
        examples.append({"image": image, "mask": mask, "name": f"disc{i}.png"})
    return examples


class Discs(LightningDataModule):
    """What the task reads off a data module, over a fixed list of examples."""

    def __init__(self, examples, *, batch_size=4, mode="binary", classes=1, ignore_index=None, **more):
        super().__init__()
        self.examples, self.batch_size = examples, batch_size
        self.mode, self.classes, self.ignore_index = mode, classes, ignore_index
        self.channels, self.spatial_dims, self.boundary = 1, examples[0]["image"].ndim - 1, "zeros"
        self.mean, self.std = (0.2,), (0.5,)
        vars(self).update(more)

    def train_dataloader(self):
        return DataLoader(self.examples, batch_size=self.batch_size)

    def val_dataloader(self):
        return DataLoader(self.examples, batch_size=1)

    test_dataloader = predict_dataloader = val_dataloader


def quiet(steps=2, **more):
    options = dict(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    return Trainer(max_steps=steps, enable_model_summary=False, **(options | more))


SMALL = Network(options={"channels": (16, 16), "num_blocks": 1})


@pytest.mark.parametrize(
    ("deep_supervision", "loss"), [(False, "dice+ce"), (True, "dice+ce"), (False, "lovasz+focal"), (False, "tversky")]
)
def test_it_learns_discs(deep_supervision, loss):
    seed_everything(0)
    task = SegmentationTask(SMALL, deep_supervision=deep_supervision, loss=loss, lr=1e-2)
    trainer = quiet(40)
    data = Discs(discs(6), batch_size=3)
    trainer.fit(task, datamodule=data)
    [measured] = trainer.test(task, datamodule=data, verbose=False)
    assert measured["test/dice"] > 0.95 and measured["test/dice_per_image"] > 0.95
    assert measured["test/iou"] == pytest.approx(measured["test/dice"] / (2 - measured["test/dice"]), rel=1e-5)
    prediction = trainer.predict(task, datamodule=data)[0]
    assert prediction["name"] == ["disc0.png"] and prediction["mask"].dtype == torch.uint8
    assert prediction["mask"].shape == (1, 24, 20) and prediction["probability"].shape == (1, 1, 24, 20)
    assert torch.equal(prediction["mask"] == 1, prediction["probability"][:, 0] > 0.5)


NETWORKS = {
    "MultiResNet": lambda out: MultiResNet(1, out, channels=(8, 8), num_blocks=1),
    "smp": lambda out: smp.Unet("resnet18", encoder_weights=None, in_channels=1, classes=out),
    "MONAI": lambda out: monai.networks.nets.UNet(2, 1, out, channels=(8, 16), strides=(2,)),
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
def test_any_network_trains_in_all_modes(network, mode):
    examples = discs(4, (32, 32), classes=3, ignore=255)
    for example in examples:
        if mode == "binary":
            example["mask"][example["mask"] == 2] = 1
        if mode == "multilabel":
            example["mask"] = torch.stack([example["mask"], 255 * (example["mask"] == 255)]).clamp_max(255)
            example["mask"][example["mask"] == 2] = 0
    classes = {"binary": 1, "multiclass": 3, "multilabel": 2}[mode]
    task = SegmentationTask(NETWORKS[network](classes), mode=mode, classes=classes, ignore_index=255)
    before = [p.detach().clone() for p in task.parameters()]
    trainer = quiet(2)
    trainer.fit(task, DataLoader(examples, 2), DataLoader(examples, 1))
    assert any(not torch.equal(a, b) for a, b in zip(before, task.parameters()))
    assert math.isfinite(trainer.callback_metrics["val/loss"])
    out = task.predict_step(torch.rand(2, 1, 32, 32))
    assert out["mask"].shape == ((2, 2, 32, 32) if mode == "multilabel" else (2, 32, 32))
    assert out["probability"].shape == (2, classes, 32, 32)
    if mode == "multiclass":
        torch.testing.assert_close(out["probability"].sum(1), torch.ones(2, 32, 32))
        assert torch.equal(out["probability"].argmax(1).byte(), out["mask"])


@pytest.mark.parametrize("size", [(40,), (17, 13), (9, 8, 7)])
def test_one_two_and_three_dimensions_of_different_sizes(size):
    examples = discs(2, tuple(n + 4 for n in size))
    more = discs(1, tuple(n + 7 for n in size))
    data = Discs(examples, batch_size=2)
    data.val_dataloader = lambda: DataLoader(examples + more, batch_size=1)
    task = SegmentationTask(SMALL, deep_supervision=True)
    quiet(1).fit(task, datamodule=data)
    assert task.model.space == Haar(len(size)) and task.model.in_channels == task.model.out_channels == 1
    assert task.predict_step(more[0]["image"][None])["mask"].shape == (1, *more[0]["mask"].shape)


def test_images_are_standardised_by_the_statistics_of_the_data():
    task = SegmentationTask(SMALL)
    quiet(1).fit(task, datamodule=Discs(discs(4)))
    image = torch.rand(2, 1, 24, 20)
    torch.testing.assert_close(task(image), task.model((image - 0.2) / 0.5))


def test_checkpoints_hold_all_that_prediction_needs(tmp_path):
    examples = discs(4, classes=3, ignore=255)
    data = Discs(
        examples, mode="multiclass", classes=3, ignore_index=255, class_names=["none", "dim", "bright"], class_counts=[9, 1, 0]
    )  # fmt: skip
    task = SegmentationTask(SMALL, class_weights="balanced", loss="ce+0.5*jaccard", ignore_background=True)
    trainer = quiet(2)
    trainer.fit(task, datamodule=data)
    assert {"val/iou_none", "val/iou_dim", "val/iou_bright"} <= trainer.callback_metrics.keys()
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    restored = SegmentationTask.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True).eval()
    image = torch.rand(2, 1, 19, 31)
    assert torch.equal(restored(image), task.eval()(image))
    assert torch.equal(restored.predict_step(image)["mask"], task.predict_step(image)["mask"])
    assert restored.labels == task.labels and restored.metrics.names == ["none", "dim", "bright"]
    assert restored.criterion.class_weights == [10 / 27, 10 / 3, 0.0] and restored.ignore_background
    [before], [after] = (quiet().test(t, datamodule=data, verbose=False) for t in (task, restored))
    assert before == pytest.approx(after, nan_ok=True)


def test_a_network_of_others_is_given_again(tmp_path):
    def make():
        return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1))

    task, trainer = SegmentationTask(make()), quiet(1)
    trainer.fit(task, datamodule=Discs(discs(4)))
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    restored = SegmentationTask.load_from_checkpoint(tmp_path / "model.ckpt", model=make())
    image = torch.rand(1, 1, 9, 9)
    assert torch.equal(restored(image), task(image))


def test_deep_supervision_is_the_weighted_loss_of_all_resolutions():
    net = MultiResNet(1, 2, channels=(8, 8, 8), num_blocks=1, norm=None)
    task = SegmentationTask(net, deep_supervision=True, mode="multiclass", classes=2)
    image, mask = torch.rand(2, 1, 16, 24), torch.randint(2, (2, 16, 24))
    task.log = lambda *args, **kwargs: None
    shares = F.one_hot(mask, 2).movedim(-1, 1).float()
    wanted, outputs = 0.0, net.forward_resolutions(image)
    for k, (weight, y) in enumerate(zip(resolution_weights(3), outputs)):
        t = F.avg_pool2d(shares, 2 ** (2 - k)) if k < 2 else shares
        wanted += weight * SegmentationLoss("dice+ce", task.labels)(y, Target(t, torch.ones_like(t[:, :1])))
    torch.testing.assert_close(task.training_step((image, mask), 0), wanted)


def test_a_stage_is_trained_on_its_own_grid():
    net = MultiResNet(1, 1, channels=(8, 8, 8), num_blocks=1, norm=None)
    task = SegmentationTask(net, mode="binary", ignore_index=255)
    task.log = lambda *args, **kwargs: None
    image, mask = torch.rand(2, 1, 16, 24), torch.randint(2, (2, 16, 24))
    mask[:, :8] = 255
    task.stage = 0
    valid = F.avg_pool2d((mask != 255).float().unsqueeze(1), 4)
    known = F.avg_pool2d((mask == 1).float().unsqueeze(1), 4)
    wanted = SegmentationLoss("dice+ce", task.labels)(net.stage(0)(F.avg_pool2d(image, 4)), Target(known, valid))
    loss = task.training_step((image, mask), 0)
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    assert all(p.grad is None for p in net.sweeps[0].levels[-1].parameters())


def test_tiles_and_flips():
    net = MultiResNet(1, 3, channels=(8, 8), num_blocks=1, norm=None)
    make = lambda **more: SegmentationTask(net, mode="multiclass", classes=3, **more).eval()  # noqa: E731
    image = torch.randn(1, 1, 70, 61)
    whole, tiled = make().predict_step(image), make(tile=32).predict_step(image)
    torch.testing.assert_close(whole["probability"], tiled["probability"], rtol=0, atol=1e-6)

    flips = [[], [2], [3], [2, 3]]
    wanted = torch.stack([net(image.flip(f)).softmax(1).flip(f) for f in flips]).mean(0)
    for task in (make(augment_at_test=True), make(augment_at_test=True, tile=32)):
        torch.testing.assert_close(task.predict_step(image)["probability"], wanted, rtol=0, atol=1e-6)
    one = make(augment_at_test=[-1]).predict_step(image)["probability"]
    torch.testing.assert_close(one, torch.stack([net(image.flip(f)).softmax(1).flip(f) for f in ([], [3])]).mean(0))
    data = DataLoader([(image[0], torch.randint(3, (70, 61)))])
    [plain] = quiet().test(make(), data, verbose=False)
    [in_tiles] = quiet().test(make(tile=32), data, verbose=False)
    assert plain == pytest.approx(in_tiles, rel=1e-4)


@pytest.mark.parametrize("options", [{}, {"deep_supervision": True, "loss": "focal+lovasz"}, {"augment_at_test": True}])
def test_bf16_mixed(options):
    task, trainer = SegmentationTask(SMALL, **options), quiet(3, precision="bf16-mixed")
    trainer.fit(task, datamodule=Discs(discs(4)))
    assert math.isfinite(trainer.callback_metrics["train/loss"]) and math.isfinite(trainer.callback_metrics["val/loss"])
    out = trainer.predict(task, datamodule=Discs(discs(1)))[0]
    assert out["probability"].dtype == torch.float32 and all(p.dtype == torch.float32 for p in task.parameters())


def test_the_metrics_do_not_depend_on_the_batch_size():
    examples = discs(5, classes=3, ignore=255)
    task = SegmentationTask(
        MultiResNet(1, 3, channels=(8, 8), num_blocks=1), mode="multiclass", classes=3, ignore_index=255
    )
    [one], [all_] = (quiet().validate(task, DataLoader(examples, n), verbose=False) for n in (1, 5))
    for name in one.keys() - {"val/loss"}:
        assert one[name] == pytest.approx(all_[name], nan_ok=True)


@pytest.mark.slow
def test_two_processes_measure_what_one_does():
    examples = discs(6, classes=3, ignore=255)
    network = MultiResNet(1, 3, channels=(8, 8), num_blocks=1, norm=None)
    task = SegmentationTask(network, mode="multiclass", classes=3, ignore_index=255)
    [one] = quiet().validate(task, DataLoader(examples, 1), verbose=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*Using `DistributedSampler` with the dataloaders")
        trainer = quiet(devices=2, strategy="ddp_spawn")
        [two] = trainer.validate(task, DataLoader(examples, 1), verbose=False)
    assert two == pytest.approx(one, nan_ok=True, rel=1e-5)


def test_class_weights_and_modules_as_loss():
    task = SegmentationTask(SMALL, class_weights=[0.2, 0.8])
    quiet(1).fit(task, datamodule=Discs(discs(4)))
    assert task.criterion.class_weights == [0.2, 0.8]
    task = SegmentationTask(SMALL, loss=nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0)))
    trainer = quiet(1)
    trainer.fit(task, datamodule=Discs(discs(4)))
    assert math.isfinite(trainer.callback_metrics["train/loss"])


# ---- errors ----------------------------------------------------------------------------------------------------------


def conv(out=1, **more):
    return SegmentationTask(nn.Conv2d(1, out, 1), **more)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: conv(loss="dise+ce"), "did you mean 'dice'"),
        (lambda: conv(mode="binaire"), "unknown"),
        (lambda: conv(class_weights="balancd", mode="binary"), "'balanced'"),
        (lambda: conv(mode="multiclass", classes=3, class_weights=[1.0]), "needs 3 values"),
        (lambda: conv(mode="binary", deep_supervision=True), "forward_resolutions; Conv2d is not a network of"),
        (lambda: conv(lr=0.0), "lr > 0"),
    ],
)
def test_wrong_choices_are_explained(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def image_and_mask(mask=None, image=None, **more):
    image = torch.rand(1, 8, 8) if image is None else image
    return [{"image": image, "mask": torch.randint(2, (8, 8)) if mask is None else mask, **more}] * 2


@pytest.mark.parametrize(
    ("task", "examples", "message"),
    [
        (lambda: conv(mode="binary"), image_and_mask(255 * torch.eye(8)), r"values 0 \.\. 255.*\(mask > 127\)"),
        (lambda: conv(3, classes=3), image_and_mask(torch.full((8, 8), 7)), r"values 7 \.\. 7; .*classes=8 or more"),
        (lambda: conv(2, mode="binary"), image_and_mask(), r"returned \(2, 2, 8, 8\);.*out_channels=1"),
        (lambda: conv(2, classes=3), image_and_mask(), r"wants \(N, 3, 8, 8\)"),
        (lambda: conv(mode="binary"), image_and_mask(torch.zeros(4, 8)), r"shape \(2, 4, 8\); for images \(2, 1, 8, 8\)"),
        (lambda: conv(mode="binary"), image_and_mask(image=torch.full((1, 8, 8), math.nan)), "input of the network holds NaN"),
        (lambda: conv(mode="binary"), [{"img": torch.rand(1, 8, 8)}] * 2, "wanted a batch with 'image' and 'mask'.*'img'"),
        (lambda: conv(mode="binary"), [torch.rand(1, 8, 8)] * 2, "a pair .image, mask., got a Tensor"),
        (lambda: conv(), image_and_mask(), "classes are not known: use a data module"),
        (lambda: SegmentationTask(mode="binary"), image_and_mask(), "built for the data of a data module"),
        (lambda: conv(mode="binary", class_weights="balanced"), image_and_mask(), "data module with class_counts"),
        (lambda: SegmentationTask(nn.Upsample(scale_factor=2), mode="binary"), image_and_mask(), "no trainable parameter"),
        (
            lambda: SegmentationTask(nn.Conv2d(1, 1, 3), mode="binary"),
            image_and_mask(),
            r"returned \(2, 1, 6, 6\) for a mask of size \(8, 8\)",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_at_the_first_step(task, examples, message):
    with pytest.raises(ValueError, match=message), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You defined a `validation_step`")
        quiet(1).fit(task(), DataLoader(examples, 2))


def test_8_bit_images_are_refused():
    with pytest.raises(TypeError, match=r"torch.uint8; .*image.float\(\) / 255"):
        conv(mode="binary").predict_step(torch.zeros(1, 1, 4, 4, dtype=torch.uint8))


def test_arguments_are_stronger_than_the_data():
    data = SimpleNamespace(mode="multiclass", classes=3, ignore_index=255, channels=1, spatial_dims=2, boundary="zeros")
    facts = SegmentationTask(SMALL, ignore_index=2, class_weights="balanced").read_data(
        SimpleNamespace(**vars(data), class_counts=[1, 3, 4])
    )
    assert (facts["mode"], facts["classes"], facts["ignore_index"]) == ("multiclass", 3, 2)
    assert facts["class_weights"] == pytest.approx([8 / 3, 8 / 9, 2 / 3])


def test_another_network_is_tiled_with_the_halo_given():
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))
    image = torch.rand(1, 1, 45, 37)
    with torch.no_grad():
        whole = SegmentationTask(net, mode="binary", classes=1).whole_logits(image)
        tiled = SegmentationTask(net, mode="binary", classes=1, tile=16, halo=2).whole_logits(image)
        torch.testing.assert_close(whole, tiled)
        with pytest.raises(ValueError, match="halo"):
            SegmentationTask(net, mode="binary", classes=1, tile=16).whole_logits(image)
