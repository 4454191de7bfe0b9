"""`multiresnet-bench COMMAND`: run a benchmark, print its table, keep its JSON and its picture; or report on all of them."""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

GROUPS = {
    "cost": {
        "haar": "the Haar transform against a copy of the same bytes and the wavelet libraries",
        "speed": "time and memory of a forward pass and of a training step",
        "cells": "convolutions on triangles, spheres and meshes against those on a square",
    },
    "accuracy at equal training time": {
        "pde": "PDE surrogates: accuracy against training time, MACs and memory",
        "segmentation": "images and volumes: accuracy against training time, MACs and memory",
        "diffusion": "sample quality at equal training time",
        "adaptive": "diffusion: coarse stages where noise drowns fine levels, stages trained first",
        "hvae": "hierarchical VAEs with and without shared weights",
        "allocate": "where to spend the parameters that the encoder saved",
        "crf": "exact marginals of a quadtree behind a segmentation network",
        "bayes-gap": "excess risk over the optimum, on data of which it is known",
        "spaces": "hats, triangles and spheres against boxes of pixels",
        "schemes": "one-step, unrolled, pushforward and staged training of one network",
    },
    "all results": {
        "report": "put their tables and pictures into the documentation and into one HTML page",
    },
}
COMMANDS = {name: text for group in GROUPS.values() for name, text in group.items()}
TRAINING = tuple(GROUPS["accuracy at equal training time"])
RESULTS = Path("benchmarks") / "results"
EXAMPLE = """example:
  multiresnet-bench pde --quick        see that it runs, in seconds
  multiresnet-bench pde --seeds 5      measure; writes benchmarks/results/pde.json and pde.svg
  multiresnet-bench report             write benchmarks/report.html

options of a command: multiresnet-bench COMMAND --help"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    Args:
        argv: arguments without the program's name; None takes those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    groups = [
        "\n".join([f"{group}:", *(f"  {name:14}{text}" for name, text in commands.items())])
        for group, commands in GROUPS.items()
    ]
    top = argparse.ArgumentParser(
        prog="multiresnet-bench",
        usage="multiresnet-bench COMMAND [options]",
        description="\n\n".join(
            ["Benchmarks of multiresnet. Each prints a table and keeps its numbers as JSON.", *groups]
        ),
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    command = top.parse_args(arguments[:1]).command
    try:
        module = _load(command)  # only this one: each brings its own libraries
        if command == "report":
            return int(module.main(arguments[1:]))
        return _benchmark(command, module, arguments)
    except (ValueError, TypeError, ImportError, FileNotFoundError) as error:
        print(f"multiresnet-bench {command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        resumes = command in TRAINING and "--quick" not in arguments
        kept = "finished runs are kept, the same command goes on from there" if resumes else "no result was written"
        print(f"stopped; {kept}", file=sys.stderr)
        return 130


def _benchmark(command: str, module: ModuleType, arguments: Sequence[str]) -> int:
    import torch
    from rich.console import Console

    from multiresnet_bench import report, results
    from multiresnet_bench.arguments import count

    parser = argparse.ArgumentParser(prog=f"multiresnet-bench {command}", description=COMMANDS[command])
    default = RESULTS / f"{command}.json"
    parser.add_argument("--quick", action="store_true", help="tiny sizes, seconds in all, to see that it runs")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help=f"default: {default}; none with --quick")
    if command in TRAINING:
        parser.add_argument("--seeds", type=count, default=3, metavar="N", help="runs of each model (default 3)")
    parser.add_argument("--threads", type=count, default=1, metavar="N", help="of torch (default 1)")
    module.add_arguments(parser)
    options = parser.parse_args(arguments[1:])

    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        keep = options.out is not None or not options.quick  # a quick run never replaces a real result
        options.out = options.out or (default if keep else Path(scratch) / default.name)
        measured = module.run(options)
        result = results.complete(measured, name=options.out.stem, arguments=arguments, options=options)
        results.write(result, options.out)  # first: a table or picture that cannot be drawn loses nothing
        options.out.with_suffix(".jsonl").unlink(missing_ok=True)  # complete: the next run starts anew
        result = results.read(options.out)
    if keep:
        print(f"wrote {options.out}")
    console, table = Console(), getattr(module, "table", report.terminal)(result)
    wide = console.options.update(width=1000)
    console.width = max(
        console.width, console.measure(table, options=wide).maximum
    )  # a narrow terminal wraps, but cuts nothing off
    console.print(table)
    if keep:
        _draw(module, result, options.out.with_suffix(".svg"))
    return 0


def _draw(module: ModuleType, result: Mapping[str, Any], path: Path) -> None:
    from multiresnet.atomic import write_atomically
    from multiresnet_bench import plots

    try:
        svg = plots.svg(module.plot(result))
    except Exception as error:  # the measurement succeeded, and may have taken days
        print(f"no picture: {error!r}; the numbers are in {path.with_suffix('.json')}", file=sys.stderr)
        return
    write_atomically(path, lambda file: file.write_bytes(svg))
    print(f"wrote {path}")


def module_of(command: str) -> str:
    """Full name of the module of a command."""
    return f"multiresnet_bench.{command.replace('-', '_')}"


def _load(command: str) -> ModuleType:
    name = module_of(command)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ImportError(f"this installation has no module {name}; install the repository's benchmarks") from None


if __name__ == "__main__":
    sys.exit(main())
