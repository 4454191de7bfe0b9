"""The arrays of a .npz, .npy, HDF5 or Zarr file, by name: listed without being read, read where they are indexed."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

__all__ = ["ENDINGS", "attributes", "close", "data_files", "list_arrays", "open_store", "reading"]

ENDINGS = (".npz", ".npy", ".h5", ".hdf5", ".zarr")


class Header(NamedTuple):
    """What is known of an array that was not read."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class NpzStore(Mapping[str, NDArray[Any]]):
    """The arrays of a .npz file, each read whole when first asked for, and kept: the format has no partial reads."""

    def __init__(self, path: Path) -> None:
        self.path, self._arrays = path, dict[str, NDArray[Any]]()
        self.headers = _npz_headers(path)

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._arrays:
            with np.load(self.path, allow_pickle=False) as file:
                self._arrays[name] = file[name]
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.headers)

    def __len__(self) -> int:
        return len(self.headers)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong inside a damaged or forbidden file into an error that names the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no data file {str(path)!r}") from error
    except PermissionError as error:
        raise PermissionError(f"no permission to read {str(path)!r}") from error
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{str(path)!r} is not a readable {path.suffix.lower()} file (cut short or damaged?): {error}"
        ) from error


def open_store(path: Path) -> Any:
    """A mapping from names to arrays, which may lie in groups ("group/array"); close it if it has `close`.

    Args:
        path: the file; its ending says what it is. A .zarr may be a folder.

    Raises:
        FileNotFoundError, PermissionError: as they say.
        ValueError: unknown ending, or not a file of the kind that the ending says.
        ImportError: a .zarr file without the package `zarr`.
    """
    kind = path.suffix.lower()
    with reading(path):
        path.stat()
        if kind in (".h5", ".hdf5"):
            return h5py.File(path, "r")
        if kind == ".npz":
            return NpzStore(path)
        if kind == ".npy":
            return {"": _open_npy(path)}
        if kind == ".zarr":
            return _open_zarr(path)
    raise ValueError(f"cannot tell the format of {str(path)!r}: use {', '.join(ENDINGS)}")


def close(store: Any) -> None:
    """Close a store that can be closed."""
    if hasattr(store, "close"):
        store.close()


def list_arrays(store: Any) -> dict[str, Any]:
    """All arrays of a store, in groups or not, by their full name; each has `shape` and `dtype`."""
    if isinstance(store, NpzStore):
        return dict(store.headers)
    found: dict[str, Any] = {}
    for name in store.keys():  # noqa: SIM118 (h5py and zarr groups are no dictionaries)
        item = store[name]
        found |= {f"{name}/{k}": v for k, v in list_arrays(item).items()} if hasattr(item, "keys") else {name: item}
    return found


def attributes(item: Any) -> dict[str, Any]:
    """The attributes of a file, group or array, as plain Python values; none where the format has none."""
    return {name: plain(value) for name, value in dict(getattr(item, "attrs", {})).items()}


def plain(value: Any) -> Any:
    """A numpy array, numpy scalar or bytes as list, number or text."""
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, bytes):
        return value.decode()
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def data_files(folder: Path) -> list[Path]:
    """All data files in a folder and below, sorted.

    Raises:
        ValueError: there is none.
    """
    found = [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in ENDINGS and not p.name.startswith(".")]
    found = [p for p in found if not any(parent.suffix.lower() == ".zarr" for parent in p.parents)]
    if not found:
        raise ValueError(f"no data file ({', '.join(ENDINGS)}) in the folder {str(folder)!r} or below")
    return found


def _open_npy(path: Path) -> NDArray[Any]:
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except ValueError as error:  # numpy's word for a broken header
        raise OSError(str(error)) from error


def _open_zarr(path: Path) -> Any:
    try:
        import zarr
    except ImportError as error:
        raise ImportError(f"{path.name} needs the package zarr: pip install 'multiresnet[pde]'") from error
    try:
        store = zarr.open(str(path), mode="r")
    except (ValueError, KeyError) as error:  # zarr's words for missing or broken metadata
        raise EOFError(str(error)) from error
    return store if hasattr(store, "keys") else {"": store}


def _npz_headers(path: Path) -> dict[str, Header]:
    """Shape and dtype of every array, without reading the arrays."""
    headers = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as member:
                form = np.lib.format
                try:
                    version = form.read_magic(member)
                    read = form.read_array_header_1_0 if version == (1, 0) else form.read_array_header_2_0
                    shape, _, dtype = read(member)
                except ValueError as error:
                    raise OSError(f"{name}: {error}") from error
                headers[name.removesuffix(".npy")] = Header(tuple(shape), dtype)
    return headers
