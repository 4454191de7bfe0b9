"""Pictures of samples, while a diffusion model is trained."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multiresnet.atomic import write_atomically
from multiresnet.tasks.pictures import ValidationPictures

from .samplers import Sampler
from .task import DiffusionTask

__all__ = ["SamplePictures", "picture_grid", "save_picture"]


class SamplePictures(ValidationPictures):
    """Draw samples in validation, with averaged weights where there are some, into `samples/step-00000200.png`.

    They start from the same noise each time. The rows show the classes in turn, where there are classes.

    Args:
        every_n_epochs: how often; validation has to run then.
        n: how many images.
        sampler: as in `DiffusionTask.sample`.
        steps: of the sampler; `None` for its default.
        guidance: of classifier-free guidance.
        folder: `None` is `samples` in the trainer's `default_root_dir`.

    Raises:
        ValueError: at the start of a training without validation.
    """

    kind = DiffusionTask

    def __init__(
        self,
        *,
        every_n_epochs: int = 1,
        n: int = 64,
        sampler: Sampler = "dpm-solver++",
        steps: int | None = None,
        guidance: float = 1.0,
        folder: str | None = None,
    ) -> None:
        super().__init__(every_n_epochs)
        self.n, self.sampler, self.steps, self.guidance, self.folder = n, sampler, steps, guidance, folder

    def draw(self, task: DiffusionTask, batch: Any, folder: Path, step: int) -> None:
        """Samples of the size of the batch."""
        label = torch.arange(self.n) % task.num_classes if task.num_classes else None
        images = task.sample(
            self.n,
            size=batch["image"].shape[1:],
            sampler=self.sampler,
            steps=self.steps,
            label=label,
            guidance=self.guidance,
            seed=0,
        )
        folder = Path(self.folder) if self.folder else folder / "samples"
        save_picture(folder / f"step-{step:08d}.png", images, columns=task.num_classes or None)


def picture_grid(images: Tensor, *, columns: int | None = None) -> NDArray[np.uint8]:
    """Images (N, C, H, W) in [-1, 1], 1 or 3 channels, side by side with a border: (height, width, 3) in 0 ... 255.

    Small ones are enlarged by repetition to 32 pixels or more. `columns=None` makes a square.

    Examples:
        >>> picture_grid(torch.zeros(5, 1, 32, 32)).shape
        (68, 102, 3)
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"wanted images (N, 1 or 3, H, W), got {tuple(images.shape)}")
    n, columns = len(images), columns or math.ceil(math.sqrt(len(images)))
    rows, zoom = math.ceil(n / columns), math.ceil(32 / min(images.shape[2:]))
    x = ((images.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte().expand(-1, 3, -1, -1)
    x = x.repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)
    x = torch.nn.functional.pad(x, (1, 1, 1, 1), value=64)
    x = torch.cat([x, x.new_full((rows * columns - n, *x.shape[1:]), 64)])
    x = x.unflatten(0, (rows, columns)).permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
    return cast("NDArray[np.uint8]", x.numpy())


def save_picture(path: str | os.PathLike[str], images: Tensor, *, columns: int | None = None) -> None:
    """Write a `picture_grid` as PNG, whole or not at all."""
    from PIL import Image

    picture = Image.fromarray(picture_grid(images, columns=columns))
    write_atomically(Path(path), lambda file: picture.save(file, format="PNG"))
