"""What the solvers share: the checks of a request, and one trajectory after the other on all threads."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from multiresnet.checks import check_positive

__all__ = ["check_physics", "check_request", "solve_all", "whole_intervals"]

Progress = Callable[[int, int], None]
State = TypeVar("State")


def solve_all(
    states: Callable[[int], Iterable[State]],
    frame: Callable[[State], NDArray[Any]],
    indices: range,
    *,
    frames: int,
    skip: int = 0,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Stack the frames of `states(index)` over the indices; each runs alone in one thread, so none depends on others.

    Threads share out trajectories, not array operations: these take microseconds, and waiting for each other
    on a busy machine costs up to a hundredfold.

    Args:
        states: the states of one trajectory, `skip + frames` of them.
        frame: what is kept of a state.
        indices: which trajectories.
        frames: how many are kept of a trajectory.
        skip: states before the first of them.
        progress: called as progress(done, total) after each state, by one thread at a time.

    Returns:
        float32 array (trajectory, time, *frame).

    Examples:
        >>> import numpy as np
        >>> solve_all(lambda index: [index, 2 * index], np.atleast_1d, range(3, 5), frames=2).tolist()
        [[[3.0], [6.0]], [[4.0], [8.0]]]
    """
    done, total, lock = 0, len(indices) * (skip + frames), threading.Lock()

    def task(index: int) -> NDArray[np.float32]:
        nonlocal done
        torch.set_num_threads(1)
        kept = []
        for number, state in enumerate(states(index)):
            if number >= skip:
                kept.append(frame(state).astype(np.float32))
            with lock:
                done += 1
                if progress:
                    progress(done, total)
        return np.stack(kept)

    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads)
    out: NDArray[np.float32] = np.empty(0, dtype=np.float32)
    try:
        for row, result in enumerate(pool.map(task, indices)):
            if row == 0:
                out = np.empty((len(indices), *result.shape), dtype=np.float32)
            out[row] = result
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # a worker's setting is also the default of threads still to come
    return out


def check_request(
    *, trajectories: int, frames: int, interval: float, seed: int, first: int, spin_up: float = 0
) -> None:
    """Raise `ValueError` for counts, times or seeds that no solver can serve."""
    check_positive(trajectories=trajectories, frames=frames)
    if not (0 < interval < math.inf and 0 <= spin_up < math.inf):
        raise ValueError(f"need interval > 0 and spin_up >= 0, both finite; got interval={interval}, spin_up={spin_up}")
    if seed < 0 or first < 0:
        raise ValueError(f"need seed >= 0 and first >= 0; got seed={seed}, first={first}")


def check_physics(physics: object, *, positive: tuple[str, ...], nonnegative: tuple[str, ...] = ()) -> None:
    """Raise `ValueError` unless these attributes are finite and > 0, or >= 0."""
    for name in (*positive, *nonnegative):
        value = getattr(physics, name)
        if not (math.isfinite(value) and (value > 0 or (value == 0 and name in nonnegative))):
            sign = ">=" if name in nonnegative else ">"
            raise ValueError(f"{type(physics).__name__}.{name} must be a finite number {sign} 0, got {value!r}")


def whole_intervals(time: float, interval: float) -> int:
    """Intervals that cover a time; a rounding error above a whole number does not add one."""
    return math.ceil(time / interval - 1e-9)
