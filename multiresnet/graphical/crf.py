"""Exact marginals of a segmentation whose classes a quadtree of hidden states ties together."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiresnet.checks import check_input, check_positive
from multiresnet.graphical.messages import propagate
from multiresnet.graphical.tree_order import from_tree, to_tree


class QuadtreeCRF(nn.Module):
    """Logits of every pixel -> logits of its exact marginals under a forest of quadtrees (arXiv 2404.18444).

    Time is linear in the pixels. The network's logits are what the leaves saw. Blocks of `2**levels` pixels are trees; a child
    likes to have the state of its parent, and how much is learned, by level, position and class. To be trained behind a
    network, frozen or not, with any loss on logits.

    Args:
        classes: channels of the logits. 1 is binary: one logit, of the foreground.
        levels: of each tree.
        spatial_dims: axes of the images.
        stay: probability, to begin with, that a child has its parent's state.

    Shape:
        (N, classes, *size) -> (N, classes, *size), any size: what lies beyond the edge was not seen.

    Examples:
        >>> crf = QuadtreeCRF(classes=3, levels=4)
        >>> crf(torch.randn(2, 3, 37, 50)).shape
        torch.Size([2, 3, 37, 50])
    """

    def __init__(self, classes: int, *, levels: int = 4, spatial_dims: int = 2, stay: float = 0.9) -> None:
        super().__init__()
        check_positive(classes=classes, levels=levels, spatial_dims=spatial_dims)
        if not 0 < stay < 1:
            raise ValueError(f"stay must be a probability between 0 and 1, got {stay!r}")
        self.classes, self.factors = classes, ((2,) * spatial_dims,) * levels
        states = max(classes, 2)
        table = torch.full((states, states), (1 - stay) / (states - 1)).fill_diagonal_(stay).log()
        self.log_potentials = nn.ParameterList(nn.Parameter(table.repeat(2**spatial_dims, 1, 1)) for _ in range(levels))
        self.log_prior = nn.Parameter(torch.zeros(states))
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, logits: Tensor) -> Tensor:
        """(N, classes, *size) -> (N, classes, *size)."""
        check_input(logits, in_channels=self.classes, spatial_dims=len(self.factors[0]), dtype=self.scale.dtype)
        size = tuple(logits.shape[2:])
        seen = self.scale * logits
        if self.classes == 1:
            seen = torch.cat([torch.zeros_like(seen), seen], 1)
        block = 2 ** len(self.factors)
        missing = [-n % block for n in size]
        seen = F.pad(seen, [width for after in reversed(missing) for width in (0, after)])
        roots = tuple((n + more) // block for n, more in zip(size, missing))
        leaves = to_tree(seen.movedim(1, -1), self.factors)
        beliefs = propagate(leaves, self.log_prior, list(self.log_potentials))[-1]
        marginals = from_tree(beliefs.log_softmax(-1), self.factors, roots).movedim(-1, 1)
        marginals = marginals[(slice(None), slice(None), *(slice(n) for n in size))]
        return marginals[:, 1:] - marginals[:, :1] if self.classes == 1 else marginals
