"""Images on the triangle, and diffusion on them."""

import numpy as np
import torch
from lightning import Trainer

from multiresnet import MultiResNet
from multiresnet.data import ImageDataModule, TriangleImageDataModule
from multiresnet.spaces import Triangle
from multiresnet.tasks import DiffusionTask


def ready(tmp_path, **options):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "images.npz", x=rng.integers(0, 255, (20, 16, 16), dtype=np.uint8), y=np.arange(20) % 3)
    data = TriangleImageDataModule(ImageDataModule(tmp_path / "images.npz", batch_size=4, **options), Triangle(4))
    data.setup()
    return data


def test_items_are_the_images_at_the_centres(tmp_path):
    data = ready(tmp_path, val_fraction=0.2)
    assert (data.channels, data.classes, data.size, data.spatial_dims) == (1, 3, (256,), 1)
    ours, images = next(iter(data.val_dataloader())), next(iter(data.images.val_dataloader()))
    assert torch.equal(ours["label"], images["label"])
    assert torch.allclose(ours["image"], data.space.from_pixels(images["image"]))
    seen = torch.cat([batch["image"] for batch in data.train_dataloader()])
    assert seen.shape == (16, 1, 256) and ready(tmp_path, val_fraction=0.0).val_dataloader() == []


def test_diffusion_on_a_triangle(tmp_path):
    data = ready(tmp_path, val_fraction=0.2)
    space = Triangle(4, boundary="replicate")
    task = DiffusionTask(MultiResNet(1, 1, space=space, channels=(16, 16), num_blocks=1, emb_channels=16))
    trainer = Trainer(
        max_steps=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(task, data)
    drawn = task.sample(2, steps=3)
    assert drawn.shape == (2, 1, 256) and drawn.isfinite().all()
