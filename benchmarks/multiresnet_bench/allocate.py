"""Where to spend the parameters that the encoder saved: blocks or width, coarse or fine, patches, sweeps, what the skips show.

Every allocation is a Multi-ResNet scaled to the same number of parameters (or multiply-accumulates, `--macs`), trained at equal
time like in `multiresnet-bench pde` or `segmentation`. The reference is the residual U-Net, which spends them on an encoder.
"""

from __future__ import annotations

import argparse
from typing import Any

from multiresnet.models import TWO_SWEEPS
from multiresnet_bench import arguments, contest, pde, plots, segmentation

REFERENCE = "an encoder: residual U-Net"
# group -> name -> options of MultiResNet; widths are those before they are scaled to the budget
ALLOCATIONS: dict[str, dict[str, dict[str, Any]]] = {
    "encoder": {REFERENCE: {"build": "ResidualUNet"}},
    "blocks": {
        "one block at each level, wider": {"num_blocks": 1},
        "two blocks at each level": {},
        "four blocks at each level, narrower": {"num_blocks": 4},
        "blocks at the fine levels": {"num_blocks": (4, 2, 1, 1)},
        "blocks at the middle levels": {"num_blocks": (1, 3, 3, 1)},
        "blocks at the coarse levels": {"num_blocks": (1, 1, 2, 4)},
    },
    "width": {
        "equal widths": {"channels": (64, 64, 64, 64)},
        "wide at the fine levels": {"channels": (96, 64, 48, 32)},
        "doubling to the coarse levels": {"channels": (16, 32, 64, 128)},
    },
    "levels": {
        "three levels": {"channels": (48, 64, 96)},
        "five levels": {"channels": (32, 48, 64, 64, 96)},
    },
    "patches": {
        "no patches": {"patch_levels": 0},
        "two patch levels": {"patch_levels": 2, "channels": (64, 64, 96)},
    },
    "sweeps": {
        "two sweeps": dict(TWO_SWEEPS),
        "two sweeps, first at the fine level": {"sweeps": 2, "num_blocks": ((2, 0, 0, 0), (1, 2, 2, 2))},
    },
    "skips": {
        "averages only": {"skip": "approximation"},
        "packets": {"skip": "packet"},
        "scattering": {"skip": "scattering"},
        "details eight times larger": {"detail_scale": 8.0},
        "scattering, eight times larger": {"skip": "scattering", "detail_scale": 8.0},
    },
}
NAMES = {name: group for group, members in ALLOCATIONS.items() for name in members}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `multiresnet-bench allocate`."""
    arguments.add_contest(parser, seconds=60.0, networks=tuple(NAMES), reference=REFERENCE, known="; ".join(NAMES))
    parser.set_defaults(learning_rates=[3e-3])
    parser.add_argument("--on", choices=("pde", "segmentation"), default="pde", help="default pde")
    parser.add_argument("--set", metavar="NAME", help="of that benchmark; default navier-stokes or membranes")
    arguments.add_archives(parser)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All allocations and seeds."""
    bench = {"pde": pde.BENCH, "segmentation": segmentation.BENCH}[options.on]
    options.set = options.set or {"pde": "navier-stokes", "segmentation": "membranes"}[options.on]
    chosen = arguments.by_name(options, tuple(NAMES))
    if unknown := chosen.keys() - NAMES.keys():
        raise ValueError(f"unknown allocations {sorted(unknown)}; known: {', '.join(NAMES)}")
    networks = {name: {"build": "MultiResNet", **ALLOCATIONS[NAMES[name]][name]} for name in chosen}
    result = contest.contest(options, networks, bench)
    for row in result["rows"]:
        row |= {
            "allocation": row["model"],
            "group": NAMES.get(row["model"]),
            "reference": row["model"] == options.reference,
        }
    columns = [column for column in result["columns"] if column[0] != "learning_rate"]
    return {**result, "columns": [["group", "spent on", ""], *columns]}


plot = plots.allocation
