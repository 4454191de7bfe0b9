"""The pictures of the demo: fields, rollout error, and error during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from multiresnet.callbacks.figures import save_figure

__all__ = ["draw_fields", "draw_rollout", "draw_training"]

Array = NDArray[Any]
_COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red")
_save = partial(save_figure, dpi=120)


def _slice(field: Array) -> Array:
    """The first channel (C, *space) -> a line or a plane; a volume gives its middle plane."""
    first: Array = field[0]
    middle: Array = first[len(first) // 2]
    return middle if first.ndim == 3 else first


def draw_fields(path: Path, truth: Array, predictions: Mapping[str, Array], steps: Sequence[int]) -> None:
    """Truth, predictions and errors of one rollout at the given steps (1 = the first), on one colour scale.

    Args:
        path: of the picture.
        truth: (time, C, *space).
        predictions: the same shape, by model.
        steps: columns of the picture.
    """
    if truth.ndim == 3:
        return _draw_lines(path, truth, predictions, steps)
    high = float(np.quantile(np.abs(truth[:, 0]), 0.998)) or 1.0
    signed = float(truth[:, 0].min()) < -0.05 * high
    field_style = (
        {"cmap": "RdBu_r", "vmin": -high, "vmax": high} if signed else {"cmap": "viridis", "vmin": 0, "vmax": high}
    )
    error_style = {"cmap": "RdBu_r", "vmin": -high, "vmax": high}
    rows = [("truth", truth, field_style)]
    rows += [(name, prediction, field_style) for name, prediction in predictions.items()]
    rows += [(f"{name}\nerror", prediction - truth, error_style) for name, prediction in predictions.items()]
    height, width = _slice(truth[0]).shape
    cell = 2.2
    figure = Figure(
        figsize=(cell * len(steps) + 1.6, cell * len(rows) * min(max(height / width, 0.5), 1.5) + 0.6),
        layout="compressed",  # constrained, for axes of fixed aspect
    )
    axes = figure.subplots(len(rows), len(steps), squeeze=False)
    images: dict[bool, Any] = {}
    for i, (label, frames, style) in enumerate(rows):
        for j, step in enumerate(steps):
            ax = axes[i, j]
            image = ax.imshow(_slice(frames[step - 1]), interpolation="nearest", **style)
            images[style is error_style and not signed] = image
            ax.set_xticks([])
            ax.set_yticks([])
            if i == 0:
                ax.set_title(f"step {step}")
            if j == 0:
                ax.set_ylabel(label)
    split = len(predictions) + 1
    if signed:
        figure.colorbar(images[False], ax=axes, shrink=0.5, label="field and error, first channel", extend="both")
    else:
        figure.colorbar(images[False], ax=axes[:split], shrink=0.6, label="field, first channel", extend="max")
        figure.colorbar(images[True], ax=axes[split:], shrink=0.8, label="error", extend="both")
    middle = ", middle plane" if truth.ndim == 5 else ""
    figure.suptitle(f"Rollout on a test trajectory{middle}")
    _save(figure, path)


def _draw_lines(path: Path, truth: Array, predictions: Mapping[str, Array], steps: Sequence[int]) -> None:
    figure = Figure(figsize=(3.6 * len(steps) + 0.5, 5.2), layout="constrained")
    axes = figure.subplots(2, len(steps), squeeze=False, sharex=True, sharey="row")
    for j, step in enumerate(steps):
        above, below = axes[:, j]
        above.plot(_slice(truth[step - 1]), color="black", linewidth=2, label="truth")
        for colour, (name, prediction) in zip(_COLOURS, predictions.items(), strict=False):
            above.plot(_slice(prediction[step - 1]), color=colour, label=name)
            below.plot(_slice(prediction[step - 1] - truth[step - 1]), color=colour)
        below.axhline(0, color="grey", linewidth=0.8)
        above.set_title(f"step {step}")
        below.set_xlabel("grid point")
    axes[0, 0].set_ylabel("first channel")
    axes[1, 0].set_ylabel("error")
    axes[0, 0].legend()
    figure.suptitle("Rollout on a test trajectory")
    _save(figure, path)


def draw_rollout(path: Path, curves: Mapping[str, Sequence[float]], persistence: Sequence[float]) -> None:
    """Relative L2 error against the rollout step, with persistence in grey."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    ax = figure.subplots()
    steps = np.arange(1, len(persistence) + 1)
    ax.plot(steps, persistence, color="grey", linestyle="--", label="persistence")
    for colour, (name, curve) in zip(_COLOURS, curves.items(), strict=False):
        ax.plot(steps, curve, color=colour, marker="o", markersize=4, label=name)
    ax.set(xlabel="rollout step", ylabel="relative L2 error", title="Rollout error, mean over test windows")
    ax.set_ylim(0, 1.5 * max(1.0, *persistence))  # a rollout that explodes leaves the picture, not the scale
    ax.set_xticks(steps[:: max(1, len(steps) // 10)])
    ax.grid(alpha=0.3)
    ax.legend()
    _save(figure, path)


def draw_training(path: Path, curves: Mapping[str, Sequence[tuple[float, float]]], persistence: float) -> None:
    """Validation error against the seconds of training, with persistence in grey."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    ax = figure.subplots()
    ax.axhline(persistence, color="grey", linestyle="--", label="persistence")
    for colour, (name, curve) in zip(_COLOURS, curves.items(), strict=False):
        ax.plot(*np.array(curve).T, color=colour, marker="o", markersize=4, label=name)
    ax.set(
        xlabel="training time, s",
        ylabel="relative L2 error",
        title="Next-frame error on the validation split",
    )
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter("{x:g}")
    ax.grid(alpha=0.3, which="both")
    ax.legend()
    _save(figure, path)
