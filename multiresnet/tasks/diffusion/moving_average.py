"""Exponential moving average of the weights."""

from __future__ import annotations

import warnings

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

__all__ = ["MovingAverage"]


class MovingAverage(WeightAveraging):
    """Lightning's `EMAWeightAveraging` with a decay that grows to its value: min(decay, (1 + n) / (10 + n)) after n steps.

    So a short training is not held back by its first weights. As in Lightning, validation uses the averaged weights,
    checkpoints hold them in `state_dict` (and those in training beside them, from which a run is resumed), and the task has
    them after training.

    Args:
        decay: the average reaches back about 1 / (1 - decay) steps.

    Examples:
        >>> from lightning import Trainer
        >>> trainer = Trainer(callbacks=[MovingAverage(0.999)], logger=False)
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"decay must be between 0 and 1, got {decay}")
        self.decay = decay
        super().__init__(avg_fn=self._average)

    def _average(self, average: Tensor, current: Tensor, n: Tensor | int) -> Tensor:
        decay = min(self.decay, (1 + int(n)) / (10 + int(n)))
        return average.lerp(current.to(average), 1 - decay) if average.is_floating_point() else current

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lightning's, without its warning about sharded models: our tasks build the network late for another reason."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*overrides the configure_model")
            super().setup(trainer, pl_module, stage)
