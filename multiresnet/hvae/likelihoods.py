"""Distributions of the data given the last state, from the channels that a network puts out."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from multiresnet.checks import check_choice, check_positive

__all__ = [
    "LIKELIHOODS",
    "Bernoulli",
    "DiscretizedLogisticMixture",
    "Gaussian",
    "Likelihood",
    "LikelihoodName",
    "make_likelihood",
]

LikelihoodName = Literal["logistic", "bernoulli", "gaussian"]


class Likelihood(ABC):
    """A distribution of (N, channels, *space), independent over space, with `num_parameters` channels of parameters."""

    num_parameters: int
    discrete: bool = True  # whether log-probabilities are those of values, not densities

    def __init__(self, channels: int) -> None:
        check_positive(channels=channels)
        self.channels = channels

    @abstractmethod
    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """(N, num_parameters, *space), (N, channels, *space) -> nats, (N,)."""

    @abstractmethod
    def sample(
        self, parameters: Tensor, *, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """(N, num_parameters, *space) -> (N, channels, *space). Temperature 0 is the most likely value, or nearly."""

    def quantise(self, x: Tensor) -> Tensor:
        """The nearest data that have a probability; `x` in [-1, 1]."""
        return x

    def check(self, x: Tensor) -> None:  # noqa: B027 (nothing to refuse unless a likelihood says so)
        """Raise `ValueError` for data that have no probability."""


class Bernoulli(Likelihood):
    """Black and white, -1 and 1, by one logit for each pixel and channel."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.num_parameters = channels

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        return F.logsigmoid(parameters * x).flatten(1).sum(1)

    def sample(
        self, parameters: Tensor, *, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        if temperature == 0:
            return torch.where(parameters >= 0, 1.0, -1.0).to(parameters)
        u = _uniform(parameters.shape, parameters, generator)
        return torch.where(u < torch.sigmoid(parameters / temperature), 1.0, -1.0).to(parameters)

    def quantise(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, 1.0, -1.0).to(x)

    def check(self, x: Tensor) -> None:
        if bool((x.abs() != 1).any()):
            raise ValueError(
                "a Bernoulli likelihood wants black and white, -1 and 1, got values in between "
                f"({float(x.min()):.4g} ... {float(x.max()):.4g}); use likelihood.quantise(x), or likelihood='logistic'"
            )


class Gaussian(Likelihood):
    """Real values with a mean and a log standard deviation for each; log-probabilities are densities."""

    discrete = False

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.num_parameters = 2 * channels

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        mean, log_std = parameters.chunk(2, 1)
        nats = -(((x - mean) * (-log_std).exp()).square() + math.log(2 * math.pi)) / 2 - log_std
        return nats.flatten(1).sum(1)

    def sample(
        self, parameters: Tensor, *, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        mean, log_std = parameters.chunk(2, 1)
        device = generator.device if generator is not None else mean.device
        noise = torch.randn(mean.shape, generator=generator, device=device, dtype=mean.dtype).to(mean.device)
        return mean + temperature * log_std.exp() * noise


class DiscretizedLogisticMixture(Likelihood):
    """8-bit values, -1 ... 1 in steps of 2 / 255: a mixture of logistic distributions, integrated over each step (1701.05517).

    A channel's mean depends linearly on the channels before it, as in PixelCNN++ and VDVAE. The outermost steps take the
    tails, so the probabilities of the 256 values sum to one. Parameters of a component: its logit, then means, log scales
    and the coefficients of earlier channels.
    """

    def __init__(self, channels: int, components: int = 10) -> None:
        super().__init__(channels)
        check_positive(components=components)
        self.components, self.pairs = components, channels * (channels - 1) // 2
        self.num_parameters = components * (1 + 2 * channels + self.pairs)

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        logits, means, log_scales, coefficients = self._split(parameters)
        means = torch.stack([self._shifted(c, means, coefficients, x[:, None]) for c in range(self.channels)], 2)
        inverse = (-log_scales).exp()
        upper, lower = ((x[:, None] - means + side / 255) * inverse for side in (1, -1))
        # sigmoid(upper) - sigmoid(lower) without cancellation
        inside = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-2 / 255 * inverse))
        first, last = x[:, None] < -1 + 1 / 255, x[:, None] > 1 - 1 / 255
        nats = torch.where(first, F.logsigmoid(upper), torch.where(last, F.logsigmoid(-lower), inside)).sum(2)
        return torch.logsumexp(nats + logits.log_softmax(1), 1).flatten(1).sum(1)

    def sample(
        self, parameters: Tensor, *, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        logits, means, log_scales, coefficients = self._split(parameters)
        gumbel = -torch.log(-torch.log(_uniform(logits.shape, logits, generator)))
        chosen = (logits + temperature * gumbel).argmax(1, keepdim=True)[:, :, None]  # (N, 1, 1, *space)
        means, log_scales, coefficients = (
            part.gather(1, chosen.expand(-1, 1, *part.shape[2:])) for part in (means, log_scales, coefficients)
        )
        u = _uniform(means.shape, means, generator)
        noise = temperature * log_scales.exp() * (u.log() - torch.log1p(-u))
        x = means.new_zeros(len(means), 1, 0, *means.shape[3:])
        for c in range(self.channels):
            value = (self._shifted(c, means, coefficients, x) + noise[:, :, c]).clamp(-1, 1)
            x = torch.cat([x, value[:, :, None]], 2)
        return self.quantise(x[:, 0])

    def quantise(self, x: Tensor) -> Tensor:
        return ((x.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1

    def check(self, x: Tensor) -> None:
        steps = (x + 1) * 127.5
        # asked so that NaN is refused too
        if not bool((x.abs() <= 1.0001).all() and ((steps - steps.round()).abs() <= 0.01).all()):
            raise ValueError(
                "a discretised logistic likelihood wants 8-bit values, -1 ... 1 in steps of 2 / 255, got "
                f"others ({float(x.min()):.4g} ... {float(x.max()):.4g}); use likelihood.quantise(x), or likelihood='gaussian'"
            )

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits (N, components, *space); the others (N, components, channels or pairs, *space)."""
        x = parameters.unflatten(1, (self.components, -1))
        logits, means, log_scales, coefficients = x.split([1, self.channels, self.channels, self.pairs], 2)
        return logits[:, :, 0], means, log_scales.clamp(min=-7), coefficients.tanh()

    def _shifted(self, c: int, means: Tensor, coefficients: Tensor, x: Tensor) -> Tensor:
        """Means of channel c, given the channels before it in x (N, 1, >= c, *space)."""
        first = c * (c - 1) // 2
        return means[:, :, c] + (coefficients[:, :, first : first + c] * x[:, :, :c]).sum(2)


LIKELIHOODS: dict[str, type[Likelihood]] = {
    "logistic": DiscretizedLogisticMixture,
    "bernoulli": Bernoulli,
    "gaussian": Gaussian,
}


def make_likelihood(name: LikelihoodName, channels: int) -> Likelihood:
    """The likelihood of that name.

    Raises:
        ValueError: an unknown name.
    """
    check_choice("likelihood", name, LIKELIHOODS)
    return LIKELIHOODS[name](channels)


def _uniform(shape: torch.Size, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """In (0, 1), ends excluded."""
    device = generator.device if generator is not None else like.device
    u = torch.rand(shape, generator=generator, device=device, dtype=torch.float32).clamp(1e-5, 1 - 1e-5)
    return u.to(like)
