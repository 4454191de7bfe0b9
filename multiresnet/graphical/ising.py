"""Spins with couplings: exact where they can be enumerated, sampled and unrolled into networks at any size (arXiv 2309.11420)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from multiresnet.checks import check_positive
from multiresnet.graphical.couplings import check_couplings
from multiresnet.graphical.variational import UnrolledMeanField

LARGEST = 20  # spins that are enumerated


@dataclass(frozen=True, eq=False)
class Ising:
    """`p(x) ∝ exp(<x, A x> / 2 + <b, x>)`, x in {-1, 1}^n.

    Args:
        couplings: A, (n, n), symmetric; the diagonal has no effect.
        field: b, (n,), or (N, n) for a distribution of each sample; `None` is zero.

    Examples:
        >>> model = Ising(0.3 * torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        >>> x = model.sample(4, generator=torch.Generator().manual_seed(0))
        >>> model.denoise(x + 0.5 * torch.randn(4, 2), noise=0.5).shape
        torch.Size([4, 2])
    """

    couplings: Tensor
    field: Tensor | None = None

    def __post_init__(self) -> None:
        check_couplings(self.couplings)
        if self.field is not None and (self.field.ndim > 2 or self.field.shape[-1] != self.spins):
            raise ValueError(f"field must be ({self.spins},) or (N, {self.spins}), got {tuple(self.field.shape)}")

    @classmethod
    def sherrington_kirkpatrick(
        cls, spins: int, beta: float, *, seed: int = 0, dtype: torch.dtype | None = None
    ) -> Ising:
        """Normal couplings of standard deviation `beta / sqrt(spins)`, none of a spin with itself."""
        check_positive(spins=spins)
        normal = torch.randn(spins, spins, generator=torch.Generator().manual_seed(seed), dtype=dtype)
        return cls(beta * (normal + normal.T).fill_diagonal_(0) / math.sqrt(2 * spins))

    @property
    def spins(self) -> int:
        return len(self.couplings)

    def energies(self, extra: Tensor) -> tuple[Tensor, Tensor]:
        """`(states, log-weights)` of all 2^n states in the field b + `extra`: (2^n, n) and (N, 2^n)."""
        if self.spins > LARGEST:
            raise ValueError(
                f"{self.spins} spins have too many states to enumerate; {LARGEST} are feasible, use `unrolled` or `sample`"
            )
        like = self.couplings
        numbers = torch.arange(2**self.spins, device=like.device).unsqueeze(1)
        digits = numbers >> torch.arange(self.spins - 1, -1, -1, device=like.device) & 1
        states = (2 * digits - 1).to(like.dtype)
        own = 0.5 * ((states @ like) * states).sum(-1)
        return states, own + self._fields(extra) @ states.T

    def mean(self, extra: Tensor | None = None) -> Tensor:
        """E[x] in the field b + `extra`, exact: (N, n) -> (N, n)."""
        extra = self.couplings.new_zeros(1, self.spins) if extra is None else extra
        states, weights = self.energies(extra)
        return weights.softmax(-1) @ states

    def denoise(self, z: Tensor, *, noise: float, scale: float = 1.0) -> Tensor:
        """E[x | z], exact, for `z = scale * x + noise * normal`: (N, n) -> (N, n)."""
        return self.mean(self.evidence_field(z, noise=noise, scale=scale))

    def log_evidence(self, z: Tensor, *, noise: float, scale: float = 1.0) -> Tensor:
        """Log-density of z, exact: (N, n) -> (N,)."""
        _, weights = self.energies(self.evidence_field(z, noise=noise, scale=scale))
        _, prior = self.energies(z.new_zeros(1, self.spins))
        gauss = z.square().sum(-1) + self.spins * scale**2
        constant = self.spins * (math.log(noise) + 0.5 * math.log(2 * math.pi))
        return torch.logsumexp(weights, -1) - torch.logsumexp(prior, -1) - gauss / (2 * noise**2) - constant

    def score(self, z: Tensor, *, noise: float, scale: float = 1.0) -> Tensor:
        """Gradient of the log-density of z, exact: (N, n) -> (N, n)."""
        return (scale * self.denoise(z, noise=noise, scale=scale) - z) / noise**2

    def evidence_field(self, z: Tensor, *, noise: float, scale: float = 1.0) -> Tensor:
        """What noisy spins add to the field: `scale / noise² z`."""
        return scale / noise**2 * z

    @torch.no_grad()
    def sample(self, count: int, *, sweeps: int = 200, generator: torch.Generator | None = None) -> Tensor:
        """(N, n): exact up to 20 spins, else as many independent Gibbs chains of `sweeps` over all spins."""
        check_positive(count=count, sweeps=sweeps)
        if self.spins <= LARGEST:
            states, weights = self.energies(
                self.couplings.new_zeros(count if self.field is not None else 1, self.spins)
            )
            if len(weights) == count:
                return states[torch.multinomial(weights.softmax(-1), 1, generator=generator)[:, 0]]
            return states[torch.multinomial(weights[0].softmax(-1), count, replacement=True, generator=generator)]
        field = self._fields(self.couplings.new_zeros(count, self.spins)).expand(count, -1)
        x = torch.rand(count, self.spins, generator=generator, dtype=field.dtype).round() * 2 - 1
        couplings = self.couplings.clone().fill_diagonal_(0)
        for _ in range(sweeps):
            draws = torch.rand(count, self.spins, generator=generator, dtype=field.dtype)
            for i in range(self.spins):
                x[:, i] = torch.where(draws[:, i] < torch.sigmoid(2 * (x @ couplings[i] + field[:, i])), 1.0, -1.0)
        return x

    def unrolled(
        self, *, depth: int, correction: str = "instance", damping: float = 0.5, tied: bool = True
    ) -> UnrolledMeanField:
        """A network from the field b + `evidence_field(z)` to the means, that needs no enumeration."""
        return UnrolledMeanField(
            self.couplings.clone().fill_diagonal_(0), depth=depth, correction=correction, damping=damping, tied=tied
        )

    def _fields(self, extra: Tensor) -> Tensor:
        return extra if self.field is None else extra + self.field


class ConditionalIsing(nn.Module):
    """`p(x | θ) ∝ exp(<x, A x> / 2 + <x, B θ>)`.

    Args:
        couplings: A, (n, n), symmetric.
        loadings: B, (n, k).
    """

    couplings: Tensor
    loadings: Tensor

    def __init__(self, couplings: Tensor, loadings: Tensor) -> None:
        super().__init__()
        check_couplings(couplings)
        if loadings.ndim != 2 or len(loadings) != len(couplings):
            raise ValueError(f"loadings must be ({len(couplings)}, parameters), got {tuple(loadings.shape)}")
        self.register_buffer("couplings", couplings)
        self.register_buffer("loadings", loadings)

    def forward(self, theta: Tensor) -> Ising:
        """The model of each sample: (N, k) -> an `Ising` whose field is (N, n)."""
        return Ising(self.couplings, theta @ self.loadings.T)


@dataclass(frozen=True, eq=False)
class RestrictedBoltzmannMachine:
    """`p(v, h) ∝ exp(<v, W h> + <a, v> + <b, h>)`, spins ±1.

    Args:
        weights: W, (visible, hidden).
        visible_field: a, (visible,).
        hidden_field: b, (hidden,).
    """

    weights: Tensor
    visible_field: Tensor
    hidden_field: Tensor

    def __post_init__(self) -> None:
        if self.weights.shape != (len(self.visible_field), len(self.hidden_field)):
            raise ValueError(
                f"weights must be (visible, hidden) = ({len(self.visible_field)}, {len(self.hidden_field)}), "
                f"got {tuple(self.weights.shape)}"
            )

    def joint(self) -> Ising:
        """The same as one model of visible, then hidden spins."""
        n, m = self.weights.shape
        couplings = self.weights.new_zeros(n + m, n + m)
        couplings[:n, n:], couplings[n:, :n] = self.weights, self.weights.T
        return Ising(couplings, torch.cat([self.visible_field, self.hidden_field]))

    def denoise(self, z: Tensor, *, noise: float, scale: float = 1.0) -> Tensor:
        """E[v | z], exact: the hidden spins summed in closed form, the visible ones enumerated; (N, visible) -> (N, visible)."""
        visible = Ising(self.weights.new_zeros(len(self.weights), len(self.weights)), self.visible_field)
        states, weights = visible.energies(visible.evidence_field(z, noise=noise, scale=scale))
        hidden = states @ self.weights + self.hidden_field
        weights = weights + torch.logaddexp(hidden, -hidden).sum(-1)
        return weights.softmax(-1) @ states

    @torch.no_grad()
    def sample(
        self, count: int, *, sweeps: int = 1000, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """`(visible, hidden)` of independent chains of block Gibbs sampling, (N, visible) and (N, hidden)."""
        check_positive(count=count, sweeps=sweeps)
        weights = self.weights

        def draw(field: Tensor) -> Tensor:
            uniform = torch.rand(field.shape, generator=generator, dtype=field.dtype)
            return torch.where(uniform < torch.sigmoid(2 * field), 1.0, -1.0).to(field.dtype)

        visible = draw(self.visible_field.expand(count, -1))
        hidden = draw(visible @ weights + self.hidden_field)
        for _ in range(sweeps):
            visible = draw(hidden @ weights.T + self.visible_field)
            hidden = draw(visible @ weights + self.hidden_field)
        return visible, hidden
