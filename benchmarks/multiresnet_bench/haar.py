"""One level of the Haar transform, float32, against a copy of the same bytes and against the wavelet libraries.

Ratios are times over `x.clone()` (forward + backward: over two clones), taken within each turn, then the median. Every
implementation is first compared with PyWavelets, in value and, where it has one, in gradient.

On Linux the measurement runs in a second process with MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ set high: as it
comes, glibc maps a block of 32 MiB or more from the system at each allocation and the system clears it page by page. A
copy then looks four times slower than it is, and every ratio to it too good. On a GPU there is no such process, PyWavelets is
only what the others are compared with, and convolutions don't round their inputs to TF32.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pywt
import torch
from matplotlib.figure import Figure
from torch import Tensor

import multiresnet as mrn
from multiresnet_bench import models, plots, timing

MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(4 * 2**30), "MALLOC_TRIM_THRESHOLD_": str(16 * 2**30)}
SHAPES = ((8, 64, 128, 128), (1, 3, 2048, 2048), (8, 64, 16384), (1, 64, 32, 64, 64))
QUICK_SHAPES = ((2, 3, 8, 8), (2, 3, 16), (1, 2, 4, 4, 4))
OPERATIONS = ("analysis", "synthesis", "fwd_bwd")
FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}
COLUMNS = [
    ["shape", "shape", ""],
    ["layout", "layout", ""],
    ["implementation", "implementation", ""],
    ["analysis", "analysis", ".1f"],
    ["synthesis", "synthesis", ".1f"],
    ["fwd_bwd", "forward + backward", ".1f"],
    ["clone_ms", "clone, ms", ".2f"],
]
Bands = tuple[Any, ...]  # approximation, then detail(s), in the library's own order


@dataclass(frozen=True)
class Transform:
    """One level of some library: `bands = analysis(x)`, `x = synthesis(bands)`.

    `scale` times our approximation is the library's; `gradient`: whether torch differentiates it.
    """

    analysis: Callable[[Any], Bands]
    synthesis: Callable[[Bands], Any]
    scale: float
    gradient: bool = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `multiresnet-bench haar`."""
    parser.add_argument("--repetitions", type=int, metavar="N", help="turns that count (default 15)")
    compiled = argparse.BooleanOptionalAction
    parser.add_argument("--compile", action=compiled, help="also torch.compile (default yes; no with --quick)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Rows of ratios for each shape, memory layout and implementation."""
    timing.check_device(options.device)
    settings = {
        "shapes": QUICK_SHAPES if options.quick else SHAPES,
        "repetitions": options.repetitions or (2 if options.quick else 15),
        "compile": not options.quick if options.compile is None else options.compile,
        "threads": options.threads,
        "device": options.device,
    }
    malloc = MALLOC if sys.platform == "linux" and options.device == "cpu" else {}
    config = {**settings, "clock": timing.timer_for(options.device)[1], "malloc": malloc or None}
    if all(os.environ.get(name) == value for name, value in malloc.items()):
        measured = measure(settings)
    else:
        measured = _measure_in_second_process(settings)
    note = "Ratios to a copy of the same bytes; forward + backward to two copies."
    return {**measured, "columns": COLUMNS, "config": config, "note": note}


def plot(result: Mapping[str, Any]) -> Figure:
    """Each operation, over a copy, for each implementation and shape."""
    rows = [row for row in result["rows"] if row["layout"] == "contiguous" and row.get("analysis") is not None]
    shapes, names = (list(dict.fromkeys(row[key] for row in rows)) for key in ("shape", "implementation"))
    found = {(row["implementation"], row["shape"]): row for row in rows}
    panels = {
        heading: {name: [found.get((name, shape), {}).get(key) for shape in shapes] for name in names}
        for key, heading in (("analysis", "analysis"), ("synthesis", "synthesis"), ("fwd_bwd", "forward + backward"))
    }
    return plots.dots(panels, shapes, label="ratio to a copy of the same bytes (← better)")


def _measure_in_second_process(settings: Mapping[str, Any]) -> dict[str, Any]:
    path = os.pathsep.join(entry for entry in sys.path if entry)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "measured.json"
        command = [sys.executable, "-m", "multiresnet_bench.haar", json.dumps(settings), str(out)]
        subprocess.run(command, env={**os.environ, **MALLOC, "PYTHONPATH": path}, check=True)
        return dict(json.loads(out.read_text()))


def measure(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`{"rows": ..., "repetitions": seconds of every turn}`."""
    torch.set_num_threads(settings["threads"])
    device = settings["device"]
    if device == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # the peers convolve; ours doesn't, and keeps all digits
    rows: list[dict[str, Any]] = []
    repetitions: dict[str, Any] = {}
    for shape in map(tuple, settings["shapes"]):
        for layout in ("contiguous", "channels_last")[: 1 + (len(shape) - 2 in FORMATS)]:
            torch.compiler.reset()  # otherwise the shapes before count as changes of shape
            transforms, missing = implementations(
                len(shape) - 2, peers=layout == "contiguous", compiled=settings["compile"], device=device
            )
            samples = _measure_shape(shape, layout, transforms, settings["repetitions"], device)
            common = {"shape": " × ".join(map(str, shape)), "layout": layout}
            repetitions[f"{common['shape']}, {layout}"] = samples
            for name in transforms:
                row: dict[str, Any] = {**common, "implementation": name}
                for operation, times in samples.items():
                    row[operation] = timing.ratio(times, name, "clone") if name in times else None
                    row[f"{operation}_ms"] = _median_ms(times.get(name))
                rows.append(row | {"clone_ms": _median_ms(samples["analysis"]["clone"])})
            rows += [{**common, "implementation": f"{name}: {why}"} for name, why in missing.items()]
    return {"rows": rows, "repetitions": repetitions}


def implementations(
    dims: int, *, peers: bool, compiled: bool, device: str = "cpu"
) -> tuple[dict[str, Transform], dict[str, str]]:
    """Transforms by name, and why others are missing."""
    unit = 2 ** (dims / 2)  # from our mean convention to orthonormal coefficients
    ours = Transform(lambda x: mrn.haar_analysis(x), _our_synthesis, 1.0)
    found = {"multiresnet": ours}
    missing: dict[str, str] = {}
    if compiled:
        analysis = torch.compile(ours.analysis, fullgraph=True, dynamic=False)
        synthesis = torch.compile(ours.synthesis, fullgraph=True, dynamic=False)
        found["multiresnet, compiled"] = Transform(analysis, synthesis, 1.0)
    if not peers:
        return found, missing
    convolving: dict[str, Callable[[int, float], Transform]] = {
        "ptwt": _ptwt,
        "pytorch_wavelets": functools.partial(_pytorch_wavelets, device=device),
    }
    for name, build in convolving.items():
        try:
            found[name] = build(dims, unit)
        except (models.MissingPackage, NotImplementedError) as error:
            missing[name] = str(error)
    if device != "cpu":
        missing["PyWavelets"] = "runs on the CPU only"
        return found, missing
    found["PyWavelets"] = Transform(
        lambda x: tuple(pywt.dwtn(x, "haar", mode="symmetric", axes=range(-dims, 0)).values()),
        lambda bands: pywt.idwtn(dict(zip(_keys(dims), bands)), "haar", mode="symmetric", axes=range(-dims, 0)),
        unit,
        gradient=False,
    )
    return found, missing


def _our_synthesis(bands: Bands) -> Tensor:
    approximation, detail = bands
    return mrn.haar_synthesis(approximation, detail, size=[2 * n for n in approximation.shape[2:]])


def _ptwt(dims: int, unit: float) -> Transform:
    ptwt = models.package("ptwt", "ptwt")
    analysis = {1: ptwt.wavedec, 2: ptwt.wavedec2, 3: ptwt.wavedec3}[dims]
    synthesis = {1: ptwt.waverec, 2: ptwt.waverec2, 3: ptwt.waverec3}[dims]
    split = functools.partial(analysis, wavelet="haar", level=1, mode="zero")
    return Transform(lambda x: tuple(split(x)), lambda bands: synthesis(bands, "haar"), unit)


def _pytorch_wavelets(dims: int, unit: float, device: str) -> Transform:
    if dims == 3:
        raise NotImplementedError("has no 3-D transform")
    library = models.package("pytorch_wavelets", "pytorch_wavelets")
    suffix = {1: "1D", 2: ""}[dims]
    analysis = getattr(library, f"DWT{suffix}Forward")(J=1, wave="haar", mode="zero").to(device)
    synthesis = getattr(library, f"DWT{suffix}Inverse")(wave="haar", mode="zero").to(device)
    return Transform(analysis, synthesis, unit)


def _keys(dims: int) -> list[str]:
    return list(pywt.dwtn(np.zeros((2,) * dims), "haar"))


def _measure_shape(
    shape: tuple[int, ...], layout: str, transforms: Mapping[str, Transform], repetitions: int, device: str
) -> dict[str, timing.Samples]:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    if layout == "channels_last":
        x = x.to(memory_format=FORMATS[len(shape) - 2])
    tasks: dict[str, dict[str, timing.Task]] = {
        "analysis": {"clone": x.clone},
        "synthesis": {"clone": x.clone},
        "fwd_bwd": {"clone": lambda: (x.clone(), x.clone())},
    }
    for name, transform in transforms.items():
        own = x if transform.gradient else x.numpy()
        bands = transform.analysis(own)
        check(name, transform, x, own, bands)
        tasks["analysis"][name] = functools.partial(transform.analysis, own)
        tasks["synthesis"][name] = functools.partial(transform.synthesis, bands)
        if transform.gradient:
            gradients = [band.clone() for band in flat(bands)]
            tasks["fwd_bwd"][name] = functools.partial(_forward_backward, transform, x, gradients)
    timer, _ = timing.timer_for(device)
    return {
        operation: timing.interleave(group, timer=timer, repetitions=repetitions) for operation, group in tasks.items()
    }


def _forward_backward(transform: Transform, x: Tensor, gradients: list[Tensor]) -> Tensor:
    leaf = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(flat(transform.analysis(leaf)), leaf, gradients)
    return gradient


def check(name: str, transform: Transform, x: Tensor, own: Any, bands: Bands) -> None:
    """Raise ValueError unless approximation, all bands, the inverse and the gradient are right to rounding."""
    dims = x.ndim - 2
    expected = pywt.dwtn(_numbers(x), "haar", axes=range(-dims, 0))
    scale = transform.scale / 2 ** (dims / 2)
    numbers = {
        "approximation": (bands[0], scale * expected["a" * dims]),
        # libraries order the details differently; the sum of squares does not depend on it
        "details": (_energy(flat(bands)[1:]), scale**2 * _energy(v for k, v in expected.items() if "d" in k)),
        "inverse": (transform.synthesis(bands), x),
    }
    if transform.gradient:  # the adjoint of an orthogonal map, scaled, applied to its own output
        numbers["gradient"] = (_forward_backward(transform, x, flat(bands)), scale**2 * x)
    for what, (value, wanted) in numbers.items():
        value, wanted = _numbers(value), _numbers(wanted)
        if value.shape != wanted.shape or not np.allclose(value, wanted, rtol=1e-4, atol=1e-5):
            raise ValueError(f"{name}: the {what} for shape {tuple(x.shape)} differs from PyWavelets; it was not timed")


def _energy(arrays: Any) -> float:
    return math.fsum(float(np.square(_numbers(array)).sum()) for array in arrays)


def _numbers(value: Any) -> Any:
    """On the CPU, in double precision."""
    return np.asarray(value.cpu() if isinstance(value, Tensor) else value, dtype=np.float64)


def flat(bands: Any) -> list[Any]:
    """All arrays of a library's nested answer."""

    def walk(value: Any) -> Iterator[Any]:
        if isinstance(value, (Tensor, np.ndarray)):
            yield value
        else:
            for item in value.values() if isinstance(value, Mapping) else value:
                yield from walk(item)

    return list(walk(bands))


def _median_ms(seconds: list[float] | None) -> float | None:
    return None if seconds is None else 1000 * timing.median_and_range(seconds)[0]


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(measure(json.loads(sys.argv[1]))))
