"""Real sets, unpacked from a folder of packed archives to the plain files that a user would bring.

A set is a function of the folder and of where to put it; `unpacked` calls it once and keeps what it made.
"""

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

CIFAR_TRAIN = 45_000  # of the 50,000 training images; the test images are not in the archive
SPLITS = ("train", "val", "test")


def encoded(file: np.lib.npyio.NpzFile, key: str) -> list[bytes]:
    """The encoded images (PNG or JPEG) of an archive, each as the bytes of a file."""
    blob, offsets = file[f"{key}_png" if f"{key}_png" in file else f"{key}_jpg"], file[f"{key}_off"]
    return [blob[start:stop].tobytes() for start, stop in zip(offsets, offsets[1:])]


def save(path: Path, image: np.ndarray | bytes) -> None:
    """Write a picture, encoding it if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(image, bytes):
        path.write_bytes(image)
    else:
        Image.fromarray(image).save(path)


def nuclei(data: Path, out: Path) -> Path:
    """out/{train,val,test}/{images,masks}/*.png; grey and colour; masks of 0 and 1."""
    with np.load(data / "dsb2018_nuclei_small.npz") as file:
        for name, split, image, instances in zip(file["ids"], file["split"], encoded(file, "x"), encoded(file, "inst")):
            save(out / split / "images" / f"{name}.png", image)
            mask = np.array(Image.open(io.BytesIO(instances))) > 0
            save(out / split / "masks" / f"{name}.png", mask.astype(np.uint8))
    return out


def membranes(data: Path, out: Path) -> Path:
    """out/{train,val,test}/{images,masks}/*.png; 512 x 512 grey; 1 = membrane."""
    with np.load(data / "isbi2012_512.npz") as file:
        images, cells = file["x"], file["y"]
        for split in SPLITS:
            for i in file[f"{split}_idx"]:
                save(out / split / "images" / f"{i:02d}.png", images[i])
                save(out / split / "masks" / f"{i:02d}.png", 1 - cells[i])
    return out


def camvid(data: Path, out: Path) -> Path:
    """out/{train,val}/images/*.jpg and masks/*.png; 240 x 320 RGB; classes 0..10, 11 = no label."""
    with np.load(data / "camvid_240x320_trainval.npz") as file:
        for split in ("train", "val"):
            for name, image, mask in zip(file[f"names_{split}"], encoded(file, f"x_{split}"), file[f"y_{split}"]):
                save(out / split / "images" / f"{Path(name).stem}.jpg", image)
                save(out / split / "masks" / f"{Path(name).stem}.png", mask)
    return out


def hippocampus(data: Path, out: Path) -> Path:
    """out/{images,masks}/*.nii.gz with out/{train,val,test}.txt; 48 x 64 x 48; classes 0, 1, 2."""
    import nibabel

    with np.load(data / "hippocampus_48x64x48.npz") as file:
        names = [str(name).partition(".")[0] for name in file["names"]]
        for folder, volumes in (("images", file["x"]), ("masks", file["y"])):
            (out / folder).mkdir(parents=True, exist_ok=True)
            for name, volume in zip(names, volumes):
                nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), out / folder / f"{name}.nii.gz")
        for split in SPLITS:
            (out / f"{split}.txt").write_text("\n".join(names[i] for i in file[f"{split}_idx"]))
    return out


def fashion(data: Path, out: Path) -> Path:
    """out/fashion.npz with x_train, y_train, x_test, y_test."""
    out.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for part in ("train", "test"):
        with np.load(data / f"fashion_mnist_{part}.npz") as file:
            arrays |= {f"{key}_{part}": file[key] for key in "xy"}
    np.savez(out / "fashion.npz", **arrays)
    return out / "fashion.npz"


def radar(data: Path, out: Path) -> Path:
    """out/radar.npz: one trajectory (1, 92, 1, 417, 419) of rain in mm, five minutes apart."""
    out.mkdir(parents=True, exist_ok=True)
    with np.load(data / "knmi_radar_20100826.npz") as file:
        rain = file["rain_mm_x100"].astype(np.float32) / 100
    np.savez(out / "radar.npz", data=rain[None, :, None], boundary="replicate")
    return out / "radar.npz"


def cifar(data: Path, out: Path) -> Path:
    """out/cifar.npz with x_train, y_train (45,000 images, 32 x 32 RGB) and x_test, y_test (the last 5,000 of the same set)."""
    with np.load(data / "cifar10_train_jpg.npz") as file:
        images = np.stack([np.array(Image.open(io.BytesIO(image))) for image in encoded(file, "x")])
        labels = file["y"]
    out.mkdir(parents=True, exist_ok=True)
    parts = {"train": slice(0, CIFAR_TRAIN), "test": slice(CIFAR_TRAIN, None)}
    np.savez(
        out / "cifar.npz",
        **{f"{k}_{part}": v[s] for k, v in (("x", images), ("y", labels)) for part, s in parts.items()},
    )
    return out / "cifar.npz"


def find(name: str, keep: Path, data: Path = Path()) -> Path:
    """The set of that name, one of the functions here, as `unpacked` keeps it."""
    return unpacked(globals()[name], data, keep)


def unpacked(unpack: Callable[[Path, Path], Path], data: Path, keep: Path) -> Path:
    """What `unpack(data, keep / its name)` returns; done once, whole or not at all.

    Raises:
        FileNotFoundError: an archive is missing.
    """
    folder, unfinished = keep / unpack.__name__, keep / f"{unpack.__name__}.unfinished"
    if not folder.exists():
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            made = unpack(data, unfinished)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"no {error.filename}: pass the folder that holds it, --data FOLDER") from None
        (unfinished / "where").write_text(str(made.relative_to(unfinished)))
        os.replace(unfinished, folder)
    return folder / (folder / "where").read_text()
