"""Images on the triangle: the part of a square picture below its diagonal, one value for each cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from multiresnet.data.loading import Draw, make_loader
from multiresnet.spaces import Triangle
from multiresnet.spaces.boundary import Boundary

from .image_folder import ImageDataModule

__all__ = ["TriangleImageDataModule"]


@dataclass
class _Cells(Dataset[dict[str, Tensor]]):
    """The items of another data set, their images sampled at the centres of the cells."""

    images: Any
    space: Triangle

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: int | Draw) -> dict[str, Tensor]:
        item = dict(self.images[key])
        return item | {"image": self.space.from_pixels(item["image"][None])[0]}


class TriangleImageDataModule(LightningDataModule):
    """Images for generative models on a triangle: batches of `"image"`, (B, C, 4**depth), and `"label"`, for `DiffusionTask`.

    The data of the paper's experiment on a triangle (arXiv 2305.19638), for any images: what lies above the diagonal is
    dropped, the right angle is at the lower left.

    Args:
        images: square images, from a folder, a file or the digits of scikit-learn.
        space: the triangle; its cells are about as fine as pixels if 2**depth is the side of the images.

    Attributes:
        channels, classes, class_names: those of the images, after `setup`.
        size: (4**depth,).

    Examples:
        >>> data = TriangleImageDataModule(ImageDataModule("digits", size=16, batch_size=32), Triangle(depth=4))
        >>> data.setup()
        >>> next(iter(data.train_dataloader()))["image"].shape
        torch.Size([32, 1, 256])
    """

    spatial_dims = 1
    boundary: Boundary = "replicate"

    def __init__(self, images: ImageDataModule, space: Triangle) -> None:
        super().__init__()
        self.images, self.space, self.size = images, space, (space.cells(0),)

    def setup(self, stage: str | None = None) -> None:
        """Find and check the images; once."""
        self.images.setup(stage)
        self.channels, self.classes = self.images.channels, self.images.classes
        self.class_names = self.images.class_names

    def _loader(self, loader: Any, *, shuffle: bool) -> DataLoader[Any]:
        images = self.images
        return make_loader(
            _Cells(loader.dataset, self.space),
            batch_size=images.batch_size,
            shuffle=shuffle,
            num_workers=images.num_workers,
            seed=images.seed,
        )

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled."""
        return self._loader(self.images.train_dataloader(), shuffle=True)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """In order; no loader if the images have none."""
        loader = self.images.val_dataloader()
        return self._loader(loader, shuffle=False) if loader else []
