"""Values to mean 0 and deviation 1 per channel, and back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["Standardise"]


class Standardise(nn.Module):
    """(x - mean) / std along one axis; the identity until `fit_to` is called. Not part of the state: facts of the data.

    Args:
        axis: of the channels, 2 for frames (B, T, C, *space).

    Examples:
        >>> scale = Standardise(axis=1)
        >>> scale.fit_to([1.0, 0.0], [2.0, 1.0])
        >>> scale(torch.tensor([[5.0, 3.0]])), scale.inverse(torch.tensor([[2.0, 3.0]]))
        (tensor([[2., 3.]]), tensor([[5., 3.]]))
    """

    mean: Tensor
    std: Tensor

    def __init__(self, axis: int = 2) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("mean", torch.zeros(1), persistent=False)
        self.register_buffer("std", torch.ones(1), persistent=False)

    def fit_to(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set the statistics, one number per channel; a deviation of 0 counts as 1."""
        self.mean, old = torch.tensor(mean).to(self.mean), self.mean
        self.std = torch.tensor([value if value > 0 else 1.0 for value in std]).to(old)

    def forward(self, x: Tensor) -> Tensor:
        """Data units to standardised values."""
        return (x - self._along(x, self.mean)) / self._along(x, self.std)

    def inverse(self, x: Tensor) -> Tensor:
        """Standardised values to data units."""
        return x * self._along(x, self.std) + self._along(x, self.mean)

    def _along(self, x: Tensor, values: Tensor) -> Tensor:
        return values.view(-1, *(1,) * (x.ndim - self.axis - 1))
