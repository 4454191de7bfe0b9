"""Images for generative models: from everywhere into [-1, 1], one size, with the labels that belong to them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from multiresnet.data.images.image_folder import ImageDataModule, fit_to_square

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (20, 6, 6), np.uint8)
Y = np.arange(20) % 4


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def everything(data: ImageDataModule) -> dict[str, torch.Tensor]:
    """All images and labels, train and val."""
    found = [batch for loader in (data.train_dataloader(), data.val_dataloader()) for batch in loader]
    return {key: torch.cat([batch[key] for batch in found]) for key in found[0]}


def test_digits_are_those_of_scikit_learn() -> None:
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    data = ImageDataModule(batch_size=500)
    data.setup()
    assert (data.channels, data.size, data.classes, data.spatial_dims) == (1, 8, 10, 2)
    found = everything(data)
    assert found["image"].dtype == torch.float32 and found["label"].dtype == torch.int64
    served = sorted(zip(found["image"].flatten(1).tolist(), found["label"].tolist()))
    wanted = (digits.images / 8 - 1).astype(np.float32).reshape(1797, -1).tolist()
    assert served == sorted(zip(wanted, digits.target.tolist()))


def test_split_by_seed_without_overlap() -> None:
    data = ImageDataModule(val_fraction=0.25)
    data.setup()
    train, val = (loader.dataset.chosen for loader in (data.train_dataloader(), data.val_dataloader()))
    assert len(val) == round(1797 / 4) and sorted([*train, *val]) == list(range(1797))
    other = ImageDataModule(val_fraction=0.25, seed=1)
    assert not np.array_equal(other.val_dataloader().dataset.chosen, val)
    assert ImageDataModule(val_fraction=0).val_dataloader() == []


@pytest.mark.parametrize(
    ("arrays", "options", "classes"),
    [
        ({"x": X, "y": Y}, {}, 4),
        ({"images": X[:, None], "labels": Y[:, None].astype(np.uint8)}, {}, 4),
        ({"x_train": X[..., None], "y_train": Y, "x_test": X[:3], "y_test": Y[:3]}, {}, 4),
        ({"a": X, "train_images": X[:5], "train_labels": Y[:5]}, {"key": "a"}, 0),
        ({"a": X, "b": Y}, {"key": "a", "labels": "b"}, 4),
        ({"x": X, "y": Y}, {"labels": False}, 0),
        ({"x": X}, {}, 0),
        ({"x": X / 255}, {}, 0),
        ({"x": (X / 127.5 - 1).astype(np.float32)}, {}, 0),
        ({"x": X.astype(np.uint16) * 257}, {}, 0),
    ],
)
def test_npz_of_every_kind(tmp_path: Path, arrays: dict, options: dict, classes: int) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    data = ImageDataModule(tmp_path / "a.npz", **options)
    data.setup()
    assert (data.channels, data.size, data.classes) == (1, 6, classes)
    found = everything(data)
    order = np.lexsort(X.reshape(20, -1).T[::-1])
    ours = np.lexsort(found["image"].flatten(1).numpy().T[::-1])
    np.testing.assert_allclose(found["image"][ours, 0], X[order] / 127.5 - 1, atol=1e-6)
    if classes:
        np.testing.assert_array_equal(found["label"][ours], Y[order])
    else:
        assert set(found) == {"image"}


def test_key_chooses_images_and_their_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=X, y_train=Y, x_test=X[:3], y_test=Y[:3] + 5)
    data = ImageDataModule(tmp_path / "a.npz", key="x_test")
    assert sorted(everything(data)["label"].tolist()) == [5, 6, 7] and data.classes == 8


def test_folders_are_classes(tmp_path: Path) -> None:
    for i, (image, label) in enumerate(zip(X, Y)):
        save(tmp_path / "abcd"[label] / "deep" / f"{i}.png", image)
    data = ImageDataModule(tmp_path)
    data.setup()
    assert data.class_names == ("a", "b", "c", "d") and data.classes == 4
    label_of = {tuple(x.ravel().tolist()): label for x, label in zip(X, Y)}
    found = everything(data)
    stored = ((found["image"] + 1) * 127.5).round().int().flatten(1).tolist()
    assert [label_of[tuple(x)] for x in stored] == found["label"].tolist()
    flat = ImageDataModule(tmp_path / "a")
    flat.setup()
    assert flat.classes == 1  # "deep" is a folder, too
    unlabelled = ImageDataModule(tmp_path, labels=False)
    assert set(everything(unlabelled)) == {"image"} and unlabelled.classes == 0


def test_sizes_and_colours_are_made_equal(tmp_path: Path) -> None:
    save(tmp_path / "a.png", RNG.integers(0, 256, (20, 30), np.uint8))
    save(tmp_path / "b.jpg", RNG.integers(0, 256, (16, 16, 3), np.uint8))
    save(tmp_path / "c.png", RNG.integers(0, 256, (5, 9, 3), np.uint8))
    data = ImageDataModule(tmp_path, size=16)
    data.setup()
    assert (data.channels, data.size) == (3, 16)
    assert everything(data)["image"].shape == (3, 3, 16, 16)
    assert everything(ImageDataModule(tmp_path, size=16, channels="grey"))["image"].shape == (3, 1, 16, 16)
    with pytest.raises(ValueError, match=r"not squares of one size \(5, 9, 16 and 2 more\): pass size"):
        ImageDataModule(tmp_path).setup()


def test_flips_are_left_right_in_training_only() -> None:
    data = ImageDataModule(flips=True, batch_size=1797, val_fraction=0.5)
    data.setup()
    (batch,) = data.train_dataloader()
    known = {
        tuple(item["image"].flatten().tolist()) for item in ImageDataModule(val_fraction=0).train_dataloader().dataset
    }
    as_is = [tuple(x.flatten().tolist()) in known for x in batch["image"]]
    mirrored = [tuple(x.flip(-1).flatten().tolist()) in known for x in batch["image"]]
    assert all(a or b for a, b in zip(as_is, mirrored))
    assert 0.4 < np.mean(as_is) < 0.6
    (val,) = data.val_dataloader()
    assert all(tuple(x.flatten().tolist()) in known for x in val["image"])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_same_batches_with_workers() -> None:
    epochs = []
    for workers in (0, 2):
        loader = ImageDataModule(flips=True, num_workers=workers, batch_size=600).train_dataloader()
        loader.sampler.set_epoch(3)
        epochs.append(list(loader))
    for first, second in zip(*epochs, strict=True):
        assert torch.equal(first["image"], second["image"]) and torch.equal(first["label"], second["label"])


def test_fit_to_square() -> None:
    image = torch.arange(24.0).reshape(1, 4, 6) / 24
    torch.testing.assert_close(fit_to_square(image, 4), image[:, :, 1:5])
    large = RNG.random((12, 20), np.float32)
    wanted = np.asarray(Image.fromarray(large).resize((10, 6), Image.Resampling.BILINEAR))[
        :, 2:8
    ]  # is antialiased, too
    np.testing.assert_allclose(fit_to_square(torch.from_numpy(large)[None], 6)[0], wanted, atol=1e-5)
    padded = fit_to_square(image, 8, "pad")
    torch.testing.assert_close(padded[:, 2:6, 1:7], image)
    assert int((padded == -1).sum()) == 64 - 24
    torch.testing.assert_close(fit_to_square(image, 2, "pad"), image[:, 1:3, 2:4])
    constant = torch.full((3, 5, 7), 0.25)
    torch.testing.assert_close(fit_to_square(constant, 11), torch.full((3, 11, 11), 0.25))


def test_pad_digits_to_sixteen() -> None:
    batch = next(iter(ImageDataModule(size=16, fit="pad").val_dataloader()))["image"]
    assert batch.shape[2:] == (16, 16)
    assert (batch[..., :4, :] == -1).all() and (batch[..., 4:12, 4:12] > -1).any()


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({"x": X * 1.0}, {}, r"float64 values .*\.\.255; wanted uint8, uint16, or floating .* convert to uint8"),
        ({"x": X.astype(np.int64)}, {}, r"holds int64 values 0\.\.255; .*convert to uint8"),
        ({"x": X / 255 * 9 - 3}, {}, r"scale to -1\.\.1"),
        ({"x": np.where(X == X[3, 2, 1], np.nan, X / 255)}, {}, r"holds nan at"),
        ({"x": X[0]}, {}, r"x in .*a\.npz is \(6, 6\); wanted \(N, H, W\)"),
        ({"x": X[:0]}, {}, r"is \(0, 6, 6\)"),
        ({"a": X, "b": Y}, {}, r"holds a \(20, 6, 6\), b \(20,\): name the images with key"),
        ({"x": X}, {"key": "z"}, r"name the images with key"),
        ({"x": X}, {"labels": "z"}, r"no array 'z'"),
        ({"x": X, "y": Y[:9]}, {}, r"y in .*is \(9,\).*for each of 20 images"),
        ({"x": X, "y": Y - 1}, {}, r"-1\.\.2; wanted one class 0, 1"),
        ({"x": X, "y": Y / 2}, {}, r"float64"),
        ({"x": X[:, :5]}, {}, r"not squares of one size \(5, 6\)"),
    ],
)
def test_wrong_arrays(tmp_path: Path, arrays: dict, options: dict, message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        ImageDataModule(tmp_path / "a.npz", **options).setup()


def test_wrong_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder .*none"):
        ImageDataModule(tmp_path / "none").setup()
    with pytest.raises(ValueError, match="no image below"):
        ImageDataModule(tmp_path).setup()
    save(tmp_path / "train" / "a.png", X[0])
    save(tmp_path / "val" / "a.png", X[0])
    with pytest.raises(ValueError, match=r"look like splits, not classes \(train, val\)"):
        ImageDataModule(tmp_path).setup()
    save(tmp_path / "loose.png", X[0])
    with pytest.raises(ValueError, match=r"images beside folders \(loose\.png, 1 of 3\)"):
        ImageDataModule(tmp_path).setup()
    with pytest.raises(ValueError, match=r"loose\.png is no \.npz file"):
        ImageDataModule(tmp_path / "loose.png").setup()
    (tmp_path / "val" / "a.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"cannot read .*a\.png"):
        ImageDataModule(tmp_path, labels=False).setup()


def test_floats_of_a_folder_share_one_range(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((4, 4), 0.5, np.float32))
    np.save(tmp_path / "b.npy", np.full((4, 4), -0.5, np.float32))
    data = ImageDataModule(tmp_path, val_fraction=0)
    assert sorted(x["image"].mean().item() for x in data.train_dataloader().dataset) == [-0.5, 0.5]
    np.save(tmp_path / "b.npy", np.full((4, 4), 2.0, np.float32))
    with pytest.raises(ValueError, match=r"b\.npy holds float32 values 2\.\.2"):
        ImageDataModule(tmp_path).setup()
    np.save(tmp_path / "b.npy", np.zeros((5, 6, 7), np.float32))
    with pytest.raises(ValueError, match=r"different numbers of channels: \[1, 5\]"):
        ImageDataModule(tmp_path).setup()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size must be an integer >= 1"),
        ({"fit": "padd"}, "did you mean 'pad'"),
        ({"val_fraction": 1.0}, r"val_fraction must be in \[0, 1\)"),
        ({"channels": "gray"}, "did you mean 'grey'"),
    ],
)
def test_impossible_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageDataModule(**arguments)
