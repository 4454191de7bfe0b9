"""Networks whose layers minimise a variational free energy: `u <- tanh(A u - K(u) u + h)` (arXiv 2309.11420)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from multiresnet.checks import check_choice, check_positive

CORRECTIONS = ("none", "constant", "instance")


class UnrolledMeanField(nn.Module):
    """Means of spins in the field h, layer by layer, from u = 0.

    Without correction this is naive mean field, which is right for many weak couplings. The Thouless-Anderson-Palmer correction
    takes back what a spin hears of itself through its neighbours: `K_i = sum_j A_ij² (1 - u_j²)` of the layer before
    (`"instance"`), or a `constant` that is known, such as `beta² (1 - q)` of the Sherrington-Kirkpatrick model.

    Args:
        couplings: A, (n, n), symmetric.
        depth: layers; see `depth_for`.
        correction: `"none"`, `"constant"` or `"instance"`.
        constant: K, where that is the correction.
        damping: part of the step that is not taken, in [0, 1). Large couplings oscillate at 0.
        tied: one A for all layers, or one each (to be trained).
        activation: in place of tanh, such as `ReLUTanh`.

    Shape:
        (N, n) -> (N, n), means in [-1, 1].

    Examples:
        >>> net = UnrolledMeanField(torch.zeros(3, 3), depth=1, damping=0.0)
        >>> field = torch.randn(2, 3)
        >>> torch.equal(net(field), field.tanh())
        True
    """

    def __init__(
        self,
        couplings: Tensor,
        *,
        depth: int,
        correction: str = "instance",
        constant: float = 0.0,
        damping: float = 0.5,
        tied: bool = True,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_positive(depth=depth)
        check_choice("correction", correction, CORRECTIONS)
        check_couplings(couplings)
        if not 0 <= damping < 1:
            raise ValueError(f"damping must be in [0, 1), got {damping!r}")
        if (constant != 0) != (correction == "constant"):
            raise ValueError(
                f"constant={constant} goes with correction='constant', and that with a constant; got {correction!r}"
            )
        self.depth, self.correction, self.constant, self.damping = depth, correction, constant, damping
        self.couplings = nn.ParameterList(nn.Parameter(couplings.clone()) for _ in range(1 if tied else depth))
        self.activation = activation or nn.Tanh()

    def forward(self, field: Tensor) -> Tensor:
        """(N, n) -> (N, n)."""
        u = torch.zeros_like(field)
        for layer in range(self.depth):
            u = torch.lerp(self.step(u, field, layer), u, self.damping)
        return u

    def step(self, u: Tensor, field: Tensor, layer: int = 0) -> Tensor:
        """One layer without damping; where it changes nothing, the free energy is stationary."""
        couplings = self.couplings[layer % len(self.couplings)]
        heard = u @ couplings.T
        if self.correction == "constant":
            heard = heard - self.constant * u
        if self.correction == "instance":
            heard = heard - (1 - u.square()) @ couplings.square().T * u
        means: Tensor = self.activation(heard + field)
        return means

    @torch.no_grad()
    def residual(self, field: Tensor) -> Tensor:
        """How far the last layer is from a fixed point, the largest change per sample, (N,): above 1e-2 it has not converged."""
        u: Tensor = self(field)
        return (self.step(u, field, self.depth - 1) - u).abs().amax(-1)


class ReLUTanh(nn.Module):
    """tanh as a linear spline, that is, a layer of ReLUs: `pieces` on [-bound, bound], constant beyond.

    Within the bound the error is at most `0.77 (2 bound / pieces)² / 8`.

    Args:
        pieces: number of them.
        bound: where the spline ends.
    """

    knots: Tensor
    bends: Tensor

    def __init__(self, pieces: int = 64, bound: float = 4.0) -> None:
        super().__init__()
        check_positive(pieces=pieces)
        knots = torch.linspace(-bound, bound, pieces + 1, dtype=torch.float64)
        slopes = torch.diff(knots.tanh()) / torch.diff(knots)
        nothing = slopes.new_zeros(1)
        self.register_buffer("knots", knots.float())
        self.register_buffer("bends", torch.diff(slopes, prepend=nothing, append=nothing).float())
        self.start = math.tanh(-bound)

    def forward(self, x: Tensor) -> Tensor:
        bent: Tensor = torch.relu(x.unsqueeze(-1) - self.knots.to(x.dtype)) @ self.bends.to(x.dtype)
        return self.start + bent


def depth_for(couplings: Tensor, *, error: float) -> int:
    """Layers after which naive mean field, undamped, is nearer than `error` to its fixed point, in Euclidean norm.

    Args:
        couplings: A, (n, n), with spectral norm below 1.
        error: to reach.

    Raises:
        ValueError: the norm is 1 or more, so that nothing is promised; use damping and look at `residual`.
    """
    check_couplings(couplings)
    rate = float(torch.linalg.matrix_norm(couplings.double(), 2))
    if rate >= 1:
        raise ValueError(
            f"the couplings' spectral norm is {rate:.3g}, not below 1: no depth is sure to do; damp, and look at `residual`"
        )
    if rate == 0:
        return 1
    return max(1, math.ceil(math.log(math.sqrt(len(couplings)) / error) / -math.log(rate)))


def check_couplings(couplings: Tensor) -> None:
    """Raise `ValueError` unless they are (n, n), finite and symmetric."""
    if couplings.ndim != 2 or couplings.shape[0] != couplings.shape[1]:
        raise ValueError(f"couplings must be (n, n), got {tuple(couplings.shape)}")
    if not bool(couplings.isfinite().all()):
        raise ValueError("couplings must be finite")
    if not torch.allclose(couplings, couplings.T):
        raise ValueError("couplings must be symmetric; what i does to j, j does to i: use (A + A.T) / 2")
