"""Pictures of results, drawn from their JSON alone; the same JSON gives the same bytes.

Colours are those of Okabe and Ito without the yellow, too pale for white; markers and dashes tell models apart as well.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from multiresnet_bench import pictures
from multiresnet_bench.report import is_number, show

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX<>p*h"
COSTS = {"step_ms": "training step, ms", "macs": "MACs", "saved": "saved for backward, MB"}
LEGEND = 110  # characters in a line of the legend
STYLE: Any = {
    "svg.hashsalt": "multiresnet",  # otherwise the names inside an SVG are random
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name may hold a dollar
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.markersize": 5,
    "legend.frameon": False,
}
styled = matplotlib.rc_context(STYLE)
Row = Mapping[str, Any]
Looks = dict[str, dict[str, Any]]


@styled
def svg(figure: Figure) -> bytes:
    """The picture without date and version, so that equal pictures are equal files."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def describe(figure: Figure) -> str:
    """What is drawn, in words: the labels of the panels."""
    panels = [" against ".join(filter(None, (ax.get_ylabel(), ax.get_xlabel()))) for ax in figure.axes]
    return "; ".join(filter(None, [figure.get_supxlabel(), *panels])).translate({10: " ", 160: " "})


@styled
def training(result: Mapping[str, Any]) -> Figure:
    """Learning curves, and the measure against the costs of a model; against training time if there are several."""
    measure = result["measure"]
    rows = [row for row in result["rows"] if math.isfinite(number(row.get(measure["key"])))]
    runs, last = _longest([run for run in result.get("raw", ()) if run.get("curve")]), _longest(rows)
    above = ["curves"] * bool(runs) + ["seconds"] * (len(last) < len(rows))
    costs = [cost for cost in COSTS if any(row.get(cost) is not None for row in last)]
    looks = _looks([row["model"] for row in [*rows, *runs]])
    mosaic: Any = [[name for name in line for _ in range(6 // len(line))] for line in (above, costs) if line]
    figure = Figure(figsize=(8, 2.7 * len(mosaic) + _legend_height(looks)), layout="constrained")
    axes = figure.subplot_mosaic(mosaic)
    if "curves" in axes:
        _draw_curves(axes["curves"], runs, looks, measure)
    if "seconds" in axes:
        _draw_points(axes["seconds"], rows, "seconds", looks, measure)
        axes["seconds"].set_xlabel("training time, s")
    for cost in costs:
        _draw_points(axes[cost], last, cost, looks, measure)
        _draw_front(axes[cost], last, cost, measure)
        axes[cost].set_xlabel(COSTS[cost])
        if cost != costs[0]:
            axes[cost].sharey(axes[costs[0]])
            axes[cost].tick_params(labelleft=False)
            axes[cost].set_ylabel("")
    _draw_legend(figure, looks)
    return figure


@styled
def curves(result: Mapping[str, Any]) -> Figure:
    """Learning curves alone."""
    runs = _longest([run for run in result["raw"] if run.get("curve")])
    looks = _looks([run["model"] for run in runs])
    figure = Figure(figsize=(8, 3.2 + _legend_height(looks)), layout="constrained")
    _draw_curves(figure.subplots(), runs, looks, result["measure"])
    _draw_legend(figure, looks)
    return figure


@styled
def against(result: Mapping[str, Any], key: str, label: str) -> Figure:
    """The measure against another number of the rows, a line for each model."""
    rows = [row for row in result["rows"] if math.isfinite(number(row.get(result["measure"]["key"])))]
    looks = _looks([row["model"] for row in rows])
    figure = Figure(figsize=(8, 3.2 + _legend_height(looks)), layout="constrained")
    ax = figure.subplots()
    _draw_points(ax, rows, key, looks, result["measure"])
    ax.set_xlabel(label)
    _draw_legend(figure, looks)
    return figure


@styled
def reliability(rows: Sequence[Row]) -> Figure:
    """How often a probability was right, bin by bin: a panel for each model, a line for each layer behind it."""
    models, looks = list(dict.fromkeys(row["model"] for row in rows)), _looks([row["layer"] for row in rows])
    figure = Figure(figsize=(8, 3.6 + _legend_height(looks)), layout="constrained")
    axes = figure.subplots(1, len(models), squeeze=False, sharey=True)[0]
    for ax, model in zip(axes, models):
        ax.plot([0, 1], [0, 1], color="0.6", lw=0.8)
        for row in rows:
            if row["model"] == model:
                said, right, _ = zip(*row["reliability"])
                ax.plot(said, right, **looks[row["layer"]], lw=1.2)
        ax.set_title(_short(model), fontsize="medium")
        ax.set_xlabel("probability of the foreground")
    axes[0].set_ylabel("part that is foreground")
    _draw_legend(figure, looks)
    return figure


@styled
def chains(rows: Sequence[Row], panels: Mapping[str, str]) -> Figure:
    """Numbers of the cells of a hierarchical VAE, mean over the seeds: a panel for each, a line for each model; samples below."""
    looks = _looks([row["model"] for row in rows])
    samples = {row["model"]: pictures.unpacked(*row["samples"]) for row in rows if row.get("samples")}
    heights = [3.0, *[0.3 + 8 * len(image) / image.shape[1] for image in samples.values()]]
    figure = Figure(figsize=(8, sum(heights) + _legend_height(looks)), layout="constrained")
    mosaic: Any = [list(panels), *[[name] * len(panels) for name in samples]]
    axes = figure.subplot_mosaic(mosaic, height_ratios=heights)
    for key, label in panels.items():
        levels = rows[0]["chain"]["level"]
        for place in (k for k in range(1, len(levels)) if levels[k] != levels[k - 1]):
            axes[key].axvline(place + 0.5, color="0.6", lw=0.8)
        for name, look in looks.items():
            values = np.mean([row["chain"][key] for row in rows if row["model"] == name], axis=0)
            axes[key].plot(range(1, len(values) + 1), values, **look, lw=1.2)
        axes[key].set(xlabel="cell", ylabel=label)
    for name, image in samples.items():
        axes[name].imshow(image, interpolation="nearest")
        axes[name].set_title(name, fontsize="medium", loc="left")
        axes[name].axis("off")
    _draw_legend(figure, looks)
    return figure


@styled
def allocation(result: Mapping[str, Any]) -> Figure:
    """A dot with its deviation for each allocation, in groups; a line and a band at the reference."""
    measure = result["measure"]
    rows = _longest([row for row in result["rows"] if row.get(measure["key"]) is not None], by="allocation")
    groups = {row["group"]: [other for other in rows if other["group"] == row["group"]] for row in rows}
    figure = Figure(figsize=(8, 0.8 + 0.21 * (len(rows) + len(groups))), layout="constrained")
    ax, looks = figure.subplots(), _looks(groups, joined=False)
    lines: list[str] = []
    headings = []
    for group, members in groups.items():
        ax.axhline(len(lines), color="0.8", lw=0.6, zorder=0)
        headings.append(len(lines))
        lines.append(group)
        for row in members:
            value, sd = _mean_and_sd(row, measure)
            ax.errorbar([value], [len(lines)], xerr=sd, **looks[group], elinewidth=1)
            if not math.isfinite(value):
                ax.text(0.01, len(lines), "no number", transform=ax.get_yaxis_transform(), va="center", color="0.4")
            elif row.get("reference"):
                ax.axvline(value, color="0.4", lw=0.9, zorder=1)
                ax.axvspan(value - sd, value + sd, color="0.9", lw=0, zorder=0)
            lines.append(_short(row["allocation"]) + " (reference)" * bool(row.get("reference")))
    ax.set_yticks(range(len(lines)), lines)
    for heading in headings:
        ax.get_yticklabels()[heading].set_fontweight("bold")
    ax.set_ylim(len(lines) - 0.5, -0.5)
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(f"{measure['label']} ({'← better' if measure['lower_is_better'] else 'better →'})")
    return figure


@styled
def dots(
    panels: Mapping[str, Mapping[str, Sequence[float | None]]], names: Sequence[str], *, label: str = ""
) -> Figure:
    """Ratios on a logarithmic axis with a line at 1.

    Args:
        panels: for each panel, by its label, the values of each series for all `names`; None is no dot.
        names: of the lines, from above.
        label: below all panels.
    """
    looks = _looks([name for panel in panels.values() for name in panel], joined=False)
    height = 0.7 + len(names) * (0.12 + 0.1 * len(looks)) + _legend_height(looks)
    figure = Figure(figsize=(8, height), layout="constrained")
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for ax, (below, panel) in zip(axes, panels.items()):
        for i, name in enumerate(looks):
            values = [number(value) for value in panel.get(name, ())]
            lines = [line + 0.7 * ((i + 0.5) / len(looks) - 0.5) for line in range(len(values))]
            ax.plot(values, lines, **looks[name])
        ax.axvline(1, color="0.4", lw=0.9, zorder=1)
        ax.set_xlabel(below)
        ax.grid(visible=False, axis="y")
        ax.tick_params(axis="y", length=0)
        for line in range(1, len(names)):
            ax.axhline(line - 0.5, color="0.85", lw=0.6, zorder=0)
    everything = [number(value) for panel in panels.values() for values in panel.values() for value in values]
    _set_scale(axes[0], "x", [1.0, *everything], log=True)
    axes[0].set_yticks(range(len(names)), map(_short, names))
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    figure.supxlabel(label, fontsize="medium")
    _draw_legend(figure, looks)
    return figure


def front(points: Iterable[tuple[float, float]], *, lower_is_better: bool) -> list[tuple[float, float]]:
    """The (cost, measure) that no other point beats in both, from the cheapest on."""
    sign = 1 if lower_is_better else -1
    best: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], sign * point[1])):
        if not best or sign * y < sign * best[-1][1]:
            best.append((x, y))
    return best


