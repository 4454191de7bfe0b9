"""Triangles, spheres and meshes against a square of pixels with as many cells: a convolution, and a training step of a network.

Both gather the same channels from their neighbours: 13 or 4 of them on triangles, 9 on the sphere, 13 on the icosphere, 9 on
the square. A training step is that of `MultiResNet` at its defaults, without optimiser. Ratios to the square, within each turn.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from multiresnet import MultiResNet
from multiresnet.spaces import Haar, Mesh, Space, Sphere, Triangle
from multiresnet_bench import arguments, models, plots, timing


def sphere(level: int) -> Space:
    """HEALPix with `2**level` cells along a side of a face."""
    models.package("astropy_healpix", "astropy-healpix")
    return Sphere(2**level)


# name -> space of a level, and the square of as many cells
SPACES: dict[str, tuple[Callable[[int], Space], tuple[int, int]]] = {
    "triangle, sides": (lambda level: Triangle(level + 2, touching="side"), (4, 4)),
    "triangle, corners": (lambda level: Triangle(level + 2), (4, 4)),
    "sphere (HEALPix)": (sphere, (3, 4)),
    "icosphere (mesh)": (Mesh.icosphere, (4, 5)),
}
COLUMNS = [
    ["space", "space", ""],
    ["cells", "cells", ",d"],
    ["square", "square", ""],
    ["forward", "convolution: forward", ".2f"],
    ["fwd_bwd", "forward + backward", ".2f"],
    ["fwd_bwd_ms", "ms", ".1f"],
    ["step", "network: training step", ".2f"],
    ["step_ms", "ms", ".0f"],
]
OPERATIONS = ("forward", "fwd_bwd", "step")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `multiresnet-bench cells`."""
    parser.add_argument(
        "--level",
        type=arguments.count,
        metavar="N",
        help="12 * 4**N cells of the sphere, and about as many elsewhere (default 6: nside 64)",
    )
    parser.add_argument(
        "--channels", type=arguments.count, default=32, metavar="N", help="of the convolution (default 32)"
    )
    parser.add_argument("--batch", type=arguments.count, default=2, metavar="N", help="default 2")
    parser.add_argument("--repetitions", type=arguments.count, metavar="N", help="turns that count (default 9)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """A row for each space: ratios to the square with as many cells, and milliseconds."""
    timing.check_device(options.device)
    timer, clock = timing.timer_for(options.device)
    config = {
        "level": options.level or (4 if options.quick else 6),
        "repetitions": options.repetitions or (2 if options.quick else 9),
        "channels": options.channels,
        "batch": options.batch,
        "clock": clock,
    }
    rows, repetitions = [], {}
    for name, (build, shape) in SPACES.items():
        side = 2 ** config["level"]
        square = (shape[0] * side, shape[1] * side)
        try:
            space = build(config["level"])
        except models.MissingPackage as error:
            rows.append({"space": f"{name}: {error}"})
            continue
        cells = square[0] * square[1]
        grids: dict[str, tuple[Space, tuple[int, ...]]] = {"cells": (space, (cells,)), "square": (Haar(2), square)}
        samples = measure(grids, config, options.device, timer)
        row: dict[str, Any] = {"space": name, "cells": cells, "square": " × ".join(map(str, square))}
        for operation, times in samples.items():
            row[operation] = timing.ratio(times, "cells", "square")
            row[f"{operation}_ms"] = 1000 * timing.median_and_range(times["cells"])[0]
        rows.append(row)
        repetitions[name] = samples
    note = f"Ratios to the square, times on the cells; {config['batch']} samples, {config['channels']} channels of the convolution."
    return {"rows": rows, "columns": COLUMNS, "config": config, "note": note, "repetitions": repetitions}


def measure(
    grids: Mapping[str, tuple[Space, tuple[int, ...]]], config: Mapping[str, Any], device: str, timer: timing.Timer
) -> dict[str, timing.Samples]:
    """Seconds of every repetition of each operation on each grid."""
    channels = config["channels"]
    tasks: dict[str, dict[str, timing.Task]] = {operation: {} for operation in OPERATIONS}
    for name, (space, size) in grids.items():
        conv = space.conv(channels, channels).to(device)
        network = MultiResNet(3, 3, space=space).to(device)
        x = torch.randn(config["batch"], channels, *size, device=device)
        tasks["forward"][name] = functools.partial(forward, conv, x)
        tasks["fwd_bwd"][name] = functools.partial(step, conv, x.clone().requires_grad_())
        tasks["step"][name] = functools.partial(step, network, torch.randn(len(x), 3, *size, device=device))
    turns = {"timer": timer, "repetitions": config["repetitions"]}
    return {operation: timing.interleave(both, **turns) for operation, both in tasks.items()}


@torch.no_grad()
def forward(module: nn.Module, x: Tensor) -> None:
    module(x)


def step(module: nn.Module, x: Tensor) -> None:
    """Forward and backward, to the input where it wants it."""
    module(x).sum().backward()
    module.zero_grad(set_to_none=True)
    x.grad = None


def plot(result: Mapping[str, Any]) -> Figure:
    """Each operation over that on the square."""
    rows = [row for row in result["rows"] if row.get("step") is not None]
    series = {"convolution, forward": "forward", "forward + backward": "fwd_bwd", "training step": "step"}
    ratios = {name: [row[key] for row in rows] for name, key in series.items()}
    return plots.dots(
        {"time over that on a square of as many cells (← better)": ratios}, [row["space"] for row in rows]
    )
