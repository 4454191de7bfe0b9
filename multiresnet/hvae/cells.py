"""The cell of a hierarchical VAE: two Euler steps of a diffusion (paper B), the first of them random."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional as F

from multiresnet.context import Emb
from multiresnet.layers import FiLM, zero_init
from multiresnet.spaces.base import Space

__all__ = ["Bottleneck", "Step", "TwoStepCell", "draw", "given_or_drawn", "widened"]


class Bottleneck(nn.Module):
    """VDVAE's block without its residual path: 1-wide, two 3-wide and a 1-wide convolution, each after GELU.

    Shape:
        (N, in_channels, *grid) -> (N, out_channels, *grid).
    """

    def __init__(
        self,
        space: Space,
        in_channels: int,
        out_channels: int,
        *,
        hidden: int,
        kernel_size: int = 3,
        scale: float = 1.0,
        emb_channels: int = 0,
    ) -> None:
        super().__init__()
        self.conv1 = space.conv(in_channels, hidden, 1)
        self.film = FiLM(hidden, emb_channels)
        self.conv2, self.conv3 = (space.conv(hidden, hidden, kernel_size) for _ in range(2))
        self.conv4 = space.conv(hidden, out_channels, 1)
        if scale == 0:
            zero_init(self.conv4)
        else:
            rescale(self.conv4, scale)

    def forward(self, x: Tensor, emb: Emb | None = None) -> Tensor:
        h = self.film(self.conv1(F.gelu(x)), emb)
        h = self.conv3(F.gelu(self.conv2(F.gelu(h))))
        return cast(Tensor, self.conv4(F.gelu(h)))


@dataclass(frozen=True)
class Step:
    """What a cell did.

    Args:
        state: after both Euler steps, (N, channels, *grid).
        latent: the increment that was drawn or given, (N, latent_channels, *grid).
        prior: of the latent.
        posterior: of the latent, where the cell saw features.
    """

    state: Tensor
    latent: Tensor
    prior: Normal
    posterior: Normal | None

    @property
    def kl(self) -> Tensor:
        """Divergence of posterior from prior in nats, (N,): the cost of the latent. Zero without a posterior."""
        if self.posterior is None:
            return self.latent.new_zeros(len(self.latent))
        # torch.distributions.kl_divergence looks its formula up in a way that torch.compile cannot trace
        ratio = self.posterior.scale / self.prior.scale
        distance = (self.posterior.loc - self.prior.loc) / self.prior.scale
        nats: Tensor = (ratio.square() + distance.square() - 1) / 2 - ratio.log()
        return nats.flatten(1).sum(1)

    @property
    def log_ratio(self) -> Tensor:
        """Log-density of the latent under the prior less that under the posterior, (N,), for importance weights."""
        if self.posterior is None:
            return self.latent.new_zeros(len(self.latent))
        ratio: Tensor = self.prior.log_prob(self.latent) - self.posterior.log_prob(self.latent)
        return ratio.flatten(1).sum(1)


class TwoStepCell(nn.Module):
    """`x <- x + h drift(x) + W z`, then `x <- x + h residual(x)`: Euler-Maruyama and Euler steps of length h.

    The prior of the increment is z ~ N(h m, h s^2), the posterior N(h m', ...). With h = 1 this is VDVAE's cell to the
    letter. A cell that is repeated r times with h = 1/r runs through the same time in finer steps, and tends to a diffusion.

    For the divergence to stay bounded as h falls, the posterior's variance must tend to the prior's: its precision is
    ((1 - h) / s^2 + h / s'^2) / h, as in a Brownian bridge that is stopped in time, and the network's own 1 / s'^2 at h = 1.

    Args:
        prior: (N, channels, *grid), emb -> (N, 2 latent_channels + channels, *grid): m, log s, and the drift.
        posterior: of state and features, (N, channels + feature channels, *grid), emb -> (N, 2 latent_channels, *grid).
        project_latent: W, linear, (N, latent_channels, *grid) -> (N, channels, *grid).
        residual: (N, channels, *grid), emb -> the same shape.
        latent_channels: of z.
    """

    def __init__(
        self,
        prior: nn.Module,
        posterior: nn.Module,
        project_latent: nn.Module,
        residual: nn.Module,
        *,
        latent_channels: int,
    ) -> None:
        super().__init__()
        self.prior, self.posterior, self.project_latent, self.residual = prior, posterior, project_latent, residual
        self.latent_channels = latent_channels

    @classmethod
    def of_bottlenecks(
        cls,
        space: Space,
        channels: int,
        feature_channels: int,
        *,
        latent_channels: int,
        hidden: int,
        kernel_size: int,
        scale: float,
        emb_channels: int,
    ) -> TwoStepCell:
        """VDVAE's: four `Bottleneck`s; the prior's last convolution is zero, those into the state are scaled by `scale`."""

        def block(in_channels: int, out_channels: int, scale: float) -> Bottleneck:
            return Bottleneck(
                space,
                in_channels,
                out_channels,
                hidden=hidden,
                kernel_size=kernel_size,
                scale=scale,
                emb_channels=emb_channels,
            )

        project = space.conv(latent_channels, channels, 1)
        rescale(project, scale)
        return cls(
            block(channels, 2 * latent_channels + channels, 0.0),
            block(channels + feature_channels, 2 * latent_channels, 1.0),
            project,
            block(channels, channels, scale),
            latent_channels=latent_channels,
        )

    def forward(
        self,
        x: Tensor,
        features: Tensor | None = None,
        emb: Emb | None = None,
        *,
        latent: Tensor | None = None,
        step: float = 1.0,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Step:
        """The state after the cell.

        Args:
            x: (N, channels, *grid).
            features: (N, feature channels, *grid); the latent is then drawn from the posterior, else from the prior.
            emb: conditioning vector.
            latent: to be used in place of a drawn one.
            step: h.
            temperature: factor of the standard deviation of what is drawn.
            generator: of the random numbers.
        """
        z = self.latent_channels
        mean, log_std, drift = widened(self.prior(x, emb)).split([z, z, x.shape[1]], 1)
        prior = Normal(step * mean, step**0.5 * log_std.exp(), validate_args=False)
        posterior = None
        if features is not None:
            mean, own = widened(self.posterior(torch.cat([x, features], 1), emb)).split([z, z], 1)
            if step != 1:
                own = -torch.logaddexp(-2 * own, -2 * log_std + math.log((1 - step) / step)) / 2
            posterior = Normal(step * mean, own.exp(), validate_args=False)
        latent = given_or_drawn(latent, posterior or prior, temperature, generator)
        x = x + step * drift + self.project_latent(latent)
        return Step(x + step * self.residual(x, emb), latent, prior, posterior)


def widened(x: Tensor) -> Tensor:
    """At least float32: probabilities are sums over thousands of numbers."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def given_or_drawn(
    latent: Tensor | None, normal: Normal, temperature: float, generator: torch.Generator | None
) -> Tensor:
    """The latent, if there is one, else a draw.

    Raises:
        ValueError: a latent of another shape.
    """
    if latent is None:
        return draw(normal, temperature, generator)
    if latent.shape != normal.loc.shape:
        raise ValueError(
            f"a latent has the shape {tuple(latent.shape)}, this cell's is {tuple(normal.loc.shape)}; "
            "give latents in the order and shapes that `encode` of the same model returns"
        )
    return latent


def draw(normal: Normal, temperature: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
    """A sample with its standard deviation times `temperature`; reproducible on every device if a generator is given."""
    mean, std = normal.loc, normal.scale
    if temperature == 0:
        return mean
    if generator is None:
        noise = torch.randn_like(mean)
    else:
        noise = torch.randn(mean.shape, generator=generator, device=generator.device, dtype=mean.dtype).to(mean.device)
    return mean + temperature * std * noise


@torch.no_grad()
def rescale(module: nn.Module, scale: float) -> None:
    """Multiply the weights of a convolution; its bias, which VDVAE starts at zero, is set to it."""
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            parameter.mul_(scale)
        elif name.endswith("bias"):
            parameter.zero_()
