"""The decoder: cells that carry a state from a point of the coarsest space to a function of the finest."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from multiresnet.context import Emb, check_emb
from multiresnet.embeddings import Conditioning
from multiresnet.hvae.cells import Step, TwoStepCell, given_or_drawn, widened
from multiresnet.hvae.encoders import fitted, kernel_size, resize_channels
from multiresnet.hvae.layout import Resolution, Share, runs
from multiresnet.spaces.base import Space

__all__ = ["Move", "TopDownDecoder", "grids_of"]


@dataclass(frozen=True)
class Move:
    """One cell's part of the way from the start to the data.

    Args:
        resolution: where, an index of `HVAE.resolutions`.
        before: the state that the cell was given.
        step: what it did.
        cell: which it was; `None` is the Gaussian start.
    """

    resolution: int
    before: Tensor
    step: Step
    cell: TwoStepCell | None


class TopDownDecoder(nn.Module):
    """Cells, coarse to fine; see `HVAE`, whose arguments it takes. `walk` is its forward pass.

    Args:
        feature_channels: of the encoder, for each resolution.
        grids: of the levels, see `grids_of`.
        random_start: whether the start is a latent.
    """

    def __init__(
        self,
        space: Space,
        resolutions: Sequence[Resolution],
        feature_channels: Sequence[int],
        grids: Sequence[tuple[int, ...]],
        *,
        latent_channels: int,
        share: Share,
        random_start: bool,
        normalise_state: bool,
        time_embedding: bool,
        emb_channels: int,
    ) -> None:
        super().__init__()
        self.space, self.resolutions, self.grids = space, tuple(resolutions), grids
        self.normalise_state, self.emb_channels = normalise_state, emb_channels
        width = emb_channels or (64 if time_embedding else 0)
        self.time = Conditioning(width, noise=True) if time_embedding else None
        last = len(resolutions) - 1
        self.runs = [
            runs(r.cells, share) if i == last else (1, *runs(r.cells - 1, share)) for i, r in enumerate(resolutions)
        ]
        count = sum(map(len, self.runs))
        self.cells = nn.ModuleList(
            nn.ModuleList(
                TwoStepCell.of_bottlenecks(
                    space,
                    r.channels,
                    features,
                    latent_channels=latent_channels,
                    hidden=r.hidden,
                    kernel_size=kernel_size(grids[r.level]),
                    scale=count**-0.5,
                    emb_channels=width,
                )
                for _ in lengths
            )
            for r, features, lengths in zip(resolutions, feature_channels, self.runs)
        )
        # as VDVAE has them: up to 64 x 64 learned for each place, finer ones zero
        self.starts = nn.ParameterList(
            nn.Parameter(torch.zeros(1, r.channels, *grids[r.level]))
            for r in resolutions
            if math.prod(grids[r.level]) <= 64**2
        )
        coarsest = resolutions[-1]
        self.random_start = (
            _GaussianStart(space, feature_channels[-1], coarsest.channels, grids[coarsest.level])
            if random_start
            else None
        )

    def walk(
        self,
        batch: int,
        features: Sequence[Tensor] | None = None,
        emb: Emb | None = None,
        *,
        refine: float = 1.0,
        latents: Sequence[Tensor] = (),
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Iterator[Move]:
        """The moves from the start to the last state: of the posterior if there are features, else of the prior.

        Args:
            batch: number of samples.
            features: of `features`.
            emb: (batch, emb_channels).
            refine: see `runs_at`.
            latents: for the first cells; the others draw theirs.
            temperature: factor of the standard deviations of what is drawn.
            generator: of the random numbers.
        """
        check_emb(emb, emb_channels=self.emb_channels, batch=batch, tokens=False)
        given, x, lengths = iter(latents), None, self.runs_at(refine)
        for i in reversed(range(len(self.resolutions))):
            x, seen = self._enter(i, x, batch), None if features is None else features[i]
            if self.random_start is not None and i == len(self.resolutions) - 1:
                step = self.random_start(x, seen, next(given, None), temperature, generator)
                yield Move(i, x, step, None)
                x = step.state
            for cell, repeats in zip(cast(Sequence[TwoStepCell], self.cells[i]), lengths[i]):
                for k in range(repeats):
                    step = cell(
                        x,
                        seen,
                        self._at(emb, k / repeats, x),
                        latent=next(given, None),
                        step=1 / repeats,
                        temperature=temperature,
                        generator=generator,
                    )
                    if self.normalise_state:
                        step = replace(step, state=_normalised(step.state))
                    yield Move(i, x, step, cell)
                    x = step.state

    def _enter(self, i: int, x: Tensor | None, batch: int) -> Tensor:
        """The start of resolution i, and the state of the coarser one embedded."""
        level, channels = self.resolutions[i].level, self.resolutions[i].channels
        first = len(self.resolutions) - len(self.starts)
        zero = next(self.parameters()).new_zeros(())
        start = self.starts[i - first] if i >= first else zero.expand(1, channels, *self.grids[level])
        start = start.expand(batch, *start.shape[1:])
        if x is None:
            return start
        x = resize_channels(x, channels)
        for finer in range(self.resolutions[i + 1].level - 1, level - 1, -1):
            x = self.space.embed(x, self.grids[finer], finer)
        return start + x

    def _at(self, emb: Emb | None, time: float, x: Tensor) -> Emb | None:
        """The conditioning of a cell that is so far in its run, 0 to 1."""
        if self.time is None:
            return emb
        at: Tensor = self.time(noise=torch.full((len(x),), 1000 * time, device=x.device))
        return at if emb is None else at + cast(Tensor, emb)

    @property
    def num_latents(self) -> int:
        """How many there are."""
        return self.latents_by_resolution()[-1]

    def latents_by_resolution(self) -> list[int]:
        """How many latents there are down to each resolution, coarsest first."""
        counts = [sum(lengths) for lengths in reversed(self.runs)]
        return list(itertools.accumulate(counts, initial=int(self.random_start is not None)))[1:]

    def runs_at(self, factor: float) -> list[tuple[int, ...]]:
        """`runs` with `factor` times as many steps, rounded, one at least; cells at changes of resolution stay single.

        Raises:
            ValueError: no positive number.
        """
        if not (isinstance(factor, (int, float)) and 0 < factor < math.inf):
            raise ValueError(f"the factor of the number of steps must be a positive number, got {factor!r}")
        last = len(self.runs) - 1
        return [
            tuple(n if i < last and k == 0 else max(round(factor * n), 1) for k, n in enumerate(lengths))
            for i, lengths in enumerate(self.runs)
        ]

    def refined(self, factor: float) -> TopDownDecoder:
        """See `HVAE.refined`."""
        other = copy.copy(self)
        other.runs = self.runs_at(factor)
        return other


class _GaussianStart(nn.Module):
    """A first latent as large as the state, with a learned prior, and a posterior from the coarsest features."""

    def __init__(self, space: Space, feature_channels: int, channels: int, grid: Sequence[int]) -> None:
        super().__init__()
        self.log_std = nn.Parameter(torch.zeros(1, channels, *grid))
        self.posterior = space.conv(feature_channels, 2 * channels, 1)

    def forward(
        self,
        mean: Tensor,
        features: Tensor | None,
        latent: Tensor | None,
        temperature: float,
        generator: torch.Generator | None,
    ) -> Step:
        prior = Normal(mean, self.log_std.exp().expand_as(mean), validate_args=False)
        posterior = None
        if features is not None:
            center, log_std = widened(self.posterior(features)).chunk(2, 1)
            posterior = Normal(center, log_std.exp(), validate_args=False)
        latent = given_or_drawn(latent, posterior or prior, temperature, generator)
        return Step(latent, latent, prior, posterior)


def grids_of(space: Space, size: Sequence[int], resolutions: Sequence[Resolution]) -> list[tuple[int, ...]]:
    """The grid of each level down to the coarsest resolution, finest first.

    Raises:
        ValueError: a level below that of a single cell.
    """
    depth = resolutions[-1].level
    x = fitted(space, torch.zeros(1, 1, *size, device="cpu"), depth)
    grids = [tuple(x.shape[2:])]
    for level in range(depth):
        x = space.project(x, level)
        grids.append(tuple(x.shape[2:]))
        if grids[-1] == grids[-2]:
            raise ValueError(
                f"there is no level {depth}: data of size {tuple(size)} are a single cell at level {level}"
            )
    return grids


def _normalised(x: Tensor) -> Tensor:
    """Over the root mean square of each sample."""
    return x / (x.square().flatten(1).mean(1).sqrt() + 1e-6).view(-1, *(1,) * (x.ndim - 1))
