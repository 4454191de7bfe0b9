"""A spectrum for the eye: a table and a picture."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from multiresnet.diffusion.schedules import crossing_times, noise_levels
from multiresnet.diffusion.spectrum import Spectrum

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["spectrum_figure", "spectrum_table"]


def spectrum_table(spectrum: Spectrum, scheduler: Any = None) -> str:
    """One line for each band, finest first; see `Spectrum.table`."""
    head = ["level", "pixels", "coefficients", "rms", "energy", "sigma at SNR 1"]
    columns = [
        _names(spectrum),
        [str(2 ** min(level + 1, spectrum.levels)) for level in range(spectrum.levels + 1)],
        [str(count) for count in spectrum.coefficients],
        [f"{value**0.5:.4g}" for value in spectrum.energy],
        [f"{share:.2%}" for share in spectrum.shares],
        [f"{sigma:.4g}" for sigma in spectrum.drowned_at()],
    ]
    if scheduler is not None:
        head.append("drowned from step")
        times = crossing_times(spectrum, scheduler)
        columns.append(["never" if time is None else f"{time} of {len(noise_levels(scheduler))}" for time in times])
    widths = [max(map(len, (title, *column))) for title, column in zip(head, columns)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in (head, *zip(*columns))]
    size = " x ".join(map(str, spectrum.size))
    return "\n".join(
        [
            f"{spectrum.images} images of {size}",
            *lines,
            f"smoothness {spectrum.decay:.2f} (white noise {-spectrum.spatial_dims / 2:g}): per coarser level the energy of a "
            f"coefficient grows {2 ** (2 * spectrum.decay + spectrum.spatial_dims):.2f}-fold",
            f"of the energy, 90% is in the coarsest {spectrum.compaction(0.9):.1%} of the coefficients, 99% in "
            f"{spectrum.compaction():.1%}",
        ]
    )


def spectrum_figure(spectrum: Spectrum, scheduler: Any = None) -> Figure:
    """Energies on the left, signal-to-noise ratios on the right; see `Spectrum.plot`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = _names(spectrum)
    shown = [(place, value) for place, value in enumerate(spectrum.energy) if value > 0]
    left.plot(*zip(*shown), marker="o", color="black")
    values = [value for _, value in shown]
    for sigma in (2.0**power for power in range(-20, 21)):
        if min(values) / 4 <= sigma**2 <= max(values) * 4:
            left.axhline(sigma**2, ls="--", lw=1, color="tab:red")
            left.annotate(f"noise of sigma {sigma:g}", (0, sigma**2), color="tab:red", va="bottom", fontsize=8)
    left.set_yscale("log", base=2)
    left.set_xticks(range(len(names)), names)
    left.set(xlabel="level, finest first", ylabel="mean square of a coefficient")

    if scheduler is None:
        known = [sigma for sigma in spectrum.drowned_at() if sigma > 0]
        ends = math.log10(min(known)) - 1, math.log10(max(known)) + 1
        x = sigmas = torch.logspace(*ends, 200, dtype=torch.float64)
        right.set(xscale="log", xlabel="sigma of the noise")
    else:
        sigmas = noise_levels(scheduler)
        x = torch.arange(len(sigmas), dtype=torch.float64)
        right.set(xlabel=f"time step of {type(scheduler).__name__}")
    ratios = spectrum.snr(sigmas)
    usable = (ratios > 0) & (
        ratios < torch.inf
    )  # a schedule may end without signal, and a log axis has no place for it
    for band, name in enumerate(names):
        keep = usable[:, band]
        right.plot(x[keep].numpy(), ratios[keep, band].numpy(), label=name)
    right.axhline(1.0, ls="--", lw=1, color="black")
    right.set(yscale="log", ylabel="signal-to-noise ratio")
    right.set_ylim(bottom=max(1e-4, right.get_ylim()[0]))  # cosine schedules end far below
    right.legend(title="level")
    return figure


def _names(spectrum: Spectrum) -> list[str]:
    return [*map(str, range(spectrum.levels)), "average"]
