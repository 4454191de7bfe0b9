"""Signals that are sums of few columns of a dictionary, and approximate message passing as a network (arXiv 2309.11420)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from multiresnet.checks import check_positive, check_scale

LARGEST = 1 << 20  # codes that are enumerated


@dataclass(frozen=True, eq=False)
class SparseCoding:
    """`x = D θ + ε`: independent codes θ of few values, mostly zero, and normal ε of standard deviation `noise`.

    Args:
        dictionary: D, (n, m).
        values: that a code can have, (k,).
        probabilities: of the values, (k,).
        noise: standard deviation of ε.
    """

    dictionary: Tensor
    values: Tensor
    probabilities: Tensor
    noise: float

    def __post_init__(self) -> None:
        check_scale(noise=self.noise)
        if self.dictionary.ndim != 2:
            raise ValueError(f"dictionary must be (signal, codes), got {tuple(self.dictionary.shape)}")
        if self.values.ndim != 1 or self.values.shape != self.probabilities.shape:
            raise ValueError(
                f"one probability for each value is needed; got {tuple(self.values.shape)} and {tuple(self.probabilities.shape)}"
            )
        if not torch.isclose(self.probabilities.sum(), torch.ones_like(self.probabilities.sum())) or bool(
            (self.probabilities < 0).any()
        ):
            raise ValueError(f"probabilities must be >= 0 and sum to 1, got {self.probabilities.tolist()}")

    def sample(self, count: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """`(x, θ)`: (N, n) and (N, m)."""
        check_positive(count=count)
        n, m = self.dictionary.shape
        drawn = torch.multinomial(self.probabilities, count * m, replacement=True, generator=generator)
        codes = self.values[drawn].view(count, m)
        normal = torch.randn(count, n, generator=generator, dtype=codes.dtype)
        return codes @ self.dictionary.T + self.noise * normal, codes

    def effective_noise(self, *, noise: float, scale: float = 1.0) -> float:
        """Standard deviation of `z / scale - D θ`, for `z = scale * x + noise * normal`."""
        return float((self.noise**2 + (noise / scale) ** 2) ** 0.5)

    def codes(self, z: Tensor, *, noise: float, scale: float = 1.0) -> Tensor:
        """E[θ | z] by enumeration, (N, n) -> (N, m)."""
        m = self.dictionary.shape[1]
        if len(self.values) ** m > LARGEST:
            raise ValueError(f"{len(self.values)}^{m} codes are too many to enumerate; use UnrolledAMP")
        which = torch.cartesian_prod(*[torch.arange(len(self.values))] * m).view(-1, m)
        every = self.values[which]
        prior = self.probabilities.log()[which].sum(1)
        distance = torch.cdist(
            z / scale, every @ self.dictionary.T, compute_mode="donot_use_mm_for_euclid_dist"
        ).square()
        return (prior - distance / (2 * self.effective_noise(noise=noise, scale=scale) ** 2)).softmax(-1) @ every

    def signal(self, codes: Tensor, z: Tensor, *, noise: float, scale: float = 1.0) -> Tensor:
        """E[x | z] from E[θ | z]: what the dictionary says, and the part of the rest that is ε."""
        own, all_ = (scale * self.noise) ** 2, (scale * self.noise) ** 2 + noise**2
        said = codes @ self.dictionary.T
        return said + own / (scale * all_) * (z - scale * said)

    def denoise(self, z: Tensor, *, noise: float, scale: float = 1.0) -> Tensor:
        """E[x | z] by enumeration, (N, n) -> (N, n)."""
        return self.signal(self.codes(z, noise=noise, scale=scale), z, noise=noise, scale=scale)

    def score(self, z: Tensor, *, noise: float, scale: float = 1.0) -> Tensor:
        """Gradient of the log-density of z, by Tweedie's formula."""
        return (scale * self.denoise(z, noise=noise, scale=scale) - z) / noise**2

    def state_evolution(self, steps: int, *, noise: float, samples: int = 200_000, seed: int = 0) -> list[float]:
        """Mean square error of the codes after each layer of AMP, for a large dictionary with N(0, 1/n) entries.

        Args:
            steps: layers.
            noise: `effective_noise`.
            samples: of the Gaussian integrals.
            seed: of the samples.
        """
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.multinomial(self.probabilities, samples, replacement=True, generator=generator)
        code, normal = self.values[drawn], torch.randn(samples, generator=generator, dtype=self.values.dtype)
        error = float((self.probabilities * self.values.square()).sum())
        errors = []
        n, m = self.dictionary.shape
        for _ in range(steps):
            variance = torch.tensor(noise**2 + m / n * error, dtype=self.values.dtype)
            guess, _ = scalar_posterior(code + variance.sqrt() * normal, variance, self.values, self.probabilities)
            error = float((guess - code).square().mean())
            errors.append(error)
        return errors


class UnrolledAMP(nn.Module):
    """Approximate message passing: layers of a residual network that find sparse codes.

    Args:
        model: its dictionary, values and probabilities; the dictionary is a parameter.
        depth: layers.

    Shape:
        y of (N, n), `z / scale` -> codes (N, m).
    """

    values: Tensor
    probabilities: Tensor

    def __init__(self, model: SparseCoding, *, depth: int) -> None:
        super().__init__()
        check_positive(depth=depth)
        self.dictionary = nn.Parameter(model.dictionary.clone())
        self.register_buffer("values", model.values)
        self.register_buffer("probabilities", model.probabilities)
        self.depth = depth

    def forward(self, y: Tensor) -> Tensor:
        """(N, n) -> (N, m)."""
        return self.layers(y)[-1]

    def layers(self, y: Tensor) -> list[Tensor]:
        """The codes after each layer."""
        n, m = self.dictionary.shape
        code, rest, found = y.new_zeros(len(y), m), y, []
        for _ in range(self.depth):
            variance = rest.square().mean(1, keepdim=True)
            code, slope = scalar_posterior(rest @ self.dictionary + code, variance, self.values, self.probabilities)
            rest = y - code @ self.dictionary.T + rest * slope.sum(1, keepdim=True) / n
            found.append(code)
        return found


def scalar_posterior(r: Tensor, variance: Tensor, values: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """`(mean, slope)` of a code given `r = code + N(0, variance)`, and the mean's derivative by r."""
    weights = (probabilities.log() - (r.unsqueeze(-1) - values).square() / (2 * variance.unsqueeze(-1))).softmax(-1)
    mean = weights @ values
    return mean, (weights @ values.square() - mean.square()) / variance
