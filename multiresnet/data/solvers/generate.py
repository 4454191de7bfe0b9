"""PDE data on disk, made so that a run killed at any moment goes on where it stopped.

Each finished trajectory is a file of its own in `OUT.partial/`, written under another name, synced and renamed; when all are
there they become one HDF5 file, made whole in the same way, and the folder goes. Trajectory i depends on the seed, the split
and i alone and is solved alone, so the arrays are the same bit for bit however often the run was interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import h5py
import torch

from multiresnet import __version__
from multiresnet.atomic import write_atomically
from multiresnet.checks import check_choice, check_positive, closest
from multiresnet.spaces.boundary import Boundary, parse_boundary

from .arena import write_arena, write_steady
from .generators import GENERATORS, Generator
from .shards import Shards, runs

__all__ = ["GENERATORS", "Generated", "Generator", "generate"]

# The splits of one seed are far-apart stretches of one row of trajectories.
_SPLITS = {"train": 0, "valid": 10**9, "test": 2 * 10**9}


@dataclass(frozen=True)
class Generated:
    """What `generate` did.

    Attributes:
        path: the finished file.
        trajectories: how many it holds.
        solved: how many of them were solved by this call; 0 if the file was there already.
    """

    path: Path
    trajectories: int
    solved: int


def generate(
    name: str,
    out: str | Path,
    *,
    trajectories: int = 100,
    seed: int = 0,
    split: str = "train",
    size: int | None = None,
    frames: int | None = None,
    interval: float | None = None,
    spin_up: float | None = None,
    boundary: Boundary | None = None,
    physics: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Generated:
    """Make a file of PDE data, or go on with one that an earlier run did not finish.

    The file has the layout of `multiresnet.data.solvers.arena` and the attributes `boundary` (in the order of its space axes),
    `generator`, `seed`, `split`, `trajectories`, `physics` (JSON), `version`, and `request` (JSON: all that determines the
    data). A file that exists is complete.

    Args:
        name: one of `GENERATORS`.
        out: the .h5 or .hdf5 file; its folder is made if need be.
        trajectories: how many (samples, in a steady problem).
        seed: trajectory i depends on (seed, split, i) only: fewer trajectories are the first of more.
        split: "train", "valid" or "test"; they share no trajectory.
        size: grid points per side; None takes the generator's default, here and below.
        frames: per trajectory.
        interval: time between frames.
        spin_up: time solved and thrown away first.
        boundary: for shallow water, "periodic" or "reflect" (walls), or one per axis (y, x).
        physics: attributes of the generator's physics to change.
        overwrite: replace a file, or drop an unfinished one, that holds data of other options.
        progress: called as progress(done, total), in trajectories, first with those that were there already.

    Returns:
        The path, and how many trajectories were solved now.

    Raises:
        ValueError: unknown name or option, or a finished or unfinished file with other options (says which).

    Examples:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> out = Path(folder.name) / "burgers_train.h5"
        >>> generate("burgers", out, trajectories=2, size=64, frames=3).solved
        2
        >>> with h5py.File(out) as file:
        ...     print(file["train/pde_3-64"].shape, file.attrs["boundary"])
        (2, 3, 64) periodic
        >>> generate("burgers", out, trajectories=2, size=64, frames=3).solved
        0
        >>> folder.cleanup()
    """
    check_choice("generator", name, GENERATORS)
    check_choice("split", split, _SPLITS)
    check_positive(trajectories=trajectories)
    out = Path(out)
    if out.suffix.lower() not in (".h5", ".hdf5"):
        raise ValueError(f"the file must end in .h5 or .hdf5, got {str(out)!r}")
    spec = GENERATORS[name]
    chosen = {"size": size, "frames": frames, "interval": interval, "spin_up": spin_up, "boundary": boundary}
    options = _options(name, spec, {key: value for key, value in chosen.items() if value is not None})
    state = _physics(spec, physics or {})
    request = {"generator": name, "revision": spec.revision, "trajectories": trajectories, "seed": seed, "split": split}
    request |= options | {f"physics.{key}": value for key, value in asdict(state).items()}
    request = json.loads(json.dumps(request))  # as it is read back

    shards = Shards(out.with_name(f"{out.name}.partial"), trajectories)
    if _stated_request(out) == request:
        if shards.request() in (None, request):  # killed while tidying up
            shards.remove()
        if progress:
            progress(trajectories, trajectories)
        return Generated(out, trajectories, 0)
    for place, found in ((out, _stated_request(out)), (shards.folder, shards.request())):
        if found is not None and found != request and not overwrite:
            raise ValueError(
                f"{str(place)!r} holds other data: {_difference(found, request)}; "
                "give the same options, another file, or overwrite it (overwrite=True)"
            )
    if shards.request() not in (None, request):
        shards.remove()

    out.parent.mkdir(parents=True, exist_ok=True)
    missing = shards.missing()
    done = trajectories - len(missing)
    if progress:
        progress(done, trajectories)
    for run in runs(missing, torch.get_num_threads()):
        first = _SPLITS[split] + run.start
        batch = spec.solve(trajectories=len(run), seed=seed, first=first, physics=state, **options)
        shards.record(request)  # not before the options have proved possible
        for index, trajectory in zip(run, batch):
            shards.save(index, trajectory)
            done += 1
            if progress:
                progress(done, trajectories)

    stated = options.get("boundary", spec.boundary)
    attributes = {
        "boundary": stated if isinstance(stated, str) else stated[::-1],
        "generator": name,
        "seed": seed,
        "split": split,
        "trajectories": trajectories,
        "physics": asdict(state),
        "request": request,
        "version": __version__,
    }

    def assemble(file: Path) -> None:
        if spec.steady:
            write_steady(file, shards, count=trajectories, fields=spec.fields, attributes=attributes)
        else:
            write_arena(
                file,
                shards,
                count=trajectories,
                split=split,
                fields=spec.fields,
                spacing=(options["interval"], state.length / options["size"]),
                offset=spec.offset,
                attributes=attributes,
            )

    write_atomically(out, assemble)
    shards.remove()
    return Generated(out, trajectories, len(missing))


def _options(name: str, spec: Generator, given: Mapping[str, Any]) -> dict[str, Any]:
    """The generator's options with their defaults, as they go into JSON."""
    for key in given:
        if key not in spec.options:
            raise ValueError(f"{name} has no option {key!r}; it takes {', '.join(spec.options)}")
    options = {**spec.options, **given}
    check_positive(**{key: options[key] for key in ("size", "frames") if key in options})
    if "boundary" in options:
        rules = [lower if lower == upper else [lower, upper] for lower, upper in parse_boundary(options["boundary"], 2)]
        options["boundary"] = rules[0] if rules[0] == rules[1] and isinstance(rules[0], str) else rules
    return options


def _physics(spec: Generator, given: Mapping[str, Any]) -> Any:
    known = [item.name for item in fields(spec.physics)]
    for key in given:
        if key not in known:
            raise ValueError(
                f"{type(spec.physics).__name__} has no {key!r}{closest(key, known)}; it has {', '.join(known)}"
            )
    return replace(spec.physics, **given)


def _stated_request(path: Path) -> dict[str, Any] | None:
    """What a finished file is of; None if there is none, {} if it is not one of ours."""
    if not path.exists():
        return None
    try:
        with h5py.File(path) as file:
            return dict(json.loads(file.attrs["request"]))
    except (OSError, KeyError, ValueError):
        return {}


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    if not found:
        return "it does not say which"
    keys = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
    return "; ".join(f"{key} is {found.get(key)!r} there, {wanted.get(key)!r} here" for key in keys)
