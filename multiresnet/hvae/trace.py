"""What happens along the chain of cells: the state, its drift and its diffusion, the cost of each latent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from multiresnet.context import Emb
from multiresnet.hvae.decoder import Move
from multiresnet.hvae.model import HVAE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Trace", "trace"]


@dataclass(frozen=True)
class Trace:
    """One number for each latent, coarse to fine, averaged over a batch.

    Args:
        level: of its resolution.
        state: root mean square of the state after the cell; it grows, and is the clock of cells that share weights.
        spread: standard deviation of the state between samples, root mean square over channels and space: 0 at a point.
        drift: root mean square of the cell's deterministic move.
        diffusion: of its random one.
        kl: nats; 0 along the prior.
        active: part of the latent's numbers, 0 to 1, that say something: the posterior's mean departs from the prior's by more
            than a tenth of the prior's standard deviation, in the root mean square of the batch.
    """

    level: tuple[int, ...]
    state: tuple[float, ...]
    spread: tuple[float, ...]
    drift: tuple[float, ...]
    diffusion: tuple[float, ...]
    kl: tuple[float, ...]
    active: tuple[float, ...]

    def kl_of_levels(self) -> dict[int, float]:
        """Nats of each resolution, coarsest first."""
        return {n: sum(kl for kl, level in zip(self.kl, self.level) if level == n) for n in dict.fromkeys(self.level)}

    def plot(self) -> Figure:
        """State, moves, cost and active latents along the chain; a line marks each change of resolution, with its sum of nats."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(12, 6), layout="constrained")
        axes = figure.subplots(2, 2)
        cells = range(1, len(self.level) + 1)
        panels: list[tuple[str, dict[str, Sequence[float]]]] = [
            ("state", {"root mean square": self.state, "spread between samples": self.spread}),
            ("moves (root mean square)", {"drift": self.drift, "diffusion": self.diffusion}),
            ("KL (nats)", {"": self.kl}),
            ("active part of the latent", {"": self.active}),
        ]
        for ax, (title, curves) in zip(axes.flatten(), panels):
            for place in (k for k in cells[:-1] if self.level[k] != self.level[k - 1]):
                ax.axvline(place + 0.5, color="0.8")
            for name, values in curves.items():
                if name:
                    ax.plot(cells, values, marker="o", markersize=3, label=name)
                else:
                    ax.bar(cells, values)
                    ax.set_ylim(0, 1.3 * max(values) or 1)
            ax.set(title=title, xlabel="cell")
            if len(curves) > 1:
                ax.legend()
        for level, nats in self.kl_of_levels().items():
            own = [cell for cell in cells if self.level[cell - 1] == level]
            place = axes[1, 0].get_xaxis_transform()
            axes[1, 0].text(
                (own[0] + own[-1]) / 2, 0.98, f"level {level}:\n{nats:.3g}", transform=place, ha="center", va="top"
            )
        return figure


@torch.no_grad()
def trace(
    model: HVAE,
    x: Tensor | None = None,
    emb: Emb | None = None,
    *,
    n: int = 64,
    generator: torch.Generator | None = None,
) -> Trace:
    """Walk along the posterior of x (N, in_channels, *size), N >= 2, or along the prior with `n` samples.

    Raises:
        ValueError: a single sample, which has no spread.
    """
    batch = n if x is None else len(x)
    if batch < 2:
        raise ValueError(f"a trace compares samples: give 2 or more, got {batch}")
    features = None if x is None else model.features(x, emb)
    return _collect(model, model.decoder.walk(batch, features, emb, generator=generator))


def _collect(model: HVAE, walk: Iterable[Move]) -> Trace:
    rows = []
    for move in walk:
        step = move.step
        drawn_from = step.posterior or step.prior
        noise = step.latent - drawn_from.loc
        if move.cell is not None:
            zero = torch.zeros_like(noise[:1])
            noise = move.cell.project_latent(noise) - move.cell.project_latent(zero)
        departure = (drawn_from.loc - step.prior.loc) / step.prior.scale
        active = departure.square().mean(0) > 0.01
        rows.append(
            (
                model.resolutions[move.resolution].level,
                _rms(step.state),
                float(step.state.var(0).mean().sqrt()),
                _rms(step.state - move.before - noise),
                _rms(noise),
                float(step.kl.mean()),
                float(active.float().mean()),
            )
        )
    return Trace(*zip(*rows))


def _rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())
