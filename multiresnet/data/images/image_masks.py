"""Images and masks, 2-D or 3-D, of any size: random crops for training, whole images for everything else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from multiresnet.checks import check_choice, check_positive
from multiresnet.data.loading import Draw, make_loader
from multiresnet.spaces.boundary import Boundary

from .augment import Augment, random_crop
from .masks import MaskCode
from .pair_reader import Cache, PairReader
from .pair_survey import survey
from .pairs import Pair, find_images, find_pairs, split_pairs
from .reading import check_finite, read_image, read_mask, scaled, with_channels

__all__ = ["ImageMaskDataModule"]

_CHANNELS = {"grey": 1, "rgb": 3, None: None}
_CROP = {2: 256, 3: 96}
_STILL = Augment(flips=False, quarter_turns=False)


@dataclass
class PairDataset(Dataset[dict[str, Any]]):
    """Examples: whole ones by index, cropped and augmented ones by `Draw`."""

    pairs: list[Pair]
    reader: PairReader
    channels: int | None
    crop: tuple[int, ...] | None = None
    crops: int = 1
    augment: Augment = _STILL
    mean: Sequence[float] = ()
    std: Sequence[float] = ()

    def __len__(self) -> int:
        return len(self.pairs) * self.crops

    def __getitem__(self, key: int | Draw) -> dict[str, Any]:
        pair = self.pairs[(key.index if isinstance(key, Draw) else key) % len(self.pairs)]
        if pair.mask is None:
            return {"image": _tensor(self._served(self.reader.image(pair.image), pair)), "name": pair.name}
        image, mask = self.reader.pair(pair)
        rng = np.random.default_rng(key.seed) if isinstance(key, Draw) else None
        if rng is not None:
            if self.crop is not None:
                image, mask = random_crop(rng, image, mask, self.crop, fill=self.reader.code.ignore_index)
            image, mask = self.augment.move(rng, image, mask)
        image = self._served(image, pair)
        if rng is not None:
            image = self.augment.recolour(rng, image, np.array(self.mean), np.array(self.std))
        return {"image": _tensor(image), "mask": _tensor(mask).long(), "name": pair.name}

    def _served(self, image: NDArray[Any], pair: Pair) -> NDArray[np.float32]:
        values = scaled(image)
        if image.dtype.kind == "f" and not np.isfinite(values).all():
            check_finite(self.reader.image(pair.image).astype(np.float32), pair.image)
        return with_channels(values, self.channels, pair.image)


class ImageMaskDataModule(LightningDataModule):
    """Images and their masks, from files: 2-D pictures or 3-D volumes, of any and of mixed sizes.

    Training batches are random crops, flipped and turned; all other batches are one whole image. A batch is a dictionary of
    `"image"`, (B, C, *space) float32; `"mask"`, int64, (B, *space), or (B, classes, *space) if multilabel; and
    `"name"`, a list of paths below the folder of images. 8-bit images are divided by 255, 16-bit ones by 65535, others are
    served as they are; the task standardises them by `mean` and `std`.

    Files are PNG, JPEG, TIFF, BMP, WebP, .npy, .npz or NIfTI (see `read_image` and its rules on axes); layouts are listed at
    `find_pairs`. Before training every mask is read once and up to 2000 images: what is wrong is said with file and value.

    Args:
        root: folder, or .npz file; for prediction also one image.
        images: name of the folder (or .npz array) of images in `root`.
        masks: name of the folder (or .npz array) of masks in `root`.
        table: CSV file with the columns `image`, `mask` and perhaps `split`, instead of folders.
        classes: 1 for masks of 0 and 1; else the number of classes, with the background.
        mode: `"binary"`, `"multiclass"` or `"multilabel"`; `None` is binary for one class and multiclass for more.
        ignore_index: label of pixels that do not count; also fills the mask where an image is smaller than the crop.
        mask_values: what the values in the files stand for, `{255: 1}` or a list of the classes' values or colours; see `MaskCode`.
        spatial_dims: 2 or 3; `None` goes by the files.
        channels: `"grey"` or `"rgb"` to convert; `None` goes by the files.
        crop: side of the training crops, or one per axis; `"auto"` is 256 in 2-D, 96 in 3-D, and no more than the largest
            training image; `None` serves whole images. Smaller images are padded by reflection.
        crops: of each image in an epoch.
        class_names: for the report, one per class.
        batch_size: of training batches.
        fractions: of train, val and test where the files do not say.
        augment: `Augment(...)`; `True` is flips and quarter turns, `False` nothing.
        num_workers: processes that load.
        seed: of the split, the order and all random choices.
        memory: bytes of decoded files that each process keeps.

    Attributes:
        channels: of the images as they are served, after `setup`.
        spatial_dims: after `setup`.
        mean: per channel over the training images, after `setup`.
        std: per channel over the training images, after `setup`.
        class_counts: pixels of each class in the training masks (binary: of 0 and 1), after `setup`.
        sizes: of the training images, without repetition, after `setup`.
        splits: the pairs of `"train"`, `"val"` and `"test"`, after `setup`.
        image_root: the folder that the names of predicted images start from, after `predict_dataloader`.

    Raises:
        FileNotFoundError, ValueError: from `setup`, see `find_pairs`, `MaskCode` and `survey`.

    Examples:
        >>> import tempfile
        >>> rng = np.random.default_rng(0)
        >>> file = Path(tempfile.mkdtemp()) / "cells.npz"
        >>> x = rng.integers(0, 256, (10, 30, 40), np.uint8)
        >>> np.savez(file, images=x, masks=x > 200)
        >>> data = ImageMaskDataModule(file, crop=16, batch_size=4)
        >>> data.setup()
        >>> batch = next(iter(data.train_dataloader()))
        >>> batch["image"].shape, batch["mask"].shape, len(batch["name"])
        (torch.Size([4, 1, 16, 16]), torch.Size([4, 16, 16]), 4)
        >>> next(iter(data.val_dataloader()))["image"].shape
        torch.Size([1, 1, 30, 40])
    """

    boundary: Boundary = "replicate"

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        images: str = "images",
        masks: str = "masks",
        table: str | Path | None = None,
        classes: int = 1,
        mode: Literal["binary", "multiclass", "multilabel"] | None = None,
        ignore_index: int | None = None,
        mask_values: dict[int | str, int] | list[int | str] | None = None,
        spatial_dims: int | None = None,
        channels: Literal["grey", "rgb"] | None = None,
        crop: int | Sequence[int] | Literal["auto"] | None = "auto",
        crops: int = 1,
        class_names: Sequence[str] | None = None,
        batch_size: int = 8,
        fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
        augment: Augment | bool = True,
        num_workers: int = 0,
        seed: int = 0,
        memory: int = 2**30,
    ) -> None:
        super().__init__()
        check_positive(batch_size=batch_size, crops=crops)
        check_choice("channels", channels or "rgb", ("grey", "rgb"))
        if spatial_dims not in (2, 3, None):
            raise ValueError(f"spatial_dims must be 2, 3 or None (by the files), got {spatial_dims!r}")
        self.root, self.table = None if root is None else Path(root), None if table is None else Path(table)
        self.images, self.masks = images, masks
        self.code = MaskCode(classes, mode, ignore_index, mask_values)
        if class_names is not None and len(class_names) != classes:
            raise ValueError(f"class_names has {len(class_names)} names, classes={classes}")
        self.class_names = None if class_names is None else list(class_names)
        self.classes, self.mode, self.ignore_index = classes, self.code.mode, ignore_index
        self.crop, self.crops, self.batch_size, self.fractions = crop, crops, batch_size, fractions
        self.augment = augment if isinstance(augment, Augment) else Augment() if augment else _STILL
        self.num_workers, self.seed = num_workers, seed
        self._wanted = {"channels": _CHANNELS[channels], "spatial_dims": spatial_dims}
        self._cache = Cache(memory)
        self.splits: dict[str, list[Pair]] = {}

    def setup(self, stage: str | None = None) -> None:
        """Find the pairs, check them all, and learn channels, statistics and labels from them; once. To predict, find images."""
        if stage == "predict":
            self._find_predicted()
            return
        if self.splits:
            return
        splits = split_pairs(find_pairs(self.root, self.images, self.masks, self.table), self.fractions, seed=self.seed)
        first = next(pair for pairs in splits.values() for pair in pairs)
        self.spatial_dims = self._wanted["spatial_dims"] or _spatial_dims(first)
        self.reader = PairReader(self.code, self.spatial_dims, self._cache)
        found = survey(self.reader, splits, channels=self._wanted["channels"])
        self.channels, self.mean, self.std = found.channels, found.mean, found.std
        self.class_counts = found.labels
        self.sizes = sorted(found.sizes)
        self.crop_size = self._crop_size(found.sizes)
        self.splits = splits

    def _crop_size(self, sizes: set[tuple[int, ...]]) -> tuple[int, ...] | None:
        """Of training crops, per axis; None for whole images."""
        if self.crop is None:
            if len(sizes) > 1 and self.batch_size > 1:
                raise ValueError(
                    f"training images differ in size ({', '.join(map(str, sorted(sizes)[:3]))}, ...) and cannot be "
                    "stacked whole: pass crop=..., or batch_size=1"
                )
            return None
        if self.crop == "auto":
            return tuple(min(max(lengths), _CROP[self.spatial_dims]) for lengths in zip(*sizes))
        size = (self.crop,) * self.spatial_dims if isinstance(self.crop, int) else tuple(self.crop)
        if len(size) != self.spatial_dims or not all(isinstance(n, int) and n > 0 for n in size):
            raise ValueError(f"crop={self.crop} must be a positive integer, or {self.spatial_dims} of them")
        return size

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled, cropped, augmented."""
        pairs = self._pairs("train")
        dataset = PairDataset(
            pairs, self.reader, self.channels, self.crop_size, self.crops, self.augment, self.mean, self.std
        )
        return make_loader(
            dataset, batch_size=self.batch_size, shuffle=True, num_workers=self.num_workers, seed=self.seed
        )

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """One whole image at a time, in order; no loader if there is no validation split."""
        self.setup()
        return self._whole(self.splits["val"], self.reader) if self.splits["val"] else []

    def test_dataloader(self) -> DataLoader[Any]:
        """One whole image at a time, in order."""
        return self._whole(self._pairs("test"), self.reader)

    def predict_dataloader(self) -> DataLoader[Any]:
        """All images of `root/images`, or below `root`, without masks; the names are paths below that folder."""
        pairs = self._find_predicted()
        dims = self._wanted["spatial_dims"] or self._fact("spatial_dims") or self.spatial_dims
        return self._whole(pairs, PairReader(self.code, dims, self._cache))

    def _find_predicted(self) -> list[Pair]:
        """The images to predict; where nothing else was seen, the first of them says dimension and channels."""
        pairs = find_images(self.root, self.images, self.masks, self.table)
        first = pairs[0].image
        if isinstance(first, Path):
            self.image_root = first.parents[len(Path(pairs[0].name).parts) - 1]
        if not self.splits:
            image = read_image(first, spatial_dims=self._wanted["spatial_dims"])
            self.spatial_dims, self.channels = image.ndim - 1, self._wanted["channels"] or len(image)
        return pairs

    def _pairs(self, split: str) -> list[Pair]:
        self.setup()
        if not self.splits[split]:
            raise ValueError(f"there is no {split} split: {', '.join(f'{len(v)} {k}' for k, v in self.splits.items())}")
        return self.splits[split]

    def _whole(self, pairs: list[Pair], reader: PairReader) -> DataLoader[Any]:
        channels = self._wanted["channels"] or self._fact("channels") or self.channels
        return make_loader(
            PairDataset(pairs, reader, channels), batch_size=1, shuffle=False, num_workers=self.num_workers
        )

    def _fact(self, name: str) -> Any:
        """What the task was trained with: it may know better than the images at hand, say that grey ones were made RGB."""
        return getattr(getattr(self.trainer, "lightning_module", None), "facts", {}).get(name)


def _spatial_dims(pair: Pair) -> int:
    """By the image; a bare array of several bands looks like a volume, but its mask does not."""
    image, mask = read_image(pair.image), read_mask(pair.mask)  # type: ignore[arg-type]
    return min(image.ndim - 1, mask.ndim)


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
