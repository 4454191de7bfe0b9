"""Noticing a network that has learned nothing but its baseline."""

from __future__ import annotations

import warnings
from collections import deque

import torch
from torch import Tensor

__all__ = ["CollapseWatch"]


class CollapseWatch:
    """Warn, once, if some time after the warm-up the training error is no lower than that of repeating the last frame.

    Networks without norm layers end there when the learning rate was too high. The median over up to 200 steps decides.
    """

    def __init__(self, warmup: float) -> None:
        self.warmup, self._ratios = warmup, deque[Tensor](maxlen=200)

    def listening(self, progress: float) -> bool:
        """Whether the errors at this point of the training are of interest; passes judgement when they no longer are."""
        if progress >= max(2 * self.warmup, 0.2):
            if len(self._ratios) >= 20 and (ratio := float(torch.stack(tuple(self._ratios)).median())) > 0.99:
                warnings.warn(
                    f"the training loss is {ratio:.3g} times that of repeating the last frame: the "
                    "model has collapsed to its baseline; lower lr, lengthen the warm-up, or normalise",
                    stacklevel=2,
                )
            self._ratios.clear()
            return False
        return progress >= self.warmup

    def compare(self, error: Tensor, baseline: Tensor) -> None:
        """Take in the errors of a step, detached; no wait for the device."""
        self._ratios.append(error / baseline.clamp_min(1e-12))
