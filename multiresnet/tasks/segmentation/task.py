"""Learning which class each pixel, voxel or sample belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from multiresnet.checks import check_choice
from multiresnet.tasks.base import Task
from multiresnet.tasks.network import Network, NetworkSize
from multiresnet.tasks.resolutions import project_to_outputs, resolution_weights
from multiresnet.tasks.standardise import Standardise
from multiresnet.tiling import tiled_predict
from multiresnet.tta import Augmented
from multiresnet.unet import UNet

from .labels import Labels, Mode, Target
from .losses import SegmentationLoss, balanced_weights, parse_loss
from .metrics import OverlapMetrics

__all__ = ["SegmentationTask"]


class SegmentationTask(Task):
    """Train any module to segment images (N, C, *space) in 1, 2 or 3 dimensions.

    Batches are dicts with `image`, `mask` and `name` (see `ImageMaskDataModule`), or tuples (image, mask). Images are
    standardised inside with the statistics of the training data, if the data module has them. What masks hold
    and how many logits the network has to return is said by `Labels`.

    Args:
        model: the network, or a `Network` to be built for the data.
        loss: a sum of names, such as `"dice+ce"` or `"0.5*dice+ce"`: `ce`, `focal`, `dice`, `jaccard`, `tversky`,
            `lovasz`; or a module, see `SegmentationLoss`, which `load_from_checkpoint` has to be given again.
        class_weights: weight of each class in the loss ((background, foreground) if binary), or `"balanced"`: from the
            counts of the data module.
        deep_supervision: mean loss over all resolutions of `forward_resolutions`, each against the mask projected to its
            grid, with `resolution_weights`. For our networks.
        tile: side of the tiles in which whole images are evaluated, see `multiresnet.tiled_predict`; `None`: in one pass.
        halo: what a tile sees beyond itself; `None` is what the network says, other networks than ours need a number.
            With group norm the two are close, not equal.
        augment_at_test: average probabilities over flips: of all axes, or of those listed, such as `[-1]` for left-right.
        ignore_background: leave class 0 of a multiclass segmentation out of the mean metrics.
        lr: highest learning rate.
        weight_decay: of AdamW.
        warmup: part of the training over which the learning rate rises.
        mode: `"binary"`, `"multiclass"` or `"multilabel"`; `None`: the data module's.
        classes: number of classes; `None`: the data module's.
        ignore_index: mask value of pixels that count nowhere; `None`: the data module's, if it has one.

    Logged: `train/loss`; `val/loss` (mean over images), `val/dice`, `val/iou`, `val/dice_per_image`, `val/iou_<class>`
    (see `OverlapMetrics`); the same under `test/`.

    Raises:
        ValueError: a wrong choice here; when training starts, a mask, batch or output of the network that does not fit it.

    Examples:
        >>> from lightning import Trainer
        >>> from multiresnet import MultiResNet
        >>> task = SegmentationTask(MultiResNet(1, 1, channels=(8, 8), num_blocks=1), mode="binary")
        >>> data = torch.utils.data.DataLoader([(torch.rand(1, 9, 9), torch.ones(9, 9))])
        >>> trainer = Trainer(
        ...     max_steps=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False
        ... )
        >>> trainer.fit(task, data, data)
        >>> task.predict_step(torch.rand(1, 1, 7, 5))["mask"].shape
        torch.Size([1, 7, 5])
    """

    monitor = ("val/dice", "max")

    def __init__(
        self,
        model: nn.Module | Network = Network(preset="segmentation"),  # noqa: B008 (frozen)
        *,
        loss: str | nn.Module = "dice+ce",
        class_weights: list[float] | Literal["balanced"] | None = None,
        deep_supervision: bool = False,
        tile: int | list[int] | None = None,
        halo: int | list[int] | None = None,
        augment_at_test: bool | list[int] = False,
        ignore_background: bool = False,
        lr: float = 2e-3,
        weight_decay: float = 1e-4,
        warmup: float = 0.05,
        mode: Mode | None = None,
        classes: int | None = None,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(model, lr=lr, weight_decay=weight_decay, warmup=warmup)
        self.save_hyperparameters(ignore=["model", *(["loss"] if isinstance(loss, nn.Module) else [])])
        if isinstance(loss, str):
            parse_loss(loss)
        if mode is not None:
            check_choice("mode", mode, get_args(Mode))
        if isinstance(class_weights, str) and class_weights != "balanced":
            raise ValueError(f"class_weights={class_weights!r} is unknown; give a list of numbers or 'balanced'")
        if deep_supervision and isinstance(model, nn.Module) and not isinstance(model, UNet):
            raise ValueError(
                f"deep_supervision=True needs the outputs of forward_resolutions; {type(model).__name__} is not a network "
                "of multiresnet"
            )
        self.loss, self.class_weights, self.deep_supervision = loss, class_weights, deep_supervision
        self.tile, self.halo = tile, halo
        self.augment_at_test, self.ignore_background = augment_at_test, ignore_background
        self.mode, self.classes, self.ignore_index = mode, classes, ignore_index
        self.standardise = Standardise(axis=1)
        if (mode == "binary" or classes is not None) and class_weights != "balanced":
            self._set_labels(self.read_data(None))

    # ---- what the data settle --------------------------------------------------------------------------

    def read_data(self, data: Any) -> dict[str, Any]:
        """Classes, statistics and shape of the images; the arguments of the task are stronger than the data."""
        facts = {name: getattr(data, name, None) for name in ("channels", "spatial_dims", "boundary")}
        for name in ("mode", "classes", "ignore_index"):
            own = getattr(self, name)
            facts[name] = getattr(data, name, None) if own is None else own
        if facts["mode"] is None and facts["classes"] is not None:
            facts["mode"] = "binary" if facts["classes"] == 1 else "multiclass"
        for name, plain in (("mean", float), ("std", float), ("class_names", str)):
            value = getattr(data, name, None)
            facts[name] = None if value is None else [plain(v) for v in value]
        facts["class_weights"] = self.class_weights
        if self.class_weights == "balanced":
            if getattr(data, "class_counts", None) is None:
                raise ValueError(
                    "class_weights='balanced' needs a data module with class_counts; give a list of weights"
                )
            facts["class_weights"] = balanced_weights([int(n) for n in data.class_counts])
        return facts

    def settle(self, facts: dict[str, Any]) -> None:
        """Take over facts: the statistics, and what depends on the classes."""
        super().settle(facts)
        if not facts:
            return
        if facts["mean"] is not None:
            self.standardise.fit_to(facts["mean"], facts["std"])
        self._set_labels(facts)

    def _set_labels(self, facts: Mapping[str, Any]) -> None:
        mode, classes = facts["mode"], facts["classes"]
        if mode is None or (mode != "binary" and classes is None):
            raise ValueError(
                "the classes are not known: use a data module that has mode and classes, or give them, such as "
                "SegmentationTask(model, mode='multiclass', classes=3)"
            )
        self.labels = Labels(mode, 1 if classes is None else classes, facts["ignore_index"])
        self.criterion = SegmentationLoss(self.loss, self.labels, facts["class_weights"])
        names = None if mode == "binary" else facts["class_names"]
        metrics = OverlapMetrics(self.labels, ignore_background=self.ignore_background, names=names)
        self.metrics = metrics.to(self.device)

    def network_size(self) -> NetworkSize:
        """As many logits as the classes want."""
        return NetworkSize(
            in_channels=self.facts["channels"],
            out_channels=self.labels.channels,
            spatial_dims=self.facts["spatial_dims"],
            boundary=self.facts["boundary"],
        )

    def configure_model(self) -> None:
        """As in `Task`; without a data module, the facts are the arguments.

        Raises:
            ValueError: classes that neither say, or a `Network` without a data module.
        """
        known = getattr(self._trainer, "datamodule", None) is not None
        if self._trainer is not None and not known and not self.facts:
            if not self.built:
                raise ValueError(
                    "a Network is built for the data of a data module: fit with one, or give the task a network, such "
                    "as MultiResNet(in_channels, out_channels)"
                )
            self.settle(self.read_data(None))
        super().configure_model()

    # ---- from images to logits -------------------------------------------------------------------------

    def forward(self, image: Tensor) -> Tensor:
        """Logits: (N, C, *space) in the units of the data -> (N, channels of `Labels`, *space)."""
        return cast(Tensor, self.model(self.standardise(image)))

    def whole_logits(self, image: Tensor) -> Tensor:
        """As `forward`, with `tile` and `augment_at_test`; on the CPU if tiled."""
        x, net = self.standardise(image), self.model
        if self.augment_at_test is not False:
            flips = self.augment_at_test
            net = Augmented(net, flips=flips, activation=lambda y: self.labels.probability(y.float()))
        y: Tensor = net(x) if self.tile is None else tiled_predict(net, x, tile=self.tile, halo=self.halo)
        return self.labels.logits(y) if net is not self.model else y.float()

    # ---- training --------------------------------------------------------------------------------------

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss: of the whole network, of all resolutions, or of the stage that `StagedTraining` says."""
        image, mask = self._read(batch, batch_idx)
        x, target = self.standardise(image), self.labels.target(mask)
        network = self.model
        if self.stage is None and self.deep_supervision:
            model = cast(UNet, network)
            outputs = model.forward_resolutions(x)
            targets = map(Target, *(project_to_outputs(model, part, outputs) for part in (target.known, target.valid)))
            losses = [self.criterion(y, t) for y, t in zip(outputs, targets)]
            loss = torch.stack([w * part for w, part in zip(resolution_weights(len(losses)), losses)]).sum()
        else:
            network, (x, *parts) = self.at_stage(x, target.known, target.valid)
            loss = self.criterion(network(x), Target(*parts))
        self.guard(loss, network, x)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(image))
        return loss

    def _read(self, batch: Any, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Image and mask of a batch, checked; on a GPU values only now and then, as looking at them waits for it."""
        image, mask = unpack(batch, masks=True)
        often = image.device.type == "cpu" or batch_idx % 50 == 0
        return image, self.labels.read(cast(Tensor, mask), image, values=often)

    # ---- evaluation ------------------------------------------------------------------------------------

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the loss and count for the metrics, on whole images."""
        self._evaluate(batch, batch_idx, "val")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """As `validation_step`, under `test/`."""
        self._evaluate(batch, batch_idx, "test")

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the data set."""
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the data set."""
        self._log_metrics("test")

    def _evaluate(self, batch: Any, batch_idx: int, prefix: str) -> None:
        image, mask = self._read(batch, batch_idx)
        logits = self.whole_logits(image)
        mask = mask.to(logits.device)
        loss = self.criterion(logits, self.labels.target(mask)).to(image.device)
        self.log(f"{prefix}/loss", loss, prog_bar=True, batch_size=len(image), sync_dist=True)
        self.metrics.update(self.labels.decide(logits), mask)

    def _log_metrics(self, prefix: str) -> None:
        values = {f"{prefix}/{name}": value for name, value in self.metrics.compute().items()}
        shown = {f"{prefix}/dice", f"{prefix}/iou"}
        for name, value in values.items():  # of all processes already, which sync_dist tells Lightning
            self.log(name, value, prog_bar=name in shown, sync_dist=True)
        self.metrics.reset()

    def predict_step(self, batch: Any, batch_idx: int = 0) -> dict[str, Any]:
        """Segment the images of a batch, or a tensor of them.

        Returns:
            `mask`: class numbers, (N, *space), multilabel (N, classes, *space) of 0 and 1, uint8 where they fit;
            `probability`: (N, channels of `Labels`, *space), float32; `name`: list of str.
        """
        image, _ = unpack(batch, masks=False)
        logits = self.whole_logits(image)
        mask = self.labels.decide(logits)
        name = batch.get("name") if isinstance(batch, Mapping) else None
        return {
            "name": [f"{batch_idx:05d}_{i}" for i in range(len(image))] if name is None else list(name),
            "mask": mask.byte() if self.labels.values <= 256 else mask,
            "probability": self.labels.probability(logits),
        }


def unpack(batch: Any, *, masks: bool) -> tuple[Tensor, Tensor | None]:
    """Image and mask of a dict, a sequence (image, mask), or (without `masks`) of the image alone."""
    if isinstance(batch, Mapping):
        parts, got = (batch.get("image"), batch.get("mask")), f"a dict with {', '.join(map(repr, batch))}"
    elif isinstance(batch, Sequence):
        parts, got = (*batch, None, None)[:2], f"a {type(batch).__name__} of {len(batch)}"
    else:
        parts, got = (batch, None), f"a {type(batch).__name__}"
    image, mask = parts
    if not isinstance(image, Tensor) or not isinstance(mask, Tensor if masks else (Tensor, type(None))):
        raise ValueError(f"wanted a batch with 'image' and 'mask', as a dict or a pair (image, mask), got {got}")
    if not image.is_floating_point():
        raise TypeError(f"images must be floating point, got {image.dtype}; for 8-bit images use image.float() / 255")
    return image, mask
