"""KID and FID against closed forms, the classifier behind them, and pictures of samples."""

import numpy as np
import pytest
import torch
from lightning import Trainer
from PIL import Image
from torch import nn

from multiresnet import MultiResNet
from multiresnet.data.loading import make_loader
from multiresnet.tasks.diffusion.moving_average import MovingAverage
from multiresnet.tasks.diffusion.quality import FeatureClassifier, compare, images_and_labels, quality, train_classifier
from multiresnet.tasks.diffusion.sample_pictures import SamplePictures, picture_grid, save_picture
from multiresnet.tasks.diffusion.task import DiffusionTask

FLAT = nn.Flatten()


def bars(n, size=8):
    """Horizontal and vertical bars at random places, with noise: two classes."""
    labels = torch.arange(n) % 2
    images = torch.full((n, 1, size, size), -1.0)
    for image, label, place in zip(images, labels, torch.randint(size, (n,))):
        (image[0, place] if label else image[0, :, place]).fill_(1.0)
    return (images + 0.1 * torch.randn_like(images)).clamp(-1, 1), labels


def network(**options):
    layout = {"channels": (16, 16), "num_blocks": 1, "patch_levels": 0, "emb_channels": 16}
    return DiffusionTask(MultiResNet(1, 1, **layout), **options)


def test_distances_of_normal_distributions():
    """In one dimension KID's kernel is (x y + 1)^3 = sum_j binomial(3, j) x^j y^j: it compares three moments."""
    x, y = torch.randn(20_000, 1, 1, 1), 1 + torch.randn(20_000, 1, 1, 1)
    found = compare(x, y, FLAT, subset_size=1000, subsets=20)
    assert found["kid"] == pytest.approx(3 * 1**2 + 3 * (2 - 1) ** 2 + (4 - 0) ** 2, rel=0.1)
    assert found["fid"] == pytest.approx(1.0, rel=0.05)
    wide = compare(x, 3 * torch.randn(20_000, 1, 1, 1), FLAT)
    assert wide["fid"] == pytest.approx((3 - 1) ** 2, rel=0.05)
    same = compare(x[:10_000], x[10_000:], FLAT)
    assert abs(same["kid"]) < 0.3 and same["fid"] < 0.01
    assert same == compare(x[:10_000], x[10_000:], FLAT)  # the subsets are seeded


def test_few_samples_make_smaller_subsets():
    found = compare(torch.randn(12, 1, 2, 2), torch.randn(7, 1, 2, 2), FLAT)
    assert all(np.isfinite(value) for value in found.values())
    with pytest.raises(ValueError, match="2 or more images of each kind, got 12 and 1"):
        compare(torch.randn(12, 1, 2, 2), torch.randn(1, 1, 2, 2), FLAT)


def test_the_classifier_learns_and_its_features_are_standardised():
    images, labels = bars(400)
    before = torch.get_rng_state()
    model = train_classifier(images, labels, epochs=10)
    assert torch.equal(before, torch.get_rng_state())
    assert model.accuracy > 0.9
    features = model(images)
    assert features.shape == (400, model.num_features)
    alive = features.std(0) > 0.5
    assert alive.float().mean() > 0.5 and float(features[:, alive].mean(0).abs().max()) < 0.2
    twin = train_classifier(images, labels, epochs=10)
    torch.testing.assert_close(twin(images), features, rtol=0, atol=0)
    worse = compare(images[:200], images[200:].roll(1, 1) * 0.5, model)["kid"]
    assert worse > 10 * abs(compare(images[:200], images[200:], model)["kid"])
    with pytest.raises(ValueError, match="400 images, 3 labels"):
        train_classifier(images, labels[:3])


def test_features_are_finite_where_most_of_them_are_dead(monkeypatch):
    """As they were on Fashion-MNIST, 35 of 64: a median over all of them is then zero."""

    class Mostly(FeatureClassifier):
        dead = 50

        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            with torch.no_grad():
                self.body[8].bias[: self.dead] = -1e4

    monkeypatch.setattr("multiresnet.tasks.diffusion.quality.FeatureClassifier", Mostly)
    images, labels = bars(200)
    features = train_classifier(images, labels, epochs=2)(images)
    assert features.isfinite().all() and (features.std(0) == 0).sum() >= 50
    assert all(
        np.isfinite(value)
        for value in compare(images[:100], images[100:], train_classifier(images, labels, epochs=2)).values()
    )
    Mostly.dead = 64
    with pytest.raises(ValueError, match="learned nothing: all its features are constant"):
        train_classifier(images, labels, epochs=1)


