"""Mean and standard deviation of each channel, gathered piece by piece."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

__all__ = ["channel_statistics"]


def channel_statistics(pieces: Iterable[Tensor], names: Sequence[str], *, hint: str) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over all pieces.

    Args:
        pieces: (count, C, *space) each.
        names: of the channels, for messages.
        hint: how to leave a channel out, for messages.

    Raises:
        ValueError: a channel that is constant.

    Examples:
        >>> channel_statistics([torch.tensor([[1.0], [2.0]]), torch.tensor([[6.0]])], ["u"], hint="")
        ([3.0], [2.160246899469287])
    """
    count, shift = 0, None
    total = square = torch.zeros(len(names), dtype=torch.float64)
    for piece in pieces:
        values = piece.double().transpose(0, 1).flatten(1)  # (C, points)
        if shift is None:  # the variance of shifted values does not cancel
            shift = values.mean(1, keepdim=True)
        values = values - shift
        count += values.shape[1]
        total = total + values.sum(1)
        square = square + values.square().sum(1)
    if shift is None:
        raise ValueError("no data to take statistics of")
    mean = shift[:, 0] + total / count
    std = (square / count - (total / count) ** 2).clamp_min(0).sqrt()
    for name, centre, spread in zip(names, mean.tolist(), std.tolist(), strict=True):
        if not spread > 1e-6 * max(abs(centre), 1e-30):
            raise ValueError(
                f"channel {name} is constant ({centre:g}) over the training data: "
                f"there is nothing to learn from it, {hint}"
            )
    return mean.tolist(), std.tolist()
