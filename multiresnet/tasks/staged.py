"""Algorithm 1 of paper A: train U_0, then U_1, ... up to the whole network, each on data projected to its resolution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from multiresnet.unet import UNet

from .base import Task

__all__ = ["StagedTraining"]


class StagedTraining(Callback):
    """Train coarse to fine: stage i trains the sub-network `model.stage(i)` on projected inputs and targets.

    A step of a stage costs about 2**(-spatial_dims) of one of the next finer stage. Every stage begins with a new warm-up,
    as long as that of the whole training, and new moments of Adam, and its learning rate falls to 0 at its end. The stage
    follows from the training progress, so a run that is resumed is in the right one. Validation always measures the whole
    network.

    Args:
        fractions: part of the training for each stage, coarsest first; they sum to 1. n of them train the n finest stages,
            the last of which is the whole network. They count steps or time, whichever limits the trainer.
        steps: the same as numbers of optimiser steps; the last stage may be `None`, the rest. Needs `max_steps` or
            `max_epochs`.
        freeze: leave what earlier stages have learned as it is: `model.stage(i)` gives the same output, bit for bit, ever
            after.

    With more than one process use `Trainer(strategy="ddp_find_unused_parameters_true")`: a stage has not all parameters.

    Raises:
        ValueError: neither or both of `fractions` and `steps`, or parts that make no sense; at the start of the training,
            a network without stages, more stages than it has, or more steps than the training.

    Examples:
        >>> from lightning import Trainer
        >>> trainer = Trainer(max_steps=1000, callbacks=[StagedTraining(fractions=(0.1, 0.2, 0.3, 0.4))], logger=False)
    """

    def __init__(
        self,
        *,
        fractions: Sequence[float] | None = None,
        steps: Sequence[int | None] | None = None,
        freeze: bool = False,
    ) -> None:
        if (fractions is None) == (steps is None):
            raise ValueError("give fractions=(...) or steps=(...), coarsest stage first, and not both")
        if fractions is not None and (not fractions or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6):
            raise ValueError(f"fractions must be positive and sum to 1, got {tuple(fractions)}")
        if steps is not None and (not steps or any(n is None or n < 1 for n in steps[:-1])):
            raise ValueError(f"steps must be numbers >= 1, only the last may be None, got {tuple(steps)}")
        self.fractions, self.steps, self.freeze = fractions, steps, freeze
        self._bounds: list[float] = []  # training progress at which each stage ends
        self._frozen: list[nn.Module] = []
        self._held: list[nn.Parameter] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the network and lay out the stages."""
        if not (isinstance(pl_module, Task) and isinstance(pl_module.model, UNet)):
            raise ValueError(
                f"StagedTraining needs a task of multiresnet.tasks around a network of multiresnet, got "
                f"{type(pl_module).__name__} around {type(getattr(pl_module, 'model', None)).__name__}"
            )
        parts = self._parts(float(trainer.estimated_stepping_batches))
        model = pl_module.model
        stages = len(model.heads) or model.num_levels
        if len(parts) > stages:
            raise ValueError(f"{len(parts)} stages asked for, the network has {stages} (model.stage)")
        self._bounds = [*accumulate(parts)][:-1] + [1.0]
        pl_module.stage = None  # settled at the first batch

    def _parts(self, total: float) -> list[float]:
        if self.fractions is not None:
            return list(self.fractions)
        if math.isinf(total):
            raise ValueError("steps need a training of max_steps or max_epochs; use fractions where time is the limit")
        given = [n for n in self.steps or () if n is not None]
        rest = total - sum(given)
        if rest < 0 or (rest == 0 and self.steps is not None and self.steps[-1] is None):
            raise ValueError(f"the stages take {sum(given)} steps, the training has only {total:g}")
        parts = [n / total for n in given]
        return [*parts, rest / total] if self.steps and self.steps[-1] is None else [*parts[:-1], 1 - sum(parts[:-1])]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Enter the stage that the progress says."""
        if not isinstance(pl_module, Task) or not isinstance(model := pl_module.model, UNet):
            return
        pl_module.span = (0.0, 1.0)
        progress = pl_module.progress()
        place = next((i for i, bound in enumerate(self._bounds) if progress < bound - 1e-12), len(self._bounds) - 1)
        stage = model.num_levels - len(self._bounds) + place
        pl_module.span = (self._bounds[place - 1] if place else 0.0, self._bounds[place])
        if stage != pl_module.stage:
            entered = pl_module.stage is not None  # not the first batch of a (resumed) training
            pl_module.stage = stage
            if entered:
                trainer.optimizers[0].state.clear()
            if self.freeze and place:
                below = model.stage(stage - 1)
                conditioning = getattr(pl_module, "conditioning", None)  # what the stage is conditioned on stays, too
                held = [*below.parameters(), *(conditioning.parameters() if conditioning is not None else ())]
                self._held += [parameter for parameter in held if parameter.requires_grad]
                for parameter in self._held:
                    parameter.requires_grad_(False)
                    parameter.grad = None
                self._frozen = [m for m in below.modules() if isinstance(m, _BatchNorm)]
        for norm in self._frozen:  # running statistics are part of the output
            norm.eval()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave an ordinary task behind."""
        if isinstance(pl_module, Task):
            pl_module.stage, pl_module.span = None, (0.0, 1.0)
            for parameter in self._held:
                parameter.requires_grad_(True)
            self._held = []
