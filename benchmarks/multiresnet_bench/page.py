"""All results as one HTML file that loads nothing: sortable tables, pictures, how each was made, and the raw data."""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from multiresnet_bench import cli, report
from multiresnet_bench.results import FIELDS, PLAIN

LARGEST = 300_000  # bytes of a JSON that goes into the page
STYLE = """
:root { color-scheme: light dark; --text: #1c2024; --faint: #5b6470; --line: #d9dde2; --back: #fff; --head: #f3f5f7;
  --link: #0060a8 }
@media (prefers-color-scheme: dark) { :root { --text: #e4e7eb; --faint: #9aa4b0; --line: #3a4048; --back: #15181c;
  --head: #20252b; --link: #7cc0f5 } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 72rem;
  margin: 2rem auto; padding: 0 1.25rem }
h2 { margin: 3rem 0 .25rem; padding-top: 1rem; border-top: 1px solid var(--line) }
a { color: var(--link) }
code { font-size: .875em; overflow-wrap: anywhere }
.table { overflow-x: auto; margin: 1rem 0 }
table { border-collapse: collapse; width: max-content; font-size: .875rem; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) }
th { background: var(--head); vertical-align: bottom }
th { max-width: 7rem }
td { max-width: 24rem; overflow-wrap: break-word }
.number { text-align: right }
td.number { white-space: nowrap }
th button { all: unset; cursor: pointer; font-weight: 600 }
th button:focus-visible, .table:focus-visible { outline: 2px solid var(--link); outline-offset: 2px }
th button::after { content: "\\00a0\\2195"; color: var(--faint); font-weight: 400 }
th[aria-sort=ascending] button::after { content: "\\00a0\\2191"; color: inherit }
th[aria-sort=descending] button::after { content: "\\00a0\\2193"; color: inherit }
img { display: block; max-width: 100%; background: #fff; margin: 1rem 0 }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; font-size: .875rem; color: var(--faint) }
dd { margin: 0 }
summary { cursor: pointer }
"""
# A first click sorts upwards, the next downwards. Numbers come before texts, and what is missing stays last.
SCRIPT = """
for (const table of document.querySelectorAll("table")) {
  table.querySelectorAll("th button").forEach((button, column) => button.addEventListener("click", () => {
    const heading = button.parentElement;
    const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const kind = cell => "number" in cell.dataset ? 0 : cell.textContent === "–" ? 2 : 1;
    const compare = (a, b) => kind(a) - kind(b) || sign * (kind(a) === 0
      ? a.dataset.number - b.dataset.number
      : a.textContent.localeCompare(b.textContent, "en", {numeric: true}));
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort((a, b) => compare(a.cells[column], b.cells[column])));
  }));
}
"""
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>Benchmarks of multiresnet</title>
<style>{style}</style>
</head>
<body>
<h1>Benchmarks of multiresnet</h1>
<p>Click a heading to sort by it; again, to turn the order round. ± is the standard deviation over seeds.</p>
<nav aria-label="Contents"><ul>
{contents}
</ul></nav>
<main>
{sections}
</main>
<script>{script}</script>
</body>
</html>
"""
SECTION = """<section id="{name}">
<h2>{name}</h2>
<p>{about}</p>
{picture}
{table}
<p>{note}</p>
<dl>
{facts}
</dl>
{raw}
{download}
</section>"""


def render(found: Mapping[str, Mapping[str, Any]], pictures: Mapping[str, report.Picture]) -> str:
    """The page.

    Args:
        found: results by name.
        pictures: of those that have one.
    """
    lines = [
        f'<li><a href="#{escape(name)}">{escape(name)}</a>: {_about(result)}</li>' for name, result in found.items()
    ]
    sections = [_section(name, result, pictures.get(name)) for name, result in found.items()]
    return PAGE.format(style=STYLE, contents="\n".join(lines), sections="\n".join(sections), script=SCRIPT)


def table(result: Mapping[str, Any], label: str) -> str:
    """A table whose cells hold their unrounded numbers, for sorting."""
    headings, numeric, texts = report.cells(result)
    kinds = [' class="number"' if right else "" for right in numeric]
    head = [
        f'<th scope="col"{kind}><button type="button">{escape(text)}</button></th>'
        for kind, text in zip(kinds, headings)
    ]
    body = []
    for row, line in zip(result["rows"], texts):
        values = [row.get(key) for key, *_ in report.columns(result)]
        cells = [f"<td{kind}{_number(v)}>{escape(text)}</td>" for kind, v, text in zip(kinds, values, line)]
        body.append(f"<tr>{''.join(cells)}</tr>")
    rows = "\n".join(body)
    return (
        f'<div class="table" role="region" tabindex="0" aria-label="{escape(label)}"><table>\n'
        f"<thead><tr>{''.join(head)}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def _section(name: str, result: Mapping[str, Any], picture: report.Picture | None) -> str:
    text = json.dumps(result, ensure_ascii=False).encode()
    shown = "" if picture is None else f'<img alt="{escape(picture.alt)}" src="{_data("image/svg+xml", picture.svg)}">'
    link = f'<p><a download="{escape(name)}.json" href="{_data("application/json", text)}">{escape(name)}.json</a></p>'
    return SECTION.format(
        name=escape(name),
        about=_about(result),
        picture=shown,
        table=table(result, name),
        note=escape(result.get("note", "")),
        facts="\n".join(f"<dt>{key}</dt><dd>{value}</dd>" for key, value in _facts(result)),
        raw="\n".join(_raw(name, result)),
        download=link if len(text) < LARGEST else "",
    )


def _about(result: Mapping[str, Any]) -> str:
    return escape(cli.COMMANDS.get(report.command_of(result), ""))


def _facts(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    commit, hardware = result["commit"], result["hardware"]
    yield "command", f"<code>{escape(result['command'])}</code>"
    yield "commit", escape(f"{commit['id']}{' with changes' * commit['dirty']}" if commit else "none")
    yield "date", escape(result["date"])
    yield "hardware", escape(", ".join(f"{key} {value}" for key, value in hardware.items() if value is not None))
    yield (
        "versions",
        escape(", ".join(f"{key} {value}" for key, value in result["versions"].items() if value is not None)),
    )


def _raw(name: str, result: Mapping[str, Any]) -> Iterator[str]:
    """What was measured before it was reduced: runs as a table, nested numbers as a line for each list."""
    for field, value in result.items():
        if field in FIELDS and field != "raw":
            continue
        if isinstance(value, list):
            rows = [{k: v for k, v in run.items() if isinstance(v, PLAIN)} for run in value if isinstance(run, Mapping)]
        else:
            rows = [{"of": path, "values": values} for path, values in _leaves(value)]
        if rows:
            label = escape(f"{field} ({len(rows)} lines)")
            yield f"<details><summary>{label}</summary>{table({'rows': rows}, f'{name}: {field}')}</details>"


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{path} / {key}" if path else str(key))
    else:
        yield path, " ".join(report.show(item, ".4g") for item in (value if isinstance(value, list) else [value]))


def _number(value: Any) -> str:
    return f' data-number="{value!r}"' if report.is_number(value) and math.isfinite(value) else ""


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"
