"""Results as tables and pictures: on the terminal, in the documentation, and as a page of their own.

In the documentation they stand between `<!-- table: NAME -->` or `<!-- picture: NAME -->` and `<!-- end -->`. A result's
"columns" say how its rows are shown: [key, heading, format], the format being Python's for a number (".3f", ",d", ".0%"),
or "" for whatever it is. A row that has KEY_sd beside KEY is shown as mean ± standard deviation.
"""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from multiresnet.atomic import write_atomically
from multiresnet_bench import results

PLACE = re.compile(
    r"(?P<begin>^<!-- (?P<kind>table|picture): (?P<name>[\w.-]+) -->\n)(?P<body>.*?)(?P<end>^<!-- end -->$)",
    re.DOTALL | re.MULTILINE,
)
IMAGES = Path("images") / "benchmarks"  # beside the page
NOT_FINITE = ("nan", "inf", "-inf")  # JSON has no numbers for them
Places = Mapping[tuple[str, str], str]
Cells = tuple[list[str], list[bool], list[list[str]]]


class Picture(NamedTuple):
    """A picture, and what it shows in words."""

    alt: str
    svg: bytes


def main(arguments: Sequence[str]) -> int:
    """`multiresnet-bench report`; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="multiresnet-bench report",
        description="Write the tables and pictures of all results into the documentation, in place of what is between "
        "<!-- table: NAME --> or <!-- picture: NAME --> and <!-- end -->, and into an HTML page of their own; "
        "NAME is the file's name without .json.",
    )
    add_arguments(parser)
    options = parser.parse_args(arguments)
    page = options.page.read_text(encoding="utf-8")
    files = [path for path in sorted(options.results.glob("*.json")) if not path.stem.endswith(".unfinished")]
    found = {path.stem: results.read(path) for path in files}
    places = {(match["kind"], match["name"]) for match in PLACE.finditer(page)}
    tables = {("table", name): markdown(result) for name, result in found.items()}
    new = fill(page, tables)
    if options.check:  # tables only: another matplotlib draws other bytes
        _say_what_is_missing(options.page, {place for place in places if place[0] == "table"}, tables)
        if new != page:
            print(f"{options.page} is not what the results say; run multiresnet-bench report", file=sys.stderr)
        return int(new != page)
    pictures = {name: drawn for name, result in found.items() if (drawn := picture(result))}
    links = {("picture", name): link(name, drawn.alt) for name, drawn in pictures.items()}
    _say_what_is_missing(options.page, places, {**tables, **links})
    new = fill(new, links)
    changed = _write(options.page, new.encode())
    for _, name in sorted(places & links.keys()):
        changed |= _write(options.page.parent / IMAGES / f"{name}.svg", pictures[name].svg)
    count = f"tables: {len(places & tables.keys())}, pictures: {len(places & links.keys())}"
    print(f"{options.page}: {'changed' if changed else 'as before'} ({count})")
    if options.html is not None:
        from multiresnet_bench.page import render

        _write(options.html, render(found, pictures).encode())
        print(f"wrote {options.html}")
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    html = Path("benchmarks/report.html")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"), metavar="FOLDER")
    parser.add_argument("--page", type=Path, default=Path("docs/benchmarks.md"), metavar="FILE.md")
    parser.add_argument("--html", type=Path, default=html, metavar="FILE.html", help=f"default {html}")
    parser.add_argument("--no-html", action="store_const", const=None, dest="html", help="leave that page out")
    parser.add_argument("--check", action="store_true", help="change nothing; status 1 if a table is out of date")


def picture(result: Mapping[str, Any]) -> Picture | None:
    """What the command's `plot` draws; None where it has none, or where the result is older than its picture."""
    from multiresnet_bench import cli, plots

    command = command_of(result)
    if command not in cli.COMMANDS or (command in cli.TRAINING and "measure" not in result):
        return None
    figure = importlib.import_module(cli.module_of(command)).plot(result)
    return Picture(plots.describe(figure), plots.svg(figure))


def command_of(result: Mapping[str, Any]) -> str:
    """What stood after `multiresnet-bench`."""
    return "".join(shlex.split(result["command"])[1:2])


def link(name: str, alt: str) -> str:
    """A picture in Markdown."""
    escaped = re.sub(r"([\[\]\\])", r"\\\1", alt)
    return f"![{escaped}]({(IMAGES / name).as_posix()}.svg)\n"


def fill(page: str, contents: Places) -> str:
    """The page with the contents, by ("table" or "picture", name), that it has places for.

    Raises:
        ValueError: a place that is not closed.
    """
    if len(re.findall("<!-- (?:table|picture):", page)) != len(PLACE.findall(page)):
        raise ValueError(
            "a <!-- table: NAME --> or <!-- picture: NAME --> has no <!-- end -->, each alone on its line; add it"
        )

    def replace(match: re.Match[str]) -> str:
        content = contents.get((match["kind"], match["name"]))
        return match[0] if content is None else f"{match['begin']}\n{content}\n{match['end']}"

    return PLACE.sub(replace, page)


def _say_what_is_missing(page: Path, places: set[tuple[str, str]], contents: Places) -> None:
    for kind, name in sorted(places - contents.keys()):
        print(f"{page}: no result for the {kind} {name}; it stays as it is", file=sys.stderr)
    for kind, name in sorted(contents.keys() - places):
        if kind == "table":  # not every page wants every picture
            print(
                f"{page}: no place for the result {name}; add <!-- table: {name} --> and <!-- end -->", file=sys.stderr
            )


def _write(path: Path, content: bytes) -> bool:
    """Write what is not there already; returns whether it was not."""
    if path.exists() and path.read_bytes() == content:
        return False
    write_atomically(path, lambda file: file.write_bytes(content))
    return True


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


def columns(result: Mapping[str, Any]) -> list[list[str]]:
    """[key, heading, format] of each column."""
    keys = dict.fromkeys(key for row in result["rows"] for key in row)
    return result.get("columns") or [[key, key.replace("_", " "), ""] for key in keys if not key.endswith("_sd")]


def cells(result: Mapping[str, Any]) -> Cells:
    """Headings, which columns are right-aligned, and the text of each cell."""
    rows, shown = result["rows"], columns(result)
    headings = [heading for _, heading, _ in shown]
    numeric = [
        all(is_number(row[key]) or row[key] in NOT_FINITE for row in rows if row.get(key) is not None)
        for key, _, _ in shown
    ]
    return headings, numeric, [[cell(row, key, spec) for key, _, spec in shown] for row in rows]


def cell(row: Mapping[str, Any], key: str, spec: str) -> str:
    """A value of a row, with "± sd" if the row has one, over more than one seed."""
    value, sd = row.get(key), row.get(f"{key}_sd")
    if sd is None or not is_number(value) or row.get("seeds") == 1:
        return show(value, spec)
    return f"{show(value, spec)} ± {show(sd, spec)}"


def show(value: Any, spec: str) -> str:
    """A number by its format, null as a dash, anything else as text; 1.3e+09 as 1.3 G."""
    if value is None:
        return "–"
    if not is_number(value):
        return str(value)
    if spec.endswith("d"):
        return format(round(value), spec)
    for unit, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if spec.endswith("g") and abs(value) >= scale:
            return f"{format(value / scale, spec)} {unit}"
    return format(value, spec if spec not in ("", "s") else "" if isinstance(value, int) else ".3g")


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
