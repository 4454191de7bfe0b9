"""One array (trajectory, time, channel, *space) in a .npz, .npy or HDF5 file, opened when first read."""

from __future__ import annotations

import json
import os
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
from numpy.typing import NDArray

from multiresnet.spaces.boundary import Boundary

__all__ = ["TrajectoryFile", "check_layout"]


class TrajectoryFile:
    """A trajectory array in a file: has `shape`, `dtype` and indexing, and reads only what is indexed.

    HDF5 and .npy files are opened on the first read in each process and never in the constructor, so the
    object can be pickled and sent to data-loading workers. A .npz file is read whole on the first access.

    Args:
        path: the file; the ending says what it is.
        key: name of the array inside a .npz or HDF5 file; None takes the only one with at least four axes.

    Attributes:
        shape: (trajectory, time, channel, *space).
        boundary: the boundary condition that the file states (HDF5 attribute or .npz entry `boundary`), or
            None.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unreadable file, unknown ending, no such key, or several arrays and no key.
    """

    def __init__(self, path: str | Path, *, key: str | None = None) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"no data file {str(self.path)!r}")
        kind = self.path.suffix.lower()
        try:
            if kind in (".h5", ".hdf5"):
                with h5py.File(self.path, "r") as file:
                    self.key = _choose(_datasets(file), key, self.path)
                    dataset = file[self.key]
                    self.shape, self.dtype = tuple(dataset.shape), np.dtype(dataset.dtype)
                    stated = dataset.attrs.get("boundary", file.attrs.get("boundary"))
            elif kind == ".npz":
                headers = _npz_headers(self.path)
                self.key = _choose({name: shape for name, (shape, _) in headers.items()}, key, self.path)
                self.shape, self.dtype = headers[self.key]
                with np.load(self.path, allow_pickle=False) as file:
                    stated = file["boundary"].tolist() if "boundary" in headers else None
            elif kind == ".npy":
                array = _open_npy(self.path)
                self.key, self.shape, self.dtype, stated = "", array.shape, array.dtype, None
            else:
                raise ValueError(f"cannot tell the format of {str(self.path)!r}: use .npz, .npy, .h5 or .hdf5")
        except (OSError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{str(self.path)!r} is not a readable {kind} file: {error}") from error
        self.boundary: Boundary | None = None if stated is None else _stated_boundary(stated)
        self._open: tuple[int, Any] | None = None

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        # a handle must not cross a fork: each process opens its own
        if self._open is None or self._open[0] != os.getpid():
            self._open = (os.getpid(), self._read())
        return np.asarray(self._open[1][index])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None}

    def _read(self) -> Any:
        if self.path.suffix.lower() in (".h5", ".hdf5"):
            return h5py.File(self.path, "r")[self.key]
        if self.path.suffix.lower() == ".npy":
            return _open_npy(self.path)
        with np.load(self.path, allow_pickle=False) as file:
            return file[self.key]


def _open_npy(path: Path) -> NDArray[Any]:
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except ValueError as error:  # numpy's word for a broken header
        raise OSError(str(error)) from error


def _npz_headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and dtype of every array, without reading the arrays."""
    headers = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as member:
                form = np.lib.format
                read = form.read_array_header_1_0 if form.read_magic(member) == (1, 0) else form.read_array_header_2_0
                shape, _, dtype = read(member)
                headers[name.removesuffix(".npy")] = (tuple(shape), dtype)
    return headers


def _datasets(file: h5py.File) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = tuple(item.shape)

    file.visititems(visit)
    return found


def _choose(arrays: Mapping[str, tuple[int, ...]], key: str | None, path: Path) -> str:
    listing = ", ".join(f"{name} {shape}" for name, shape in arrays.items()) or "nothing"
    if key is not None:
        if key not in arrays:
            raise ValueError(f"{path.name} has no array {key!r}; it holds {listing}")
        return key
    candidates = [name for name, shape in arrays.items() if len(shape) >= 4] or list(arrays)
    if len(candidates) != 1:
        raise ValueError(
            f"{path.name} holds {listing}: name the one that is (trajectory, time, channel, *space), key=... or --key"
        )
    return candidates[0]


def _stated_boundary(stated: Any) -> Boundary:
    """From text ("periodic", or JSON such as '["periodic", "zeros"]') or an array of texts."""
    value = stated.tolist() if isinstance(stated, np.ndarray) else stated
    value = value.decode() if isinstance(value, bytes) else value
    if isinstance(value, str):
        value = json.loads(value) if value.startswith("[") else value
    if isinstance(value, str):
        return cast(Boundary, value)
    return cast(Boundary, tuple(_stated_boundary(axis) for axis in value))


def check_layout(array: NDArray[Any] | TrajectoryFile) -> None:
    """Raise or warn when an array is not (trajectory, time, channel, *space) of real numbers."""
    shape, dtype = tuple(array.shape), np.dtype(array.dtype)
    wanted = "(trajectory, time, channel, *space) with 1, 2 or 3 space axes"
    if not 4 <= len(shape) <= 6:
        hint = ": one trajectory? add the first axis with a[None]" if len(shape) == 3 else ""
        raise ValueError(f"data must be {wanted}, that is 4 to 6 axes; got {len(shape)}, shape {shape}{hint}")
    if 0 in shape:
        raise ValueError(f"data must not have an empty axis, got shape {shape}")
    if dtype.kind == "c":
        raise TypeError(f"data are complex ({dtype}): store real and imaginary part as two channels")
    if dtype.kind not in "fiub":
        raise TypeError(f"data must be numbers, got dtype {dtype}")
    if len(shape) > 4 and shape[-1] <= 4 and shape[2] > 16:
        warnings.warn(f"shape {shape} looks channels-last; wanted {wanted}: move the axis first", stacklevel=3)
    elif len(shape) == 4 and shape[2] > 16:
        warnings.warn(
            f"shape {shape} is read as {shape[2]} channels on a line of {shape[3]} points; "
            "if these are 2-D fields, add the channel axis with a[:, :, None]",
            stacklevel=3,
        )
