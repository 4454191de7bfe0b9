"""The data module of images and masks: what its batches hold, and what it refuses before training."""

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from multiresnet.data.images.augment import Augment
from multiresnet.data.images.image_masks import ImageMaskDataModule

RNG = np.random.default_rng(0)
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes images and masks, arrays by name, as `tmp_path/images/<name>` and `tmp_path/masks/<name>`."""

    def save(folder: str, name: str, array: np.ndarray) -> None:
        path = tmp_path / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, array) if name.endswith(".npy") else Image.fromarray(array).save(path)

    def pairs(entries: dict[str, tuple[np.ndarray, np.ndarray]]) -> Path:
        for name, (image, mask) in entries.items():
            save("images", name, image)
            save("masks", name, mask)
        return tmp_path

    return pairs


def located(*space: int) -> tuple[np.ndarray, np.ndarray]:
    """A float image whose channels are the coordinates of its pixels, and the mask that numbers the pixels."""
    coordinates = np.stack(np.indices(space)) / np.array(space).reshape(-1, *(1,) * len(space))
    return coordinates.astype(np.float32), np.arange(np.prod(space), dtype=np.int32).reshape(space)


def agree(image: torch.Tensor, mask: torch.Tensor, space: tuple[int, ...]) -> bool:
    """Whether the pixels of the mask are those of the image, leaving out the ignored ones."""
    coordinates = np.rint(image.numpy() * np.array(space).reshape(-1, *(1,) * len(space))).astype(int)
    numbers = np.ravel_multi_index(tuple(coordinates), space)
    return bool(((numbers == mask.numpy()) | (mask.numpy() == -1)).all())


def grey(count: int, *space: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Random 8-bit images and masks of 0 and 1."""
    return {
        f"{i}.png": (RNG.integers(0, 256, space, np.uint8), RNG.integers(0, 2, space, np.uint8)) for i in range(count)
    }


def batches(loader: Any, epoch: int = 0) -> list[dict[str, Any]]:
    if hasattr(loader.sampler, "set_epoch"):
        loader.sampler.set_epoch(epoch)
    return list(loader)


# ---- batches ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("space", "crop"), [((12, 17), (8, 8)), ((12, 17), (16, 10)), ((6, 7, 9), (5, 5, 12))])
def test_images_and_masks_move_together(write: Write, space: tuple[int, ...], crop: tuple[int, ...]) -> None:
    root = write({f"{i}.npy": located(*space) for i in range(4)})
    data = ImageMaskDataModule(
        root, classes=int(np.prod(space)), ignore_index=-1, spatial_dims=len(space), crop=crop, crops=5, batch_size=3
    )
    data.setup("fit")
    assert (data.spatial_dims, data.channels) == (len(space), len(space))
    seen = 0
    for batch in batches(data.train_dataloader()):
        assert batch["image"].dtype == torch.float32 and batch["mask"].dtype == torch.int64
        for image, mask in zip(batch["image"], batch["mask"]):
            assert image.shape == (len(space), *crop) and mask.shape == crop
            assert agree(image, mask, space)
            assert ((mask == -1).any() == any(c > s for c, s in zip(crop, space))).all()
            seen += 1
    assert seen == 5 * len(data.splits["train"]) == 10
    for loader in (data.val_dataloader(), data.test_dataloader()):
        (batch,) = batches(loader)
        np.testing.assert_array_equal(batch["image"][0], located(*space)[0])
        np.testing.assert_array_equal(batch["mask"][0], located(*space)[1])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_same_seed_and_epoch_same_batches_whatever_the_workers(write: Write) -> None:
    root = write(grey(10, 20, 22))
    augment = Augment(brightness=0.1, contrast=0.1, noise=0.1)

    def epoch(number: int, *, workers: int = 0, seed: int = 0) -> list[dict[str, Any]]:
        data = ImageMaskDataModule(root, crop=8, batch_size=3, num_workers=workers, seed=seed, augment=augment)
        data.setup()
        return batches(data.train_dataloader(), number)

    reference = epoch(1)
    for first, second in zip(reference, epoch(1, workers=2), strict=True):
        assert first["name"] == second["name"]
        assert torch.equal(first["image"], second["image"]) and torch.equal(first["mask"], second["mask"])
    for other in (epoch(2), epoch(1, seed=1)):
        assert not torch.equal(reference[0]["image"], other[0]["image"])


