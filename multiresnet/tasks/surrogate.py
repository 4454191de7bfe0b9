"""Learning the next frames of a trajectory, and rolling them out.

Two errors are used and never mixed. The *relative squared error* |prediction - truth|^2 / |truth|^2 is the
loss; the *relative L2 error* is its square root per frame, |prediction - truth| / |truth|, and is what the
metrics report. Both take norms over channels and space of standardised frames, so channels of different units
weigh the same and a constant offset does not make an error look small.
"""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.callbacks import Timer
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from .finite import first_non_finite

__all__ = ["SurrogateTask", "relative_squared_error"]


def relative_squared_error(prediction: Tensor, truth: Tensor, *, start_dim: int = 1) -> Tensor:
    """|prediction - truth|^2 / |truth|^2, norms over all axes from `start_dim` on.

    Examples:
        >>> import torch
        >>> relative_squared_error(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 1.0]]))
        tensor([0.5000])
    """
    if prediction.shape != truth.shape:
        raise ValueError(
            f"prediction {tuple(prediction.shape)} and truth {tuple(truth.shape)} must have the same shape"
        )
    error = (prediction - truth).flatten(start_dim).square().sum(-1)
    return error / truth.flatten(start_dim).square().sum(-1).clamp_min(1e-12)


class SurrogateTask(LightningModule):
    """Train any module to predict the next frames, by AdamW with warm-up and cosine decay.

    The learning rate follows the training progress max(step / max_steps, elapsed / max_time), so a budget in
    time works as well as one in steps. Gradient clipping is the trainer's: `Trainer(gradient_clip_val=1.0)`.

    Args:
        model: maps (B, input_steps * C, *space) to (B, output_steps * C, *space), standardised values,
            time-major channels (all channels of the oldest frame first).
        input_steps: frames given.
        output_steps: frames predicted at once.
        mean, std: per channel; None takes them from the data module when training starts. Kept in the
            checkpoint.
        lr: highest learning rate.
        betas: of AdamW.
        weight_decay: of AdamW.
        warmup: part of the training over which the learning rate rises from (almost) 0.

    Logged: `train/loss` and `val/loss` (relative squared error), `val/rel_l2`, `test/one_step_rel_l2`,
    `test/rollout_rel_l2` (last frame of the rollout windows; `rollout_curve` then holds every frame's).

    Examples:
        >>> import torch
        >>> task = SurrogateTask(torch.nn.Conv2d(2, 1, 1), input_steps=2)
        >>> task.rollout(torch.zeros(4, 2, 1, 8, 8), 3).shape
        torch.Size([4, 3, 1, 8, 8])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: nn.Module,
        *,
        input_steps: int = 1,
        output_steps: int = 1,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        lr: float = 3e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 1e-5,
        warmup: float = 0.05,
    ) -> None:
        super().__init__()
        if (mean is None) != (std is None):
            raise ValueError("give both mean and std, or neither")
        if input_steps < 1 or output_steps < 1:
            raise ValueError(f"input_steps and output_steps must be >= 1, got {input_steps} and {output_steps}")
        if not (lr > 0 and 0 <= warmup < 1):
            raise ValueError(f"need lr > 0 and 0 <= warmup < 1, got lr={lr}, warmup={warmup}")
        mean = None if mean is None else [float(value) for value in mean]
        std = None if std is None else [float(value) for value in std]
        self.save_hyperparameters(ignore=["model"])
        self.model = model
        self.input_steps, self.output_steps = input_steps, output_steps
        self.lr, self.betas, self.weight_decay, self.warmup = lr, betas, weight_decay, warmup
        self.register_buffer("mean", torch.tensor(mean if mean is not None else [0.0]), persistent=False)
        self.register_buffer("std", torch.tensor(std if std is not None else [1.0]), persistent=False)
        self.rollout_curve: list[float] = []
        self._curve: list[Tensor] = []
        self._since_warmup: deque[Tensor] = deque(maxlen=200)
        self._total_steps = math.inf

    # ---- the map from frames to frames -----------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """Predict, in the units of the data: (B, input_steps, C, *space) -> (B, output_steps, C, *space)."""
        return self._destandardise(self._predict(self._standardise(x)))

    def rollout(self, x: Tensor, steps: int) -> Tensor:
        """Feed predictions back: x (B, input_steps, C, *space) to (B, steps, C, *space), in data units."""
        if steps < 1:
            raise ValueError(f"steps must be >= 1, got {steps}")
        history, frames = self._standardise(x), []
        for _ in range(math.ceil(steps / self.output_steps)):
            frames.append(self._predict(history))
            history = torch.cat([history, frames[-1]], dim=1)[:, -self.input_steps :]
        return self._destandardise(torch.cat(frames, dim=1)[:, :steps])

    def rollout_error(self, x: Tensor, truth: Tensor) -> Tensor:
        """Relative L2 error (B, steps) of each frame of a rollout against `truth` (B, steps, C, *space)."""
        prediction = self._standardise(self.rollout(x, truth.shape[1]))
        return relative_squared_error(prediction, self._standardise(truth), start_dim=2).sqrt()

    def persistence_error(self, x: Tensor, truth: Tensor) -> Tensor:
        """Relative L2 error of repeating the last given frame; returns (B, steps)."""
        still, truth = self._standardise(x[:, -1:]), self._standardise(truth)
        return relative_squared_error(still.expand_as(truth), truth, start_dim=2).sqrt()

    def _predict(self, x: Tensor) -> Tensor:
        """Standardised frames to frames: time is folded into the channels, oldest first, and unfolded."""
        if x.ndim < 4 or x.shape[1] != self.input_steps:
            raise ValueError(
                f"input must be (B, {self.input_steps}, C, *space), got {tuple(x.shape)}: "
                f"the second axis is time, input_steps={self.input_steps}"
            )
        channels = x.shape[2]
        y: Tensor = self.model(x.flatten(1, 2))
        wanted = (x.shape[0], self.output_steps * channels, *x.shape[3:])
        if y.shape != wanted:
            raise ValueError(
                f"the model returned {tuple(y.shape)}, wanted {tuple(wanted)}: give it "
                f"out_channels = output_steps * C = {wanted[1]}"
            )
        return y.reshape(wanted[0], self.output_steps, channels, *wanted[2:])

    def _standardise(self, x: Tensor) -> Tensor:
        shape = (-1,) + (1,) * (x.ndim - 3)
        return (x - self.mean.view(shape)) / self.std.view(shape)

    def _destandardise(self, x: Tensor) -> Tensor:
        shape = (-1,) + (1,) * (x.ndim - 3)
        return x * self.std.view(shape) + self.mean.view(shape)

    # ---- training --------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Take the statistics from the data module if none were given; they become hyperparameters."""
        data = getattr(self.trainer, "datamodule", None)
        if data is not None and self.hparams["mean"] is None and hasattr(data, "mean"):
            self._set_statistics(data.mean, data.std)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the statistics from the checkpoint."""
        kept = checkpoint["hyper_parameters"]
        if kept.get("mean") is not None:
            self._set_statistics(kept["mean"], kept["std"])

    def _set_statistics(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.hparams["mean"], self.hparams["std"] = list(mean), list(std)
        self.mean, self.std = torch.tensor(mean, device=self.device), torch.tensor(std, device=self.device)

    def configure_optimizers(self) -> Any:
        """AdamW, and the learning rate as a function of `progress`, renewed at every step."""
        weights = [p for p in self.model.parameters() if p.requires_grad]
        if not weights:
            raise ValueError(
                f"{type(self.model).__name__} has no trainable parameter: there is nothing to fit "
                "(use trainer.validate or trainer.test for a fixed model)"
            )
        optimizer = torch.optim.AdamW(weights, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay)
        schedule = LambdaLR(optimizer, lambda _: self.learning_rate_factor(self.progress()))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """Learn from the trainer how many steps there will be; infinity when only time is limited."""
        self._total_steps = float(self.trainer.estimated_stepping_batches)

    def progress(self) -> float:
        """Done part of the training, 0 to 1: the larger of steps / max_steps and elapsed time / max_time."""
        done = self.global_step / self._total_steps
        for timer in getattr(self._trainer, "callbacks", []):
            if isinstance(timer, Timer) and (left := timer.time_remaining("train")) is not None:
                elapsed = timer.time_elapsed("train")
                done = max(done, elapsed / max(elapsed + left, 1e-9))
        return min(done, 1.0)

    def learning_rate_factor(self, progress: float) -> float:
        """Linear warm-up, then cosine to 0.

        Examples:
            >>> task = SurrogateTask(nn.Conv1d(1, 1, 1), warmup=0.1)
            >>> [round(task.learning_rate_factor(p), 3) for p in (0.0, 0.05, 0.1, 0.55, 1.0)]
            [0.01, 0.5, 1.0, 0.5, 0.0]
        """
        warmup = self.warmup
        if progress < warmup:
            return max(progress / warmup, 0.01)
        return (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))) / 2

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Relative squared error of the standardised target frames, mean over the batch."""
        x, truth = (self._standardise(part) for part in batch)
        loss = relative_squared_error(self._predict(x), truth).mean()
        if self.global_step % 50 == 0 and not bool(loss.isfinite()):
            raise ValueError(self._explain_non_finite(x, truth))
        self.log("train/loss", loss, prog_bar=True)
        self._notice_collapse(loss.detach(), x, truth)
        return loss

    def _explain_non_finite(self, x: Tensor, truth: Tensor) -> str:
        at = f"the loss is not finite at step {self.global_step}"
        for name, part in (("input", x), ("target", truth)):
            if not bool(part.isfinite().all()):
                return f"{at}: the {name} holds NaN or Inf after standardisation (std {self.std.tolist()})"
        where = first_non_finite(self.model, x.flatten(1, 2)) or "the loss itself"
        return f"{at}: the first module with a non-finite output is {where}; lower lr or clip gradients"

    def _notice_collapse(self, loss: Tensor, x: Tensor, truth: Tensor) -> None:
        """Warn, once, if some time after the warm-up the loss is no lower than that of persistence."""
        progress, warmup = self.progress(), self.warmup
        if progress < warmup:
            return
        if progress < max(2 * warmup, 0.2):
            persistence = relative_squared_error(x[:, -1:].expand_as(truth), truth).mean()
            self._since_warmup.append(loss / persistence.clamp_min(1e-12))
        elif len(self._since_warmup) >= 20:
            ratio = torch.stack(tuple(self._since_warmup)).median()
            if bool(ratio > 0.99):
                warnings.warn(
                    f"the training loss is {float(ratio):.3g} times that of repeating the last frame: the "
                    "model has collapsed to its baseline; lower lr, lengthen the warm-up, or normalise",
                    stacklevel=2,
                )
            self._since_warmup.clear()

    # ---- evaluation ------------------------------------------------------------------------------------

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Log the loss and the relative L2 error of the next frames."""
        x, truth = (self._standardise(part) for part in batch)
        squared = relative_squared_error(self._predict(x), truth)
        self.log("val/loss", squared.mean(), prog_bar=True, batch_size=len(x))
        self.log("val/rel_l2", squared.sqrt().mean(), prog_bar=True, batch_size=len(x))
        return squared.mean()

    def on_test_epoch_start(self) -> None:
        """Forget the last rollout curve."""
        self._curve = []

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log the one-step error (first loader) and the error at the end of a rollout (second loader)."""
        error = self.rollout_error(*batch)
        name = "test/rollout_rel_l2" if dataloader_idx else "test/one_step_rel_l2"
        self.log(name, error[:, -1].mean(), batch_size=len(error), add_dataloader_idx=False)
        if dataloader_idx:
            self._curve.append(error)

    def on_test_epoch_end(self) -> None:
        """Keep the mean rollout error of every frame in `rollout_curve`."""
        if self._curve:
            self.rollout_curve = torch.cat(self._curve).mean(0).tolist()

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Roll out as many frames as the batch has targets."""
        return self.rollout(batch[0], batch[1].shape[1])
