"""Runs side by side that survive interruption, and what is left of them: means and deviations over seeds."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Job = Callable[[Row], Row]


def run_jobs(job: Job, tasks: Sequence[Row], *, log: Path, jobs: int) -> list[Row]:
    """Rows of all tasks, in their order; a run that is started again takes from `log` what was finished before.

    Args:
        job: makes a row of a task; picklable.
        tasks: JSON-able; what is in them decides whether a row in the log is theirs.
        log: each row is added to it as soon as it is there. A line that a killed run left unfinished is passed over.
        jobs: tasks side by side, each in a process of its own; 1 runs them in this one.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    keys = [_key(task) for task in tasks]
    done = {key: row for key, row in _read(log) if key in keys}
    todo = [task for key, task in zip(keys, tasks) if key not in done]
    with log.open("a") as file:
        for task, row in _results(job, todo, jobs):
            done[_key(task)] = row
            file.write(
                "\n" + json.dumps([_key(task), row])
            )  # the line before may be one that a killed run left unfinished
            file.flush()
            shown = {k: v for k, v in row.items() if not isinstance(v, (list, dict))}
            print(f"{len(done)}/{len(tasks)}", shown, flush=True)
    return [done[key] for key in keys]


def _results(job: Job, tasks: Sequence[Row], jobs: int) -> Iterator[tuple[Row, Row]]:
    """Tasks with their rows, as they come."""
    if jobs == 1:
        yield from ((task, job(task)) for task in tasks)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(job, task): task for task in tasks}
        try:
            for future in as_completed(running):
                yield running[future], future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _read(log: Path) -> Iterator[tuple[str, Row]]:
    for line in log.read_text().splitlines() if log.exists() else ():
        try:
            key, row = json.loads(line)
        except ValueError:  # the line of a killed run
            continue
        yield key, row


def _key(task: Row) -> str:
    return hashlib.sha256(json.dumps(task, sort_keys=True).encode()).hexdigest()[:16]


def mean_and_sd(rows: Sequence[Row], *, by: Sequence[str], keys: Sequence[str]) -> list[Row]:
    """Rows that agree in `by` as one, in order of appearance: mean and deviation of `keys`, the rest of the first.

    Where a run has no value (None) there is no mean. Lists and dicts are left out.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in by), []).append(row)
    merged = []
    for group in groups.values():
        first = {k: v for k, v in group[0].items() if k not in (*keys, "seed") and not isinstance(v, (list, dict))}
        for key in keys:
            values = [row[key] for row in group]
            known = None not in values
            first[key] = statistics.fmean(values) if known else None
            first[f"{key}_sd"] = statistics.stdev(values) if known and len(values) > 1 else None if not known else 0.0
        merged.append(first | {"seeds": len(group)})
    return merged