def test_mixed_sizes(write: Write) -> None:
    root = write({f"{size}.png": grey(1, size, 40 - size)["0.png"] for size in range(10, 31)})
    data = ImageMaskDataModule(root, batch_size=4)
    data.setup()
    sizes = {pair.name: (int(pair.name[:2]), 40 - int(pair.name[:2])) for pair in data.splits["train"]}
    assert data.crop_size == tuple(max(size[axis] for size in sizes.values()) for axis in (0, 1))
    for batch in batches(data.train_dataloader()):
        assert batch["image"].shape[2:] == batch["mask"].shape[1:] == data.crop_size
    for batch in batches(data.val_dataloader()):
        height = int(batch["name"][0][:2])
        assert batch["image"].shape == (1, 1, height, 40 - height)
    whole = ImageMaskDataModule(root, crop=None, batch_size=1)
    whole.setup()
    for batch in batches(whole.train_dataloader()):
        assert sorted(batch["mask"].shape[1:]) == sorted(sizes[batch["name"][0]])
    with pytest.raises(ValueError, match=r"training images differ in size .*pass crop=\.\.\., or batch_size=1"):
        ImageMaskDataModule(root, crop=None).setup()


def test_the_crop_is_no_larger_than_the_largest_image_and_at_most_256(write: Write) -> None:
    root = write({f"{i}.npy": (np.zeros((300, 20), np.uint8), np.eye(300, 20, dtype=np.uint8)) for i in range(3)})
    data = ImageMaskDataModule(root)
    data.setup()
    assert data.crop_size == (256, 20)
    for crop in ((8, 8, 8), 0, (8, -1)):
        with pytest.raises(ValueError, match="must be a positive integer, or 2 of them"):
            ImageMaskDataModule(root, crop=crop).setup()


def test_statistics_of_the_training_images(write: Write) -> None:
    entries = {
        f"{i}.png": (RNG.integers(0, 9 * i + 9, (i + 3, 7, 3), np.uint8), np.eye(i + 3, 7) > 0) for i in range(9)
    }
    data = ImageMaskDataModule(write(entries), fractions=(0.6, 0.2, 0.2))
    data.setup()
    chosen = [entries[pair.name] for pair in data.splits["train"]]
    values = np.concatenate([image.reshape(-1, 3) for image, _ in chosen]) / 255
    np.testing.assert_allclose(data.mean, values.mean(0), rtol=1e-6)
    np.testing.assert_allclose(data.std, values.std(0), rtol=1e-6)
    masks = np.concatenate([mask.ravel() for _, mask in chosen])
    assert data.class_counts == [int((~masks).sum()), int(masks.sum())]


def test_a_constant_channel_has_deviation_one(write: Write) -> None:
    image = np.stack([np.zeros((4, 4)), np.full((4, 4), 0.3)]).astype(np.float32)
    data = ImageMaskDataModule(write({f"{i}.npy": (image, np.eye(4, dtype=int)) for i in range(3)}))
    data.setup()
    assert data.std == [1.0, 1.0] and data.mean == pytest.approx([0, 0.3])


def test_multilabel_and_ignored_counts(write: Write) -> None:
    bands = np.array([[[0, 1, 1]], [[9, 0, 1]]], np.uint8)
    image = RNG.random((1, 3), np.float32)
    root = write({f"{i}.npy": (image, bands) for i in range(4)})
    data = ImageMaskDataModule(
        root, classes=2, mode="multilabel", ignore_index=9, crop=None, augment=False, spatial_dims=2
    )
    data.setup()
    assert data.class_counts == [4, 2]
    batch = batches(data.train_dataloader())[0]
    assert batch["mask"].tolist() == [bands.tolist()] * 2


@pytest.mark.parametrize(("channels", "count"), [(None, 3), ("rgb", 3), ("grey", 1)])
def test_grey_among_colour(write: Write, channels: Any, count: int, recwarn: pytest.WarningsRecorder) -> None:
    entries = grey(6, 8, 8) | {
        f"c{i}.png": (RNG.integers(0, 256, (8, 8, 3), np.uint8), np.eye(8, dtype=np.uint8)) for i in range(6)
    }
    data = ImageMaskDataModule(write(entries), channels=channels)
    data.setup()
    assert [str(w.message)[:26] for w in recwarn] == (["6 of 12 images are grey (s"] if channels is None else [])
    assert data.channels == len(data.mean) == count
    images = [(n, image) for b in batches(data.val_dataloader()) for n, image in zip(b["name"], b["image"])]
    for name, image in images:
        stored = torch.from_numpy(np.atleast_3d(entries[name][0]).copy()).movedim(-1, 0) / 255
        if count == 3:
            torch.testing.assert_close(image, stored.expand(3, 8, 8))
        elif len(stored) == 3:
            torch.testing.assert_close(image[0], 0.299 * stored[0] + 0.587 * stored[1] + 0.114 * stored[2])


