"""Learning to denoise images, and drawing new ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from multiresnet.checks import check_choice, check_positive
from multiresnet.embeddings import Conditioning
from multiresnet.tasks.base import Task
from multiresnet.tasks.network import Network, NetworkSize
from multiresnet.tasks.resolutions import coarsen, project_to_outputs
from multiresnet.unet import UNet

from .labels import (
    check_images,
    check_labels,
    check_network,
    hide_labels,
    image_facts,
    labels_of,
    network_inputs,
    network_output,
)
from .noise import LogNormal, NoiseLevels, Schedule, Steps, as_levels, fixed_noise
from .parametrisation import PREDICTIONS, Prediction, denoised, input_scale, mixing, shrinkage, snr_weight
from .samplers import DEFAULT_STEPS, Sampler, draw, evaluating, make_scheduler

__all__ = ["DiffusionTask"]


class DiffusionTask(Task):
    """Train a diffusion model on images in [-1, 1], with or without classes.

    Batches are dicts {"image": (B, C, *space), "label": (B,) int64 where there are classes}; data modules say `channels`,
    `spatial_dims`, `boundary`, `size` and `classes`. Noisy images are x = x0 + sigma eps; see
    `multiresnet.tasks.diffusion.parametrisation` for the predictions. The validation loss uses the same noise in every epoch.

    Weights averaged by Lightning's `EMAWeightAveraging`, or by `MovingAverage`, are those that validation uses, checkpoints
    hold, and the task has after training.

    Args:
        model: a `Network`; or a module called as model(x, emb), emb of `emb_channels`; or one called as
            model(x, timestep, class_labels=...) like diffusers' `UNet2DModel`, with `classes + 1` class embeddings.
        prediction: what the network predicts: `"eps"`, `"x0"`, `"v"`, or `"edm"`, which also trains at EDM's noise levels.
        schedule: noise levels of the other three: `"cosine"`, `"linear"`, `"scaled_linear"`, `"sigmoid"`.
        classes: number of classes; `None` takes that of the data, 0 ignores labels.
        drop_label: part of the labels that is hidden in training, for samples without a label and for guidance.
        emb_channels: length of the conditioning vector.
        deep_supervision: train the outputs at all resolutions; each level's loss is divided by the variance of its target,
            which is that of the noise, 2**(-spatial_dims * k), k levels below the finest if noise is predicted.
        stage_noise: under `StagedTraining`, `"consistent"` shows a coarse stage what it meets inside the whole network, noisy
            images averaged, so that its SNR is 2**(spatial_dims * k) times higher; `"same"` averages the images first.
        min_snr: gamma of the loss weights min(SNR, gamma) of 2303.09556 (5 is usual); `None` weighs all noise levels alike
            in the network's output, the simple loss of DDPM and the weights of EDM.
        lr: highest learning rate.
        weight_decay: of AdamW.
        warmup: part of the training over which the learning rate rises.

    Examples:
        >>> network = Network(options={"channels": (16, 16), "num_blocks": 1, "patch_levels": 0, "emb_channels": 32})
        >>> task = DiffusionTask(network.build(NetworkSize(1, 1)), prediction="v")
        >>> task.sample(2, size=(1, 8, 8), steps=3).shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        model: nn.Module | Network = Network(),  # noqa: B008 (frozen)
        *,
        prediction: Prediction = "v",
        schedule: Schedule = "cosine",
        classes: int | None = None,
        drop_label: float = 0.1,
        emb_channels: int = 128,
        deep_supervision: bool = False,
        stage_noise: Literal["consistent", "same"] = "consistent",
        min_snr: float | None = None,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        warmup: float = 0.05,
    ) -> None:
        super().__init__(model, lr=lr, weight_decay=weight_decay, warmup=warmup)
        check_choice("prediction", prediction, PREDICTIONS)
        check_choice("stage_noise", stage_noise, ("consistent", "same"))
        check_positive(emb_channels=emb_channels)
        if not 0 <= drop_label < 1 or (classes is not None and classes < 0) or (min_snr is not None and min_snr <= 0):
            raise ValueError(
                "need 0 <= drop_label < 1, classes >= 0 and min_snr > 0 (or None), "
                f"got drop_label={drop_label}, classes={classes}, min_snr={min_snr}"
            )
        self.save_hyperparameters(ignore=["model"])
        self.prediction, self.schedule, self.classes, self.drop_label = prediction, schedule, classes, drop_label
        self.emb_channels, self.deep_supervision, self.stage_noise = emb_channels, deep_supervision, stage_noise
        self.min_snr = min_snr
        self.levels: NoiseLevels = LogNormal() if prediction == "edm" else Steps(schedule)
        self.conditioning: Conditioning | None = None
        self._validated = 0

    # ---- what the data settle --------------------------------------------------------------------------

    def read_data(self, data: Any) -> dict[str, Any]:
        """Channels, dimension, boundary, size and number of classes."""
        return image_facts(data)

    def network_size(self) -> NetworkSize:
        """As many channels out as in, and the conditioning vector."""
        channels = self.facts["channels"]
        return NetworkSize(
            channels, channels, self.facts["spatial_dims"], self.facts["boundary"], emb_channels=self.emb_channels
        )

    @property
    def num_classes(self) -> int:
        """Classes that the network is conditioned on; label `num_classes` means none of them."""
        return self.classes if self.classes is not None else int(self.facts.get("classes", 0))

    def _condition(self) -> None:
        emb_channels = check_network(self.model, self.num_classes, self.emb_channels, deep=self.deep_supervision)
        if emb_channels and (self.conditioning is None or self.conditioning.classes != self.num_classes):
            fresh = Conditioning(emb_channels, noise=True, classes=self.num_classes)
            self.conditioning = fresh.to(next(self.model.parameters(), torch.empty(0)).device)

    # ---- training --------------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Denoise at random levels. They are spread evenly over the batch (2107.00630, I.1), which lowers the variance."""
        x0, label = self._read(batch)
        u = (torch.rand(()) + torch.arange(len(x0)) / len(x0)) % 1
        if label is not None:
            label = hide_labels(label, self.drop_label, self.num_classes)
        if self.stage_noise == "same":
            x0 = self.at_stage(x0)[1][0]
        loss = self._loss(x0, torch.randn_like(x0), self.levels.quantile(u[torch.randperm(len(u))]), label)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(x0))
        return loss

    def _loss(self, x0: Tensor, eps: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        """Mean squared error of the network's output, at the stage in training or, in validation, of the whole network."""
        s = _like(sigma, x0)
        p, q = mixing(self.prediction, s)
        x, target = input_scale(self.prediction, s) * (x0 + s * eps), p * x0 + q * eps
        model = self.model
        if self.training and self.stage_noise == "same":  # on the grid of the stage already
            model, _ = self.at_stage()
        elif self.training:
            model, (x, target) = self.at_stage(x, target)
        condition = self.levels.condition(sigma).to(x.device)
        inputs = network_inputs(self.conditioning, x, condition, label)
        deep = self.deep_supervision and self.training
        outputs = cast(Any, model).forward_resolutions(*inputs) if deep else [model(*inputs)]
        targets = project_to_outputs(cast(UNet, model), target, outputs) if len(outputs) > 1 else [target]
        weight = snr_weight(self.prediction, s, self.min_snr)
        losses = []
        for i, (output, wanted) in enumerate(zip(outputs, targets), start=-len(outputs)):
            error = (network_output(output).float() - wanted).square()
            losses.append((weight / shrinkage(self.prediction, s, self._cells(model, i)) * error).mean())
        loss = torch.stack(losses).mean()
        self.guard(loss, model, *inputs)
        return loss

    def _cells(self, model: nn.Module, i: int = -1) -> int:
        """Samples of the noise that one sample of output i of `model` averages over."""
        if not isinstance(model, UNet):
            return 1
        finest = model.output_level(model.num_levels - 1) if self.stage_noise == "same" else 0
        coarse, fine = (model.space.reduction(n) for n in (model.output_level(model.num_levels + i), finest))
        return math.prod(coarse) // math.prod(fine)

    def on_validation_epoch_start(self) -> None:
        """Begin the noise anew."""
        self._validated = 0

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Log the loss of the whole network; an image has the same noise in every epoch, by its place in the loader."""
        x0, label = self._read(batch)
        first, processes = self._validated, self.trainer.world_size if self._trainer is not None else 1
        self._validated += len(x0)
        loss = self.fixed_loss(x0, label, [n * processes + self.global_rank for n in range(first, self._validated)])
        self.log("val/loss", loss, prog_bar=True, batch_size=len(x0), sync_dist=True)
        return loss

    def fixed_loss(self, x0: Tensor, label: Tensor | None, places: Sequence[int]) -> Tensor:
        """The loss with noise that depends on nothing but each image's place, to compare networks in evaluation mode.

        Args:
            x0: (B, C, *space) in [-1, 1].
            label: (B,) int64, or `None`.
            places: B numbers.
        """
        u, eps = fixed_noise(places, x0.shape[1:])
        return self._loss(x0, eps.to(x0), self.levels.quantile(u), label)

    def _read(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        x0 = batch["image"]
        if self.global_step % 50 == 0:
            check_images(x0)
        return x0, labels_of(batch, self.num_classes, ignore=self.classes == 0)

    # ---- sampling --------------------------------------------------------------------------------------

    def denoise(
        self,
        x: Tensor,
        sigma: float | Tensor,
        label: Tensor | None = None,
        *,
        guidance: float = 1.0,
        stage: int | None = None,
    ) -> Tensor:
        """The image in x = x0 + sigma eps, as the network estimates it.

        Args:
            x: (B, C, *space); on the grid of the stage, if there is one.
            sigma: > 0, one number or one for each image, (B,) or (B, 1). DDPM's step t has
                sigma = sqrt((1 - alphas_cumprod[t]) / alphas_cumprod[t]), which is `task.levels.sigmas[t]`.
            label: (B,) int64; `num_classes`, or `None`, is no label.
            guidance: g of D(x) + g (D(x, label) - D(x)), classifier-free guidance (2207.12598); 1 is D(x, label).
            stage: of the network, `model.stage(stage)`; `None` is that in training, or else the whole network.
        """
        if not self.built:
            raise RuntimeError("there is no network yet: fit the task, or load it by load_from_checkpoint")
        if self.conditioning is None:
            self._condition()
        label = check_labels(label, len(x), self.num_classes, guidance=guidance, dropped=self.drop_label > 0)
        model, levels = self.model, as_levels(sigma, len(x))
        stage = self.stage if stage is None else stage
        if stage is not None:  # it averages the noise of so many samples
            model = cast(UNet, self.model).stage(stage)
            levels = levels * math.sqrt(self._cells(model))
        s, label = _like(levels, x), None if label is None else label.to(x.device)
        condition = self.levels.condition(levels).to(x.device)

        def image(label: Tensor | None) -> Tensor:
            inputs = network_inputs(self.conditioning, input_scale(self.prediction, s) * x, condition, label)
            return denoised(self.prediction, network_output(model(*inputs)).float(), x, s)

        if guidance == 1 or label is None:
            return image(label)
        without = image(torch.full_like(label, self.num_classes))
        return without + guidance * (image(label) - without)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        size: Sequence[int] | None = None,
        sampler: Sampler | Any = "dpm-solver++",
        steps: int | None = None,
        label: int | Sequence[int] | Tensor | None = None,
        guidance: float = 1.0,
        seed: int | torch.Generator | None = None,
        clip: bool = True,
        batch_size: int = 256,
        denoiser: Callable[..., Tensor] | None = None,
    ) -> Tensor:
        """Draw images.

        Args:
            n: how many.
            size: of an image, (C, *space); `None` is that of the data.
            sampler: a name (`multiresnet.tasks.diffusion.samplers.make_scheduler`), or any scheduler of diffusers for a
                diffusion process.
            steps: `None` takes 1000 for `"ddpm"`, 18 for `"edm-heun"`, 40 for `"edm-euler"`, 20 for the others.
            label: class of all images, or of each; `None` for none.
            guidance: 1 for none; larger values are more typical of the class and less varied.
            seed: of a generator on the CPU: the same images on every device, to rounding.
            clip: keep the denoised images in [-1, 1] on the way; always right without guidance, as averages of images are.
            batch_size: images at a time.
            denoiser: in place of `denoise`, and called like it: (x, sigma, label, guidance=...).

        Returns:
            (n, C, *space), in [-1, 1] if clipped. Under `StagedTraining`, images on the grid of the stage.
        """
        check_positive(n=n, batch_size=batch_size)
        shape = self._shape(size)
        if isinstance(sampler, str):
            scheduler: Any = make_scheduler(cast(Sampler, sampler), schedule=self.schedule, limits=self.levels.limits)
            steps = DEFAULT_STEPS[sampler] if steps is None else steps
            if sampler in ("ddpm", "ddim") and 1000 % steps:
                raise ValueError(f"{sampler} steps over a whole number of 1000: steps must divide 1000, got {steps}")
        else:
            scheduler = sampler
        if steps is None:
            raise ValueError(f"say how many steps a {type(scheduler).__name__} takes, steps=...")
        given = torch.as_tensor(label) if label is not None else None
        labels = check_labels(given, n, self.num_classes, guidance=guidance, dropped=self.drop_label > 0)
        generator = torch.Generator().manual_seed(seed) if isinstance(seed, int) else seed
        device, estimate = next(self.parameters(), torch.empty(0)).device, denoiser or self.denoise

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            x0 = estimate(x, sigma, part, guidance=guidance)
            return x0.clamp(-1, 1) if clip else x0

        images = []
        with evaluating(self):
            for start in range(0, n, batch_size):
                stop = min(start + batch_size, n)
                part = labels[start:stop] if labels is not None else None
                noise = torch.randn((stop - start, *shape), generator=generator).to(device)
                images.append(draw(denoise, scheduler, noise, steps=steps, generator=generator))
        return torch.cat(images).clamp(-1, 1) if clip else torch.cat(images)

    def _shape(self, size: Sequence[int] | None) -> tuple[int, ...]:
        known = (self.facts["channels"], *self.facts["size"]) if "size" in self.facts else ()
        shape = tuple(size) if size is not None else known
        if len(shape) < 2:
            raise ValueError(f"say the size of an image, size=(channels, height, width), got {size}")
        if self.stage is not None:
            return tuple(coarsen(cast(UNet, self.model), torch.zeros(1, *shape), self.stage).shape[1:])
        return shape

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """As many new images as the batch has, of the same size and classes."""
        x0, label = self._read(batch)
        return self.sample(len(x0), size=x0.shape[1:], label=label)


def _like(sigma: Tensor, x: Tensor) -> Tensor:
    """(B,) as (B, 1, ..., 1), with the type and device of x."""
    return sigma.to(x).view(-1, *(1,) * (x.ndim - 1))
