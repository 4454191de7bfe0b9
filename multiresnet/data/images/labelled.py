"""Images with class labels, or without: found in folders, in an .npz file, or built in, and looked at before training."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from multiresnet.data.stores import list_arrays, open_store

from .pairs import SPLITS, check_folder, image_files
from .reading import ENDINGS, axes_of, check_finite, load_stack, read_image

__all__ = ["Labelled", "Look", "check_range", "find_labelled", "survey_images"]

Array = NDArray[Any]
_LOOKS = 2000  # of files, at most so many are looked at, evenly spread
_IMAGE_KEYS = ("x", "images", "image", "x_train", "train_images", "data", "arr_0")
_LABEL_KEYS = {"x": "y", "images": "labels", "image": "label", "data": "labels"}


@dataclass(frozen=True)
class Labelled:
    """Images, an array (N, C, H, W) or files, with their classes (N,), if any, and the names of the classes."""

    images: Array | list[Path]
    labels: NDArray[np.int64] | None = None
    class_names: tuple[str, ...] = ()


class Look(NamedTuple):
    """What is known before training: the shapes (C, H, W) that occur, and whether values go from -1 (else 0) to 1."""

    shapes: set[tuple[int, ...]]
    signed: bool


def find_labelled(source: str | Path, *, key: str | None = None, labels: bool | str = True) -> Labelled:
    """Images of a folder (each folder in it is a class), of an .npz file, or `"digits"`.

    Args:
        source: where they are.
        key: name of the array of images.
        labels: whether labels are wanted, or the name of their array.

    Raises:
        FileNotFoundError: no such folder or file.
        ValueError: no images, or labels that do not fit them.
        ImportError: digits without scikit-learn.

    Examples:
        >>> digits = find_labelled("digits")
        >>> digits.images.shape, digits.images.max().item(), len(digits.class_names)
        ((1797, 1, 8, 8), 1.0, 10)
    """
    if source == "digits":
        return _digits(labels is not False)
    path = Path(source)
    if path.is_file():
        if path.suffix.lower() != ".npz":
            raise ValueError(f"{path} is no .npz file; images come from one, from a folder, or from 'digits'")
        return _arrays(path, key, labels)
    check_folder(path, "source")
    return _folder(path, labels is not False)


def survey_images(images: Array | list[Path]) -> Look:
    """Look at all images of an array, or at up to 2000 files.

    Raises:
        ValueError: unreadable files, NaN or Inf, floating values beyond -1..1.
    """
    if isinstance(images, np.ndarray):
        check_range(images, "the array", signed=True)
        return Look({images.shape[1:]}, images.dtype.kind == "f" and bool(images.min() < 0))

    def look(index: int) -> tuple[tuple[int, ...], bool]:
        image = read_image(images[index], spatial_dims=2)
        check_range(image, images[index], signed=True)
        return image.shape, image.dtype.kind == "f" and bool(image.min() < 0)

    with ThreadPoolExecutor() as pool:
        chosen = np.linspace(0, len(images) - 1, min(len(images), _LOOKS)).astype(int).tolist()
        looks = list(pool.map(look, chosen))
    return Look({shape for shape, _ in looks}, any(signed for _, signed in looks))


def check_range(image: Array, source: object, *, signed: bool) -> None:
    """Raise unless values are 8-bit, 16-bit or boolean, or floating and in [-1, 1] (`signed`) or [0, 1]."""
    check_finite(image, source)
    if image.dtype in (np.uint8, np.uint16, np.bool_):
        return
    low, high = image.min(), image.max()
    if image.dtype.kind != "f" or high > 1 or low < (-1 if signed else 0):
        fix = "convert to uint8" if low >= 0 and high <= 255 else "scale to -1..1"
        raise ValueError(
            f"{source} holds {image.dtype} values {low:g}..{high:g}; wanted uint8, uint16, or floating values in 0..1 or "
            f"-1..1, the same for all images: {fix}"
        )


def _digits(labelled: bool) -> Labelled:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("the digits come with scikit-learn: pip install 'multiresnet[diffusion]'") from error
    digits = load_digits()
    images = (digits.images[:, None] / 16).astype(np.float32)
    return Labelled(images, digits.target.astype(np.int64), tuple("0123456789")) if labelled else Labelled(images)


def _folder(root: Path, labelled: bool) -> Labelled:
    files = image_files(root)
    if not files:
        raise ValueError(f"no image below {str(root)!r} (looked for {' '.join(ENDINGS)})")
    inside = [path.relative_to(root).parts for path in files]
    if not labelled or all(len(parts) == 1 for parts in inside):
        return Labelled(files)
    if loose := [parts[0] for parts in inside if len(parts) == 1]:
        raise ValueError(
            f"{root} holds images beside folders ({loose[0]}, {len(loose)} of {len(files)}): put each into the folder of its "
            "class, or pass labels=False"
        )
    names = tuple(sorted({parts[0] for parts in inside}))
    if set(names) <= {*SPLITS, "valid", "validation"}:
        raise ValueError(f"the folders of {root} look like splits, not classes ({', '.join(names)}): pass one of them")
    return Labelled(files, np.array([names.index(parts[0]) for parts in inside]), names)


def _arrays(path: Path, key: str | None, labels: bool | str) -> Labelled:
    shapes = {name: header.shape for name, header in list_arrays(open_store(path)).items()}
    listing = ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "nothing"
    key = key or next((name for name in _IMAGE_KEYS if name in shapes), None)
    if key not in shapes:
        raise ValueError(f"{path} holds {listing}: name the images with key=...")
    if not 3 <= len(shapes[key]) <= 4 or 0 in shapes[key]:
        raise ValueError(f"{key} in {path} is {shapes[key]}; wanted (N, H, W), (N, C, H, W) or (N, H, W, C)")
    images = load_stack(path, key)
    channels_last = axes_of(images.shape[1:], 2) == "SSC"
    images = images[:, None] if images.ndim == 3 else np.moveaxis(images, -1, 1) if channels_last else images
    if labels is True:
        parts = (_LABEL_KEYS.get(part, part) for part in key.split("_"))
        label_key = "_".join(parts)
        labels = label_key if label_key in shapes and label_key != key else False
    if labels is False:
        return Labelled(images)
    if labels not in shapes:
        raise ValueError(f"{path} has no array {labels!r}; it holds {listing}")
    classes = load_stack(path, labels).reshape(-1)
    if len(classes) != len(images) or classes.dtype.kind not in "iu" or classes.min() < 0:
        raise ValueError(
            f"{labels} in {path} is {shapes[labels]} {classes.dtype}, {classes.min()}..{classes.max()}; wanted one class "
            f"0, 1, ... for each of {len(images)} images"
        )
    return Labelled(images, classes.astype(np.int64), tuple(str(k) for k in range(int(classes.max()) + 1)))
