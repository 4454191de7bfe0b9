"""What a forward pass and a training step cost, in time and memory, for networks of (nearly) equal parameters, or MACs.

`multiresnet-fast` and `residual-unet-fast` have the same blocks, patches and norm; only the encoder differs.
All are scaled to the parameters of the reference, or to a number of parameters or of multiply-accumulates, but the networks
of smp, ours in smp's clothes among them, whose widths are fixed. A training step is forward and backward, without optimiser.
Models take turns, and every ratio is taken within a turn. The peak of memory is that of one step in a fresh process, above
what the process held before; "saved" are the bytes that autograd keeps for the backward pass, without a compiler. Compiled
models have no peak: it would be the compiler's.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import multiresnet as mrn
from multiresnet_bench import models, plots, timing

REFERENCE = "residual-unet-paper"
QUICK = (REFERENCE, "multiresnet-fast", "residual-unet-fast")
MODES = ("fp32", "bf16", "channels_last", "compiled")
COLUMNS = [
    ["size", "size", ""],
    ["model", "model", ""],
    ["params", "parameters", ",d"],
    ["macs", "MACs", ".3g"],
    ["macs_ratio", "MACs ratio", ".2f"],
    ["forward", "forward, ms", ".1f"],
    ["step", "step, ms", ".1f"],
    ["step_ratio", "step ratio", ".2f"],
    ["saved", "saved, MB", ".1f"],
    ["saved_ratio", "saved ratio", ".2f"],
    ["peak", "peak, MB", ".1f"],
    ["peak_ratio", "peak ratio", ".2f"],
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `multiresnet-bench speed`."""
    parser.add_argument(
        "--models", nargs="+", metavar="NAME", help=f"of {', '.join(models.BUILDERS)}, or package.module:function"
    )
    parser.add_argument("--reference", metavar="NAME", default=REFERENCE, help=f"of the ratios (default {REFERENCE})")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--params", type=int, metavar="N", help="parameters of each (default: those of the reference)")
    budget.add_argument("--macs", type=int, metavar="N", help="multiply-accumulates of each at the first size, instead")
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        metavar="N",
        help="side of the square or cubic input (default 128 256, or 32 64 in 3-D)",
    )
    parser.add_argument("--spatial-dims", type=int, choices=(2, 3), default=2, metavar="N", help="2 (default) or 3")
    parser.add_argument("--batch", type=int, metavar="N", help="default 4")
    parser.add_argument("--channels", type=int, default=3, metavar="N", help="of input and output (default 3)")
    parser.add_argument("--mode", choices=MODES, default="fp32", help="default fp32; bf16 is autocast")
    parser.add_argument("--repetitions", type=int, metavar="N", help="turns that count (default 7)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All models at all sizes: rows with times in ms, memory in MB (10^6 bytes), and ratios to the reference."""
    timing.check_device(options.device)
    names = list(options.models or (QUICK if options.quick else models.BUILDERS))
    names = [options.reference, *(name for name in names if name != options.reference)]
    config: dict[str, Any] = {
        "models": names,
        "sizes": options.sizes or ([32] if options.quick else [128, 256] if options.spatial_dims == 2 else [32, 64]),
        "batch": options.batch or (1 if options.quick else 4),
        "repetitions": options.repetitions or (2 if options.quick else 7),
        "clock": timing.timer_for(options.device)[1],
    }
    case = {k: getattr(options, k) for k in ("channels", "spatial_dims", "mode", "device", "threads")}
    case["budget"] = find_budget(options, config["sizes"][0])
    config["matched"] = dataclasses.asdict(case["budget"])
    built: dict[str, nn.Module] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            built[name] = build(name, case)
        except (models.MissingPackage, models.Unsuitable) as error:
            if name == options.reference:  # nothing to compare with
                raise
            missing[name] = str(error)

    rows, repetitions = [], {}
    for size in config["sizes"]:
        measured, samples = measure(built, case, size, config)
        repetitions[str(size)] = samples
        reference = measured[options.reference]
        for name in names:
            row: dict[str, Any] = {"size": f"{size}{'²³'[options.spatial_dims - 2]}", "model": name}
            if name in missing:
                rows.append(row | {"model": f"{name}: {missing[name]}"})
                continue
            row |= measured[name]
            row["macs_ratio"] = row["macs"] / reference["macs"]
            for key in ("forward", "step"):
                row[f"{key}_ratio"] = timing.ratio(samples[key], name, options.reference)
            for key in ("saved", "peak"):
                known = row[key] is not None and reference[key]
                row[f"{key}_ratio"] = row[key] / reference[key] if known else None
            rows.append(row)
    matched = (
        f"{options.macs:.3g} MACs at {rows[0]['size']}" if options.macs else f"{case['budget'].params:,} parameters"
    )
    note = f"Matched: {matched}. {config['batch']} samples a step. Ratios to {options.reference}, within each turn."
    return {"rows": rows, "columns": COLUMNS, "note": note, "config": config, "repetitions": repetitions}


def plot(result: Mapping[str, Any]) -> Figure:
    """Time, memory and MACs of a training step over those of the reference, at the largest size."""
    largest = max((row["size"] for row in result["rows"]), key=lambda size: int(size.rstrip("²³")))
    rows = [row for row in result["rows"] if row["size"] == largest and row.get("step_ratio") is not None]
    label = f"ratio to {rows[0]['model']} at {largest} (← better)"  # the reference is measured first
    rows.sort(key=lambda row: row["step_ratio"])
    series = {"time of a training step": "step_ratio", "saved for backward": "saved_ratio", "MACs": "macs_ratio"}
    ratios = {name: [row[key] for row in rows] for name, key in series.items()}
    return plots.dots({label: ratios}, [row["model"] for row in rows])


def build(name: str, case: Mapping[str, Any]) -> nn.Module:
    """The model on its device, in its memory format."""
    channels, space = case["channels"], mrn.spaces.Haar(case["spatial_dims"])
    model = models.build(name, channels, channels, space=space, budget=case["budget"]).to(case["device"])
    return model.to(memory_format=memory_format(case))


def measure(
    built: Mapping[str, nn.Module], case: Mapping[str, Any], size: int, config: Mapping[str, Any]
) -> tuple[dict[str, dict[str, Any]], dict[str, timing.Samples]]:
    """Rows by model, and the seconds of every repetition, of `"forward"` and `"step"`."""
    x = random_input(case, config["batch"], size)
    timer, _ = timing.timer_for(case["device"])
    turns = {"timer": timer, "repetitions": config["repetitions"]}
    timed = {k: torch.compile(m) if case["mode"] == "compiled" else m for k, m in built.items()}
    samples = {
        "forward": timing.interleave(
            {k: functools.partial(forward_only, m, x, case) for k, m in timed.items()}, **turns
        ),
        "step": timing.interleave({k: functools.partial(step, m, x, case) for k, m in timed.items()}, **turns),
    }

    rows: dict[str, dict[str, Any]] = {}
    for name, model in built.items():
        with precision(case):
            saved = mrn.count_saved_bytes(model, x)
        if case["mode"] == "compiled":
            peak = None
        elif torch.device(case["device"]).type == "cuda":
            peak = timing.peak_bytes(functools.partial(step, model, x, case), case["device"])
        else:
            peak = timing.in_fresh_process(peak_of_step, name, dict(case), config["batch"], size)
        row: dict[str, Any] = {
            "params": mrn.count_parameters(model),
            "macs": mrn.count_macs(model, (size,) * case["spatial_dims"]),
            "saved": saved / 1e6,
            "peak": None if peak is None else peak / 1e6,
        }
        for key in ("forward", "step"):
            middle, low, high = timing.median_and_range(samples[key][name])
            row |= {key: 1000 * middle, f"{key}_min": 1000 * low, f"{key}_max": 1000 * high}
        rows[name] = row
    return rows, samples


def peak_of_step(name: str, case: Mapping[str, Any], batch: int, size: int) -> int | None:
    """Run in a fresh process: bytes of one training step, gradients of the parameters included."""
    torch.set_num_threads(case["threads"])
    model = build(name, case)
    step(model, random_input(case, 2, 32), case)  # loads the libraries
    x = random_input(case, batch, size)
    return timing.peak_bytes(lambda: step(model, x, case), case["device"])


def random_input(case: Mapping[str, Any], batch: int, size: int) -> Tensor:
    x = torch.randn(batch, case["channels"], *(size,) * case["spatial_dims"], device=case["device"])
    return x.to(memory_format=memory_format(case))


def memory_format(case: Mapping[str, Any]) -> torch.memory_format:
    if case["mode"] != "channels_last":
        return torch.contiguous_format
    return torch.channels_last if case["spatial_dims"] == 2 else torch.channels_last_3d


def precision(case: Mapping[str, Any]) -> torch.autocast:
    device = torch.device(case["device"]).type
    return torch.autocast(device, torch.bfloat16, enabled=case["mode"] == "bf16")


def step(model: nn.Module, x: Tensor, case: Mapping[str, Any]) -> None:
    """Forward and backward."""
    with precision(case):
        y = model(x)
    y.float().sum().backward()
    model.zero_grad(set_to_none=True)


@torch.no_grad()
def forward_only(model: nn.Module, x: Tensor, case: Mapping[str, Any]) -> None:
    with precision(case):
        model(x)


def find_budget(options: argparse.Namespace, size: int) -> models.Budget:
    """What all are scaled to: the number that was given, or the parameters of the reference."""
    channels, space = options.channels, mrn.spaces.Haar(options.spatial_dims)
    if options.macs is not None:
        return models.Budget(macs=options.macs, at=(size,) * options.spatial_dims)
    if options.params is not None:
        return models.Budget(params=options.params)
    if options.reference == REFERENCE and options.quick:
        reference: nn.Module = mrn.ResidualUNet.paper(channels, channels, hidden_channels=4, space=space)
    else:
        reference = models.build(options.reference, channels, channels, space=space)
    return models.Budget(params=mrn.count_parameters(reference))
