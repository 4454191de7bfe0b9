"""Tiny data of every kind, in a folder that the tests run in."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multiresnet.cli import main

SMALL = ["--model.model.options", "{channels: [16, 16], num_blocks: 1, patch_levels: 0}"]
FEW = ["--trainer.max_steps", "2", "--data.num_workers", "0"]


def blobs(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    mask = np.zeros((height, width), bool)
    for _ in range(3):
        mask |= (y - rng.uniform(0, height)) ** 2 + (x - rng.uniform(0, width)) ** 2 < rng.uniform(3, 8) ** 2
    return mask


def picture(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    return (120 * mask[..., None] + rng.integers(0, 80, (*mask.shape, 3))).astype(np.uint8)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """cells/ (pictures and masks), new/ (pictures of other sizes), volumes/, flow.npz."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for folder in ("cells/images", "cells/masks", "new/deep", "volumes/images", "volumes/masks"):
        (root / folder).mkdir(parents=True)
    for i in range(8):
        mask = blobs(rng, 24 + i, 30 - i)
        Image.fromarray(picture(rng, mask)).save(root / f"cells/images/{i}.png")
        Image.fromarray(mask.astype(np.uint8)).save(root / f"cells/masks/{i}.png")
    for name, size in (("a", (17, 33)), ("b", (20, 20)), ("deep/c", (9, 40))):
        Image.fromarray(picture(rng, blobs(rng, *size))).save(root / f"new/{name}.png")
    for i in range(4):
        labels = rng.integers(0, 3, (8, 9, 10)).astype(np.uint8)
        np.save(root / f"volumes/images/{i}.npy", (labels / 4 + 0.1 * rng.random(labels.shape)).astype(np.float32))
        np.save(root / f"volumes/masks/{i}.npy", labels)
    np.savez(root / "flow.npz", data=rng.normal(size=(6, 5, 1, 8, 8)).astype(np.float32))
    return root


@pytest.fixture(scope="session")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the finished run `runs/segmentation`; not to be changed."""
    folder, before = tmp_path_factory.mktemp("trained"), Path.cwd()
    os.chdir(folder)
    try:
        assert main(["fit", "--config", "segmentation.yaml", "--data.root", f"{data}/cells", *SMALL, *FEW]) == 0
    finally:
        os.chdir(before)
    return folder / "runs/segmentation"


@pytest.fixture
def fit(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`fit("segmentation.yaml", ...)` in an empty folder: a small network on cells/, two steps."""
    monkeypatch.chdir(tmp_path)
    where = {"segmentation.yaml": f"--data.root={data}/cells", "surrogate.yaml": f"--data.source={data}/flow.npz"}

    def run(config: str, *options: str) -> int:
        given = [where[config]] if config in where else []
        return main(["fit", "--config", config, *given, *SMALL, *FEW, *options])

    return run
