"""Reading one image, volume or mask from PNG, JPEG, TIFF, BMP, WebP, .npy, .npz and NIfTI files, channels first."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

__all__ = [
    "ENDINGS",
    "Source",
    "Stacked",
    "axes_of",
    "check_finite",
    "read_image",
    "read_mask",
    "scaled",
    "stem",
    "with_channels",
]

Array = NDArray[Any]
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_TIFF, _NIFTI = (".tif", ".tiff"), (".nii", ".nii.gz")
ENDINGS = (*_PICTURES, *_TIFF, ".npy", ".npz", *_NIFTI)
_FEW = 4  # an axis this short at the end of a bare array of three axes is taken for channels


@dataclass(frozen=True)
class Stacked:
    """Entry `index` along the first axis of the array `key` of a .npz file."""

    path: Path
    key: str
    index: int

    def __str__(self) -> str:
        return f"{self.path} ({self.key}[{self.index}])"


Source = Path | Stacked


def read_image(source: str | Source, *, spatial_dims: int | None = None) -> Array:
    """One image or volume, (C, *space), in the type it is stored in.

    Orientation tags (EXIF) are honoured, palettes become RGB, CMYK becomes RGB, transparency is dropped, 16-bit colour in a PNG is
    read as 8 bits. Pages of a TIFF are slices of a volume. In a bare array (.npy, .npz) with one axis more than
    space, the channels are the shorter of the first and the last axis. NIfTI volumes keep the order of the file; spacing
    and orientation in the header are not used; a fourth axis is channels. A .npz file holds one array, or one called `image`.

    Args:
        source: the file.
        spatial_dims: 2 or 3; `None` goes by the file. A bare array of three axes is then a volume, unless its first or
            last axis is at most 4 long.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unreadable or truncated file, unknown ending, wrong number of axes.
        ImportError: TIFF beyond what Pillow reads needs tifffile, NIfTI needs nibabel.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (5, 3), "red").save(f"{folder}/red.png")
        ...     read_image(f"{folder}/red.png").shape
        (3, 3, 5)
    """
    array, axis = _load(source, spatial_dims, "image")
    return array[None] if axis is None else np.moveaxis(array, axis, 0)


def read_mask(source: str | Source, *, spatial_dims: int | None = None) -> Array:
    """One mask as stored: (*space), or (bands, *space) if the file has several, such as colours.

    Palette files give the indices, not the colours. Otherwise as `read_image`; a .npz file may call the array `mask`.
    """
    array, axis = _load(source, spatial_dims, "mask")
    if axis is None:
        return array
    return array.squeeze(axis) if array.shape[axis] == 1 else np.moveaxis(array, axis, 0)


def scaled(image: Array) -> NDArray[np.float32]:
    """float32; 8-bit values divided by 255, 16-bit ones by 65535, all others as they are.

    Examples:
        >>> scaled(np.array([0, 51, 255], np.uint8)).tolist()
        [0.0, 0.20000000298023224, 1.0]
    """
    limit = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}.get(image.dtype, 1)
    return np.asarray(image, np.float32) / np.float32(limit)


def with_channels(image: NDArray[np.float32], channels: int | None, source: object) -> NDArray[np.float32]:
    """Grey repeated to three channels, or RGB weighted to grey (ITU-R 601), where `channels` asks for it."""
    if channels is None or len(image) == channels:
        return image
    if (len(image), channels) == (1, 3):
        return np.repeat(image, 3, axis=0)
    if (len(image), channels) == (3, 1):
        return np.tensordot(np.array([[0.299, 0.587, 0.114]], np.float32), image, axes=1)
    raise ValueError(f"{source} has {len(image)} channels, wanted {channels}; only 1 and 3 are turned into each other")


def check_finite(image: Array, source: object) -> None:
    """Raise `ValueError` with the first place of a NaN or Inf."""
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        place = tuple(np.argwhere(~np.isfinite(image))[0].tolist())
        raise ValueError(f"{source} holds {image[place]} at (channel, *space) = {place}: fill or remove such values")


def stem(name: str) -> str:
    """`name` without the ending, `.nii.gz` being one; a name with no known ending stays.

    Examples:
        >>> stem("a/brain.01.nii.gz"), stem("a/cell.png"), stem("a/notes.txt")
        ('a/brain.01', 'a/cell', 'a/notes.txt')
    """
    ending = max((end for end in ENDINGS if name.lower().endswith(end)), key=len, default="")
    return name[: len(name) - len(ending)]


# ---- the decoders: each gives the array and its axes: S space, C channel, P pages of a TIFF, "" for a bare array ----


def _load(source: str | Source, spatial_dims: int | None, role: str) -> tuple[Array, int | None]:
    """The array and its channel axis, `None` where it has none."""
    source = Path(source) if isinstance(source, str) else source
    path = source.path if isinstance(source, Stacked) else source
    if not path.is_file():
        raise FileNotFoundError(f"no file {str(path)!r}")
    decode = _decoder(source)
    try:
        array, axes = decode(source, role)
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # the decoders raise whatever comes: OSError, SyntaxError, zlib.error, ...
        raise ValueError(f"cannot read {source}: {error or type(error).__name__}; is the file whole?") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{source} holds {array.dtype}, wanted real numbers")
    axes = axes.replace("P", "C" if spatial_dims == 2 else "S") or axes_of(array.shape, spatial_dims)
    space = axes.count("S")
    if len(axes) != array.ndim or axes.count("C") > 1 or space not in (2, 3) or spatial_dims not in (None, space):
        wanted = f"spatial_dims={spatial_dims}" if spatial_dims else "2 or 3 axes of space"
        raise ValueError(f"{source} has shape {array.shape}, wanted {wanted} and at most one axis of channels")
    if 0 in array.shape:
        raise ValueError(f"{source} is empty, shape {array.shape}")
    return array.astype(array.dtype.newbyteorder("="), copy=False), axes.index("C") if "C" in axes else None


def axes_of(shape: tuple[int, ...], spatial_dims: int | None) -> str:
    """Axes of a bare array: S space, C channel."""
    if spatial_dims is None:
        spatial_dims = len(shape) - (len(shape) == 4 or (len(shape) == 3 and min(shape[0], shape[-1]) <= _FEW))
    space = "S" * spatial_dims
    if len(shape) == spatial_dims:
        return space
    return "C" + space if shape[0] <= shape[-1] else space + "C"


def _decoder(source: Source) -> Callable[[Any, str], tuple[Array, str]]:
    if isinstance(source, Stacked):
        return lambda stacked, _: (load_stack(stacked.path, stacked.key)[stacked.index], "")
    ending = source.name[len(stem(source.name)) :].lower()
    if not ending:
        raise ValueError(f"cannot tell the format of {str(source)!r}: use one of {' '.join(ENDINGS)}")
    return _picture if ending in _PICTURES else _tiff if ending in _TIFF else _nifti if ending in _NIFTI else _bare


def _picture(path: Path, role: str) -> tuple[Array, str]:
    with Image.open(path) as file:
        sixteen = file.format == "PNG" and file.mode == "I"  # as older Pillows call 16-bit grey
        image = ImageOps.exif_transpose(file)
        truth = image.mode == "1"  # whose array has bytes of 255 for True
        if truth or image.mode == "LA":
            image = image.convert("L")
        elif image.mode not in ("L", "I", "F", "RGB") and not image.mode.startswith("I;16"):
            image = image if image.mode == "P" and role == "mask" else image.convert("RGB")
        array = np.asarray(image)
    return array > 0 if truth else array.astype(np.uint16) if sixteen else array, "SSC"[: array.ndim]


def _tiff(path: Path, role: str) -> tuple[Array, str]:
    """By Pillow where it gives every page and every bit of every band, else by tifffile."""
    try:
        with Image.open(path) as file:
            tags: Any = getattr(file, "tag_v2", {})
            rgb = file.mode == "RGB" and set(tags.get(258, ())) == {8} and tags.get(277) == 3
            simple = file.mode in ("1", "L", "P", "F") or file.mode.startswith("I;16")
            whole = (rgb or simple) and getattr(file, "n_frames", 1) == 1
    except UnidentifiedImageError:
        whole = False
    if whole:
        return _picture(path, role)
    try:
        import tifffile
    except ImportError as error:
        raise ImportError(f"{path} needs tifffile: pip install 'multiresnet[segmentation]'") from error
    with tifffile.TiffFile(path) as file:
        array, names = file.series[0].asarray(), file.series[0].axes
    keep = [i for i, name in enumerate(names) if array.shape[i] > 1 or name in "YX"]
    names = "".join(names[i] for i in keep)
    if len(names) == 3 and names.endswith("YX") and names[0] != "S":  # ImageJ calls plain pages channels, too
        names = "PYX"
    axes = "".join("P" if name == "P" else "C" if name in "SC" else "S" for name in names)
    return array.reshape([array.shape[i] for i in keep]), axes


def _nifti(path: Path, role: str) -> tuple[Array, str]:
    try:
        import nibabel
    except ImportError as error:
        raise ImportError(f"{path} needs nibabel: pip install 'multiresnet[medical]'") from error
    array = np.asanyarray(cast(Any, nibabel.load(path)).dataobj)
    return array, "SSSC"[: array.ndim]


def _bare(path: Path, role: str) -> tuple[Array, str]:
    if path.suffix.lower() == ".npy":
        return np.load(path, mmap_mode="r", allow_pickle=False), ""
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        key = role if role in file.files else file.files[0] if len(file.files) == 1 else None
        if key is None:
            raise ValueError(f"it holds the arrays {', '.join(file.files)}: keep one, or call one {role!r}")
        return np.asarray(file[key]), ""


@functools.lru_cache(maxsize=4)
def load_stack(path: Path, key: str) -> Array:
    """An array of a .npz file, read once per process."""
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        return np.asarray(file[key])
