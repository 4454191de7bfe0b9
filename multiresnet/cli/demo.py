"""The command line: `multiresnet demo`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["main"]


def _boundary(text: str) -> str | tuple[str, ...]:
    parts = tuple(part.strip() for part in text.split(","))
    return parts[0] if len(parts) == 1 else parts


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="multiresnet", description="Multi-ResNets: U-Nets on nested spaces.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="train a Multi-ResNet and a residual U-Net of equal size for equal time and compare them",
        description="Train a Multi-ResNet and a residual U-Net of equal size for equal time on generated "
        "Navier-Stokes flow, or on your own trajectories; print a table; save pictures and models.",
    )
    demo.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help=".npz, .npy, .h5: one array (trajectory, time, channel, *space)",
    )
    demo.add_argument("--key", help="name of the array, if the file holds several")
    demo.add_argument(
        "--boundary",
        type=_boundary,
        help="periodic, reflect, replicate or zeros; one for all space axes, or one per axis with commas "
        "(default: what the file states, else replicate)",
    )
    demo.add_argument("--seconds", type=float, help="training time of each model (default 100; 3 with --quick)")
    demo.add_argument("--seed", type=int, default=0, help="of data, weights and shuffling (default 0)")
    demo.add_argument("--out", type=Path, default=Path("demo_output"), metavar="DIR", help="default: demo_output")
    demo.add_argument("--quick", action="store_true", help="a minute in all, to see that it runs")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    Args:
        argv: arguments without the program's name; None takes those of the process.
    """
    arguments = _parser().parse_args(argv)
    from multiresnet.demo import DemoConfig, run_demo  # here, so that --help stays fast

    options = {name: value for name, value in vars(arguments).items() if name != "command"}
    try:
        run_demo(DemoConfig(**options))
    except (ValueError, TypeError, FileNotFoundError) as error:
        print(f"multiresnet {arguments.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; start it again with the same command (generated data are kept)", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
