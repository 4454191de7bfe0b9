"""Options that the benchmarks with training share."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence
from pathlib import Path

from multiresnet_bench import models

BY_NAME = f"{', '.join(models.BUILDERS)}, or package.module:function"


def add_contest(
    parser: argparse.ArgumentParser, *, seconds: float, networks: Sequence[str], reference: str, known: str
) -> None:
    """What `contest.contest` reads; `known` says which networks there are."""
    parser.add_argument(
        "--models",
        nargs="+",
        metavar="NAME",
        help=f"default {' '.join(networks)}; of {known}",
    )
    parser.add_argument(
        "--reference", metavar="NAME", default=reference, help=f"of times and budgets (default {reference})"
    )
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument(
        "--params", type=count, metavar="N", help="parameters of each (default: those of the reference)"
    )
    budget.add_argument("--macs", type=count, metavar="N", help="multiply-accumulates of each, instead")
    budget.add_argument("--match", choices=("params", "macs", "nothing"), default="params", help="with the reference")
    add_length(parser, seconds)
    rates = models.LEARNING_RATES
    parser.add_argument(
        "--learning-rates",
        type=positive,
        nargs="+",
        default=list(rates),
        metavar="LR",
        help=f"grid of which each network takes its best (default {' '.join(f'{rate:g}' for rate in rates)})",
    )
    parser.add_argument(
        "--tuning",
        type=part,
        default=0.4,
        metavar="PART",
        help="of a run's time, for each rate of the grid (default 0.4)",
    )
    parser.add_argument("--split", choices=("val", "test"), default="test", help="val: don't look at the test data")
    add_machine(parser)


def add_length(parser: argparse.ArgumentParser, seconds: float) -> None:
    """`--seconds` or `--steps`."""
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--seconds",
        type=positive,
        nargs="+",
        default=[seconds],
        metavar="S",
        help=f"training time of a run; several: a run of each (default {seconds:g})",
    )
    length.add_argument("--steps", type=count, metavar="N", help="steps of a run, instead: reproducible to the bit")


def add_machine(parser: argparse.ArgumentParser) -> None:
    """`--device`, `--jobs` and `--keep`."""
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument(
        "--jobs", type=count, default=2, metavar="N", help="runs side by side, one thread each (default 2)"
    )
    parser.add_argument(
        "--keep",
        type=Path,
        default=Path("benchmarks/data"),
        metavar="FOLDER",
        help="of sets that were solved or unpacked",
    )


def add_archives(parser: argparse.ArgumentParser) -> None:
    """`--data`, for the benchmarks on real sets."""
    default = Path(os.environ.get("MULTIRESNET_DATA", "../shared/data"))
    parser.add_argument(
        "--data",
        type=Path,
        default=default,
        metavar="FOLDER",
        help=f"that holds the archives of the sets (default {default})",
    )


def by_name(options: argparse.Namespace, default: Sequence[str]) -> dict[str, str]:
    """The reference and the chosen models. With `--quick`, one of the default and three steps of a small one."""
    if options.quick:
        options.steps, options.tuning, options.jobs = options.steps or 3, 0.5, 1
        options.learning_rates = options.learning_rates[-1:]
        options.params = options.params or (None if options.macs else 30_000)
    names = options.models or (default[:1] if options.quick else default)
    return {name: name for name in [options.reference, *names]}


def positive(text: str) -> float:
    """A finite number > 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number > 0, got {text}")
    return value


def count(text: str) -> int:
    """An integer >= 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be >= 1, got {text}")
    return value


def part(text: str) -> float:
    """A number in (0, 1]."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be a part, 0 < {text} <= 1")
    return value
