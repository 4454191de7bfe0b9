"""`multiresnet demo`: train two networks for equal time on generated flow and compare them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

__all__ = ["run"]


def _boundary(text: str) -> str | tuple[str, ...]:
    parts = tuple(part.strip() for part in text.split(","))
    return parts[0] if len(parts) == 1 else parts


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="multiresnet demo",
        description="Train a Multi-ResNet and a residual U-Net of equal size for equal time on generated "
        "Navier-Stokes flow, or on your own trajectories; print a table; save pictures and models.",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help=".npz, .npy, .h5: one array (trajectory, time, channel, *space)",
    )
    parser.add_argument("--key", help="name of the array, if the file holds several")
    parser.add_argument(
        "--boundary",
        type=_boundary,
        help="periodic, reflect, replicate or zeros; one for all space axes, or one per axis with commas "
        "(default: what the file states, else replicate)",
    )
    parser.add_argument("--seconds", type=float, help="training time of each model (default 100; 3 with --quick)")
    parser.add_argument("--seed", type=int, default=0, help="of data, weights and shuffling (default 0)")
    parser.add_argument("--out", type=Path, default=Path("demo_output"), metavar="DIR", help="default: demo_output")
    parser.add_argument("--quick", action="store_true", help="a minute in all, to see that it runs")
    return parser


def run(argv: Sequence[str]) -> None:
    """Parse the arguments and run the demo."""
    options = _parser().parse_args(argv)
    from multiresnet.demo import DemoConfig, run_demo  # here, so that --help stays fast

    run_demo(DemoConfig(**vars(options)))
