"""The data modules on real sets, where the folder of them is at hand."""

from pathlib import Path

import pytest
import torch
from multiresnet_bench import packed

from multiresnet.data import TrajectoryDataModule
from multiresnet.data.images.image_folder import ImageDataModule
from multiresnet.data.images.image_masks import ImageMaskDataModule

pytestmark = pytest.mark.slow


def sizes(data: ImageMaskDataModule) -> tuple[int, ...]:
    return tuple(len(data.splits[split]) for split in ("train", "val", "test"))


def test_nuclei(shared_data: Path, tmp_path: Path) -> None:
    data = ImageMaskDataModule(packed.nuclei(shared_data, tmp_path))
    with pytest.warns(UserWarning, match="431 of 538 images are grey"):
        data.setup()
    assert sizes(data) == (376, 81, 81) and data.channels == 3 and data.crop_size == (256, 256)
    names = [name for batch in data.train_dataloader() for name in batch["name"]]
    assert len(set(names)) == 376
    assert {batch["image"].shape for batch in data.val_dataloader()} >= {(1, 3, 256, 320), (1, 3, 360, 360)}


def test_membranes(shared_data: Path, tmp_path: Path) -> None:
    data = ImageMaskDataModule(packed.membranes(shared_data, tmp_path), crops=4)
    data.setup()
    assert sizes(data) == (20, 4, 6) and data.channels == 1
    assert data.class_counts[1] / sum(data.class_counts) == pytest.approx(0.22, abs=0.02)
    assert sum(len(batch["name"]) for batch in data.train_dataloader()) == 80


def test_camvid(shared_data: Path, tmp_path: Path) -> None:
    root = packed.camvid(shared_data, tmp_path)
    with pytest.raises(ValueError, match=r"holds the label 11 at .*classes=12.*ignore_index=11"):
        ImageMaskDataModule(root, classes=11).setup()
    data = ImageMaskDataModule(root, classes=11, ignore_index=11)
    data.setup()
    assert sizes(data) == (367, 101, 0) and data.crop_size == (240, 256)
    assert len(data.class_counts) == 11 and min(data.class_counts) > 0


def test_hippocampus(shared_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("nibabel")
    data = ImageMaskDataModule(packed.hippocampus(shared_data, tmp_path), classes=3)
    data.setup()
    assert sizes(data) == (180, 35, 45) and data.spatial_dims == 3 and data.crop_size == (48, 64, 48)
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (8, 1, 48, 64, 48) and batch["mask"].unique().tolist() == [0, 1, 2]


def test_fashion(shared_data: Path, tmp_path: Path) -> None:
    data = ImageDataModule(packed.fashion(shared_data, tmp_path), size=32, fit="pad")
    data.setup()
    assert (data.channels, data.size, data.classes) == (1, 32, 10)
    labels = torch.cat([batch["label"] for batch in data.val_dataloader()])
    assert len(labels) == 6000 and labels.bincount().min() > 500


def test_radar(shared_data: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="1 trajector"):
        data = TrajectoryDataModule(packed.radar(shared_data, tmp_path))
    assert (data.channels, data.spatial_dims, data.boundary) == (1, 2, "replicate")
