"""Pictures of samples and of the chain of cells, while a hierarchical VAE is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from multiresnet.atomic import write_atomically
from multiresnet.hvae import trace
from multiresnet.tasks.diffusion.sample_pictures import save_picture

from .task import HVAETask

__all__ = ["HVAEPictures"]


class HVAEPictures(Callback):
    """In validation, with averaged weights where there are some: `samples/step-00000200.png` and `chain.png`.

    The samples use the same random numbers each time; rows show the classes in turn, where there are classes. `chain.png` shows the
    state, its drift and diffusion, the KL and the active latent channels of each cell (`multiresnet.hvae.trace`).

    Args:
        every_n_epochs: how often; validation has to run then.
        n: how many samples.
        temperature: of them.

    Raises:
        ValueError: at the start of a training without validation, or of another task.
    """

    def __init__(self, *, every_n_epochs: int = 1, n: int = 64, temperature: float = 1.0) -> None:
        self.every_n_epochs, self.n, self.temperature = every_n_epochs, n, temperature

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what would never draw."""
        if not isinstance(pl_module, HVAETask):
            raise ValueError(f"HVAEPictures needs an HVAETask, got a {type(pl_module).__name__}")
        if not trainer.enable_validation:
            raise ValueError("HVAEPictures draws in validation; give the data a validation part, or leave it out")

    # the first hook of validation in which the averaged weights are in place, whatever the order of the callbacks
    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Draw, in the first process."""
        due = (trainer.current_epoch + 1) % self.every_n_epochs == 0 and not trainer.sanity_checking
        if batch_idx or dataloader_idx or not due or not trainer.is_global_zero:
            return
        task, folder = cast(HVAETask, pl_module), Path(trainer.default_root_dir)
        classes = task.num_classes
        label = torch.arange(self.n) % classes if classes else None
        images = task.sample(self.n, label=label, temperature=self.temperature, seed=0)
        save_picture(folder / "samples" / f"step-{trainer.global_step:08d}.png", images, columns=classes or None)
        x, label = task.read(batch)
        if len(x) > 1:
            emb = task.conditioning(label=label) if task.conditioning is not None else None
            figure = trace(task.hvae, x, emb, generator=torch.Generator().manual_seed(0)).plot()
            write_atomically(folder / "chain.png", lambda file: figure.savefig(file, format="png", dpi=100))
