"""Networks whose layers minimise a variational free energy: `u <- tanh(A u - K(u) u + h)` (arXiv 2309.11420)."""

from __future__ import annotations

import copy
import math
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from multiresnet.checks import check_choice, check_positive, check_scale
from multiresnet.graphical.couplings import Couplings, Dense, Stencil, check_couplings

CORRECTIONS = ("none", "constant", "instance")


class UnrolledMeanField(nn.Module):
    """Means of spins in the field h, layer by layer, from u = 0.

    Without correction this is naive mean field, which is right for many weak couplings. The Thouless-Anderson-Palmer correction
    takes back what a spin hears of itself through its neighbours: `K_i = sum_j A_ij² (1 - u_j²)` of the layer before
    (`"instance"`), or a `constant` that is known, see `overlap_correction`.

    Args:
        couplings: A, (n, n), symmetric; or a `Stencil`, the same around every pixel of an image.
        depth: layers; see `depth_for`.
        correction: `"none"`, `"constant"` or `"instance"`.
        constant: K, where that is the correction.
        damping: part of the step that is not taken, in [0, 1). Large couplings oscillate at 0.
        tied: one A for all layers, or one each (to be trained).
        activation: in place of tanh, such as `ReLUTanh`.

    Shape:
        (N, n) -> (N, n), or (N, 1, *size) -> (N, 1, *size); means in [-1, 1].

    Examples:
        >>> net = UnrolledMeanField(torch.zeros(3, 3), depth=1, damping=0.0)
        >>> field = torch.randn(2, 3)
        >>> torch.equal(net(field), field.tanh())
        True
    """

    def __init__(
        self,
        couplings: Tensor | Stencil,
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
        if not 0 <= damping < 1:
            raise ValueError(f"damping must be in [0, 1), got {damping!r}")
        if (constant != 0) != (correction == "constant"):
            raise ValueError(
                f"constant={constant} goes with correction='constant', and that with a constant; got {correction!r}"
            )
        self.depth, self.correction, self.constant, self.damping = depth, correction, constant, damping
        own = Dense(couplings) if isinstance(couplings, Tensor) else couplings
        self.couplings = nn.ModuleList(copy.deepcopy(own) for _ in range(1 if tied else depth))
        self.activation = activation or nn.Tanh()

    def forward(self, field: Tensor) -> Tensor:
        """The means after the last layer."""
        u = torch.zeros_like(field)
        for layer in range(self.depth):
            u = torch.lerp(self.step(u, field, layer), u, self.damping)
        return u

    def step(self, u: Tensor, field: Tensor, layer: int = 0) -> Tensor:
        """One layer without damping; where it changes nothing, the free energy is stationary."""
        couplings = cast(Couplings, self.couplings[layer % len(self.couplings)])
        heard = couplings(u)
        if self.correction == "constant":
            heard = heard - self.constant * u
        if self.correction == "instance":
            heard = heard - couplings.squared(1 - u.square()) * u
        means: Tensor = self.activation(heard + field)
        return means

    @torch.no_grad()
    def residual(self, field: Tensor) -> Tensor:
        """How far the last layer is from a fixed point, the largest change per sample, (N,): above 1e-2 it has not converged."""
        u: Tensor = self(field)
        return (self.step(u, field, self.depth - 1) - u).abs().flatten(1).amax(1)


class VariationalDenoiser(nn.Module):
    """Noisy spins to their means: a residual network that needs no training, and a base for one that is trained.

    With `multiresnet.Preconditioned` a Multi-ResNet starts from it, equal to it, and learns what it gets wrong.

    Args:
        network: from the field to the means, such as `Ising.unrolled` and `GridIsing.unrolled` make.
        noise: standard deviation of the noise.
        scale: what the spins were multiplied with before.
        field: b, what acts on the spins without data; broadcasts against them.

    Shape:
        that of the network.

    Examples:
        >>> from multiresnet import MultiResNet, Preconditioned
        >>> from multiresnet.graphical import GridIsing
        >>> base = VariationalDenoiser(GridIsing.nearest_neighbours((8, 8), beta=0.3).unrolled(depth=5), noise=0.8)
        >>> net = Preconditioned(base, MultiResNet(2, 1, channels=(16, 16), num_blocks=1))
        >>> z = torch.randn(2, 1, 8, 8)
        >>> torch.equal(net(z), base(z))
        True
    """

    field: Tensor

    def __init__(
        self, network: nn.Module, *, noise: float, scale: float = 1.0, field: Tensor | float | None = None
    ) -> None:
        super().__init__()
        check_scale(noise=noise, scale=scale)
        self.network, self.gain = network, scale / noise**2
        self.register_buffer("field", torch.as_tensor(0.0 if field is None else field))

    def forward(self, z: Tensor) -> Tensor:
        means: Tensor = self.network(self.gain * z + self.field)
        return means


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


def depth_for(couplings: Tensor | Stencil, *, error: float, spins: int | None = None) -> int:
    """Layers after which naive mean field, undamped, is nearer than `error` to its fixed point, in Euclidean norm.

    Args:
        couplings: A, (n, n), with spectral norm below 1; or a `Stencil`, of which the sum of magnitudes bounds the norm.
        error: to reach.
        spins: pixels of the image, for a `Stencil`.

    Raises:
        ValueError: the norm is 1 or more, so that nothing is promised; use damping and look at `residual`.
    """
    check_scale(error=error)
    if isinstance(couplings, Tensor):
        check_couplings(couplings)
        rate, count = float(torch.linalg.matrix_norm(couplings.double(), 2)), len(couplings)
    elif spins is None:
        raise ValueError("say how many pixels the image has, spins=...: a stencil is for every size")
    else:
        check_positive(spins=spins)
        rate, count = float(couplings.symmetric().detach().abs().sum()), spins
    if rate >= 1:
        raise ValueError(
            f"the couplings' spectral norm is {rate:.3g}, not below 1: no depth is sure to do; damp, and look at `residual`"
        )
    if rate == 0:
        return 1
    return max(1, math.ceil(math.log(math.sqrt(count) / error) / -math.log(rate)))


def overlap_correction(beta: float, *, noise: float, scale: float = 1.0) -> float:
    """The constant of the correction for many spins with normal couplings: `beta² (1 - q)` of the Sherrington-Kirkpatrick model.

    q, the mean square of the posterior means, solves `q = E tanh²(beta² q + s + sqrt(beta² q + s) G)` with `s = scale² / noise²`.
    For few spins the `"instance"` correction is nearer.

    Args:
        beta: `sqrt(n)` times the standard deviation of the couplings.
        noise: standard deviation of the noise on the spins.
        scale: what the spins were multiplied with before.
    """
    check_scale(beta=beta, noise=noise, scale=scale)
    normal, weights = np.polynomial.hermite_e.hermegauss(101)
    weights, snr, q = weights / weights.sum(), (scale / noise) ** 2, 1.0
    for _ in range(1000):  # a contraction but at the edge of a phase
        gain = beta**2 * q + snr
        before, q = q, float(weights @ np.tanh(gain + math.sqrt(gain) * normal) ** 2)
        if abs(q - before) < 1e-14:
            break
    return beta**2 * (1 - q)