def number(value: Any) -> float:
    """A number of a result; NaN for null, and for the texts of what JSON has no number for."""
    return float(value) if is_number(value) else math.nan


def _mean_and_sd(row: Row, measure: Row) -> tuple[float, float]:
    return number(row[measure["key"]]), number(row.get(f"{measure['key']}_sd", 0.0))


def _longest(rows: Sequence[Row], *, by: str = "model") -> list[Row]:
    """Of each model, what belongs to its longest training time."""
    limits: dict[str, Any] = {}
    for row in sorted(rows, key=lambda row: row.get("seconds", 0)):
        limits[row[by]] = row.get("limit")
    return [row for row in rows if row.get("limit") == limits[row[by]]]


def _short(name: str) -> str:
    return name if len(name) <= 48 else f"{name[:47]}…"


# ---- parts of a picture ----------------------------------------------------------------------------------------------


def _looks(names: Iterable[str], *, joined: bool = True) -> Looks:
    """How to draw each name, by its place; `joined`: points with a line.

    Raises:
        ValueError: there are none.
    """
    looks: Looks = {
        name: {
            "color": COLOURS[i % len(COLOURS)],
            "marker": MARKERS[i % len(MARKERS)],
            "ls": ("-", "--", ":")[i // len(COLOURS) % 3] if joined else "none",
        }
        for i, name in enumerate(dict.fromkeys(names))
    }
    if not looks:
        raise ValueError("there is nothing to draw: no row has a number, no run a curve")
    return looks


def _draw_curves(ax: Axes, runs: Sequence[Row], looks: Looks, measure: Row) -> None:
    """The mean over seeds where all of them have been; each seed thinly."""
    drawn = []
    for name, look in looks.items():
        seeds = [np.array([[t, number(v)] for t, v in run["curve"]]).T for run in runs if run["model"] == name]
        if not seeds:
            continue
        grid = np.unique(np.concatenate([t for t, _ in seeds]))
        grid = grid[(grid >= max(t[0] for t, _ in seeds)) & (grid <= min(t[-1] for t, _ in seeds))]
        mean = np.mean([np.interp(grid, t, v) for t, v in seeds], axis=0)
        ax.plot(grid, mean, **look, lw=1.5, markevery=[-1], label=name)
        for t, v in seeds if len(seeds) > 1 else ():
            ax.plot(t, v, color=look["color"], ls=look["ls"], lw=0.5, alpha=0.5)
        drawn += [mean, *(v for _, v in seeds)]
    _set_scale(ax, "y", np.concatenate(drawn), log=measure["lower_is_better"])
    ax.set_xlabel("training time, s")
    ax.set_ylabel(_with_arrow(measure.get("curve_label", measure["label"]), measure))


def _draw_points(ax: Axes, rows: Sequence[Row], cost: str, looks: Looks, measure: Row) -> None:
    """The measure with its deviation against a cost; the points of a model are joined."""
    rows = sorted((row for row in rows if row.get(cost) is not None), key=lambda row: row[cost])
    for name, look in looks.items():
        own = [row for row in rows if row["model"] == name]
        values, deviations = zip(*(_mean_and_sd(row, measure) for row in own)) if own else ((), ())
        ax.errorbar([row[cost] for row in own], values, yerr=deviations, **look, elinewidth=1, lw=1, label=name)
    _set_scale(ax, "x", [row[cost] for row in rows], log=True)
    _set_scale(ax, "y", [row[measure["key"]] for row in rows], log=measure["lower_is_better"])
    ax.set_ylabel(_with_arrow(measure["label"], measure))


def _draw_front(ax: Axes, rows: Sequence[Row], cost: str, measure: Row) -> None:
    """A thin line around what is beaten in both; it ends at the dearest and at the worst point."""
    points = [(row[cost], row[measure["key"]]) for row in rows if row.get(cost) is not None]
    best = front(points, lower_is_better=measure["lower_is_better"])
    costs, values = zip(*points)
    worst = max(values) if measure["lower_is_better"] else min(values)
    outline = [(best[0][0], worst), *best, (max(costs), best[-1][1])]
    ax.plot(*zip(*outline), color="0.6", lw=0.8, drawstyle="steps-post", zorder=1, label="front")


def _with_arrow(label: str, measure: Row) -> str:
    return textwrap.fill(
        f"{label} ({'↓' if measure['lower_is_better'] else '↑'}\u00a0better)", 36
    )  # beside a low panel


def _set_scale(ax: Axes, which: str, values: Iterable[float], *, log: bool) -> None:
    """Logarithmic if asked for and possible; the ticks at round numbers either way."""
    finite = [value for value in values if math.isfinite(value)]
    ratio = max(finite) / min(finite) if finite and min(finite) > 0 else math.inf
    axis = getattr(ax, f"{which}axis")
    log = log and ratio < math.inf
    if log:
        ax.set(**{f"{which}scale": "log"})
    bins, octaves = (3, 1.5) if which == "x" and log else (5, 2)  # labels beside each other need more room
    subs = (1, 2, 5) if ratio < 30 else (1, 3) if ratio < 300 else (1,)
    wide = log and ratio > 2**octaves
    axis.set_major_locator(LogLocator(subs=subs) if wide else MaxNLocator(bins, steps=[1, 2, 2.5, 5, 10]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: show(float(value), ".6g")))


def _legend_columns(looks: Looks) -> int:
    return max(1, min(4, LEGEND // (8 + max(len(_short(name)) for name in looks))))


def _legend_height(looks: Looks) -> float:
    return 0.2 + 0.19 * math.ceil(len(looks) / _legend_columns(looks))


def _draw_legend(figure: Figure, looks: Looks) -> None:
    handles = [Line2D([], [], **look, lw=1.2, label=_short(name)) for name, look in looks.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=_legend_columns(looks))
