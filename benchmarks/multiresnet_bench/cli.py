"""`multiresnet-bench COMMAND`: run a benchmark, print its table, write its JSON; or put all tables into a page."""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

COMMANDS = {
    "haar": "the Haar transform against a copy of the same bytes and the wavelet libraries",
    "speed": "time and memory of a training step at equal parameters",
    "pde": "accuracy on Navier-Stokes at equal training time",
    "segmentation": "accuracy on membrane segmentation at equal training time",
    "schemes": "one network on Navier-Stokes: one-step, unrolled, pushforward and staged training at equal time",
    "report": "put the tables of all results into the documentation",
}
TRAINING = ("pde", "segmentation", "schemes")
RESULTS = Path("benchmarks") / "results"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    Args:
        argv: arguments without the program's name; None takes those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands = "\n".join(f"  {name:14}{text}" for name, text in COMMANDS.items())
    top = argparse.ArgumentParser(
        prog="multiresnet-bench",
        description="Benchmarks of multiresnet.",
        epilog=f"commands:\n{commands}\n\nOptions of one: multiresnet-bench COMMAND --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("command", choices=COMMANDS, metavar="COMMAND")
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
        print("stopped; no result was written", file=sys.stderr)
        return 130


def _benchmark(command: str, module: ModuleType, arguments: Sequence[str]) -> int:
    import torch
    from rich.console import Console

    from multiresnet_bench import results

    parser = argparse.ArgumentParser(prog=f"multiresnet-bench {command}", description=COMMANDS[command])
    default = RESULTS / f"{command}.json"
    parser.add_argument("--quick", action="store_true", help="tiny sizes, seconds in all, to see that it runs")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help=f"default: {default}; none with --quick")
    if command in TRAINING:
        parser.add_argument("--seeds", type=_positive, default=3, metavar="N", help="runs of each model (default 3)")
    parser.add_argument("--threads", type=_positive, default=1, metavar="N", help="of torch (default 1)")
    module.add_arguments(parser)
    options = parser.parse_args(arguments[1:])

    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        keep = options.out is not None or not options.quick  # a quick run never replaces a real result
        options.out = options.out or (default if keep else Path(scratch) / default.name)
        measured = module.run(options)
        result = results.complete(measured, name=options.out.stem, arguments=arguments, options=options)
        results.write(result, options.out)  # first: a table that cannot be drawn loses nothing
    console, table = Console(), module.table(result)
    wide = console.options.update(width=1000)
    console.width = max(
        console.width, console.measure(table, options=wide).maximum
    )  # a narrow terminal wraps, but cuts nothing off
    console.print(table)
    if keep:
        print(f"wrote {options.out}")
    return 0


def _load(command: str) -> ModuleType:
    name = f"multiresnet_bench.{command}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ImportError(f"this installation has no module {name}; install the repository's benchmarks") from None


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be >= 1, got {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())
