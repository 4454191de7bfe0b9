"""`multiresnet data generate|info|spectrum`: make PDE data, or say what a file or folder holds."""

from __future__ import annotations

import argparse
import ast
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

__all__ = ["run"]


def run(argv: Sequence[str]) -> None:
    """Parse the arguments and generate or describe."""
    options = vars(_parser().parse_args(argv))
    commands: dict[str, Any] = {"generate": _generate, "info": _describe, "spectrum": _spectrum}
    commands[options.pop("what")](**options)


def _parser() -> argparse.ArgumentParser:
    from multiresnet.data.solvers.generators import GENERATORS

    parser = argparse.ArgumentParser(prog="multiresnet data", description="Make PDE data, or say what a file holds.")
    commands = parser.add_subparsers(dest="what", required=True, metavar="generate|info|spectrum")
    kinds = "\n".join(f"  {name:<24}{spec.help}" for name, spec in GENERATORS.items())
    generate = commands.add_parser(
        "generate",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Solve a PDE many times and write one HDF5 file in PDEArena's layout. A run that was stopped goes on "
        "where it was when started again with the same options.",
        epilog=f"kinds:\n{kinds}",
    )
    generate.add_argument("name", metavar="KIND", help="see below")
    generate.add_argument("--out", type=Path, required=True, metavar="FILE.h5")
    generate.add_argument("-n", "--n", type=int, default=100, help="trajectories or samples (default 100)")
    generate.add_argument("--seed", type=int, default=0)
    generate.add_argument("--split", default="train", help="train, valid or test: different data of the same seed")
    generate.add_argument("--size", type=int, help="grid points per side")
    generate.add_argument("--frames", type=int, help="frames of a trajectory")
    generate.add_argument("--interval", type=float, help="time between frames")
    generate.add_argument("--spin-up", type=float, help="time solved and thrown away first")
    generate.add_argument("--boundary", help="shallow water: periodic, or reflect for walls; y,x for one each")
    generate.add_argument("--physics", nargs="*", default=[], metavar="NAME=VALUE", help="e.g. viscosity=1e-3")
    generate.add_argument("--overwrite", action="store_true", help="replace a file of other options")
    info = commands.add_parser("info", description="Say what a file or folder of fields holds.")
    info.add_argument("path", type=Path)
    spectrum = commands.add_parser(
        "spectrum",
        description="Say how the energy of images is spread over the levels of the Haar transform, and when the noise of a "
        "diffusion process drowns each.",
    )
    spectrum.add_argument(
        "source", metavar="SOURCE", help="folder of images, .npz file, or digits; training images are read"
    )
    spectrum.add_argument("--size", type=int, help="side of the images (default: that of the data)")
    spectrum.add_argument("--levels", type=int, help="how often the sides are halved (default: down to 2 or 3 pixels)")
    spectrum.add_argument(
        "--schedule",
        help="noise schedule: cosine (default, where diffusers is there), linear, scaled_linear or sigmoid",
    )
    spectrum.add_argument("--out", type=Path, metavar="FOLDER", help="write spectrum.json and spectrum.png there")
    return parser


def _generate(*, name: str, out: Path, n: int, physics: list[str], boundary: str | None, **options: Any) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from multiresnet.data.solvers.generate import generate

    sides: Any = tuple(boundary.split(",")) if boundary and "," in boundary else boundary
    began = time.monotonic()
    with Progress("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar:

        def show(done: int, total: int) -> None:  # not before the options have proved right
            line = bar.task_ids[0] if bar.task_ids else bar.add_task(name, total=total)
            bar.update(line, completed=done)

        made = generate(
            name,
            out,
            trajectories=n,
            physics=dict(_setting(text) for text in physics),
            boundary=sides,
            progress=show,
            **options,
        )
    seconds = time.monotonic() - began
    print(f"{made.path}: {made.trajectories} of {name}, {made.solved} of them made now in {seconds:.0f} s")


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--physics takes NAME=VALUE, got {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _describe(*, path: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from multiresnet.data import PairDataModule, open_trajectories

    from .report import describe

    try:
        source = open_trajectories(path)
    except ValueError as error:
        try:
            pairs = PairDataModule(path)
        except ValueError:
            raise error from None
        Console().print(f"{path}: {describe(pairs)}")
        return
    table = Table("", str(path))
    trajectories, frames, channels, *space = source.shape
    table.add_row("trajectories x frames", f"{trajectories} x {frames}")
    table.add_row("channels", f"{channels}: {', '.join(source.channel_names)}")
    table.add_row("grid", " x ".join(map(str, space)))
    table.add_row("type", str(source.dtype))
    table.add_row("boundary", str(source.boundary or "not stated (replicate is taken)"))
    table.add_row("parameters", ", ".join(source.parameter_names) or "none")
    Console().print(table)


def _spectrum(*, source: str, size: int | None, levels: int | None, schedule: str | None, out: Path | None) -> None:
    from multiresnet.atomic import write_atomically
    from multiresnet.callbacks.figures import save_figure
    from multiresnet.data import ImageDataModule
    from multiresnet.diffusion import Spectrum

    scheduler = _scheduler(schedule)  # first: a wrong name should not cost a look at all images
    images = ImageDataModule(source, size=size, labels=False, batch_size=256)
    spectrum = Spectrum.of((batch["image"] for batch in images.train_dataloader()), levels=levels)
    print(spectrum.table(scheduler))
    if out is not None:
        write_atomically(out / "spectrum.json", lambda file: file.write_text(spectrum.to_json()))
        save_figure(spectrum.plot(scheduler), out / "spectrum.png")
        print(f"spectrum.json and spectrum.png in {out}")


def _scheduler(schedule: str | None) -> Any:
    """Of diffusers; nothing where none was asked for and diffusers is missing."""
    from multiresnet.checks import check_choice
    from multiresnet.tasks.diffusion.noise import Schedule, beta_schedule, require_diffusers

    check_choice("schedule", schedule or "cosine", get_args(Schedule))
    try:
        diffusers = require_diffusers()
    except ImportError:
        if schedule is None:
            return None
        raise
    return diffusers.DDPMScheduler(beta_schedule=beta_schedule(schedule or "cosine"))
