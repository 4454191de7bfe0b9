"""Square images in [-1, 1] for generative models, with or without class labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from multiresnet.checks import check_choice, check_positive
from multiresnet.data.loading import Draw, make_loader
from multiresnet.spaces.boundary import Boundary

from .labelled import check_range, find_labelled, survey_images
from .pair_reader import Cache
from .pairs import some
from .reading import read_image, scaled, with_channels

__all__ = ["ImageDataModule", "fit_to_square"]

Array = NDArray[Any]
Fit = Literal["crop", "pad"]


def fit_to_square(image: Tensor, size: int, fit: Fit = "crop") -> Tensor:
    """(C, H, W) to (C, size, size), centred.

    Args:
        image: values in [-1, 1].
        size: wanted side.
        fit: `"crop"` scales the shorter side to `size` (bilinear, antialiased) and cuts the longer one; `"pad"` does not
            scale: it adds a border of -1 (black), and cuts what is larger.

    Examples:
        >>> fit_to_square(torch.zeros(1, 20, 40), 8).shape, fit_to_square(torch.zeros(1, 1, 1), 3, "pad").tolist()
        (torch.Size([1, 8, 8]), [[[-1.0, -1.0, -1.0], [-1.0, 0.0, -1.0], [-1.0, -1.0, -1.0]]])
    """
    height, width = image.shape[1:]
    if fit == "crop" and min(height, width) != size:
        scale = size / min(height, width)
        to = (max(size, round(height * scale)), max(size, round(width * scale)))
        image = F.interpolate(image[None], to, mode="bilinear", antialias=True)[0]
        height, width = to
    top, left = (size - height) // 2, (size - width) // 2  # negative: to cut
    return F.pad(image, (left, size - width - left, top, size - height - top), value=-1.0)


@dataclass
class ImageDataset(Dataset[dict[str, Tensor]]):
    """Images by index, or by `Draw` where they are flipped at random."""

    images: Array | list[Path]  # (N, C, H, W), or files
    labels: NDArray[np.int64] | None
    chosen: NDArray[np.intp]
    size: int
    fit: Fit
    channels: int
    signed: bool
    flips: bool
    cache: Cache

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, key: int | Draw) -> dict[str, Tensor]:
        index = int(self.chosen[key.index if isinstance(key, Draw) else key])
        image = torch.from_numpy(self.cache.get(index, lambda: self._read(index)))
        if self.flips and isinstance(key, Draw) and np.random.default_rng(key.seed).random() < 0.5:
            image = image.flip(-1)
        return {"image": image} | ({} if self.labels is None else {"label": torch.tensor(self.labels[index])})

    def _read(self, index: int) -> NDArray[np.float32]:
        source: Any = self.images[index]
        name = source if isinstance(source, Path) else f"image {index}"
        values = read_image(source, spatial_dims=2) if isinstance(source, Path) else source
        check_range(values, name, signed=self.signed)
        values = with_channels(scaled(values), self.channels, name)
        values = values if self.signed else 2 * values - 1
        return np.asarray(fit_to_square(torch.from_numpy(np.ascontiguousarray(values)), self.size, self.fit))


class ImageDataModule(LightningDataModule):
    """Square images for generative models: batches of `"image"`, (B, C, size, size) float32 in [-1, 1], and `"label"`, (B,) int64.

    8-bit and 16-bit images are scaled from their full range, floating ones must lie in [0, 1] or in [-1, 1] (then some
    value is negative).

    Args:
        source: a folder of images, where each folder in it is a class; an .npz file, (N, H, W), (N, C, H, W) or (N, H, W, C);
            or `"digits"`, the 1797 handwritten digits of 8 x 8 pixels that come with scikit-learn.
        key: name of the images in an .npz file; `None` looks for `x`, `images`, `x_train`, ....
        labels: whether to serve labels where there are any; or their name in an .npz file, else the one that belongs to
            `key`: `y` to `x`, `labels` to `images`, `y_train` to `x_train`, ....
        size: side of the images; `None` takes that of the data.
        fit: how to get to `size`, see `fit_to_square`.
        channels: `"grey"` or `"rgb"` to convert; `None` goes by the files.
        flips: mirror training images left-right with probability 1/2.
        batch_size: images per batch.
        val_fraction: part for validation, chosen by `seed`.
        num_workers: processes that load.
        seed: of split, order and flips.
        memory: bytes of images that each process keeps.

    Attributes:
        channels: of the images, after `setup`.
        size: after `setup`.
        classes: number of classes, 0 without labels, after `setup`.
        class_names: after `setup`.

    Raises:
        FileNotFoundError, ValueError: from `setup`: no images, unreadable files, values out of range, NaN, labels that
            do not fit.

    Examples:
        >>> data = ImageDataModule("digits", size=16, batch_size=32)
        >>> data.setup()
        >>> batch = next(iter(data.train_dataloader()))
        >>> batch["image"].shape, batch["label"].shape, data.classes
        (torch.Size([32, 1, 16, 16]), torch.Size([32]), 10)
    """

    spatial_dims = 2
    boundary: Boundary = "replicate"

    def __init__(
        self,
        source: str | Path = "digits",
        *,
        key: str | None = None,
        labels: bool | str = True,
        size: int | None = None,
        fit: Fit = "crop",
        channels: Literal["grey", "rgb"] | None = None,
        flips: bool = False,
        batch_size: int = 64,
        val_fraction: float = 0.1,
        num_workers: int = 0,
        seed: int = 0,
        memory: int = 2**30,
    ) -> None:
        super().__init__()
        check_positive(batch_size=batch_size, size=1 if size is None else size)
        check_choice("fit", fit, ("crop", "pad"))
        check_choice("channels", channels or "rgb", ("grey", "rgb"))
        if not 0 <= val_fraction < 1:
            raise ValueError(f"val_fraction must be in [0, 1), got {val_fraction}")
        self.source, self.key, self.labels = source, key, labels
        self.fit, self.flips, self.batch_size, self.val_fraction = fit, flips, batch_size, val_fraction
        self.num_workers, self.seed = num_workers, seed
        self._channels = {"grey": 1, "rgb": 3, None: None}[channels]
        self._size, self._cache = size, Cache(memory)
        self._ready = False

    def setup(self, stage: str | None = None) -> None:
        """Find and check the images; once."""
        if self._ready:
            return
        found = find_labelled(self.source, key=self.key, labels=self.labels)
        looked = survey_images(found.images)
        channels = {shape[0] for shape in looked.shapes}
        if len(channels) > 1 and channels != {1, 3} and self._channels is None:
            raise ValueError(f"images in {self.source} have different numbers of channels: {sorted(channels)}")
        sides = sorted({side for shape in looked.shapes for side in shape[1:]})
        if self._size is None and len(sides) > 1:
            raise ValueError(
                f"images in {self.source} are not squares of one size ({some([str(side) for side in sides])}): pass size=..."
            )
        self.channels, self.size = self._channels or max(channels), self._size or sides[0]
        self.class_names, self.classes = found.class_names, len(found.class_names)
        self._signed = looked.signed
        order = np.random.default_rng(self.seed).permutation(len(found.images))
        val = min(max(1, round(len(order) * self.val_fraction)), len(order) - 1) if self.val_fraction else 0
        self._chosen = {"val": np.sort(order[:val]), "train": np.sort(order[val:])}
        self.found, self._ready = found, True

    def _loader(self, split: str) -> DataLoader[Any]:
        self.setup()
        dataset = ImageDataset(
            images=self.found.images,
            labels=self.found.labels,
            chosen=self._chosen[split],
            size=self.size,
            fit=self.fit,
            channels=self.channels,
            signed=self._signed,
            flips=self.flips,
            cache=self._cache,
        )
        train = split == "train"
        return make_loader(
            dataset, batch_size=self.batch_size, shuffle=train, num_workers=self.num_workers, seed=self.seed
        )

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled, flipped if asked for."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """In order; no loader if `val_fraction` is 0."""
        return self._loader("val") if self.val_fraction else []
