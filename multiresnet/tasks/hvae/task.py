"""Learning the distribution of images with a hierarchical VAE."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from multiresnet.checks import check_positive
from multiresnet.embeddings import Conditioning
from multiresnet.hvae import HVAE
from multiresnet.tasks.base import Task
from multiresnet.tasks.diffusion.labels import check_images, check_labels, hide_labels, image_facts, labels_of
from multiresnet.tasks.diffusion.samplers import evaluating

from .network import HVAENetwork, HVAESize

__all__ = ["HVAETask"]


class HVAETask(Task):
    """Train a hierarchical VAE on images in [-1, 1], with or without classes.

    Batches are dicts {"image": (B, C, *space), "label": (B,) int64 where there are classes}, as in `DiffusionTask`. The loss is
    minus the evidence lower bound in bits for each value. Images are brought to the values that the likelihood knows: rounded
    to 8 bits for the logistic one, made black and white at mid-grey for the Bernoulli one.

    Logged in validation: `val/loss`, in bits; `val/nats`, the same for a whole image; `val/kl_level_N`, nats of each resolution;
    with `bound_samples` > 1 also `val/bound`, in bits.

    Args:
        model: an `HVAE`, or its description.
        classes: number of classes; `None` takes that of the data, 0 ignores labels.
        drop_label: part of the labels that is hidden in training, for samples without a label.
        emb_channels: length of the conditioning vector, where there are classes.
        kl_warmup: part of the training over which the weight of the divergences rises from 0 to 1. Without it the latents tend
            to stay unused.
        refine: factors of the number of steps of cells that share weights, one for each training step in turn. Cells that see
            coarse steps too learn a process and not its discretisation: the number of steps can then be changed after the
            training (`HVAE.refined`), and the training is faster. (1.0,) trains at that of the model alone.
        skip_above: steps whose gradient has a larger norm, before clipping, or one that is not finite, are left out, and counted
            in `train/skipped`; VDVAE's remedy for the rare steps that destroy a run.
        bound_samples: of the posterior, for an importance-weighted bound in validation (1509.00519), tighter than the evidence
            lower bound. Each costs a pass through the decoder, so it is rather for `multiresnet validate` than for a training.
        lr: highest learning rate; 1e-2 was best for networks of 16 to 64 channels (`multiresnet-bench hvae --learning-rate`), wide
            ones want less.
        weight_decay: of AdamW.
        warmup: part of the training over which the learning rate rises.

    Examples:
        >>> from multiresnet.hvae import Resolution
        >>> network = HVAENetwork(resolutions=(Resolution(0, 16), Resolution(2, 16)))
        >>> task = HVAETask(network.build(HVAESize(1, (8, 8))))
        >>> task.sample(2, temperature=0.8).shape
        torch.Size([2, 1, 8, 8])
    """

    kinds = {"HVAE": HVAE}

    def __init__(
        self,
        model: HVAE | HVAENetwork = HVAENetwork(),  # noqa: B008 (frozen)
        *,
        classes: int | None = None,
        drop_label: float = 0.1,
        emb_channels: int = 64,
        kl_warmup: float = 0.3,
        refine: Sequence[float] = (0.5, 1.0),
        skip_above: float = 400.0,
        bound_samples: int = 1,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        warmup: float = 0.05,
    ) -> None:
        if not isinstance(model, (HVAE, HVAENetwork)):
            raise TypeError(f"model must be a multiresnet.hvae.HVAE or an HVAENetwork, got {type(model).__name__}")
        super().__init__(model, lr=lr, weight_decay=weight_decay, warmup=warmup)
        check_positive(emb_channels=emb_channels, bound_samples=bound_samples)
        if not (0 <= drop_label < 1 and 0 <= kl_warmup <= 1 and skip_above > 0) or (
            classes is not None and classes < 0
        ):
            raise ValueError(
                "need 0 <= drop_label < 1, 0 <= kl_warmup <= 1, skip_above > 0 and classes >= 0, "
                f"got drop_label={drop_label}, kl_warmup={kl_warmup}, skip_above={skip_above}, classes={classes}"
            )
        if not refine or not all(0 < factor < math.inf for factor in refine):
            raise ValueError(f"refine must be one or more positive numbers, (0.5, 1.0) for example, got {refine}")
        self.save_hyperparameters(ignore=["model"])
        self.classes, self.drop_label, self.emb_channels = classes, drop_label, emb_channels
        self.kl_warmup, self.refine, self.skip_above = kl_warmup, tuple(refine), skip_above
        self.bound_samples = bound_samples
        self.conditioning: Conditioning | None = None
        self._skipped = 0

    # ---- what the data settle --------------------------------------------------------------------------

    def read_data(self, data: Any) -> dict[str, Any]:
        """Channels, dimension, boundary, size and number of classes."""
        return image_facts(data)

    def network_size(self) -> HVAESize:
        """The images, and the conditioning vector where there are classes."""
        emb_channels = self.emb_channels if self.num_classes else 0
        return HVAESize(self.facts["channels"], tuple(self.facts["size"]), self.facts["boundary"], emb_channels)

    @property
    def num_classes(self) -> int:
        """Classes that the network is conditioned on; label `num_classes` means none of them."""
        return self.classes if self.classes is not None else int(self.facts.get("classes", 0))

    @property
    def hvae(self) -> HVAE:
        """The network, without the wrapper of torch.compile."""
        if not self.built:
            raise RuntimeError("there is no network yet: fit the task, or load it by load_from_checkpoint")
        return cast(HVAE, getattr(self.model, "_orig_mod", self.model))

    def _condition(self) -> None:
        emb_channels = self.hvae.emb_channels
        if bool(emb_channels) != bool(self.num_classes):
            raise ValueError(
                f"the data have {self.num_classes} classes, the network emb_channels={emb_channels}: build it with "
                f"{f'emb_channels={self.emb_channels}' if self.num_classes else 'emb_channels=0'}, or give classes=..."
            )
        if emb_channels and (self.conditioning is None or self.conditioning.classes != self.num_classes):
            self.conditioning = Conditioning(emb_channels, classes=self.num_classes).to(self.hvae.gain.device)

    # ---- training --------------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Minus the evidence lower bound, with a weight of the divergences that rises during `kl_warmup`."""
        x, label = self.read(batch)
        if label is not None:
            label = hide_labels(label, self.drop_label, self.num_classes)
        emb = self._emb(label)
        evidence = self.model(x, emb, refine=self.refine[self.global_step % len(self.refine)])
        weight = min(1.0, self.progress() / self.kl_warmup) if self.kl_warmup else 1.0
        loss = self.hvae.bits_per_dim(evidence.log_likelihood - weight * evidence.kl.sum(1)).mean()
        self.log("train/loss", loss, prog_bar=True, batch_size=len(x))
        self.guard(loss, self.model, x, emb)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Leave out a step whose gradient is too large."""
        norm = torch.nn.utils.clip_grad_norm_(self.parameters(), math.inf)
        if not float(norm) <= self.skip_above:
            self._skipped += 1
            for parameter in self.parameters():
                parameter.grad = None
        self.log("train/skipped", float(self._skipped))

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Log the bound, with the same noise in every epoch."""
        x, label = self.read(batch)
        place = batch_idx * (self.trainer.world_size if self._trainer is not None else 1) + self.global_rank
        generator = torch.Generator().manual_seed(place)
        emb = self._emb(label)
        evidence = cast(HVAE, self.model)(x, emb, generator=generator)
        loss, count = self.hvae.bits_per_dim(evidence.elbo).mean(), len(x)
        self.log("val/loss", loss, prog_bar=True, batch_size=count, sync_dist=True)
        self.log("val/nats", -evidence.elbo.mean(), batch_size=count, sync_dist=True)
        first = 0
        for resolution, stop in zip(reversed(self.hvae.resolutions), self.hvae.decoder.latents_by_resolution()):
            nats = evidence.kl[:, first:stop].sum(1).mean()
            self.log(f"val/kl_level_{resolution.level}", nats, batch_size=count, sync_dist=True)
            first = stop
        if self.bound_samples > 1:
            bound = self.hvae.log_likelihood(x, emb, samples=self.bound_samples, generator=generator)
            self.log("val/bound", self.hvae.bits_per_dim(bound).mean(), batch_size=count, sync_dist=True)
        return loss

    def read(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """The images as the likelihood knows them, and the labels, if the network takes them.

        Raises:
            ValueError: wrong or missing labels; images outside [-1, 1], which are looked for every 50 steps.
        """
        x = batch["image"]
        likelihood = self.hvae.likelihood
        if likelihood.discrete and self.global_step % 50 == 0:
            check_images(x)
        return likelihood.quantise(x), labels_of(batch, self.num_classes, ignore=self.classes == 0)

    def _emb(self, label: Tensor | None) -> Tensor | None:
        if label is None or self.conditioning is None:
            return None
        return cast(Tensor, self.conditioning(label=label))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also how many steps were left out."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["skipped"] = self._skipped

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also how many steps were left out."""
        super().on_load_checkpoint(checkpoint)
        self._skipped = checkpoint.get("skipped", 0)

    # ---- sampling --------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        label: int | Tensor | None = None,
        temperature: float = 1.0,
        refine: float = 1.0,
        seed: int | None = None,
        batch_size: int = 64,
    ) -> Tensor:
        """New images, (n, C, *space) in [-1, 1].

        Args:
            n: how many.
            label: class of all of them, or one for each, (n,); `None` is no class.
            temperature: factor of all standard deviations; below 1, images are more typical and less diverse.
            refine: factor of the number of steps of cells that share weights, see `HVAE.refined`.
            seed: of the random numbers.
            batch_size: how many at a time.
        """
        check_positive(n=n, batch_size=batch_size)
        if self.conditioning is None:
            self._condition()
        given = torch.as_tensor(label) if label is not None else None
        labels = check_labels(given, n, self.num_classes, guidance=1.0, dropped=self.drop_label > 0)
        model, generator = self.hvae.refined(refine), torch.Generator()
        _ = generator.seed() if seed is None else generator.manual_seed(seed)
        images = []
        with evaluating(self):
            for start in range(0, n, batch_size):
                stop = min(start + batch_size, n)
                part = labels[start:stop].to(self.hvae.gain.device) if labels is not None else None
                images.append(model.sample(stop - start, self._emb(part), temperature=temperature, generator=generator))
        return torch.cat(images)
