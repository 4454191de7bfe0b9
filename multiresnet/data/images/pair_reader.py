"""Pairs of image and mask, decoded once while they fit in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .masks import MaskCode
from .pairs import Pair
from .reading import Source, read_image, read_mask

__all__ = ["Cache", "PairReader"]

Array = NDArray[Any]


class Cache:
    """Arrays by key, kept until `capacity` bytes are used; every process has its own."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.used = capacity, 0
        self._arrays: dict[Any, Array] = {}
        self._lock = threading.Lock()

    def get(self, key: Any, make: Callable[[], Array]) -> Array:
        """The array of `key`, made if it is not there."""
        if (array := self._arrays.get(key)) is None:
            array = make()
            if isinstance(array, np.memmap):  # is on disk, and keeps a file open
                return array
            with self._lock:
                if key not in self._arrays and self.used + array.nbytes <= self.capacity:
                    self._arrays[key] = array
                    self.used += array.nbytes
        return array

    def __reduce__(self) -> tuple[type[Cache], tuple[int]]:
        return Cache, (self.capacity,)


@dataclass
class PairReader:
    """Images (C, *space) as stored and masks as classes (int16), checked against each other."""

    code: MaskCode
    spatial_dims: int
    cache: Cache

    def image(self, source: Source) -> Array:
        """The image, in the type of the file."""
        return self.cache.get(("image", source), lambda: read_image(source, spatial_dims=self.spatial_dims))

    def mask(self, source: Source) -> Array:
        """The mask in classes, (*space) or (classes, *space)."""

        def make() -> Array:
            mask = read_mask(source, spatial_dims=self.spatial_dims)
            return self.code.encode(mask, source, spatial_dims=self.spatial_dims)

        return self.cache.get(("mask", source), make)

    def pair(self, pair: Pair) -> tuple[Array, Array]:
        """Both, of the same size."""
        if pair.mask is None:
            raise ValueError(f"{pair.image} has no mask")
        image, mask = self.image(pair.image), self.mask(pair.mask)
        if mask.shape[mask.ndim - self.spatial_dims :] != image.shape[1:]:
            size = mask.shape[mask.ndim - self.spatial_dims :]
            raise ValueError(f"{pair.mask} is {size}, its image {pair.image} is {image.shape[1:]}: sizes must agree")
        return image, mask
