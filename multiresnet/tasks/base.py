"""What all tasks share: the network, AdamW with warm-up and cosine, guards, and random numbers that survive a restart."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import numpy as np
import torch
from lightning import LightningModule
from lightning.pytorch.callbacks import Timer
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from multiresnet import pretrained
from multiresnet.unet import UNet

from .finite import first_non_finite
from .network import KINDS, Description
from .resolutions import coarsen

__all__ = ["Task"]


class Task(LightningModule):
    """Base of the tasks: a `LightningModule` around any `torch.nn.Module`.

    The optimiser is AdamW; the learning rate rises linearly, then falls as a cosine to 0 with the training progress
    max(step / max_steps, elapsed / max_time), so a budget in time works as well as one in steps. Gradient clipping is the
    trainer's: `Trainer(gradient_clip_val=1.0)`.

    What the data settle (channels, statistics, classes, ...) is read from the trainer's data module when training starts,
    kept in `facts`, and saved in checkpoints. These hold a network of ours whole: `load_from_checkpoint(path)` needs no
    `model`; any other network has to be given again, `load_from_checkpoint(path, model=...)`.

    After `lightning.seed_everything(n)` the random numbers of a training step depend on (n, step, process) only, so a run
    that is resumed goes on as if it had never stopped.

    Args:
        model: the network, or its description (`Network`), to be built for the data.
        lr: highest learning rate.
        weight_decay: of AdamW.
        warmup: part of the training over which the learning rate rises from (almost) 0.
    """

    model: nn.Module
    monitor: tuple[str, str] = ("val/loss", "min")  # what says which checkpoint is best
    kinds: ClassVar[Mapping[str, type[nn.Module]]] = KINDS  # networks that checkpoints hold whole

    def __init__(self, model: nn.Module | Description, *, lr: float, weight_decay: float, warmup: float) -> None:
        super().__init__()
        if not (lr > 0 and 0 <= warmup < 1 and weight_decay >= 0):
            raise ValueError(
                f"need lr > 0, weight_decay >= 0 and 0 <= warmup < 1, got lr={lr}, weight_decay={weight_decay}, "
                f"warmup={warmup}"
            )
        self.network: Description | None = None
        if isinstance(model, nn.Module):
            self.model = model
        elif isinstance(model, Description):
            self.network = model
        else:
            raise TypeError(f"model must be a torch.nn.Module or a Network, got {type(model).__name__}")
        self.lr, self.weight_decay, self.warmup = lr, weight_decay, warmup
        self.facts: dict[str, Any] = {}
        self.stage: int | None = None  # of StagedTraining, and the part of the training that it takes
        self.span = (0.0, 1.0)
        self._total_steps = math.inf

    # ---- what the data settle --------------------------------------------------------------------------

    def read_data(self, data: Any) -> dict[str, Any]:
        """The facts that this task takes from a data module, as plain values."""
        return {}

    def settle(self, facts: dict[str, Any]) -> None:
        """Take over facts, from the data or from a checkpoint. Extend it to set buffers."""
        self.facts = dict(facts)

    def network_size(self) -> Any:
        """What `network.build` is given, from `facts`; only asked for where the task was given a description."""
        raise NotImplementedError

    def configure_model(self) -> None:
        """Read the facts off the data module and build the network, each once."""
        data = getattr(self._trainer, "datamodule", None)
        if data is not None and not self.facts and not self._runs("predict"):  # those may lack masks, statistics, ...
            self.settle(self.read_data(data))
        if self.network is not None and not self.built and self.facts:
            self.model = self.network.build(self.network_size())
        if self.built:
            self._condition()

    def _condition(self) -> None:
        """Once there is a network: build what turns facts and labels into its `emb`, where it takes one."""

    @property
    def built(self) -> bool:
        """Whether there is a network yet."""
        return "model" in self._modules

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the facts, and what rebuilds the network if it is one of ours."""
        checkpoint["task"], checkpoint["facts"] = type(self).__name__, self.facts
        if (layout := self._layout()) is not None:
            checkpoint["network"] = layout

    def _layout(self) -> dict[str, Any] | None:
        """What rebuilds the network, as plain values."""
        network: Any = getattr(self.model, "_orig_mod", self.model)  # what torch.compile(model) has wrapped
        config = cast(Any, network).config if isinstance(network, tuple(self.kinds.values())) else {}
        return {key: pretrained.to_json(value) for key, value in config.items()} or None

    def _runs(self, command: str) -> bool:
        """Whether the trainer is at `fit`, `validate`, `test` or `predict`."""
        return self._trainer is not None and self._trainer.state.fn == command

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the facts over; build the network if there is none yet."""
        self.settle(checkpoint.get("facts", {}))
        other = self.network is not None and self.built and checkpoint.get("network") not in (None, self._layout())
        if not self.built or (other and not self._runs("fit")):  # in evaluation the checkpoint wins over the data
            if "network" not in checkpoint:
                raise ValueError(
                    "the checkpoint does not hold the layout of its network, which is not one of multiresnet's: "
                    f"give it, {type(self).__name__}.load_from_checkpoint(path, model=...)"
                )
            arguments = checkpoint["network"]
            self.model = pretrained.build(self.kinds[arguments["build"].partition(".")[0]], arguments)
        if not hasattr(self.model, "_orig_mod"):  # saved with torch.compile(model), loaded without
            for key in {"state_dict", "current_model_state"} & checkpoint.keys():
                checkpoint[key] = {name.replace("_orig_mod.", ""): value for name, value in checkpoint[key].items()}
        self._condition()

    # ---- optimisation ----------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """AdamW, and the learning rate as a function of `progress`, renewed at every step."""
        weights = [p for p in self.parameters() if p.requires_grad]
        if not weights:
            raise ValueError(
                f"{type(self.model).__name__} has no trainable parameter: there is nothing to fit "
                "(use trainer.validate or trainer.test for a fixed model)"
            )
        optimizer = torch.optim.AdamW(weights, lr=self.lr, betas=(0.9, 0.99), weight_decay=self.weight_decay)
        schedule = LambdaLR(optimizer, lambda _: self.learning_rate_factor(self.progress()))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """Learn from the trainer how many steps there will be; infinity when only time is limited."""
        self._total_steps = float(self.trainer.estimated_stepping_batches)

    def progress(self) -> float:
        """Done part of the training (of the stage, under `StagedTraining`), 0 to 1, in steps or time, whichever is more."""
        done = self.global_step / self._total_steps
        for timer in getattr(self._trainer, "callbacks", []):
            if isinstance(timer, Timer) and (left := timer.time_remaining("train")) is not None:
                elapsed = timer.time_elapsed("train")
                done = max(done, elapsed / max(elapsed + left, 1e-9))
        start, end = self.span
        return min(max((done - start) / (end - start), 0.0), 1.0)

    def learning_rate_factor(self, progress: float) -> float:
        """Linear warm-up, as long for a stage as for the whole training (half of the stage at most), then cosine to 0."""
        start, end = self.span
        warmup = min(self.warmup / (end - start), max(self.warmup, 0.5))
        if progress < warmup:
            return max(progress / warmup, 0.01)
        return (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))) / 2

    # ---- training --------------------------------------------------------------------------------------

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Random numbers of this step: by (seed, batch, process), if a seed was set."""
        if (seed := os.environ.get("PL_GLOBAL_SEED")) is not None:
            place = (int(seed), self.trainer.fit_loop.total_batch_idx, self.global_rank)
            torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]))

    def at_stage(self, *fields: Tensor) -> tuple[nn.Module, list[Tensor]]:
        """The network in training and the fields on its grid: the whole, or `model.stage(i)` under `StagedTraining`."""
        if self.stage is None:
            return self.model, list(fields)
        model = cast(UNet, self.model)
        return model.stage(self.stage), [coarsen(model, field, self.stage) for field in fields]

    def guard(self, loss: Tensor, model: nn.Module, *inputs: Tensor | None) -> None:
        """At step 0 and every 50th, refuse a loss that is not finite and name the first module that is at fault.

        Raises:
            ValueError: NaN or Inf in the loss; says whether the inputs held it already.
        """
        if self.global_step % 50 or bool(loss.isfinite()):
            return
        at = f"the loss is not finite at step {self.global_step}"
        if any(x is not None and not bool(x.isfinite().all()) for x in inputs):
            raise ValueError(f"{at}: the input of the network holds NaN or Inf; look at the data and their statistics")
        where = first_non_finite(model, *inputs) or "the loss itself (look at the targets)"
        raise ValueError(f"{at}: the first module with a non-finite output is {where}; lower lr or clip gradients")
