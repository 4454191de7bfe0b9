"""Belief propagation as a trainable network: its weights are the potentials of a tree (arXiv 2404.18444)."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from multiresnet.checks import check_choice, check_scale
from multiresnet.graphical.hierarchy import GenerativeHierarchicalModel


class BeliefPropagationUNet(nn.Module):
    """The passes of a `GenerativeHierarchicalModel` with learned potentials: exact where they are the true ones.

    Its encoder pools messages, its decoder distributes beliefs, its skips are what the encoder computed. It has states² weights
    for each child of each level, a prior, and nothing else.

    Args:
        model: the tree, its values and the potentials to begin with; copied.
        task: `"denoise"` returns the posterior mean of the pixels, `"classify"` log-probabilities of the label.
        noise: standard deviation of the noise on the pixels.
        scale: what the pixels were multiplied with before.

    Shape:
        (N, 1, *size) -> (N, 1, *size) or (N, states).

    Examples:
        >>> import torch
        >>> tree = GenerativeHierarchicalModel.random(depth=2, states=3)
        >>> net = BeliefPropagationUNet(tree, noise=0.5)
        >>> noisy = torch.randn(7, 1, 4, 4)
        >>> torch.allclose(net(noisy)[:, 0], tree.denoise(noisy[:, 0], noise=0.5))
        True
    """

    def __init__(
        self, model: GenerativeHierarchicalModel, *, task: str = "denoise", noise: float, scale: float = 1.0
    ) -> None:
        super().__init__()
        check_choice("task", task, ("denoise", "classify"))
        check_scale(noise=noise, scale=scale)
        self.tree = copy.deepcopy(model).requires_grad_()
        self.task, self.noise, self.scale = task, float(noise), float(scale)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, *size) -> (N, 1, *size) or (N, states)."""
        if self.task == "denoise":
            return self.tree.denoise(x[:, 0], noise=self.noise, scale=self.scale).unsqueeze(1)
        return self.tree.label(self.tree.seen_noisy(x[:, 0], noise=self.noise, scale=self.scale))
