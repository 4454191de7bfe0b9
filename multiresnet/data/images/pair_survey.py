"""One look at all pairs before training: what is wrong with them, their channels, sizes, statistics and labels."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .masks import MaskCode
from .pair_reader import PairReader
from .pairs import Pair
from .reading import Source, check_finite, scaled, with_channels

__all__ = ["Survey", "survey"]

Array = NDArray[Any]
_IMAGES = 2000  # above, only so many images are looked at, evenly spread; all masks are


@dataclass(frozen=True)
class Survey:
    """What `survey` found.

    Args:
        channels: of the images as they are served.
        mean: per channel over the training images.
        std: per channel over the training images; 1 where it would be 0.
        labels: pixels of each label in the training masks (binary: of 0 and 1; multilabel: of each class).
        sizes: all sizes of training images.
    """

    channels: int
    mean: list[float]
    std: list[float]
    labels: list[int]
    sizes: set[tuple[int, ...]]


class _Look(NamedTuple):
    """At one image: `low` and `high` are its range if it is floating, `whole` says that all values are integers."""

    source: Source
    pixels: int
    mean: Array
    variance: Array
    low: float
    high: float
    whole: bool


def survey(reader: PairReader, splits: Mapping[str, list[Pair]], *, channels: int | None = None) -> Survey:
    """Look at all pairs, and raise or warn as needed.

    Args:
        reader: of the pairs.
        splits: with `"train"` among them; where that is empty, all pairs count for the statistics.
        channels: of the images as they are to be served; `None` goes by the files.

    Raises:
        ValueError: what the reader raises; NaN or Inf; numbers of channels other than 1 and 3 mixed; a binary training
            set without a pixel of 1.
    """
    jobs = [(split, pair) for split, pairs in splits.items() for pair in pairs]
    chosen = set(np.linspace(0, len(jobs) - 1, min(len(jobs), _IMAGES)).astype(int).tolist())

    def look(job: int) -> tuple[_Look | None, Array, tuple[int, ...]]:
        pair = jobs[job][1]
        if job in chosen:
            image, mask = reader.pair(pair)
            seen = _look(image, pair.image, channels)
        else:
            mask, seen = reader.mask(pair.mask), None  # type: ignore[arg-type]
        return seen, _count(mask, reader.code), mask.shape[mask.ndim - reader.spatial_dims :]

    with ThreadPoolExecutor() as pool:  # decoders release the lock
        looks = list(pool.map(look, range(len(jobs))))
    fitted = [found for found, (split, _) in zip(looks, jobs) if split == "train"] or looks
    images = [seen for seen, _, _ in looks if seen is not None]
    channels = _channels(images)
    _check_range(images)
    labels = np.sum([count for _, count, _ in fitted], axis=0).tolist()
    _check_labels(labels, reader.code)
    mean, std = _moments([seen for seen, _, _ in fitted if seen is not None], channels)
    return Survey(channels, mean, std, labels, {size for _, _, size in fitted})


def _look(image: Array, source: Source, channels: int | None) -> _Look:
    check_finite(image, source)
    floating = image.dtype.kind == "f"
    low, high = (float(image.min()), float(image.max())) if floating else (0.0, 1.0)
    whole = high > 1 and bool((image == np.rint(image)).all())
    values = with_channels(scaled(image), channels, source).reshape(channels or len(image), -1)
    mean = values.mean(1, dtype=np.float64)
    return _Look(source, values.shape[1], mean, values.var(1, dtype=np.float64), low, high, whole)


def _count(mask: Array, code: MaskCode) -> Array:
    if code.mode == "multilabel":
        return np.array([np.count_nonzero(band == 1) for band in mask])
    valid = mask[(mask >= 0) & (mask < code.labels)]
    counts = np.bincount(valid.astype(np.intp), minlength=code.labels)
    if code.ignore_index is not None and 0 <= code.ignore_index < code.labels:
        counts[code.ignore_index] = 0
    return counts


def _channels(looks: list[_Look]) -> int:
    """Of all images; grey among RGB is repeated."""
    groups: dict[int, list[Source]] = {}
    for look in looks:
        groups.setdefault(len(look.mean), []).append(look.source)
    if len(groups) == 1:
        return next(iter(groups))
    if set(groups) == {1, 3}:
        warnings.warn(
            f"{len(groups[1])} of {len(looks)} images are grey (such as {groups[1][0]}), the others RGB: grey is repeated "
            "to three channels; choose with channels='rgb' or channels='grey'",
            stacklevel=4,
        )
        return 3
    listing = ", ".join(f"{sources[0]} has {count}" for count, sources in sorted(groups.items()))
    raise ValueError(f"images have different numbers of channels: {listing}; only grey and RGB mix")


def _check_range(looks: list[_Look]) -> None:
    wide = [look for look in looks if look.low < -1 or look.high > 1]
    if wide:
        first = wide[0]
        eight_bits = first.whole and first.low >= 0 and first.high <= 255
        warnings.warn(
            f"{first.source} holds floating values {first.low:g}..{first.high:g}"
            f"{', all whole (8-bit values?)' if eight_bits else ''}, as {len(wide)} of {len(looks)} images reach beyond "
            "-1..1; they are served as they are, only integer images are scaled to 0..1",
            stacklevel=4,
        )


def _check_labels(labels: list[int], code: MaskCode) -> None:
    missing = [label for label, count in enumerate(labels) if not count and label != code.ignore_index]
    if code.mode == "binary" and 1 in missing:
        raise ValueError("no pixel of the training masks is 1 (foreground): there is nothing to learn")
    if code.mode != "binary" and missing:
        warnings.warn(f"the training masks have no pixel of class {', '.join(map(str, missing))}", stacklevel=4)


def _moments(looks: list[_Look], channels: int) -> tuple[list[float], list[float]]:
    """Over all pixels, from those of each image."""
    pixels = np.array([look.pixels for look in looks], float)[:, None]
    means = np.stack([np.broadcast_to(look.mean, channels) for look in looks])
    variances = np.stack([np.broadcast_to(look.variance, channels) for look in looks])
    mean = (pixels * means).sum(0) / pixels.sum()
    variance = (pixels * (variances + (means - mean) ** 2)).sum(0) / pixels.sum()
    std = np.sqrt(variance)
    return mean.tolist(), np.where(std > 1e-6 * np.maximum(np.abs(mean), 1e-6), std, 1.0).tolist()
