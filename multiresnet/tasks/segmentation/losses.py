"""Losses of a segmentation: by name, summed, with ignored pixels, class weights and targets on coarse grids."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiresnet.checks import check_choice

from .labels import Labels, Target

__all__ = ["LOSSES", "SegmentationLoss", "balanced_weights", "parse_loss"]

Weights = Sequence[float] | None
Loss = Callable[[Tensor, Target, Labels, Weights], Tensor]


def cross_entropy(logits: Tensor, target: Target, labels: Labels, weights: Weights) -> Tensor:
    """Cross entropy, binary cross entropy unless the mode is multiclass; mean over the pixels that are not ignored.

    A pixel of class k counts `weights[k]` times, as in `torch.nn.CrossEntropyLoss`.
    """
    return _weighted_mean(_surprise(logits, target, labels), target, labels, weights)


def focal(logits: Tensor, target: Target, labels: Labels, weights: Weights, gamma: float = 2.0) -> Tensor:
    """(1 - p)^gamma (-log p), p being the probability of the right class (Lin et al. 2017); softmax if multiclass."""
    surprise = _surprise(logits, target, labels)
    return _weighted_mean((1 - torch.exp(-surprise)) ** gamma * surprise, target, labels, weights)


def overlap(name: str, logits: Tensor, target: Target, labels: Labels, weights: Weights) -> Tensor:
    """1 - overlap of probabilities and target, per class over the batch, by `segmentation_models_pytorch.losses`.

    A class without a pixel in the batch counts as 0. Differences are taken by |p - t|, so with parts of cells
    as target, too, the loss is least, and 0, at p = t. Class weights are those of the mean over classes.
    """
    from segmentation_models_pytorch import losses as smp

    options: dict[str, Any] = {} if weights is None or labels.mode == "binary" else {"class_weights": list(weights)}
    if name == "TverskyLoss":  # false negatives weigh more than false positives: Salehi et al. 2017
        options |= {"alpha": 0.3, "beta": 0.7}
    # their multilabel mode on probabilities is the general case: any mode, any grid, any number of space dimensions
    loss: nn.Module = getattr(smp, name)("multilabel", from_logits=False, **options)
    value: Tensor = loss((labels.probability(logits) * target.valid).flatten(2), target.known.flatten(2))
    return value


def lovasz(logits: Tensor, target: Target, labels: Labels, weights: Weights) -> Tensor:
    """Lovász extension of the Jaccard loss (Berman et al. 2018), by `segmentation_models_pytorch.losses`.

    It is defined for whole pixels: a cell of a coarse grid belongs to the class with the largest part of it. Class weights do
    not apply.
    """
    from segmentation_models_pytorch import losses as smp

    loss = smp.LovaszLoss(labels.mode, ignore_index=labels.ignore_index)
    mask = labels.mask(target)
    scores = logits.float().flatten(2).unsqueeze(-1)  # theirs is for two dimensions and float32
    value: Tensor = loss(scores, mask.flatten(2 if labels.mode == "multilabel" else 1))
    return value.sum().to(logits.dtype)  # a scalar already, unless every pixel is ignored


LOSSES: Mapping[str, Loss] = {
    "ce": cross_entropy,
    "focal": focal,
    "dice": partial(overlap, "DiceLoss"),
    "jaccard": partial(overlap, "JaccardLoss"),
    "tversky": partial(overlap, "TverskyLoss"),
    "lovasz": lovasz,
}
"""Names for `SegmentationTask(loss=...)`."""


def _surprise(logits: Tensor, target: Target, labels: Labels) -> Tensor:
    """-log p of the target, (N, 1 or channels, *space)."""
    shares = target.shares()
    if labels.mode == "multiclass":
        return F.cross_entropy(logits, shares, reduction="none").unsqueeze(1)
    return F.binary_cross_entropy_with_logits(logits, shares, reduction="none")


def _weighted_mean(x: Tensor, target: Target, labels: Labels, weights: Weights) -> Tensor:
    w = target.valid
    if weights is not None:
        values = x.new_tensor(weights)
        if labels.mode == "binary":
            w = values[0] * (target.valid - target.known) + values[1] * target.known
        else:
            values = values.view(-1, *[1] * (x.ndim - 2))
            w = (values * target.known).sum(1, keepdim=True) if labels.mode == "multiclass" else values * target.valid
    total = w.expand_as(x).sum()
    return (w * x).sum() / total.clamp_min(torch.finfo(total.dtype).tiny)


def parse_loss(text: str) -> list[tuple[float, str]]:
    """Weights and names in `text`.

    Raises:
        ValueError: an unknown name or something that is not a sum.

    Examples:
        >>> parse_loss("0.5*dice + ce")
        [(0.5, 'dice'), (1.0, 'ce')]
    """
    terms = []
    for term in text.split("+"):
        match = re.fullmatch(r"\s*(?:(\d+\.?\d*|\.\d+)\s*\*)?\s*([A-Za-z_]\w*)\s*", term)
        if match is None:
            raise ValueError(f"loss={text!r} is not a sum of names such as 'dice+ce' or '0.5*dice+ce'")
        check_choice("loss", match[2], LOSSES)
        terms.append((float(match[1] or 1), match[2]))
    return terms


@dataclass(frozen=True)
class SegmentationLoss:
    """The loss of logits against a `Target`, on whatever grid they are.

    Args:
        loss: a sum of `LOSSES` such as `"dice+ce"` or `"0.5*dice+ce"`, or a module that is called with the logits and a mask:
            (N, *space) int64 if multiclass, else of the shape and type of the logits. It has to know `ignore_index`
            itself.
        labels: the classes.
        class_weights: one weight per class; (background, foreground) if binary.

    Raises:
        ValueError: an unknown loss, a wrong number of weights or a negative one, weights for a loss that takes none.

    Examples:
        >>> labels = Labels("binary", ignore_index=255)
        >>> loss = SegmentationLoss("ce", labels)
        >>> loss(torch.zeros(1, 1, 3), labels.target(torch.tensor([[0, 1, 255]])))
        tensor(0.6931)
    """

    loss: str | nn.Module
    labels: Labels
    class_weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        names = {name for _, name in parse_loss(self.loss)} if isinstance(self.loss, str) else set()
        if self.class_weights is None:
            return
        if not names - {"lovasz"}:
            raise ValueError("class_weights do not apply to this loss: build them into your module, or add '+ce'")
        wanted = 2 if self.labels.mode == "binary" else self.labels.classes
        if len(self.class_weights) != wanted:
            raise ValueError(
                f"class_weights needs {wanted} values, "
                + ("(background, foreground)" if self.labels.mode == "binary" else "one per class")
                + f", got {len(self.class_weights)}"
            )
        if min(self.class_weights) < 0 or not sum(self.class_weights) > 0:
            raise ValueError(f"class_weights must be >= 0, not all 0, got {list(self.class_weights)}")

    def __call__(self, logits: Tensor, target: Target) -> Tensor:
        """Logits (N, channels, *space), a target on the same grid -> a scalar, in float32 at least."""
        self.labels.check_logits(logits, target.known.shape[2:])
        logits = logits if logits.dtype == torch.float64 else logits.float()
        target = Target(target.known.type_as(logits), target.valid.type_as(logits))
        with torch.autocast(logits.device.type, enabled=False):
            if isinstance(self.loss, nn.Module):
                return self._given(self.loss, logits, target)
            terms = [
                weight * LOSSES[name](logits, target, self.labels, self.class_weights)
                for weight, name in parse_loss(self.loss)
            ]
            return torch.stack(terms).sum()

    def _given(self, loss: nn.Module, logits: Tensor, target: Target) -> Tensor:
        mask = self.labels.mask(target)
        if self.labels.mode != "multiclass":
            mask = mask.view_as(logits).to(logits.dtype)
        value: Tensor = loss(logits, mask)
        if value.ndim:
            raise ValueError(
                f"{type(loss).__name__} returned shape {tuple(value.shape)} for logits {tuple(logits.shape)} and mask "
                f"{tuple(mask.shape)}, wanted one number: use reduction='mean'"
            )
        return value


def balanced_weights(counts: Sequence[int]) -> list[float]:
    """Total count / (number of classes * count), so that all classes weigh the same; 0 for one that does not occur.

    Examples:
        >>> balanced_weights([30, 10, 0])
        [0.4444444444444444, 1.3333333333333333, 0.0]
    """
    total = sum(counts)
    return [total / (len(counts) * n) if n else 0.0 for n in counts]
