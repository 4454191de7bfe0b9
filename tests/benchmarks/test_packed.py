import io

import numpy as np
import pytest
from multiresnet_bench import packed
from PIL import Image


def test_a_set_is_unpacked_once_whole_or_not_at_all(tmp_path):
    calls = []

    def flowers(data, out):
        calls.append(out)
        out.mkdir(parents=True)
        (out / "a.txt").write_text("half")
        if len(calls) == 1:
            raise KeyboardInterrupt
        (out / "a.txt").write_text("whole")
        return out / "a.txt"

    with pytest.raises(KeyboardInterrupt):
        packed.unpacked(flowers, tmp_path, tmp_path / "keep")
    assert not (tmp_path / "keep" / "flowers").exists()
    for _ in range(2):
        assert packed.unpacked(flowers, tmp_path, tmp_path / "keep").read_text() == "whole"
    assert len(calls) == 2


def test_a_missing_archive_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="fashion_mnist_train.npz.*--data FOLDER"):
        packed.unpacked(packed.fashion, tmp_path, tmp_path / "keep")


def test_cifar_keeps_the_last_images_for_the_report(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    images, blob, offsets = rng.integers(0, 256, (12, 32, 32, 3), np.uint8), b"", [0]
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        blob += file.getvalue()
        offsets.append(len(blob))
    np.savez(
        tmp_path / "cifar10_train_jpg.npz", x_jpg=np.frombuffer(blob, np.uint8), x_off=offsets, y=np.arange(12) % 10
    )
    monkeypatch.setattr(packed, "CIFAR_TRAIN", 8)
    with np.load(packed.cifar(tmp_path, tmp_path / "out")) as file:
        assert (file["x_train"] == images[:8]).all() and (file["x_test"] == images[8:]).all()
        assert file["y_test"].tolist() == [8, 9, 0, 1]
