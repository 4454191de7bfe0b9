"""Which frames train, validate and test: by trajectory, or along time when there are too few of them."""

from __future__ import annotations

from collections.abc import Sequence
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
    trajectories: int, frames: int, fractions: Sequence[float], *, window: int, seed: int = 0
) -> dict[str, list[Segment]]:
    """Split by trajectory; with fewer than three, split each along time, in the order train, val, test.

    Args:
        trajectories: how many there are.
        frames: frames of each.
        fractions: of train, val and test; they sum to 1.
        window: frames of one training example; no part of a split along time is shorter.
        seed: of the choice of trajectories.

    Raises:
        ValueError: when the fractions make no sense or there are too few frames.

    Examples:
        >>> split_segments(1, 20, (0.6, 0.2, 0.2), window=2)["test"]
        [Segment(trajectory=0, start=16, stop=20)]
    """
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"fractions must be three positive numbers that sum to 1, got {tuple(fractions)}")
    by_time = trajectories < len(_SPLITS)
    total, least = (frames, window) if by_time else (trajectories, 1)
    if frames < window * (3 if by_time else 1):
        need = f"{3 * window} frames (one trajectory is split along time)" if by_time else f"{window} frames"
        raise ValueError(f"too few frames: got {frames} per trajectory, need at least {need}")
    val, test = (max(least, round(total * fraction)) for fraction in fractions[1:])
    while total - val - test < least:  # tiny sets: give back to the training split
        val, test = (val - 1, test) if val > test else (val, test - 1)
    cuts = {
        "train": (0, total - val - test),
        "val": (total - val - test, total - test),
        "test": (total - test, total),
    }
    if by_time:
        return {name: [Segment(i, *cut) for i in range(trajectories)] for name, cut in cuts.items()}
    order = np.random.default_rng(seed).permutation(trajectories)
    return {
        name: [Segment(int(i), 0, frames) for i in sorted(order[start:stop])] for name, (start, stop) in cuts.items()
    }
