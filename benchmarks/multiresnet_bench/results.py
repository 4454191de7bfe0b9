"""One benchmark result is one JSON file that says how it was made; it is checked whenever it is written or read.

Fields: "name" (of the table), "command", "config" (the options), "date", "commit", "versions", "hardware", and what the
benchmark itself returns:

- "rows": a list of dicts of numbers, texts, truth values and nulls. A mean over seeds KEY has its standard deviation
  beside it in KEY_sd, and their number in "seeds".
- "columns" (optional): a list of [key, heading, format], how rows are shown; see `report`.
- "note" (optional): a sentence for below the table.
- "measure" (of benchmarks that train): what is reported first, `{"key": "one_step", "label": "relative L2 error of one step",
  "lower_is_better": true, "curve_label": "validation error"}`; the last is optional.
- "raw" (of benchmarks that train): a dict for each run, with "model", "seed" and its "curve", [seconds, value] in pairs; the
  value is null or "nan" where the run had diverged.
- any further fields, such as "repetitions", what was measured before it was reduced to rows.

Pictures (see `plots`) take from rows "model", "step_ms", "macs", "saved" (MB that autograd keeps for one sample), "seconds" of
training and the key of the measure; a row of what could not be built has no more than "model". Rows and runs of more than one
training time are told apart by "limit". The rows of `allocate` have "allocation", "group" and, one of them, "reference": true.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import platform
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

import multiresnet
from multiresnet.atomic import write_atomically

SCHEMA = 1
REPOSITORY = Path(__file__).resolve().parents[2]
NETWORKS = ("segmentation-models-pytorch", "monai", "diffusers", "neuraloperator", "the_well")
WAVELETS = ("ptwt", "pytorch-wavelets", "PyWavelets")
PLAIN = (str, int, float, bool, type(None))
# field -> type or types, whether it must be there
FIELDS: dict[str, tuple[Any, bool]] = {
    "schema": (int, True),
    "name": (str, True),
    "command": (str, True),
    "config": (dict, True),
    "date": (str, True),
    "commit": ((dict, type(None)), True),
    "versions": (dict, True),
    "hardware": (dict, True),
    "rows": (list, True),
    "columns": (list, False),
    "note": (str, False),
    "measure": (dict, False),
    "raw": (list, False),
}
MEASURE = {"key": str, "label": str, "lower_is_better": bool}


def complete(
    measured: Mapping[str, Any], *, name: str, arguments: Sequence[str], options: argparse.Namespace
) -> dict[str, Any]:
    """What a benchmark measured, with how, when and where: a result ready for `write`.

    Args:
        measured: what a benchmark's `run` returned; its "config", if any, is added to the options.
        name: of the table.
        arguments: the command line after `multiresnet-bench`.
        options: the parsed command line.
    """
    config = {key: _plain(value) for key, value in vars(options).items() if key != "out"}
    return {
        "schema": SCHEMA,
        "name": name,
        "command": shlex.join(["multiresnet-bench", *map(_without_machine_path, arguments)]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "versions": versions(),
        "hardware": hardware(),
        **measured,
        "config": {**config, **measured.get("config", {})},
    }


def write(result: Mapping[str, Any], path: Path) -> None:
    """Write a result all at once: a process that dies on the way leaves the file that was there.

    Raises:
        ValueError: the result is not what the head of this module says.
    """
    result = _jsonable(result, "result")
    check(result, path)
    text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))


def read(path: Path) -> dict[str, Any]:
    """Read a result.

    Raises:
        FileNotFoundError: there is none.
        ValueError: no JSON, or not a result; the message says where it is wrong.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} is no JSON file: {error}; run its benchmark again") from None
    check(result, path)
    return dict(result)


