"""What the demo is asked to do, and the data it does it on: a file, or a flow generated once and kept."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from multiresnet.atomic import write_atomically
from multiresnet.data import Physics, TrajectoryDataModule, navier_stokes
from multiresnet.spaces.boundary import Boundary

__all__ = ["DemoConfig", "generated_flow", "open_data", "progress_bars"]

BATCH = 8


@dataclass(frozen=True)
class DemoConfig:
    """What the demo does.

    Attributes:
        out: folder for the pictures, the models, results.json, and the generated data.
        data: a file with an array (trajectory, time, channel, *space); None generates Navier-Stokes data.
        key: name of the array in the file.
        boundary: of the file's fields; None takes what the file states, else "replicate".
        seconds: training time of each model; None means 100, or 3 with `quick`.
        seed: of the data, the weights and the shuffling.
        quick: little data, narrow models, short training: a minute in all, the numbers mean nothing.
    """

    out: Path = Path("demo_output")
    data: Path | None = None
    key: str | None = None
    boundary: Boundary | None = None
    seconds: float | None = None
    seed: int = 0
    quick: bool = False

    def __post_init__(self) -> None:
        if self.seconds is not None and not (math.isfinite(self.seconds) and self.seconds > 0):
            raise ValueError(f"seconds must be > 0, got {self.seconds}")
        if self.seed < 0:
            raise ValueError(f"seed must be >= 0, got {self.seed}")

    @property
    def training_seconds(self) -> float:
        """Training time of each model."""
        return self.seconds if self.seconds is not None else (3.0 if self.quick else 100.0)


def open_data(config: DemoConfig, console: Console) -> TrajectoryDataModule:
    """The data module of the demo, set up; its warnings become notes on the console."""
    path = config.data if config.data is not None else generated_flow(config, console)
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always", UserWarning)
        data = TrajectoryDataModule(
            path,
            key=config.key,
            boundary=config.boundary,
            fractions=(0.75, 0.1, 0.15),
            batch_size=BATCH,
            seed=config.seed,
        )
        data.setup()
    for note in notes:
        console.print(f"[yellow]note:[/] {note.message}", highlight=False)
    parts = {name: sum(s.stop - s.start for s in segments) for name, segments in data.segments.items()}
    console.print(f"data {path}: shape {tuple(data.source.shape)}, boundary {data.boundary}, frames per split {parts}")
    return data


def generated_flow(config: DemoConfig, console: Console) -> Path:
    """The Navier-Stokes file in the output folder; made if it is not there."""
    choice: dict[str, Any] = {"trajectories": 150, "frames": 21, "size": 64, "seed": config.seed}
    physics = Physics()
    if config.quick:
        choice |= {"trajectories": 20, "size": 32}
        physics = Physics(viscosity=2e-3)  # what the coarser grid resolves
    key = json.dumps({**choice, **asdict(physics)}, sort_keys=True)
    path = config.out / f"navier_stokes_{hashlib.sha256(key.encode()).hexdigest()[:10]}.npz"
    if path.exists():
        console.print(f"using the trajectories of an earlier run, {path}")
        return path
    with progress_bars(console, MofNCompleteColumn()) as progress:
        bar = progress.add_task("Navier-Stokes frames")
        vorticity = navier_stokes(
            **choice,
            physics=physics,
            progress=lambda done, total: progress.update(bar, completed=done, total=total),
        )
    write_atomically(path, lambda file: np.savez(file, vorticity=vorticity, boundary="periodic", settings=key))
    return path


def progress_bars(console: Console, *columns: Any) -> Progress:
    """Bars with times, and with `columns` in between."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *columns,
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
