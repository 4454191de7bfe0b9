"""The hierarchical VAE on nested spaces: an encoder, a diffusion of two-step cells, and a likelihood (paper B)."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from multiresnet import pretrained
from multiresnet.checks import check_choice, check_input, check_positive, explain_typos
from multiresnet.context import Emb, check_emb
from multiresnet.hvae.cells import widened
from multiresnet.hvae.decoder import TopDownDecoder, grids_of
from multiresnet.hvae.encoders import LearnedEncoder, PyramidEncoder, fitted
from multiresnet.hvae.layout import LAYOUTS, Resolution, Share, check_order
from multiresnet.hvae.likelihoods import LikelihoodName, make_likelihood
from multiresnet.spaces import Haar
from multiresnet.spaces.base import Space

__all__ = ["HVAE", "Evidence"]


@dataclass(frozen=True)
class Evidence:
    """The evidence lower bound of a batch, in nats, and what it is made of.

    Args:
        log_likelihood: of the data given the last state, (N,).
        kl: the cost of each latent in the order of the decoder, coarse to fine, (N, latents).
    """

    log_likelihood: Tensor
    kl: Tensor

    @property
    def elbo(self) -> Tensor:
        """Lower bound of log p(x), (N,)."""
        return self.log_likelihood - self.kl.sum(1)


class HVAE(nn.Module):
    """Top-down hierarchical VAE whose cells are Euler steps of a diffusion through nested spaces (paper B, arXiv 2301.08187).

    The state starts at the coarsest space and walks through the cells of each resolution; at a change of resolution it is
    embedded into the finer space and the start of that one is added. With the defaults this is VDVAE (2011.10650).

    Cells that share weights are one cell that is repeated: r repeats are r steps of length 1/r, their noise is scaled by
    r**-0.5, so the number of cells is the accuracy of a discretisation and `refined` can change it.

    Args:
        in_channels: channels of the data.
        size: spatial size of the data.
        resolutions: finest first; the finest has level 0.
        space: what the data are; `None` is `Haar(2, "zeros")`.
        latent_channels: of each cell's latent.
        encoder: `"learned"`, VDVAE's, or `"pyramid"`, projections of the data without parameters.
        share: `"none"`; `"per_resolution"`, one cell and one encoder block for each resolution, beside those at changes of
            resolution; or how many in a row share their weights.
        likelihood: `"logistic"` for 8-bit values, `"bernoulli"` for black and white, `"gaussian"` for real numbers. Images
            are in [-1, 1].
        start: `"point"`, a learned constant, or `"gaussian"`, which is one latent more.
        normalise_state: divide the state by its root mean square after each cell. It takes the clock from cells that share
            weights, see the guide.
        time_embedding: tell cells how far in their run they are.
        emb_channels: length of the conditioning vector, 0 for none.

    Examples:
        >>> model = HVAE(1, size=(8, 8), resolutions=[Resolution(0, 16, cells=2), Resolution(2, 16)])
        >>> x = torch.zeros(2, 1, 8, 8)
        >>> model(x - 1).elbo.shape, model.sample(3).shape
        (torch.Size([2]), torch.Size([3, 1, 8, 8]))
    """

    @explain_typos
    def __init__(
        self,
        in_channels: int,
        *,
        size: Sequence[int],
        resolutions: Sequence[Resolution],
        space: Space | None = None,
        latent_channels: int = 16,
        encoder: Literal["learned", "pyramid"] = "learned",
        share: Share = "none",
        likelihood: LikelihoodName = "logistic",
        start: Literal["point", "gaussian"] = "point",
        normalise_state: bool = False,
        time_embedding: bool = False,
        emb_channels: int = 0,
    ) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, latent_channels=latent_channels)
        check_choice("encoder", encoder, ("learned", "pyramid"))
        check_choice("start", start, ("point", "gaussian"))
        resolutions = check_order([r if isinstance(r, Resolution) else Resolution(*r) for r in resolutions])
        if resolutions[0].level:
            raise ValueError(f"the finest resolution must have level 0, got {resolutions[0].level}")
        self.space = space if space is not None else Haar(2, "zeros")
        self.config: dict[str, Any] = {
            "build": "HVAE",
            "in_channels": in_channels,
            "size": tuple(size),
            "resolutions": tuple(astuple(r) for r in resolutions),
            "space": self.space,
            "latent_channels": latent_channels,
            "encoder": encoder,
            "share": share,
            "likelihood": likelihood,
            "start": start,
            "normalise_state": normalise_state,
            "time_embedding": time_embedding,
            "emb_channels": emb_channels,
        }
        self.in_channels, self.size, self.emb_channels = in_channels, tuple(size), emb_channels
        self.resolutions = resolutions
        grids = grids_of(self.space, self.size, resolutions)
        self.encoder: LearnedEncoder | PyramidEncoder
        if encoder == "learned":
            self.encoder = LearnedEncoder(
                self.space, in_channels, resolutions, grids, share=share, emb_channels=emb_channels
            )
        else:
            self.encoder = PyramidEncoder(self.space, in_channels, resolutions)
        self.decoder = TopDownDecoder(
            self.space,
            resolutions,
            self.encoder.feature_channels,
            grids,
            latent_channels=latent_channels,
            share=share,
            random_start=start == "gaussian",
            normalise_state=normalise_state,
            time_embedding=time_embedding,
            emb_channels=emb_channels,
        )
        channels, ones = resolutions[0].channels, (1,) * self.space.spatial_dims
        self.likelihood = make_likelihood(likelihood, in_channels)
        self.gain = nn.Parameter(torch.ones(1, channels, *ones))
        self.bias = nn.Parameter(torch.zeros(1, channels, *ones))
        self.head = self.space.conv(channels, self.likelihood.num_parameters, 1)

    @classmethod
    def vdvae(cls, name: str, *, share: Share = "none", **options: Any) -> HVAE:
        """A published size of VDVAE: `"cifar10"` (39,145,700 parameters), `"imagenet32"` (119,280,868), `"imagenet64"`
        (125,005,860). With `share="per_resolution"`: 8,744,356, 15,230,628 and 20,775,716.

        Args:
            name: of the layout, a key of `multiresnet.hvae.LAYOUTS`.
            share: as in the class.
            options: other arguments of the class.
        """  # noqa: D205
        check_choice("name", name, LAYOUTS)
        layout = LAYOUTS[name]
        return cls(
            **{"in_channels": 3, "size": layout.size, "resolutions": layout.resolutions, "share": share, **options}
        )

    def forward(
        self,
        x: Tensor,
        emb: Emb | None = None,
        *,
        refine: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Evidence:
        """The evidence lower bound of x (N, in_channels, *size), by one sample of the posterior.

        Args:
            x: the data.
            emb: (N, emb_channels).
            refine: factor of the number of steps, as in `refined`.
            generator: of the random numbers.

        Raises:
            ValueError: another size; in evaluation mode also values without a probability, see `likelihood.quantise`.
        """
        state, features = x, self.features(x, emb)
        if not self.training:
            self.likelihood.check(x)
        kl: list[Tensor] = []
        for move in self.decoder.walk(len(x), features, emb, refine=refine, generator=generator):
            state = move.step.state
            kl.append(move.step.kl)
        return Evidence(self.likelihood.log_prob(self.parameters_of(state), x), torch.stack(kl, 1))

    def features(self, x: Tensor, emb: Emb | None = None) -> list[Tensor]:
        """What the cells see of the data x (N, in_channels, *size): one tensor for each resolution, finest first."""
        dtype = next(self.parameters()).dtype
        check_input(x, in_channels=self.in_channels, spatial_dims=self.space.spatial_dims, dtype=dtype)
        if tuple(x.shape[2:]) != self.size:
            raise ValueError(
                f"the model was built for size={self.size}, got {tuple(x.shape[2:])}; resize or crop the data"
            )
        check_emb(emb, emb_channels=self.emb_channels, batch=len(x), tokens=False)
        return cast(list[Tensor], self.encoder(fitted(self.space, x, self.resolutions[-1].level), emb))

    def parameters_of(self, state: Tensor) -> Tensor:
        """Parameters of the likelihood, (N, likelihood.num_parameters, *size), from the last state."""
        return widened(self.space.unfit(self.head(state * self.gain + self.bias), self.size))

    @property
    def num_latents(self) -> int:
        """How many there are, one for each cell and one for a Gaussian start."""
        return self.decoder.num_latents

    def refined(self, factor: float) -> HVAE:
        """The same weights in `factor` times as many, and as much shorter, steps; cells at changes of resolution stay.

        Args:
            factor: > 0. Below 1 steps are coarser, which only cells that share weights can take: of r repeats there are
                `factor` r, rounded, one at least.
        """
        other = copy.copy(self)
        other._modules = {**self._modules, "decoder": self.decoder.refined(factor)}
        other.config = {}  # it has no weights of its own to save
        return other

    # ---- what it is for --------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        n: int,
        emb: Emb | None = None,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """New data, (n, in_channels, *size). `temperature` below 1 is closer to the mode."""
        check_positive(n=n)
        return self.decode((), emb, n=n, temperature=temperature, generator=generator)

    @torch.no_grad()
    def encode(self, x: Tensor, emb: Emb | None = None, *, generator: torch.Generator | None = None) -> list[Tensor]:
        """A sample of the posterior: latents, coarse to fine, each (N, channels, *grid)."""
        walk = self.decoder.walk(len(x), self.features(x, emb), emb, generator=generator)
        return [move.step.latent for move in walk]

    @torch.no_grad()
    def decode(
        self,
        latents: Sequence[Tensor],
        emb: Emb | None = None,
        *,
        n: int | None = None,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Data from latents, (N, in_channels, *size). If these are the first few only, the others are drawn from the prior.

        Args:
            latents: as `encode` returns them, or their beginning.
            emb: (N, emb_channels).
            n: number of samples; that of the latents, if there are any.
            temperature: of what is drawn.
            generator: of the random numbers.
        """
        if temperature < 0:
            raise ValueError(f"temperature must be >= 0, got {temperature}")
        if len(latents) > self.num_latents or (not len(latents) and n is None):
            raise ValueError(
                f"give 1 ... {self.num_latents} latents, as encode returns them, or the number of samples n; got {len(latents)}"
            )
        batch = len(latents[0]) if len(latents) else cast(int, n)
        if n not in (None, batch):
            raise ValueError(f"n={n}, but the latents are those of {batch} samples; leave n out")
        walk = self.decoder.walk(batch, None, emb, latents=latents, temperature=temperature, generator=generator)
        *_, last = walk
        parameters = self.parameters_of(last.step.state)
        return self.likelihood.sample(parameters, temperature=temperature, generator=generator)

    def reconstruct(self, x: Tensor, emb: Emb | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """The data x (N, in_channels, *size) after their latents, at their most likely."""
        return self.decode(self.encode(x, emb, generator=generator), emb, temperature=0.0)

    def progressive(
        self, x: Tensor, emb: Emb | None = None, *, generator: torch.Generator | None = None
    ) -> list[Tensor]:
        """What each resolution adds: x from its latents up to a resolution, coarsest first; finer latents are at their mean."""
        latents = self.encode(x, emb, generator=generator)
        return [self.decode(latents[:first], emb, temperature=0.0) for first in self.decoder.latents_by_resolution()]

    def interpolate(
        self, a: Tensor, b: Tensor, count: int, emb: Emb | None = None, *, generator: torch.Generator | None = None
    ) -> list[Tensor]:
        """`count` >= 2 steps from a to b, both (N, in_channels, *size), through their latents; ends are reconstructions."""
        if count < 2:
            raise ValueError(f"count must be >= 2, got {count}")
        if a.shape != b.shape:
            raise ValueError(f"a and b must have one shape, got {tuple(a.shape)} and {tuple(b.shape)}")
        first, last = self.encode(a, emb, generator=generator), self.encode(b, emb, generator=generator)
        weights = [k / (count - 1) for k in range(count)]
        return [
            self.decode([torch.lerp(u, v, weight) for u, v in zip(first, last)], emb, temperature=0.0)
            for weight in weights
        ]

    @torch.no_grad()
    def log_likelihood(
        self, x: Tensor, emb: Emb | None = None, *, samples: int = 1, generator: torch.Generator | None = None
    ) -> Tensor:
        """Importance-weighted lower bound of log p(x) in nats, (N,); it rises to log p(x) with `samples` (1509.00519)."""
        check_positive(samples=samples)
        features, weights = self.features(x, emb), []
        self.likelihood.check(x)
        for _ in range(samples):
            state, weight = x, torch.zeros(len(x), dtype=x.dtype, device=x.device)
            for move in self.decoder.walk(len(x), features, emb, generator=generator):
                state, weight = move.step.state, weight + move.step.log_ratio
            weights.append(weight + self.likelihood.log_prob(self.parameters_of(state), x))
        return torch.logsumexp(torch.stack(weights), 0) - math.log(samples)

    def bits_per_dim(self, nats: Tensor) -> Tensor:
        """Bits for each value of the data, from log-likelihoods or bounds in nats."""
        return -nats / (math.log(2) * self.in_channels * math.prod(self.size))

    def save_pretrained(self, folder: pretrained.Folder) -> None:
        """Write `config.json` and `model.safetensors` into `folder`; see `multiresnet.pretrained`."""
        pretrained.save(self, self.config, folder)

    @classmethod
    def from_pretrained(cls, folder: pretrained.Folder) -> HVAE:
        """Read a model that `save_pretrained` wrote."""
        return pretrained.load(cls, folder)
