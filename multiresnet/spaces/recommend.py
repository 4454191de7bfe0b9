"""Is Haar a good basis for my data? How much of them each wavelet keeps at each level."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from multiresnet.checks import check_positive
from multiresnet.spaces.boundary import Boundary
from multiresnet.spaces.wavelet import Wavelet

WAVELETS = ("haar", "db2", "db4", "sym4", "coif1", "coif2", "bior2.2", "bior4.4")
MARGIN = 0.8  # a longer wavelet costs time: it must lose that much less to be worth it


@dataclass(frozen=True)
class Recommendation:
    """What `recommend` found; `print` shows the table.

    Args:
        lost: for each wavelet the part of the variance that its averages have lost, by level, finest first.
        best: the wavelet to take: "haar", unless another loses less than 0.8 times as much, in the geometric mean over the levels.
    """

    lost: Mapping[str, tuple[float, ...]]
    best: str

    def __str__(self) -> str:
        levels = range(1, len(self.lost[self.best]) + 1)
        lines = [f"{'variance lost at level':24}" + "".join(f"{level:>9}" for level in levels)]
        for name, values in self.lost.items():
            mark = " <" if name == self.best else ""
            lines.append(f"{name:24}" + "".join(f"{value:>9.2%}" for value in values) + mark)
        return "\n".join(lines)

    def plot(self, ax: Any) -> None:
        """Draw the table on axes of matplotlib: the part of the variance lost against the level."""
        for name, values in self.lost.items():
            width = 2.5 if name == self.best else 1.0
            ax.semilogy(range(1, len(values) + 1), values, marker="o", lw=width, label=name)
        ax.set_xlabel("level (2**level samples per cell)")
        ax.set_ylabel("part of the variance lost")
        ax.set_xticks(range(1, len(self.lost[self.best]) + 1))
        ax.legend()


def recommend(
    data: Tensor, *, boundary: Boundary = "replicate", depth: int = 4, wavelets: Sequence[str] = WAVELETS
) -> Recommendation:
    """Compare wavelets on data of your own: what a coarse level still knows of a field.

    A coarse level of a network sees averages. What they have lost, it must get from details, or not at all. Smooth data lose less
    in longer wavelets; data with jumps, and noise, do not.

    Args:
        data: (N, C, *spatial) in 1, 2 or 3 dimensions, real data, a few dozen samples.
        boundary: as in `multiresnet.spaces.Haar`.
        depth: levels to look at; the sizes should be a few times 2**depth.
        wavelets: names of PyWavelets; "haar" is always compared.

    Raises:
        ValueError: not (N, C, *spatial), not floating point, constant or not finite data, too few samples for the depth.

    Examples:
        >>> import torch
        >>> t = torch.linspace(0, 1, 64)
        >>> recommend(torch.sin(6 * t).view(1, 1, -1), depth=3, wavelets=("db2", "db4")).best
        'db4'
        >>> recommend((t > 0.43).float().view(1, 1, -1), depth=3, wavelets=("db2", "db4")).best
        'haar'
    """
    check_positive(depth=depth)
    if data.ndim not in (3, 4, 5) or not data.is_floating_point():
        raise ValueError(f"expected floating (N, C, *spatial) with 1 to 3 axes, got {data.dtype} {tuple(data.shape)}")
    if min(data.shape[2:]) < 2**depth:
        raise ValueError(f"depth={depth} needs at least {2**depth} samples on each axis, got {tuple(data.shape[2:])}")
    x = data.double()
    x = x - x.flatten(2).mean(2)[(..., *(None,) * (x.ndim - 2))]
    variance = float(x.square().mean())
    if not 0 < variance < math.inf:
        raise ValueError("the data are constant, or not finite: there is nothing to compare")
    names = list(dict.fromkeys(("haar", *wavelets)))
    lost = {name: _lost(x, Wavelet(name, x.ndim - 2, boundary), depth, variance) for name in names}
    scores = {name: math.exp(sum(math.log(max(v, 1e-12)) for v in values) / depth) for name, values in lost.items()}
    best = min(scores, key=scores.__getitem__)
    return Recommendation(lost, best if scores[best] < MARGIN * scores["haar"] else "haar")


def _lost(x: Tensor, space: Wavelet, depth: int, variance: float) -> tuple[float, ...]:
    found, sizes, w = [], [], x
    for level in range(depth):
        sizes.append(w.shape[2:])
        w = space.project(w, level)
        kept = w
        for finer in reversed(range(level + 1)):
            kept = space.embed(kept, sizes[finer], finer)
        found.append(float((x - kept).square().mean()) / variance)
    return tuple(found)
