"""Dice and IoU of a segmentation, per class, over a data set and per image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import (
    binary_confusion_matrix,
    multiclass_confusion_matrix,
    multilabel_confusion_matrix,
)

from .labels import Labels

__all__ = ["OverlapMetrics"]


class OverlapMetrics(Metric):
    """Sums of true and false positives and negatives over a data set, whatever the batch size and number of processes.

    With the counts of a class, Dice = 2 TP / (2 TP + FP + FN) and IoU = TP / (TP + FP + FN). A class that is neither in the
    masks nor predicted has no value: NaN, and it is left out of means. So is an image without any class in
    the mean over images. Binary: of the foreground.

    Args:
        labels: the classes; a class that is `ignore_index` has no value.
        ignore_background: leave class 0 of a multiclass segmentation out of the means.
        names: names of the classes for the keys; their numbers if `None`.

    Shapes:
        `update(prediction, mask)`: both as `Labels.read` and `Labels.decide` give them, int64.
        `compute()`: a dict of scalars: `dice`, `iou` (means over classes), `dice_per_image` (mean over images of the mean over
        classes), `iou_<class>`.

    Examples:
        >>> metrics = OverlapMetrics(Labels("binary"))
        >>> metrics.update(torch.tensor([[0, 1, 1]]), torch.tensor([[0, 0, 1]]))
        >>> {key: round(float(value), 3) for key, value in metrics.compute().items()}
        {'dice': 0.667, 'iou': 0.5, 'dice_per_image': 0.667}
    """

    full_state_update = False
    higher_is_better = True
    overlaps: Tensor
    image_dice: Tensor
    images: Tensor

    def __init__(self, labels: Labels, *, ignore_background: bool = False, names: Sequence[str] | None = None) -> None:
        super().__init__()
        if names is not None and len(names) != labels.channels:
            raise ValueError(f"{len(names)} class names for {labels.channels} classes: {list(names)}")
        self.labels = labels
        self.names = [str(k) for k in range(labels.channels)] if names is None else [*names]
        self.ignore_background = ignore_background and labels.mode == "multiclass"
        self.add_state("overlaps", torch.zeros(labels.channels, 3, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("image_dice", torch.zeros((), dtype=torch.float32), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, mask: Tensor) -> None:
        """Add a batch."""
        for p, m in zip(prediction, mask):
            overlaps = self._count(p, m).to(self.overlaps.device)
            dice = self._mean(_dice(overlaps))
            self.overlaps += overlaps
            self.image_dice += dice.nan_to_num(0.0)
            self.images += dice.isfinite()

    def compute(self) -> dict[str, Tensor]:
        """The metrics of all batches since the last reset."""
        dice, (tp, fp, fn) = _dice(self.overlaps), self.overlaps.float().unbind(1)
        iou = tp / (tp + fp + fn)
        result = {
            "dice": self._mean(dice),
            "iou": self._mean(iou),
            "dice_per_image": self.image_dice / self.images,
        }
        if self.labels.mode != "binary":
            result |= {f"iou_{name}": iou[k] for k, name in enumerate(self.names) if k != self.labels.ignore_index}
        return result

    def _count(self, prediction: Tensor, mask: Tensor) -> Tensor:
        """TP, FP and FN of one image, (channels, 3)."""
        labels, ignore = self.labels, self.labels.ignore_index
        if labels.mode == "multiclass":
            matrix = multiclass_confusion_matrix(
                prediction, mask, labels.classes, ignore_index=ignore, validate_args=False
            )
            tp = matrix.diag()
            return torch.stack([tp, matrix.sum(0) - tp, matrix.sum(1) - tp], 1)
        if labels.mode == "binary":
            pairs = binary_confusion_matrix(prediction, mask, ignore_index=ignore, validate_args=False)[None]
        else:
            pairs = multilabel_confusion_matrix(
                prediction[None], mask[None], labels.classes, ignore_index=ignore, validate_args=False
            )
        return torch.stack([pairs[:, 1, 1], pairs[:, 0, 1], pairs[:, 1, 0]], 1)

    def _mean(self, values: Tensor) -> Tensor:
        """Mean over the classes that count and have a value."""
        left_out = {0 if self.ignore_background else None, self.labels.ignore_index}
        return values[[k for k in range(len(values)) if k not in left_out]].nanmean()


def _dice(overlaps: Tensor) -> Tensor:
    tp, fp, fn = overlaps.float().unbind(1)
    return 2 * tp / (2 * tp + fp + fn)
