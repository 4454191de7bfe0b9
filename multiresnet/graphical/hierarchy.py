"""Images with a hidden tree of causes, of which everything that a network should learn is known (arXiv 2404.18444)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from multiresnet.checks import check_positive, check_scale
from multiresnet.graphical.messages import propagate, upward
from multiresnet.graphical.tree_order import from_tree, grid_size, to_tree


@dataclass(frozen=True)
class Posterior:
    """What the leaves tell.

    Attributes:
        log_evidence: log-probability (density) of what was seen, (N,).
        label: log-probabilities of the root's states, (N, states).
        leaves: log-probabilities of every leaf's states, (N, *size, states).
    """

    log_evidence: Tensor
    label: Tensor
    leaves: Tensor


class GenerativeHierarchicalModel(nn.Module):
    """A label at the root of a tree, states down its levels, pixels at its leaves: `p(x) ∝ p0(root) Π ψ_rank(parent, child)`.

    Families of a level share their potentials, as positions share the weights of a convolution. Posteriors, denoiser, score and
    evidence are exact, by one pass up and one down, whose cost is linear in the leaves.

    Args:
        log_prior: log p0, (states,); need not be normalised.
        log_potentials: log ψ of each level, coarsest first: (children, states, states).
        values: what each state of a leaf is as a pixel, (states,).
        branching: children of a node per axis, of each level; `None` puts the leaves on a line. (2, 2) at each level makes a square
            image in the order of a quadtree.

    Attributes:
        size: of the grid of leaves.
        log_prior, log_potentials: parameters that don't ask for gradients, until `requires_grad_()`.

    Raises:
        ValueError: shapes that don't fit.

    Examples:
        >>> model = GenerativeHierarchicalModel.random(depth=3, branching=(2, 2), states=4)
        >>> label, states = model.sample(5, generator=torch.Generator().manual_seed(0))
        >>> noisy = model.values[states] + 0.5 * torch.randn(5, 8, 8)
        >>> model.denoise(noisy, noise=0.5).shape, model.classify(states).shape
        (torch.Size([5, 8, 8]), torch.Size([5, 4]))
    """

    values: Tensor

    def __init__(
        self,
        log_prior: Tensor,
        log_potentials: Sequence[Tensor],
        values: Tensor,
        *,
        branching: Sequence[tuple[int, ...]] | None = None,
    ) -> None:
        super().__init__()
        potentials = list(log_potentials)
        if not potentials:
            raise ValueError("log_potentials must have an entry for each level below the root, got none")
        states = [*(p.shape[1] for p in potentials if p.ndim == 3), len(values)]
        if log_prior.shape != (states[0],):
            raise ValueError(
                f"log_prior must be ({states[0]},), a number for each state of the root, got {tuple(log_prior.shape)}"
            )
        for level, potential in enumerate(potentials):
            if potential.ndim != 3 or potential.shape[2] != states[level + 1]:
                raise ValueError(
                    f"log_potentials[{level}] must be (children, states of the parent, states of the child), and the last "
                    f"level's children have {len(values)} values; got {tuple(potential.shape)}, states {states}"
                )
        self.factors = tuple((len(p),) for p in potentials) if branching is None else tuple(map(tuple, branching))
        if [math.prod(f) for f in self.factors] != [len(p) for p in potentials] or len(
            set(map(len, self.factors))
        ) != 1:
            wanted = [len(p) for p in potentials]
            raise ValueError(
                f"branching={branching} must be as many children per level as log_potentials have: {wanted}"
            )
        self.size = grid_size(self.factors, (1,) * len(self.factors[0]))
        self.log_prior = nn.Parameter(log_prior.clone(), requires_grad=False)
        self.log_potentials = nn.ParameterList(nn.Parameter(p.clone(), requires_grad=False) for p in potentials)
        self.register_buffer("values", values.clone())

    @classmethod
    def random(
        cls,
        depth: int,
        *,
        branching: tuple[int, ...] = (2, 2),
        states: int = 8,
        strength: float = 1.5,
        transitions: bool = False,
        seed: int = 0,
    ) -> GenerativeHierarchicalModel:
        """Normal log-potentials with standard deviation `strength`, values evenly from -1 to 1, p0 = 1.

        Args:
            depth: levels below the root; the image has `branching**depth` pixels.
            branching: children of a node per axis.
            states: of every node.
            strength: the larger it is, the more a parent decides.
            transitions: normalise them over the child. Labels are then equally likely, and images tell them apart; else a few
                states, those that most of what is below agrees with, outweigh the others.
            seed: of the potentials.
        """
        check_positive(depth=depth, states=states)
        check_scale(strength=strength)
        generator = torch.Generator().manual_seed(seed)
        shape = (math.prod(branching), states, states)
        potentials = [strength * torch.randn(shape, generator=generator) for _ in range(depth)]
        if transitions:
            potentials = [potential.log_softmax(-1) for potential in potentials]
        return cls(torch.zeros(states), potentials, torch.linspace(-1, 1, states), branching=(branching,) * depth)

    def directed(self) -> tuple[Tensor, list[Tensor], Tensor]:
        """`(log_root, log_transitions, log_partition)`: log p(root), log p(child | parent) of each level, log of the normaliser."""
        transitions: list[Tensor] = []
        below = self.log_potentials[-1].new_zeros(self.log_potentials[-1].shape[2])
        for potential in reversed(list(self.log_potentials)):
            messages = torch.logsumexp(potential + below, -1)
            transitions.insert(0, potential + below - messages.unsqueeze(-1))
            below = messages.sum(0)
        root = self.log_prior + below
        partition = torch.logsumexp(root, 0)
        return root - partition, transitions, partition

    @torch.no_grad()
    def sample(self, count: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """`(label, states)`: int64 (N,) and (N, *size)."""
        check_positive(count=count)
        root, transitions, _ = self.directed()
        nodes = torch.multinomial(root.exp(), count, replacement=True, generator=generator).unsqueeze(1)
        label = nodes[:, 0]
        for transition in transitions:
            children = []
            for table in transition.exp():
                drawn = torch.multinomial(table[nodes.flatten()], 1, replacement=True, generator=generator)
                children.append(drawn.view_as(nodes))
            nodes = torch.stack(children, 2).flatten(1)
        return label, from_tree(nodes.unsqueeze(-1), self.factors, (1,) * len(self.size))[..., 0]

    def seen_noisy(self, z: Tensor, *, noise: float | Tensor, scale: float | Tensor = 1.0) -> Tensor:
        """Log-densities of pixels `z = scale * value + noise * normal` in every state: (N, *size) -> (N, *size, states)."""
        self._check(z, "z")
        scale, noise = (_per_sample(s, z).unsqueeze(-1) for s in (scale, noise))
        distance = (z.unsqueeze(-1) - scale * self.values) / noise
        return -0.5 * (distance.square() + math.log(2 * math.pi)) - noise.log()

    def seen_states(self, states: Tensor) -> Tensor:
        """Log-evidence of leaves that are known, (N, *size) -> (N, *size, states); a state of -1 is one that was not seen."""
        self._check(states, "states")
        every = torch.arange(len(self.values), device=states.device)
        if states.is_floating_point() or not bool(((states >= -1) & (states < len(every))).all()):
            raise ValueError(
                f"states must be integers in [0, {len(every)}), or -1 where a leaf was not seen; got {states.dtype}"
            )
        possible = (states.unsqueeze(-1) == every) | (states.unsqueeze(-1) < 0)
        return torch.zeros_like(possible, dtype=self.values.dtype).masked_fill(~possible, -math.inf)

    def posterior(self, seen: Tensor) -> Posterior:
        """Exact, given log-evidence (N, *size, states) of the leaves: zeros, or any constant, where nothing was seen."""
        beliefs = propagate(self._leaves(seen), self.log_prior, list(self.log_potentials))
        root = beliefs[0][:, 0]
        leaves = from_tree(beliefs[-1].log_softmax(-1), self.factors, (1,) * len(self.size))
        return Posterior(torch.logsumexp(root, -1) - self.directed()[2], root.log_softmax(-1), leaves)

    def log_evidence(self, seen: Tensor) -> Tensor:
        """Log-probability of what was seen, (N, *size, states) -> (N,); maximise its mean to learn the potentials."""
        return torch.logsumexp(self._root(seen), -1) - self.directed()[2]

    def label(self, seen: Tensor) -> Tensor:
        """`posterior(seen).label` without the pass down: (N, *size, states) -> (N, states)."""
        return self._root(seen).log_softmax(-1)

    def classify(self, states: Tensor) -> Tensor:
        """Log-probabilities of the label given the leaves' states, -1 where not seen: (N, *size) -> (N, states)."""
        return self.label(self.seen_states(states))

    def denoise(self, z: Tensor, *, noise: float | Tensor, scale: float | Tensor = 1.0) -> Tensor:
        """The posterior mean of the pixels, which no denoiser beats in mean square: (N, *size) -> (N, *size).

        Args:
            z: `scale * value + noise * normal`; NaN where a pixel is missing (it is filled in).
            noise: standard deviation, a number or one for each sample.
            scale: a number or one for each sample.
        """
        seen = self.seen_noisy(z, noise=noise, scale=scale)
        missing = z.isnan().unsqueeze(-1)
        return self.posterior(seen.masked_fill(missing, 0.0)).leaves.exp() @ self.values

    def score(self, z: Tensor, *, noise: float | Tensor, scale: float | Tensor = 1.0) -> Tensor:
        """Gradient of the log-density of the noisy pixels, (N, *size), by Tweedie's formula."""
        mean = self.denoise(z, noise=noise, scale=scale)
        return (_per_sample(scale, z) * mean - z) / _per_sample(noise, z).square()

    @torch.no_grad()
    def em_step(self, seen: Tensor) -> float:
        """One step of expectation-maximisation on leaves' log-evidence (N, *size, states); returns the mean log-evidence before it.

        It never decreases it. Potentials become conditional probabilities, which is no restriction.
        """
        root, transitions, _ = self.directed()
        with torch.enable_grad():  # expected counts are derivatives of the log-evidence
            wanted = [root.detach().requires_grad_(), *(t.detach().requires_grad_() for t in transitions)]
            evidence, _ = upward(self._leaves(seen), wanted[1:])
            total = torch.logsumexp(evidence[0][:, 0] + wanted[0], -1).mean()
            counts = torch.autograd.grad(total, wanted)
        tiny = torch.finfo(seen.dtype).tiny
        for parameter, count in zip([self.log_prior, *self.log_potentials], counts):
            parameter.copy_((count + tiny).log() - (count + tiny).sum(-1, keepdim=True).log())
        return float(total)

    def _root(self, seen: Tensor) -> Tensor:
        """Log-belief of the root, (N, states): one pass up."""
        evidence, _ = upward(self._leaves(seen), list(self.log_potentials))
        return evidence[0][:, 0] + self.log_prior

    def _leaves(self, seen: Tensor) -> Tensor:
        if seen.shape[1:] != (*self.size, len(self.values)):
            wanted = ", ".join(map(str, (*self.size, len(self.values))))
            raise ValueError(f"expected log-evidence (N, {wanted}), got {tuple(seen.shape)}")
        return to_tree(seen, self.factors)

    def _check(self, x: Tensor, name: str) -> None:
        if x.shape[1:] != self.size:
            raise ValueError(f"{name} must be (N, {', '.join(map(str, self.size))}), got {tuple(x.shape)}")


def _per_sample(value: float | Tensor, z: Tensor) -> Tensor:
    """A number, or one for each sample, beside z (N, ...)."""
    return torch.as_tensor(value, dtype=z.dtype, device=z.device).view(-1, *[1] * (z.ndim - 1))
