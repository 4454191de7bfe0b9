"""Random crops, flips and turns that move an image and its mask together, and changes of brightness and noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Augment", "random_crop"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Augment:
    """Random changes of training images.

    Args:
        flips: mirror each axis of space with probability 1/2; or which axes, `(False, True)` for left-right only.
        quarter_turns: a random rotation by multiples of 90 degrees, each equally likely (4 in 2-D, 24 in 3-D; only half turns
            between axes of different length); or which axes take part, `(False, True, True)` in a volume of thick slices.
        brightness: largest shift of all values, in standard deviations of the training images.
        contrast: largest relative stretch or shrinkage around the mean of the training images.
        noise: standard deviation of white Gaussian noise, in standard deviations of the training images.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> image = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
        >>> moved, mask = Augment(flips=(False, True), quarter_turns=False).move(rng, image, image[0])
        >>> bool((moved[0] == mask).all())
        True
    """

    flips: bool | Sequence[bool] = True
    quarter_turns: bool | Sequence[bool] = True
    brightness: float = 0.0
    contrast: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "noise"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")

    def move(self, rng: np.random.Generator, image: Array, mask: Array) -> tuple[Array, Array]:
        """Flip and turn both by the same random symmetry of the box.

        Args:
            rng: source of randomness.
            image: (C, *space).
            mask: (*space) or (K, *space).
        """
        space = image.shape[1:]
        order, signs = list(range(len(space))), np.zeros(len(space), int)
        turned = _axes(self.quarter_turns, "quarter_turns", len(space))
        if len(turned) > 1:
            for length in sorted({space[axis] for axis in turned}):
                alike = [axis for axis in turned if space[axis] == length]
                for axis, taken in zip(alike, rng.permutation(alike)):
                    order[axis] = int(taken)
            signs[turned] = rng.integers(0, 2, len(turned))
            # a rotation has determinant 1; to mirror one axis of the others makes them rotations, each once
            signs[turned[0]] ^= (_parity(order) + signs.sum()) % 2
        flipped = _axes(self.flips, "flips", len(space))
        signs[flipped] ^= rng.integers(0, 2, len(flipped))
        return _moved(image, order, signs), _moved(mask, order, signs)

    def recolour(self, rng: np.random.Generator, image: Array, mean: Array, std: Array) -> Array:
        """Change brightness and contrast, and add noise; `mean` and `std` are those of the training images, per channel."""
        shape = (-1,) + (1,) * (image.ndim - 1)
        mean, std = mean.reshape(shape).astype(np.float32), std.reshape(shape).astype(np.float32)
        if self.contrast:
            image = mean + np.float32(np.exp(rng.uniform(-1, 1) * np.log1p(self.contrast))) * (image - mean)
        if self.brightness:
            image = image + np.float32(self.brightness * rng.uniform(-1, 1)) * std
        if self.noise:
            image = image + np.float32(self.noise) * std * rng.standard_normal(image.shape, np.float32)
        return image


def random_crop(
    rng: np.random.Generator, image: Array, mask: Array, size: Sequence[int], *, fill: int | None
) -> tuple[Array, Array]:
    """The same random window of both; what is smaller is padded first.

    Args:
        rng: source of randomness.
        image: (C, *space); padded by reflection, at random on the two sides.
        mask: (*space) or (K, *space); padded with `fill`, or by reflection if that is `None`.
        size: of the window, per axis of space.
        fill: label for the padding of the mask.

    Examples:
        >>> image, mask = np.ones((3, 5, 9)), np.ones((5, 9), int)
        >>> image, mask = random_crop(np.random.default_rng(0), image, mask, (8, 4), fill=-1)
        >>> image.shape, mask.shape, int((mask == -1).sum())
        ((3, 8, 4), (8, 4), 12)
    """
    window, pads = [], []
    for length, wanted in zip(image.shape[1:], size):
        start = int(rng.integers(0, abs(length - wanted) + 1))
        window.append(slice(start, start + wanted) if length > wanted else slice(None))
        pads.append((start, wanted - length - start) if length < wanted else (0, 0))
    place: Any = (..., *window)
    image, mask = image[place], mask[place]
    if any(pad != (0, 0) for pad in pads):
        image = np.pad(image, [(0, 0), *pads], mode="reflect")
        bands = [(0, 0)] * (mask.ndim - len(pads))
        if fill is None:
            mask = np.pad(mask, [*bands, *pads], mode="reflect")
        else:
            mask = np.pad(mask, [*bands, *pads], constant_values=fill)
    return image, mask


def _axes(choice: bool | Sequence[bool], name: str, spatial_dims: int) -> list[int]:
    """The axes that are chosen."""
    each = [choice] * spatial_dims if isinstance(choice, bool) else list(choice)
    if len(each) != spatial_dims:
        raise ValueError(f"{name}={choice} must be one value, or one for each of {spatial_dims} axes")
    return [axis for axis, chosen in enumerate(each) if chosen]


def _parity(order: Sequence[int]) -> int:
    """0 for an even permutation, 1 for an odd one."""
    return sum(order[i] > order[j] for j in range(len(order)) for i in range(j)) % 2


def _moved(array: Array, order: Sequence[int], signs: Array) -> Array:
    lead = array.ndim - len(order)
    array = array.transpose(*range(lead), *(lead + axis for axis in order))
    return np.flip(array, tuple(lead + int(axis) for axis in np.flatnonzero(signs)))