def test_volumes_of_nifti(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for i in range(3):
            volume = RNG.integers(0, 3 if kind == "masks" else 256, (6, 8, 7), np.uint8)
            nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / kind / f"{i}.nii.gz")
    data = ImageMaskDataModule(tmp_path, classes=3, batch_size=1)
    data.setup()
    assert (data.spatial_dims, data.crop_size) == (3, (6, 8, 7))
    assert batches(data.train_dataloader())[0]["image"].shape == (1, 1, 6, 8, 7)


def test_bands_are_told_from_slices_by_the_mask(write: Write) -> None:
    satellite = {f"{i}.npy": (RNG.random((7, 9, 8), np.float32), RNG.integers(0, 2, (9, 8))) for i in range(3)}
    data = ImageMaskDataModule(write(satellite))
    data.setup()
    assert (data.spatial_dims, data.channels) == (2, 7)


def test_one_npz_of_all_images(tmp_path: Path) -> None:
    images, masks = RNG.integers(0, 256, (10, 6, 5, 3), np.uint8), RNG.integers(0, 2, (10, 6, 5))
    np.savez(tmp_path / "all.npz", x=images, y=masks, names=[f"n{i}" for i in range(10)])
    data = ImageMaskDataModule(tmp_path / "all.npz", images="x", masks="y")
    data.setup()
    for batch in batches(data.val_dataloader()) + batches(data.test_dataloader()):
        i = int(batch["name"][0][1:])
        np.testing.assert_allclose(batch["image"][0], np.moveaxis(images[i], -1, 0) / 255, rtol=1e-6)
        np.testing.assert_array_equal(batch["mask"][0], masks[i])
    assert len(data.predict_dataloader()) == 10


