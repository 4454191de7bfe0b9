"""Times and memory that can be compared: interleaved repetitions, one clock, a fresh process for each peak."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

Task = Callable[[], object]
Timer = Callable[[Task], float]
Samples = dict[str, list[float]]


def by_clock(clock: Callable[[], float]) -> Timer:
    """Seconds of a task by a clock that is read before and after."""

    def timer(task: Task) -> float:
        start = clock()
        task()
        return clock() - start

    return timer


def by_events(task: Task) -> float:
    """Seconds of a task on the current GPU."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    task()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / 1000


def check_device(device: str) -> None:
    """Raise ValueError unless `device` is `cpu`, or `cuda` where torch sees a GPU."""
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu or cuda, got {device!r}; choose among GPUs with CUDA_VISIBLE_DEVICES")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda, but torch sees no GPU here (torch.cuda.is_available()); use --device cpu")


def timer_for(device: str) -> tuple[Timer, str]:
    """The fairest timer and its name: GPU events; with one thread the CPU time of this process; else the wall clock.

    CPU time does not see what other programs do on the machine, but adds up over threads.
    """
    if torch.device(device).type == "cuda":
        return by_events, "GPU events"
    if torch.get_num_threads() == 1:
        return by_clock(time.process_time), "process CPU time"
    return by_clock(time.perf_counter), "wall clock"


def interleave(tasks: Mapping[str, Task], *, timer: Timer, repetitions: int, warmup: int = 2) -> Samples:
    """Seconds of each task in each repetition, run in turns A B C A B C: a slow spell of the machine hits all of them.

    Args:
        tasks: what to time.
        timer: seconds of one task.
        repetitions: turns that count.
        warmup: turns before that.
    """
    for _ in range(warmup):
        for task in tasks.values():
            task()
    samples: Samples = {name: [] for name in tasks}
    for _ in range(repetitions):
        for name, task in tasks.items():
            samples[name].append(timer(task))
    return samples


def ratio(samples: Samples, name: str, reference: str) -> float:
    """Median of the ratios within each repetition."""
    return statistics.median(a / b for a, b in zip(samples[name], samples[reference]))


def median_and_range(values: list[float]) -> tuple[float, float, float]:
    """(median, smallest, largest)."""
    return statistics.median(values), min(values), max(values)


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments)` in a new process that has only imported; values must be picklable.

    Where the system can, processes are forked from a server that has imported the function's module and nothing else.

    Raises:
        MemoryError: the process was killed, as the system does when memory ends.
    """
    context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    if sys.platform == "linux":
        context.set_forkserver_preload([function.__module__])
    with _importable(), concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            raise MemoryError("the measuring process was killed, probably because memory ended") from None


def peak_bytes(step: Task, device: str) -> int | None:
    """Most memory that `step` held at once beyond what was held before it; None where the system does not tell.

    On the CPU call it in a fresh process, after a small step has loaded the libraries: memory that an earlier step has
    freed but kept for reuse would hide a part.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the high water mark starts again from here
        before = _status("VmRSS")
        step()
        return _status("VmHWM") - before
    except OSError:
        return None


def _status(field: str) -> int:
    """A size of this process in bytes. (`getrusage` won't do: its maximum includes the process that started this.)"""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


@contextmanager
def _importable() -> Iterator[None]:
    """New interpreters find the modules that this one finds."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
