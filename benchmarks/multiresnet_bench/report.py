"""Results as tables: on the terminal, and in the documentation between `<!-- table: NAME -->` and `<!-- end -->`.

A result's "columns" say how its rows are shown: [key, heading, format], the format being Python's for a number (".3f",
",d", ".0%"), or "" for whatever it is. A row that has KEY_sd beside KEY is shown as mean ± standard deviation.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from multiresnet_bench import results

TABLE = re.compile(
    r"(?P<begin>^<!-- table: (?P<name>[\w.-]+) -->\n)(?P<body>.*?)(?P<end>^<!-- end -->$)", re.DOTALL | re.MULTILINE
)
Cells = tuple[list[str], list[bool], list[list[str]]]


def main(arguments: Sequence[str]) -> int:
    """`multiresnet-bench report`; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="multiresnet-bench report",
        description="Write the tables of all results into the page, in place of those between "
        "<!-- table: NAME --> and <!-- end -->; NAME is the file's name without .json.",
    )
    add_arguments(parser)
    options = parser.parse_args(arguments)
    page = options.page.read_text(encoding="utf-8")
    found = {path.stem: results.read(path) for path in sorted(options.results.glob("*.json"))}
    new = fill(page, found)
    wanted = {match["name"] for match in TABLE.finditer(page)}
    for name in sorted(wanted - found.keys()):
        print(f"{options.page}: no result for the table {name}; it stays as it is", file=sys.stderr)
    for name in sorted(found.keys() - wanted):
        place = f"<!-- table: {name} --> and <!-- end -->"
        print(f"{options.page}: no place for the result {name}; add {place}", file=sys.stderr)
    if options.check:
        if new != page:
            print(f"{options.page} is not what the results say; run multiresnet-bench report", file=sys.stderr)
        return int(new != page)
    if new != page:
        temporary = options.page.with_name(f".{options.page.name}.tmp")
        temporary.write_text(new, encoding="utf-8")
        os.replace(temporary, options.page)
    print(f"{options.page}: {len(wanted & found.keys())} tables, {'changed' if new != page else 'as before'}")
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"), metavar="FOLDER")
    parser.add_argument("--page", type=Path, default=Path("docs/benchmarks.md"), metavar="FILE.md")
    parser.add_argument("--check", action="store_true", help="change nothing; status 1 if the page is out of date")


def fill(page: str, found: Mapping[str, Mapping[str, Any]]) -> str:
    """The page with the tables of the results that it has places for.

    Raises:
        ValueError: a place that is not closed.
    """
    if page.count("<!-- table:") != len(TABLE.findall(page)):
        raise ValueError("a <!-- table: NAME --> has no <!-- end -->, each alone on its line; add it")

    def replace(match: re.Match[str]) -> str:
        result = found.get(match["name"])
        return match[0] if result is None else f"{match['begin']}\n{markdown(result)}\n{match['end']}"

    return TABLE.sub(replace, page)


def markdown(result: Mapping[str, Any]) -> str:
    """A table and the lines that say how it was made."""
    headings, numeric, rows = cells(result)
    escaped = [[text.replace("|", "\\|") for text in row] for row in [headings, *rows]]
    rule = ["--:" if right else "---" for right in numeric]
    lines = [f"| {' | '.join(row)} |" for row in (escaped[0], rule, *escaped[1:])]
    note = [result["note"], ""] if result.get("note") else []
    return "\n".join([*lines, "", *note, provenance(result), ""])


def terminal(result: Mapping[str, Any]) -> Table:
    """The same table for a terminal."""
    headings, numeric, rows = cells(result)
    shown = Table(title=result.get("name"), caption=result.get("note"))
    for heading, right in zip(headings, numeric):
        shown.add_column(heading, justify="right" if right else "left")
    for row in rows:
        shown.add_row(*row)
    return shown


def provenance(result: Mapping[str, Any]) -> str:
    """The command, commit and machine in one line."""
    commit, hardware, versions = result["commit"], result["hardware"], result["versions"]
    dirty = " with changes" if commit and commit["dirty"] else ""
    state = f"commit {commit['id']}{dirty}" if commit else "outside a checkout"
    device = hardware["gpu"] if str(result["config"].get("device", "cpu")).startswith("cuda") else hardware["cpu"]
    threads = f"{hardware['threads']} thread{'s' if hardware['threads'] != 1 else ''}"
    made = f"{state}, {result['date'][:10]}, {device}, {threads}, torch {versions['torch']}"
    return f"<small>`{result['command']}`: {made}.</small>"


def cells(result: Mapping[str, Any]) -> Cells:
    """Headings, which columns are right-aligned, and the text of each cell."""
    rows = result["rows"]
    keys = dict.fromkeys(key for row in rows for key in row)
    columns = result.get("columns") or [[key, key.replace("_", " "), ""] for key in keys if not key.endswith("_sd")]
    headings = [heading for _, heading, _ in columns]
    numeric = [all(_is_number(row[key]) for row in rows if row.get(key) is not None) for key, _, _ in columns]
    return headings, numeric, [[cell(row, key, spec) for key, _, spec in columns] for row in rows]


def cell(row: Mapping[str, Any], key: str, spec: str) -> str:
    """A value of a row, with "± sd" if the row has one, over more than one seed."""
    value, sd = row.get(key), row.get(f"{key}_sd")
    if sd is None or value is None or row.get("seeds") == 1:
        return show(value, spec)
    return f"{show(value, spec)} ± {show(sd, spec)}"


def show(value: Any, spec: str) -> str:
    """A number by its format, null as a dash, anything else as text; 1.3e+09 as 1.3 G."""
    if value is None:
        return "–"
    if not _is_number(value):
        return str(value)
    if spec.endswith("d"):
        return format(round(value), spec)
    for unit, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if spec.endswith("g") and abs(value) >= scale:
            return f"{format(value / scale, spec)} {unit}"
    return format(value, spec if spec not in ("", "s") else "" if isinstance(value, int) else ".3g")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
