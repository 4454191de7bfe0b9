"""One step of any discrete wavelet transform along an axis, with as many coefficients as samples, at every length.

PyWavelets returns more coefficients than samples where an axis is not periodic, and what it returns at the ends is redundant.
Here a step keeps `ceil(n / 2)` averages and `floor(n / 2)` details: the rows whose filters lie over the axis when each filter
is aligned by the centre of its energy. These rows are what PyWavelets computes with the same extension of the signal; the square
matrix that they form is well conditioned for every wavelet and rule (aligned by their middles, those of `db10` are not), so
that its inverse is the exact synthesis. On a periodic axis of even length they are PyWavelets' "periodization", rotated.

Convention: *mean*, PyWavelets' filters divided by sqrt(2), so that averages of a constant are that constant.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from itertools import product

import numpy as np
import pywt
import torch
from numpy.typing import NDArray
from torch import Tensor

from multiresnet.checks import check_choice
from multiresnet.spaces.boundary import Rule, boundary_index, pad_axis

Pair = tuple[Rule, Rule]  # rules of the lower and of the upper side
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Filters:
    """A wavelet along an axis: coefficient k of the band b is `sum_j taps[b][j] x[2 k + offsets[b] - j]`.

    Args:
        taps: of the averages and of the details.
        back: likewise for the synthesis, `x[i] = sum_b sum_k back[b][i - 2 k - offsets[b] + length - 1] c_b[k]`.
        offsets: of both bands; their difference is even.
    """

    taps: tuple[Matrix, Matrix]
    back: tuple[Matrix, Matrix]
    offsets: tuple[int, int]

    @property
    def length(self) -> int:
        """Number of taps."""
        return len(self.taps[0])

    @functools.cached_property
    def perfect(self) -> bool:
        """Whether `back` undoes `taps`. The filters of "dmey" are cut off and do not."""
        both = sum(np.convolve(taps, back) for taps, back in zip(self.taps, self.back))
        return bool(np.allclose(both, 2 * np.eye(1, 2 * self.length - 1, self.length - 1), rtol=0, atol=1e-9))


@functools.cache
def filters(name: str, rules: Pair) -> Filters:
    """The filters of PyWavelets' wavelet `name`, aligned for an axis with these rules.

    Raises:
        ValueError: PyWavelets has no discrete wavelet of that name.
    """
    check_choice("name", name, pywt.wavelist(kind="discrete"))
    wavelet = pywt.Wavelet(name)
    taps, back = (
        tuple(np.array(filt) * scale for filt in pair)
        for pair, scale in (
            ((wavelet.dec_lo, wavelet.dec_hi), np.sqrt(0.5)),
            ((wavelet.rec_lo, wavelet.rec_hi), np.sqrt(2)),
        )
    )
    centres = [0.5 + np.average(np.arange(len(filt)), weights=filt**2) for filt in taps]
    near = [[int(np.floor(centre)) + shift for shift in (-1, 0, 1, 2)] for centre in centres]
    choices = [Filters(taps, back, (low, high)) for low, high in product(*near) if (low - high) % 2 == 0]

    def rank(choice: Filters) -> tuple[float, float]:
        worst = max(np.linalg.cond(_rows(choice, rules, size)) for size in (2 * choice.length, 2 * choice.length + 1))
        return round(float(worst), 6), sum(abs(offset - centre) for offset, centre in zip(choice.offsets, centres))

    return min(choices, key=rank)


def _rows(filters: Filters, rules: Pair, size: int) -> Matrix:
    """The analysis of `size` samples as a matrix, averages first."""
    rows = np.zeros((size, size))
    reach = 3 * filters.length
    source = boundary_index(size, reach, reach, rules, torch.device("cpu")).numpy()
    for band, count in enumerate(((size + 1) // 2, size // 2)):
        first = 0 if band == 0 else (size + 1) // 2
        k, j = np.arange(count)[:, None], np.arange(len(filters.taps[band]))
        np.add.at(rows, (first + k, source[2 * k + filters.offsets[band] - j + reach]), filters.taps[band])
    return rows


@functools.cache
def _inverse(name: str, rules: Pair, size: int) -> Matrix:
    """The synthesis of `size` samples as a matrix: samples x (averages, then details)."""
    return np.asarray(np.linalg.inv(_rows(filters(name, rules), rules, size)))


def project(x: Tensor, axis: int, name: str, rules: Pair) -> Tensor:
    """The averages along the tensor dimension `axis`, `ceil(n / 2)` of them."""
    return _down(x, axis, filters(name, rules), 0, rules)


def analysis(x: Tensor, axis: int, name: str, rules: Pair) -> tuple[Tensor, Tensor]:
    """`(averages, details)` along the tensor dimension `axis`, `ceil(n / 2)` of both; of an odd axis the last detail is zero."""
    found = filters(name, rules)
    return _down(x, axis, found, 0, rules), _down(x, axis, found, 1, rules)


def _down(x: Tensor, axis: int, found: Filters, band: int, rules: Pair) -> Tensor:
    size, offset, taps = x.shape[axis], found.offsets[band], found.taps[band]
    count = (size + 1 - band) // 2
    if not count:  # one sample has no detail
        return torch.zeros_like(x)
    lower, upper = max(len(taps) - 1 - offset, 0), max(2 * count - 1 + offset - size, 0)
    # in a wavelet transform of data, what lies outside is never nothing: constants stay constants
    outside: Pair = tuple("replicate" if rule == "zeros" else rule for rule in rules)  # type: ignore[assignment]
    x = pad_axis(x, axis, lower, upper, outside)
    # sums of slices: unlike a convolution they keep nothing for the backward pass
    steps = [(float(tap), lower + offset - j) for j, tap in enumerate(taps) if tap]
    terms = [(tap, x[(slice(None),) * axis + (slice(start, start + 2 * count - 1, 2),)]) for tap, start in steps]
    coefficients = _combine(terms)
    if band and size % 2:  # no detail over the last sample
        coefficients = torch.cat([coefficients, torch.zeros_like(x.narrow(axis, 0, 1))], axis)
    return coefficients


def synthesis(approximation: Tensor, detail: Tensor | None, axis: int, size: int, name: str, rules: Pair) -> Tensor:
    """Exact inverse of `analysis` for `size` samples; `detail=None` stands for zeros."""
    found = filters(name, rules)
    bands = [approximation] if detail is None else [approximation, detail.narrow(axis, 0, size // 2)]
    reach = found.length + 2  # of the ends, in samples and in coefficients
    if size < 4 * reach or not found.perfect:
        matrix = _inverse(name, rules, size)[:, : sum(band.shape[axis] for band in bands)]
        return _apply(matrix, torch.cat(bands, axis), axis)
    # Inside, the filters; at the ends, rows of the inverse, which see the first and last coefficients, and which are the same
    # for all long axes of one parity.
    short = 4 * reach + size % 2
    corners = [np.r_[0:reach, n - reach : n] for n in (short, (short + 1) // 2, short // 2)]
    columns = np.concatenate([corners[1], (short + 1) // 2 + corners[2]][: len(bands)])
    matrix = _inverse(name, rules, short)[corners[0]][:, columns]
    ends = [band.narrow(axis, start, reach) for band in bands for start in (0, band.shape[axis] - reach)]
    lower, upper = _apply(matrix, torch.cat(ends, axis), axis).split(reach, axis)
    return torch.cat([lower, _inside(bands, found, axis, reach, size - reach), upper], axis)


def _inside(bands: list[Tensor], found: Filters, axis: int, start: int, stop: int) -> Tensor:
    """Samples `start` (even) to `stop` of the synthesis, where all coefficients that they need are there."""
    phases = []
    for sample in (start, start + 1):
        count = (stop - sample + 1) // 2
        terms = []
        for band, offset, taps in zip(bands, found.offsets, found.back):
            for j, tap in enumerate(taps):
                first = sample - offset + found.length - 1 - j  # twice the coefficient that meets this tap
                if tap and first % 2 == 0:
                    terms.append((float(tap), band.narrow(axis, first // 2, count)))
        phases.append(_combine(terms))
    even, odd = phases
    last = even.narrow(axis, odd.shape[axis], even.shape[axis] - odd.shape[axis])  # one sample, or none
    pairs = torch.stack([even.narrow(axis, 0, odd.shape[axis]), odd], axis + 1).flatten(axis, axis + 1)
    return torch.cat([pairs, last], axis)


def _combine(terms: list[tuple[float, Tensor]]) -> Tensor:
    (factor, first), *others = terms
    total = factor * first
    for factor, term in others:
        total = torch.add(total, term, alpha=factor)
    return total


def _apply(matrix: Matrix, x: Tensor, axis: int) -> Tensor:
    """`matrix @ x` along an axis."""
    weights = torch.from_numpy(matrix).to(x)
    return torch.movedim(torch.movedim(x, axis, -1) @ weights.T, -1, axis)
