"""Fields on the grids of a network's resolutions: one convention, coarsest first, as `forward_resolutions` returns them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from multiresnet.unet import UNet

__all__ = ["coarsen", "project_to_outputs", "resolution_weights"]


def coarsen(model: UNet, x: Tensor, i: int) -> Tensor:
    """Project a field (N, C, *spatial) of the full grid onto the grid of the output of U_i.

    Examples:
        >>> import torch
        >>> from multiresnet import MultiResNet
        >>> coarsen(MultiResNet(1, 1, channels=(16, 16, 16)), torch.ones(1, 1, 12, 9), 0).shape
        torch.Size([1, 1, 3, 3])
    """
    last = model.num_levels - 1
    if i == last:
        return x
    finest = model.output_level(last)
    v = model.space.fit(x, model.depth - finest)
    for level in range(finest, model.output_level(i)):
        v = model.space.project(v, level)
    return v


def project_to_outputs(model: UNet, x: Tensor, outputs: Sequence[Tensor]) -> list[Tensor]:
    """The targets of `outputs = model.forward_resolutions(...)`: `x` on the grid of each, coarsest first."""
    first = model.num_levels - len(outputs)
    return [coarsen(model, x, i) for i in range(first, model.num_levels)]


def resolution_weights(outputs: int) -> list[float]:
    """Weights of the losses of deep supervision, coarsest first: halved with each halving of the grid, summing to 1.

    Each loss is a mean over its grid and the targets are clean, so all are of one magnitude, and the finest output, the one
    that is used, keeps more than half of the weight. (A noise target is different: its variance falls by 2**-d per
    halving, which its loss has to undo.)

    Examples:
        >>> resolution_weights(3)
        [0.14285714285714285, 0.2857142857142857, 0.5714285714285714]
    """
    return [2.0**i / (2**outputs - 1) for i in range(outputs)]
