"""Learning the next frames of a trajectory, and rolling them out.

Two errors are used and never mixed. The *relative squared error* |prediction - truth|^2 / |truth|^2 is the
loss; the *relative L2 error* is its square root per frame, |prediction - truth| / |truth|, and is what the
metrics report. Both take norms over channels and space of standardised frames, so channels of different units
weigh the same and a constant offset does not make an error look small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from multiresnet.checks import check_choice, check_positive
from multiresnet.embeddings import Conditioning
from multiresnet.tasks.base import Task
from multiresnet.tasks.network import Network, NetworkSize
from multiresnet.tasks.standardise import Standardise
from multiresnet.unet import UNet

from .collapse import CollapseWatch
from .metrics import frame_errors, r_mse, relative_l2, relative_squared_error, vrmse
from .stepping import Stepper, unrolled_loss

__all__ = ["SurrogateTask", "relative_squared_error"]

Batch = Mapping[str, Tensor] | Sequence[Tensor]

_NETWORK = Network(preset="surrogate")
_SIZES = ("spatial_dims", "channels", "target_channels", "boundary", "parameters")
_STATISTICS = ("mean", "std", "target_mean", "target_std", "parameter_mean", "parameter_std")


class SurrogateTask(Task):
    """Train any module to predict the next frames of trajectories; see `Task` for the optimiser and the checkpoints.

    `training` is one of

    - `"one_step"`: predict the next `output_steps` frames;
    - `"unrolled"`: feed predictions back, `unroll_steps` of them in a row; the loss is the mean of all, its gradient goes
      through the whole chain;
    - `"pushforward"` (Brandstetter et al., arXiv 2202.03376): feed back 0 ... unroll_steps - 1 predictions, a new random
      number for each batch, without gradient; the loss is that of one more.

    Networks that have `emb_channels` are conditioned on the physical parameters of the data; a `Network` gets them by
    itself. Where the targets are other fields than the inputs (steady problems) nothing is fed back and no frame added.

    Args:
        model: maps (B, input_steps * C, *space) to (B, output_steps * C, *space), standardised values, all channels of the
            oldest frame first; or a `Network`.
        input_steps: frames given.
        output_steps: frames predicted at once.
        training: see above.
        unroll_steps: predictions in a row, 2 or more unless `training` is `"one_step"`; the data module takes it too.
        unroll_from: part of the training, 0 to 1, that goes by one step first: it is cheaper, and a network that predicts
            badly learns little from its own predictions.
        target: what is learned: `"delta"`, the change since the last given frame, or `"absolute"`, the frame. The last frame
            is added once: by a network of ours built with `delta=True`, else by the task. `None` takes `"delta"` for a
            `Network` and for a network with `delta=True`; any other module is used as it is.
        noise: standard deviation of Gaussian noise on the standardised inputs, in training only, so that rollouts meet
            inputs like those of the training (Sanchez-Gonzalez et al., arXiv 2002.09405). The targets have none.
        mean: per channel; None takes it from the data module when training starts. Kept in the checkpoint.
        std: per channel; the same.
        deep_supervision: a loss at every resolution of `forward_resolutions`, see `unrolled_loss`.
        lr: highest learning rate.
        weight_decay: of AdamW.
        warmup: part of the training over which the learning rate rises from (almost) 0.

    Logged: `train/loss`, `val/loss` (relative squared error of one prediction), `val/rel_l2`, `val/vrmse`, and
    `val/rollout_rel_l2` where the targets are longer than a prediction. In tests all of `frame_errors`, as
    `test/one_step_...` (first loader) and `test/rollout_...` (second loader, means over its windows), and for repeating the
    last frame as `test/persistence_one_step_...` and `test/persistence_rollout_...`; of rollouts also `..._last_rel_l2`, and
    `..._r_mse` if they have 5 frames. `curves` then holds each error of the rollouts step by step.

    Raises:
        ValueError: options that contradict each other; data or a network that don't fit them.

    Examples:
        >>> import torch
        >>> task = SurrogateTask(torch.nn.Conv2d(2, 1, 1), input_steps=2)
        >>> task.rollout(torch.zeros(4, 2, 1, 8, 8), 3).shape
        torch.Size([4, 3, 1, 8, 8])
    """

    def __init__(
        self,
        model: nn.Module | Network = _NETWORK,
        *,
        input_steps: int = 1,
        output_steps: int = 1,
        training: Literal["one_step", "unrolled", "pushforward"] = "one_step",
        unroll_steps: int = 1,
        unroll_from: float = 0.0,
        target: Literal["delta", "absolute"] | None = None,
        noise: float = 0.0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        deep_supervision: bool = False,
        lr: float = 3e-3,
        weight_decay: float = 1e-5,
        warmup: float = 0.05,
    ) -> None:
        super().__init__(model, lr=lr, weight_decay=weight_decay, warmup=warmup)
        has_delta = bool(getattr(model, "delta", False))
        if target is None:
            target = "delta" if has_delta or self.network is not None else "absolute"
        mean, std = (None if values is None else [float(v) for v in values] for values in (mean, std))
        self.save_hyperparameters(ignore=["model"])
        check_positive(input_steps=input_steps, output_steps=output_steps, unroll_steps=unroll_steps)
        check_choice("training", training, ("one_step", "unrolled", "pushforward"))
        check_choice("target", target, ("delta", "absolute"))
        if (training == "one_step") != (unroll_steps == 1):
            raise ValueError(
                f"training={training!r} does not go with unroll_steps={unroll_steps}: "
                "'one_step' takes 1, 'unrolled' and 'pushforward' take 2 or more"
            )
        if has_delta and target == "absolute":
            raise ValueError("target='absolute', but the network adds the last frame: build it with delta=False")
        if (mean is None) != (std is None):
            raise ValueError("give both mean and std, or neither")
        if not noise >= 0:
            raise ValueError(f"noise must be >= 0, got {noise}")
        if deep_supervision and not isinstance(model, (Network, UNet)):
            raise ValueError(f"deep_supervision needs a network of multiresnet, got {type(model).__name__}")
        if not 0 <= unroll_from < 1:
            raise ValueError(f"unroll_from is a part of the training, 0 <= unroll_from < 1, got {unroll_from}")
        self.input_steps, self.output_steps, self.unroll_steps = input_steps, output_steps, unroll_steps
        self.unroll_from = unroll_from
        self.scheme, self.target, self.noise, self.deep_supervision = training, target, noise, deep_supervision
        self.input_scale, self.target_scale, self.parameter_scale = Standardise(), Standardise(), Standardise(axis=1)
        self.conditioning: Conditioning | None = None
        self.curves: dict[str, list[float]] = {}
        self._errors_by_step: dict[str, list[Tensor]] = {}
        self._watch = CollapseWatch(warmup)
        if mean is not None and std is not None:
            self._scale({"mean": mean, "std": std})

    # ---- what the data settle --------------------------------------------------------------------------

    def read_data(self, data: Any) -> dict[str, Any]:
        """Sizes, boundary condition and statistics of the training data."""
        if getattr(data, "input_steps", self.input_steps) != self.input_steps:
            raise ValueError(
                f"the data module gives {data.input_steps} input frames, the task takes {self.input_steps}: "
                "set input_steps to the same number in both"
            )
        given = {name: getattr(data, name, None) for name in (*_SIZES, *_STATISTICS)}
        if self.hparams["mean"] is not None:
            given |= {"mean": self.hparams["mean"], "std": self.hparams["std"]}
        facts = {name: value for name, value in given.items() if value is not None}
        return facts | {name: [float(v) for v in facts[name]] for name in _STATISTICS if name in facts}

    def settle(self, facts: dict[str, Any]) -> None:
        """Take over the statistics, and say whether a network that is still to be built adds the last frame itself."""
        super().settle(facts)
        self._scale(facts)
        if self.network is not None:  # where it cannot (it adds as many frames as it predicts), the task does
            own = self.target == "delta" and self.output_steps == 1 and not self.steady
            network = cast(Network, self.network)
            self.network = replace(network, options={**network.options, "delta": own})

    def _scale(self, facts: Mapping[str, Any]) -> None:
        model = getattr(self, "model", None)  # not there yet where the task builds it, on boxes
        if getattr(model, "anchored", False):
            facts = {**facts, **{name: [0.0] * len(facts[name]) for name in ("mean", "target_mean") if name in facts}}
        if "mean" in facts:
            self.input_scale.fit_to(facts["mean"], facts["std"])
            self.target_scale.fit_to(facts.get("target_mean", facts["mean"]), facts.get("target_std", facts["std"]))
        if facts.get("parameters"):
            self.parameter_scale.fit_to(facts["parameter_mean"], facts["parameter_std"])

    @property
    def steady(self) -> bool:
        """Whether the targets are other fields than the inputs."""
        return any(name.startswith("target_") for name in self.facts)

    def network_size(self) -> NetworkSize:
        """Channels of all frames together; 64 channels of conditioning if there are parameters."""
        facts = self.facts
        return NetworkSize(
            in_channels=self.input_steps * facts["channels"],
            out_channels=self.output_steps * facts.get("target_channels", facts["channels"]),
            spatial_dims=facts["spatial_dims"],
            boundary=facts["boundary"],
            emb_channels=64 if facts.get("parameters") else 0,
        )

    def _condition(self) -> None:
        channels = int(getattr(self.model, "emb_channels", 0))
        parameters = self.facts.get("parameters", 0)
        if channels and self.facts and not parameters:
            raise ValueError(f"the network has emb_channels={channels}, but the data have no physical parameters")
        if channels and parameters and self.conditioning is None:
            self.conditioning = Conditioning(channels, parameters=parameters).to(self.device)

    # ---- the map from frames to frames -----------------------------------------------------------------

    def forward(self, x: Tensor, parameters: Tensor | None = None) -> Tensor:
        """Predict, in the units of the data: (B, input_steps, C, *space) -> (B, output_steps, C, *space)."""
        return self.rollout(x, self.output_steps, parameters)

    def rollout(self, x: Tensor, steps: int, parameters: Tensor | None = None) -> Tensor:
        """Feed predictions back: x (B, input_steps, C, *space) to (B, steps, C, *space), in data units."""
        step = self._stepper(self.model)
        return self.target_scale.inverse(step.rollout(self.input_scale(x), steps, self._embed(parameters)))

    def rollout_error(self, x: Tensor, truth: Tensor, parameters: Tensor | None = None) -> Tensor:
        """Relative L2 error (B, steps) of each frame of a rollout against `truth` (B, steps, C, *space)."""
        prediction = self._stepper(self.model).rollout(self.input_scale(x), truth.shape[1], self._embed(parameters))
        return relative_l2(prediction, self.target_scale(truth))

    def persistence_error(self, x: Tensor, truth: Tensor) -> Tensor:
        """Relative L2 error of repeating the last given frame; returns (B, steps)."""
        return relative_l2(self.input_scale(x[:, -1:]).expand_as(truth), self.target_scale(truth))

    @property
    def rollout_curve(self) -> list[float]:
        """Relative L2 error of every step of the last test's rollouts; empty before."""
        return self.curves.get("rel_l2", [])

    def _stepper(self, model: nn.Module) -> Stepper:
        add_last = self.target == "delta" and not self.steady and not getattr(model, "delta", False)
        channels = self.facts.get("target_channels", self.facts["channels"]) if self.steady else None
        return Stepper(model, self.input_steps, self.output_steps, channels, add_last)

    def _embed(self, parameters: Tensor | None) -> Tensor | None:
        if self.conditioning is None:
            return None
        scaled = None if parameters is None else self.parameter_scale(parameters)
        emb: Tensor = self.conditioning(parameters=scaled)
        return emb

    # ---- training --------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Relative squared error of standardised frames, mean over the predictions and the batch."""
        x, truth, emb = self._read(batch)
        skip, count = 0, self.unroll_steps if self.progress() >= self.unroll_from else 1
        if self.scheme == "pushforward" and count > 1:
            skip = int(torch.randint(self.unroll_steps, ()))
            count = skip + 1
        truth = self._predictions(truth, count)
        model, folded = self.at_stage(x.flatten(1, 2), truth.flatten(1, 2))
        x, truth = (y.unflatten(1, frames.shape[1:3]) for y, frames in zip(folded, (x, truth)))
        history, step = x + self.noise * torch.randn_like(x) if self.noise else x, self._stepper(model)
        loss, error = unrolled_loss(step, history, truth, emb, skip=skip, deep_supervision=self.deep_supervision)
        self.guard(loss, model, history.flatten(1, 2), *(() if emb is None else (emb,)))
        self.log("train/loss", loss, prog_bar=True, batch_size=len(x))
        if self._watch.listening(self.progress()) and not self.steady:
            targets = truth.split(self.output_steps, dim=1)[skip:]
            still = [relative_squared_error(x[:, -1:].expand_as(target), target).mean() for target in targets]
            self._watch.compare(error, torch.stack(still).mean())
        return loss

    def _read(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        """Standardised input and target, and the conditioning vector."""
        batch = _by_name(batch)
        emb = self._embed(batch.get("parameters"))
        return self.input_scale(batch["input"]), self.target_scale(batch["target"]), emb

    def _predictions(self, truth: Tensor, count: int = 1) -> Tensor:
        """The frames of the first `count` predictions."""
        frames = count * self.output_steps
        if truth.shape[1] < frames:
            raise ValueError(
                f"{count} predictions of {self.output_steps} frames need targets of {frames} frames, got {truth.shape[1]}: "
                f"build the data module with output_steps={self.output_steps}, unroll_steps={self.unroll_steps}"
            )
        return truth[:, :frames]

    # ---- evaluation ------------------------------------------------------------------------------------

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Log the loss and the errors of one prediction, and of a rollout where the targets are longer."""
        x, truth, emb = self._read(batch)
        target = self._predictions(truth)
        frames = self._stepper(self.model).rollout(x, truth.shape[1], emb)
        prediction = frames[:, : self.output_steps]
        loss = relative_squared_error(prediction, target).mean()
        self._log({"val/loss": loss, "val/rel_l2": relative_l2(prediction, target)}, len(x), prog_bar=True)
        self._log({"val/vrmse": vrmse(prediction, target)}, len(x))
        if truth.shape[1] > self.output_steps:
            self._log({"val/rollout_rel_l2": relative_l2(frames, truth)}, len(x))
        return loss

    def on_test_epoch_start(self) -> None:
        """Forget the curves of the last test."""
        self.curves, self._errors_by_step = {}, {}

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log the errors of one prediction (first loader), of rollouts over whole windows (second), and of persistence."""
        x, truth, emb = self._read(batch)
        truth = truth if dataloader_idx else self._predictions(truth)
        guesses = {"": self._stepper(self.model).rollout(x, truth.shape[1], emb)}
        if not self.steady:
            guesses["persistence_"] = x[:, -1:].expand_as(truth)
        in_units, boundary = self.target_scale.inverse, self.facts.get("boundary", "replicate")
        for who, frames in guesses.items():
            errors = frame_errors(frames, truth, boundary=boundary, units=in_units)
            name = f"test/{who}rollout_" if dataloader_idx else f"test/{who}one_step_"
            self._log({name + key: value for key, value in errors.items()}, len(x))
            if dataloader_idx:
                self._log({name + "last_rel_l2": errors["rel_l2"][:, -1]}, len(x))
                for key, value in errors.items():
                    self._errors_by_step.setdefault(who + key, []).append(value)
            if dataloader_idx and truth.shape[1] >= 5:
                self._log({name + "r_mse": r_mse(in_units(frames), in_units(truth))}, len(x))

    def on_test_epoch_end(self) -> None:
        """Means of every step of the rollouts, over the windows of all processes, into `curves`."""
        for key, parts in self._errors_by_step.items():
            errors = torch.cat(parts)
            sums = torch.cat([errors.sum(0), errors.new_tensor([len(errors)])])
            sums = self.trainer.strategy.reduce(sums, reduce_op="sum")
            self.curves[key] = (sums[:-1] / sums[-1]).tolist()

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> dict[str, Tensor]:
        """Roll out as many frames as the batch has targets: `prediction` and `target`, (B, T, C, *space), data units."""
        batch = _by_name(batch)
        target = batch["target"]
        return {"prediction": self.rollout(batch["input"], target.shape[1], batch.get("parameters")), "target": target}

    def _log(self, values: Mapping[str, Tensor], batch_size: int, *, prog_bar: bool = False) -> None:
        """Log means over the epoch and over all processes, every sample weighing the same."""
        means = {name: value.mean() for name, value in values.items()}
        self.log_dict(means, batch_size=batch_size, prog_bar=prog_bar, sync_dist=True, add_dataloader_idx=False)


def _by_name(batch: Batch) -> Mapping[str, Tensor]:
    return batch if isinstance(batch, Mapping) else {"input": batch[0], "target": batch[1]}
