"""Which frames train, validate and test: as the data set says, by trajectory, or along time when there are too few."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Segment", "split_segments"]

_SPLITS = ("train", "val", "test")


class Segment(NamedTuple):
    """Frames start .. stop - 1 of one trajectory; a window never leaves its segment."""

    trajectory: int
    start: int
    stop: int


def split_segments(
    lengths: Sequence[int],
    fractions: Sequence[float],
    *,
    window: int,
    seed: int = 0,
    given: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, list[Segment]]:
    """Split by trajectory; where there are too few, split each along time, in the order train, val, test.

    Args:
        lengths: frames of each trajectory.
        fractions: of train, val and test; they sum to 1.
        window: frames of one training example; no part of a split along time is shorter.
        seed: of the choice of trajectories.
        given: trajectories of the splits that the data set makes itself. It counts if it has "train" and one more; a
            third that is missing is cut from "train".

    Raises:
        ValueError: when the fractions make no sense or there are too few frames.

    Examples:
        >>> split_segments([20], (0.6, 0.2, 0.2), window=2)["test"]
        [Segment(trajectory=0, start=16, stop=20)]
        >>> split_segments([9] * 4, (0.6, 0.2, 0.2), window=2, given={"train": [0, 1], "val": [2], "test": [3]})["val"]
        [Segment(trajectory=2, start=0, stop=9)]
    """
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"fractions must be three positive numbers that sum to 1, got {tuple(fractions)}")
    given = {name: list(ids) for name, ids in (given or {}).items() if ids}
    if "train" not in given or len(given) < 2:
        given = {"train": range(len(lengths))}
    share = {name: part for name, part in zip(_SPLITS, fractions) if name == "train" or name not in given}
    pool = given["train"]
    by_time = len(pool) < len(share)
    shortest = min(lengths)
    if shortest < window * (len(share) if by_time else 1):
        need = f"{len(share) * window} frames (it is split along time)" if by_time else f"{window} frames"
        raise ValueError(f"too few frames: got {shortest} per trajectory, need at least {need}")
    segments = {name: [Segment(i, 0, lengths[i]) for i in ids] for name, ids in given.items() if name != "train"}
    if by_time:
        cuts = {i: _cut(lengths[i], share, window) for i in pool}
        segments |= {name: [Segment(i, *cuts[i][name]) for i in pool] for name in share}
    else:
        order = np.random.default_rng(seed).permutation(pool).tolist()
        cut = _cut(len(pool), share, 1)
        segments |= {name: [Segment(i, 0, lengths[i]) for i in sorted(order[slice(*cut[name])])] for name in share}
    return {name: segments[name] for name in _SPLITS}


def _cut(total: int, share: Mapping[str, float], least: int) -> dict[str, tuple[int, int]]:
    """Start and stop of each part, one after the other; a share of the sum of all, and never less than `least`."""
    whole = sum(share.values())
    sizes = {name: max(least, round(total * part / whole)) for name, part in share.items() if name != "train"}
    while total - sum(sizes.values()) < least:  # tiny sets: give back to the training split
        sizes[max(reversed(sizes), key=lambda name: sizes[name])] -= 1
    sizes = {"train": total - sum(sizes.values()), **sizes}
    stops = np.cumsum(list(sizes.values())).tolist()
    return {name: (stop - sizes[name], stop) for name, stop in zip(sizes, stops)}