def check(result: object, path: Path) -> None:
    """Raise ValueError, naming `path` and the place, unless `result` is what the head of this module says."""

    def wrong(what: str) -> ValueError:
        return ValueError(f"{path.name}: {what}")

    if not isinstance(result, Mapping):
        raise wrong(f"expected an object with the fields {', '.join(FIELDS)}; got {type(result).__name__}")
    for field, (kind, required) in FIELDS.items():
        if field not in result and required:
            raise wrong(f'the field "{field}" is missing; written by another program?')
        if field in result and not isinstance(result[field], kind):
            expected = getattr(kind, "__name__", "dict or null")
            raise wrong(f'the field "{field}" is {str(result[field]):.60}, expected {expected}')
    if result["schema"] != SCHEMA:
        raise wrong(f"schema {result['schema']}, this version reads {SCHEMA}; run its benchmark again")
    if not result["rows"]:
        raise wrong("there are no rows; the benchmark measured nothing")
    for i, row in enumerate(result["rows"]):
        if not isinstance(row, Mapping) or not row:
            raise wrong(f"rows[{i}] is {str(row):.60}, expected an object of named values")
        for key, value in row.items():
            if not isinstance(value, PLAIN):
                raise wrong(f'rows[{i}]["{key}"] is {str(value):.60}; expected a number, a text or null')
    for i, column in enumerate(result.get("columns", [])):
        if not (isinstance(column, list) and len(column) == 3 and all(isinstance(part, str) for part in column)):
            raise wrong(f"columns[{i}] is {str(column):.80}, expected [key, heading, format]")
        if not any(column[0] in row for row in result["rows"]):
            raise wrong(f'columns[{i}] shows "{column[0]}", which no row has')
        try:
            format(1.0, column[2].removesuffix("d").removesuffix("s"))
        except ValueError:
            raise wrong(f"columns[{i}] has the format {column[2]!r}; expected one for numbers, such as '.3f'") from None
    if "measure" in result:
        measure = result["measure"]
        for key, kind in MEASURE.items():
            if not isinstance(measure.get(key), kind):
                raise wrong(f'measure["{key}"] is {measure.get(key)!r:.60}, expected {kind.__name__}')
        if not any(measure["key"] in row for row in result["rows"]):
            raise wrong(f'the measure is "{measure["key"]}", which no row has')
    for i, run in enumerate(result.get("raw", [])):
        points = run.get("curve", []) if isinstance(run, Mapping) else None
        if not (isinstance(points, list) and all(map(_is_point, points))):
            raise wrong(f'raw[{i}] is {str(run):.60}; expected an object, with pairs [seconds, value] as its "curve"')


def _is_point(point: object) -> bool:
    if not (isinstance(point, (list, tuple)) and len(point) == 2 and isinstance(point[0], (int, float))):
        return False
    return isinstance(point[1], (int, float, type(None))) or point[1] in ("nan", "inf", "-inf")


def commit(folder: Path = REPOSITORY) -> dict[str, Any] | None:
    """`{"id": ..., "dirty": ...}`; dirty: files other than results, their page and pictures differ. None outside a checkout."""
    made = ("benchmarks/results", "docs/benchmarks.md", "docs/images/benchmarks")

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=folder, check=True, capture_output=True, text=True, timeout=30
        ).stdout.strip()

    try:
        identity = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--", ".", *(f":!{path}" for path in made))
    except (OSError, subprocess.SubprocessError):
        return None
    return {"id": identity, "dirty": bool(changed)}


def versions() -> dict[str, str | None]:
    """Of Python, this package, what it stands on, and the peers; None for what is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version(), "multiresnet": multiresnet.__version__}
    for package in ("torch", "numpy", "lightning", *NETWORKS, *WAVELETS):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def hardware() -> dict[str, Any]:
    """The processor and how many threads were used, the accelerator, the system."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _without_machine_path(argument: str) -> str:
    """`--out=/home/me/repository/a.json` -> `--out=a.json`; what is not an absolute path stays."""
    option, equals, value = argument.rpartition("=") if argument.startswith("-") else ("", "", argument)
    path = Path(value)
    if not path.is_absolute():
        return argument
    inside = path.resolve().is_relative_to(REPOSITORY)
    return option + equals + (str(path.resolve().relative_to(REPOSITORY)) if inside else path.name)


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return _without_machine_path(str(value))
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, PLAIN) else str(value)


def _jsonable(value: Any, where: str) -> Any:
    """Tuples as lists; NaN and infinity, which JSON lacks, as text (`float("nan")` reads it)."""
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if not isinstance(value, PLAIN):
        hint = "; take .item()" if hasattr(value, "item") else ""
        raise ValueError(f"{where} is {type(value).__name__}, which JSON does not hold{hint}")
    return value