def test_colour_is_fed_as_it_is():
    assert FeatureClassifier(3, 2)(torch.zeros(2, 3, 9, 9)).shape == (2, 64)


def test_quality_of_a_task():
    images, labels = bars(60)
    found = quality(network(classes=2), (images, labels), n=40, steps=2)
    assert set(found) == {"kid", "kid_std", "fid", "kid_of_data", "fid_of_data", "accuracy"}
    assert found["kid"] > found["kid_of_data"]  # not trained
    loader = make_loader(
        [{"image": image, "label": label} for image, label in zip(images, labels)], batch_size=7, shuffle=False
    )
    assert quality(network(classes=2), loader, n=40, steps=2).keys() == found.keys()
    torch.testing.assert_close(images_and_labels(loader)[1], labels)
    assert set(quality(network(), (images, None), steps=2, features=FLAT)) == set(found) - {"accuracy"}
    with pytest.raises(ValueError, match="no labels to train a classifier on"):
        quality(network(), (images, None))
    with pytest.raises(ValueError, match="the model has classes, the data have no labels"):
        quality(network(classes=2), (images, None), features=FLAT)


def test_pictures_show_pixels_where_they_belong(tmp_path):
    images = torch.stack([torch.full((1, 32, 40), value) for value in (-1.0, 0.0, 1.0, 5.0, -0.5)])
    grid = picture_grid(images, columns=3)
    assert grid.shape == (2 * 34, 3 * 42, 3)
    cells = grid.reshape(2, 34, 3, 42, 3)[:, 1:-1, :, 1:-1].transpose(0, 2, 1, 3, 4).reshape(6, -1)
    assert [np.unique(cell).tolist() for cell in cells] == [[0], [128], [255], [255], [64], [64]]
    colour = torch.zeros(1, 3, 8, 8)
    colour[0, 0] = 1
    save_picture(tmp_path / "new" / "a.png", colour)
    with Image.open(tmp_path / "new" / "a.png") as picture:
        assert picture.size == (34, 34) and picture.getpixel((5, 5)) == (255, 128, 128)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]
    with pytest.raises(ValueError, match=r"1 or 3, H, W\), got \(1, 2, 8, 8\)"):
        picture_grid(torch.zeros(1, 2, 8, 8))


def fitting(tmp_path, *callbacks, **options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(
        accelerator="cpu", devices=1, enable_model_summary=False, default_root_dir=tmp_path, callbacks=[*callbacks],
        num_sanity_val_steps=1, **quiet, **options,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*overrides the configure_model:UserWarning")
@pytest.mark.parametrize("first", [True, False])
def test_samples_are_drawn_with_the_averaged_weights(first, tmp_path):
    images, labels = bars(32)
    loader = make_loader([{"image": x, "label": y} for x, y in zip(images, labels)], batch_size=8, shuffle=False)
    task = network(classes=2, lr=0.01)
    callbacks = [MovingAverage(0.9), SamplePictures(every_n_epochs=2, n=6, steps=2)]
    fitting(tmp_path, *(callbacks if first else callbacks[::-1]), max_epochs=4).fit(task, loader, loader)
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["step-00000008.png", "step-00000016.png"]
    last = task.sample(
        6, size=(1, 8, 8), steps=2, label=torch.arange(6) % 2, seed=0
    )  # after training the task has those weights
    with Image.open(tmp_path / "samples" / "step-00000016.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), picture_grid(last, columns=2))


@pytest.mark.filterwarnings("ignore:.*no `val_dataloader`:UserWarning")
def test_pictures_without_validation_are_refused(tmp_path):
    loader = make_loader([{"image": torch.zeros(1, 8, 8)}] * 4, batch_size=2, shuffle=False)
    with pytest.raises(ValueError, match="draws in validation"):
        fitting(tmp_path, SamplePictures(), max_epochs=1).fit(network(), loader)
