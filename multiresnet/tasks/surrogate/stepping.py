"""From a network on channels to a map from frames to frames: time folded, the last frame added, predictions fed back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from multiresnet.tasks.resolutions import project_to_outputs, resolution_weights
from multiresnet.unet import UNet

from .metrics import relative_squared_error

__all__ = ["Stepper", "unrolled_loss"]


@dataclass(frozen=True)
class Stepper:
    """The next frames of a trajectory: (B, input_steps, C, *space) -> (B, output_steps, C', *space), standardised.

    Attributes:
        model: maps (B, input_steps * C, *space) to (B, output_steps * C', *space), all channels of the oldest frame first;
            takes `emb` as second argument where there is one.
        input_steps: frames given.
        output_steps: frames predicted at once.
        channels: C' where the target is another field than the input; `None` where it is the next frames, C' = C.
        add_last: add the last given frame to every frame of the output.

    Examples:
        >>> step = Stepper(nn.Conv1d(2, 1, 1), input_steps=2, output_steps=1)
        >>> step.rollout(torch.zeros(4, 2, 1, 8), 3).shape
        torch.Size([4, 3, 1, 8])
    """

    model: nn.Module
    input_steps: int
    output_steps: int
    channels: int | None = None
    add_last: bool = False

    def __call__(self, history: Tensor, emb: Tensor | None = None) -> Tensor:
        """The next frames."""
        return self.resolutions(history, emb, every=False)[-1]

    def resolutions(self, history: Tensor, emb: Tensor | None = None, *, every: bool = True) -> list[Tensor]:
        """The next frames at every resolution of `forward_resolutions`, coarsest first; or at the last one only.

        Raises:
            ValueError: frames of another number than `input_steps`, or a model with another number of channels.
        """
        if history.ndim < 4 or history.shape[1] != self.input_steps:
            raise ValueError(
                f"input must be (B, {self.input_steps}, C, *space), got {tuple(history.shape)}: "
                f"the second axis is time, input_steps={self.input_steps}"
            )
        inputs = (history.flatten(1, 2),) if emb is None else (history.flatten(1, 2), emb)
        model = cast(UNet, self.model)
        outputs = model.forward_resolutions(*inputs) if every else [model(*inputs)]
        channels = self.channels or history.shape[2]
        wanted = (len(history), self.output_steps * channels, *history.shape[3:])
        if outputs[-1].shape != wanted:
            raise ValueError(
                f"the model returned {tuple(outputs[-1].shape)}, wanted {wanted}: give it "
                f"out_channels = output_steps * C = {wanted[1]}"
            )
        frames = [y.unflatten(1, (self.output_steps, channels)) for y in outputs]
        if not self.add_last:
            return frames
        last = project_to_outputs(model, history[:, -1], outputs) if every else [history[:, -1]]
        return [y + frame.unsqueeze(1) for y, frame in zip(frames, last)]

    def advance(self, history: Tensor, frames: Tensor) -> Tensor:
        """The history after `frames` have followed it."""
        return torch.cat([history, frames], dim=1)[:, -self.input_steps :]

    def rollout(self, history: Tensor, steps: int, emb: Tensor | None = None) -> Tensor:
        """Feed predictions back: (B, steps, C', *space).

        Raises:
            ValueError: `steps` below 1, or predictions that cannot be fed back.
        """
        if steps < 1:
            raise ValueError(f"steps must be >= 1, got {steps}")
        if self.channels is not None and steps > self.output_steps:
            raise ValueError(
                f"steps={steps}: the target is another field than the input, so predictions cannot be fed back; "
                f"steps must be <= output_steps = {self.output_steps}"
            )
        frames: list[Tensor] = []
        for _ in range(math.ceil(steps / self.output_steps)):
            history = self.advance(history, frames[-1]) if frames else history
            frames.append(self(history, emb))
        return torch.cat(frames, dim=1)[:, :steps]


def unrolled_loss(
    step: Stepper,
    history: Tensor,
    truth: Tensor,
    emb: Tensor | None = None,
    *,
    skip: int = 0,
    deep_supervision: bool = False,
) -> tuple[Tensor, Tensor]:
    """Feed predictions back until all of `truth` is predicted; the first `skip` predictions get no loss and no gradient.

    Returns:
        the loss, and, detached, the relative squared error of the predictions; means over predictions and batch. They are
        the same but for deep supervision, where the loss adds up the resolutions with `resolution_weights`.
    """
    losses: list[Tensor] = []
    errors: list[Tensor] = []
    outputs: list[Tensor] = []
    for i, target in enumerate(truth.split(step.output_steps, dim=1)):
        history = step.advance(history, outputs[-1]) if i else history
        with torch.set_grad_enabled(torch.is_grad_enabled() and i >= skip):
            outputs = step.resolutions(history, emb, every=deep_supervision and i >= skip)
        if i >= skip:
            by_resolution = _errors(step.model, outputs, target)
            weights = resolution_weights(len(outputs))
            losses.append(torch.stack([w * error for w, error in zip(weights, by_resolution)]).sum())
            errors.append(by_resolution[-1].detach())
    return torch.stack(losses).mean(), torch.stack(errors).mean()


def _errors(model: nn.Module, outputs: list[Tensor], target: Tensor) -> list[Tensor]:
    """Mean squared error of each resolution against the projected target, relative to the norm of the whole target.

    By Pythagoras each is a part of the error of the next finer one; relative to the projected targets they would blow up
    where these vanish.
    """
    finest = relative_squared_error(outputs[-1], target).mean()
    if len(outputs) == 1:
        return [finest]
    energy = target.flatten(1).square().mean(1).clamp_min(1e-12)
    targets = project_to_outputs(cast(UNet, model), target.flatten(1, 2), outputs)
    squares = [(y.flatten(1, 2) - x).flatten(1).square().mean(1) for y, x in zip(outputs[:-1], targets)]
    return [*((square / energy).mean() for square in squares), finest]
