"""Pictures of samples and of the chain of cells, while a hierarchical VAE is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from multiresnet.atomic import write_atomically
from multiresnet.hvae import trace
from multiresnet.tasks.diffusion.sample_pictures import save_picture
from multiresnet.tasks.pictures import ValidationPictures

from .task import HVAETask

__all__ = ["HVAEPictures"]


class HVAEPictures(ValidationPictures):
    """In validation, with averaged weights where there are some: `samples/step-00000200.png` and `chain.png`.

    The samples use the same random numbers each time; rows show the classes in turn, where there are classes. `chain.png` shows the
    state, its drift and diffusion, the KL and the active part of the latent of each cell (`multiresnet.hvae.trace`).

    Args:
        every_n_epochs: how often; validation has to run then.
        n: how many samples.
        temperature: of them.

    Raises:
        ValueError: at the start of a training without validation, or of another task.
    """

    kind = HVAETask

    def __init__(self, *, every_n_epochs: int = 1, n: int = 64, temperature: float = 1.0) -> None:
        super().__init__(every_n_epochs)
        self.n, self.temperature = n, temperature

    def draw(self, task: HVAETask, batch: Any, folder: Path, step: int) -> None:
        """Samples, and the chain along the posterior of the batch."""
        classes = task.num_classes
        label = torch.arange(self.n) % classes if classes else None
        images = task.sample(self.n, label=label, temperature=self.temperature, seed=0)
        save_picture(folder / "samples" / f"step-{step:08d}.png", images, columns=classes or None)
        x, label = task.read(batch)
        if len(x) > 1:
            emb = task.conditioning(label=label) if task.conditioning is not None else None
            figure = trace(task.hvae, x, emb, generator=torch.Generator().manual_seed(0)).plot()
            write_atomically(folder / "chain.png", lambda file: figure.savefig(file, format="png", dpi=100))