def test_prediction_needs_no_masks_and_keeps_names(tmp_path: Path) -> None:
    for name in ("a.png", "sub/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(RNG.integers(0, 256, (5, 6), np.uint8)).save(tmp_path / name)
    data = ImageMaskDataModule(tmp_path)
    data.setup("predict")
    found = batches(data.predict_dataloader())
    assert [batch["name"] for batch in found] == [["a.png"], ["sub/b.png"]]
    assert all(set(batch) == {"image", "name"} and batch["image"].shape == (1, 1, 5, 6) for batch in found)
    assert (data.channels, data.spatial_dims, data.image_root) == (1, 2, tmp_path)
    # the network of a trained task takes colour
    data.trainer = SimpleNamespace(lightning_module=SimpleNamespace(facts={"channels": 3}))  # type: ignore[assignment]
    assert batches(data.predict_dataloader())[0]["image"].shape == (1, 3, 5, 6)


def test_pickled_without_its_cache_and_readable_with_none(write: Write) -> None:
    root = write(grey(5, 9, 9))
    data = ImageMaskDataModule(root, batch_size=2)
    data.setup()
    dataset = data.train_dataloader().dataset
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.reader.cache.used == 0 < dataset.reader.cache.used
    bare = ImageMaskDataModule(root, batch_size=2, memory=0)
    bare.setup()
    for first, second in zip(batches(data.train_dataloader()), batches(bare.train_dataloader()), strict=True):
        assert torch.equal(first["image"], second["image"])
    assert bare.reader.cache.used == 0


def test_large_arrays_stay_on_disk(write: Write) -> None:
    root = write({f"{i}.npy": located(30, 30) for i in range(3)})
    data = ImageMaskDataModule(root, classes=900)
    data.setup()
    assert isinstance(data.reader.image(data.splits["train"][0].image), np.memmap)


# ---- guards -------------------------------------------------------------------------------------------------

OK = (np.zeros((6, 6), np.uint8), np.eye(6, dtype=np.uint8))
FLOATS = np.linspace(0, 1, 36, dtype=np.float32).reshape(6, 6)


def with_value(value: float) -> np.ndarray:
    image = FLOATS.copy()
    image[2, 3] = value
    return image


@pytest.mark.parametrize(
    ("name", "image", "mask", "message"),
    [
        (
            "b.png",
            OK[0],
            OK[1] * 255,
            "b.png holds the values 0, 255; a binary mask has 0 and 1: pass mask_values={255: 1}",
        ),
        ("b.png", OK[0], OK[1] * 7, "b.png holds the values 0, 7"),
        ("b.npy", OK[0], -OK[1].astype(int), "b.npy holds the values -1, 0"),
        ("b.png", OK[0], OK[1][:5], "b.png is (5, 6), its image"),
        (
            "b.png",
            OK[0],
            np.stack([OK[1]] * 3, -1),
            "b.png has 3 channels, wanted one number per pixel; map colours by",
        ),
        ("b.npy", with_value(np.nan), OK[1], "b.npy holds nan at (channel, *space) = (0, 2, 3)"),
        ("b.npy", with_value(-np.inf), OK[1], "b.npy holds -inf at (channel, *space) = (0, 2, 3)"),
        ("b.npy", np.zeros((6, 6, 2), np.uint8), OK[1], "different numbers of channels: "),
    ],
)
def test_refused_before_training(write: Write, name: str, image: np.ndarray, mask: np.ndarray, message: str) -> None:
    root = write({"a.png": OK, "c.png": OK, "d.png": OK, name: (image, mask)})
    with pytest.raises(ValueError, match=re.escape(message)):
        ImageMaskDataModule(root, spatial_dims=2).setup("fit")


def test_label_beyond_the_classes(write: Write) -> None:
    root = write({"a.png": (OK[0], OK[1] * 4), "b.png": (OK[0], OK[1] * 5)})
    with pytest.raises(ValueError, match=r"b\.png holds the label 5 at \(0, 0\); with classes=5 labels are 0\.\.4"):
        ImageMaskDataModule(root, classes=5).setup()


def test_no_foreground_and_missing_classes(write: Write) -> None:
    root = write({"a.png": OK, "b.png": OK, "c.png": OK})
    with pytest.warns(UserWarning, match="the training masks have no pixel of class 2, 3$"):
        ImageMaskDataModule(root, classes=5, ignore_index=4).setup()
    with pytest.raises(ValueError, match="no pixel of the training masks is 1"):
        ImageMaskDataModule(root, mask_values={1: 0}).setup()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.rint(FLOATS * 255), r"values 0\.\.255, all whole \(8-bit values\?\)"),
        (FLOATS * 300 - 9, r"values -9\.\.291, as"),
    ],
)
def test_unusual_ranges_are_told_once(write: Write, image: np.ndarray, message: str) -> None:
    root = write({f"{i}.npy": (image, OK[1]) for i in range(4)})
    with pytest.warns(UserWarning, match=message) as told:
        ImageMaskDataModule(root).setup()
    assert len(told) == 1 and "4 of 4 images" in str(told[0].message)


def test_a_truncated_image_is_named(write: Write) -> None:
    root = write(grey(4, 40, 40))
    path = root / "images" / "2.png"
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(ValueError, match=r"cannot read .*images.2\.png"):
        ImageMaskDataModule(root).setup()


def test_nan_in_an_image_that_was_not_looked_at(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiresnet.data.images.pair_survey._IMAGES", 1)
    root = write({"a.npy": (FLOATS, OK[1])} | {f"b{i}.npy": (with_value(np.nan), OK[1]) for i in range(5)})
    data = ImageMaskDataModule(root, fractions=(1.0, 0.0, 0.0))
    data.setup()
    with pytest.raises(ValueError, match=r"b\d\.npy holds nan at .*\(0, 2, 3\)"):
        batches(data.train_dataloader())


def test_no_such_split(write: Write) -> None:
    data = ImageMaskDataModule(write(grey(4, 6, 6)), fractions=(1.0, 0.0, 0.0))
    assert data.val_dataloader() == []
    with pytest.raises(ValueError, match="there is no test split: 4 train, 0 val, 0 test"):
        data.test_dataloader()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer >= 1"),
        ({"channels": "gray"}, "did you mean 'grey'"),
        ({"spatial_dims": 4}, "spatial_dims must be 2, 3 or None"),
        ({"classes": 3, "class_names": ["a", "b"]}, "class_names has 2 names, classes=3"),
        ({"classes": 3, "mode": "binary"}, "binary has 1 class"),
    ],
)
def test_impossible_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageMaskDataModule("anywhere", **arguments)
