"""Belief propagation on trees whose levels share their potentials: the up and down passes of a U-Net (arXiv 2404.18444).

Nodes of a level are an axis, siblings next to each other; `log_potentials[l]` is (siblings, states of the parent, states of the
child), the same for every family between levels l and l + 1. All is in logarithms, so that millions of leaves do not underflow.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Differences of logarithms whose exponentials, times the rounding error, are still normal numbers
_SAFE = {torch.float64: 600.0, torch.float32: 60.0}


def upward(leaves: Tensor, log_potentials: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """What each node hears from below.

    Args:
        leaves: log-evidence of each state, (N, leaves, states); zeros where a leaf was not seen.
        log_potentials: of each level, coarsest first.

    Returns:
        `(evidence, messages)`: `evidence[l]` (N, nodes, states) of every level, coarsest first, and `messages[l]` (N, nodes of
        level l, siblings, states), what each child of level l + 1 tells its parent. They are the skips of the U-Net.
    """
    evidence, messages = [leaves], list[Tensor]()
    for potential in reversed(log_potentials):
        families = evidence[0].unflatten(1, (-1, len(potential)))
        messages.insert(0, log_matmul(potential, families))
        evidence.insert(0, messages[0].sum(2))
    return evidence, messages


def downward(
    root: Tensor, evidence: Sequence[Tensor], messages: Sequence[Tensor], log_potentials: Sequence[Tensor]
) -> list[Tensor]:
    """What each node believes, given all leaves.

    Args:
        root: log-belief of the coarsest level, (N, nodes, states): its evidence plus the logarithm of the prior.
        evidence: of `upward`.
        messages: of `upward`.
        log_potentials: of each level, coarsest first.

    Returns:
        Log-beliefs of every level, (N, nodes, states), coarsest first; at each node their `logsumexp` is the log-evidence of
        all leaves.
    """
    beliefs = [root]
    for below, message, potential in zip(evidence[1:], messages, log_potentials):
        # What the parent knows from elsewhere. What the child excluded stays so: its own evidence excludes all that would follow.
        elsewhere = torch.where(message.isneginf(), message, beliefs[-1].unsqueeze(2) - message)
        beliefs.append(below + log_matmul(potential.transpose(1, 2), elsewhere).flatten(1, 2))
    return beliefs


def propagate(leaves: Tensor, log_prior: Tensor, log_potentials: Sequence[Tensor]) -> list[Tensor]:
    """Both passes: the log-beliefs of every level, see `downward`; the coarsest has the prior (states,)."""
    evidence, messages = upward(leaves, log_potentials)
    return downward(evidence[0] + log_prior, evidence, messages, log_potentials)


def log_matmul(log_weight: Tensor, x: Tensor) -> Tensor:
    """`log(exp(log_weight) @ exp(x))` of every sibling.

    (siblings, out, in) and (N, nodes, siblings, in) -> (N, nodes, siblings, out). A matrix product where the
    weights are so near to each other that nothing that counts underflows; else term by term, slower.
    """
    spread = log_weight.detach().amax() - log_weight.detach().amin()
    if not bool(spread <= _SAFE.get(x.dtype, 0.0)):
        return torch.logsumexp(log_weight + x.unsqueeze(-2), -1)
    top = x.detach().amax(-1, keepdim=True)
    top = top.masked_fill(top.isneginf(), 0.0)
    return torch.einsum("nfsi,soi->nfso", (x - top).exp(), log_weight.exp()).log() + top
