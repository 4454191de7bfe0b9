"""What the numbers of a mask mean, and the part of each cell that each class takes, on any grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from multiresnet.checks import check_choice, check_positive

__all__ = ["Labels", "Mode", "Target"]

Mode = Literal["binary", "multiclass", "multilabel"]


@dataclass(frozen=True)
class Target:
    """A mask as two fields on which an orthogonal projection to a coarser grid acts linearly.

    A cell of a coarse grid holds the mean of its pixels: a part of it belongs to each class, a part may be ignored.

    Args:
        known: (N, channels, *space), part of the cell that is labelled with the class; 0 or 1 on the grid of the mask.
        valid: (N, 1 or channels, *space), part of the cell that is not ignored.
    """

    known: Tensor
    valid: Tensor

    def shares(self) -> Tensor:
        """(N, channels, *space), the share of each class in the valid part; 0 where there is none."""
        return self.known / self.valid.clamp_min(torch.finfo(self.valid.dtype).tiny)


@dataclass(frozen=True)
class Labels:
    """The classes of a segmentation.

    Args:
        mode: `"binary"`: mask (N, *space) of 0 and 1, one logit, foreground where it is > 0. `"multiclass"`: mask (N, *space) of
            0 .. classes - 1, `classes` logits, the largest wins. `"multilabel"`: mask (N, classes, *space) of 0 and 1,
            `classes` logits, each by itself.
        classes: number of classes; 1 if binary.
        ignore_index: mask value of pixels that count nowhere, inside or outside the range of the classes.

    Raises:
        ValueError: an unknown mode, a number of classes that does not fit it, 0 or 1 ignored where these are all values.

    Examples:
        >>> labels = Labels("multiclass", classes=3, ignore_index=255)
        >>> labels.target(torch.tensor([[0, 2, 255]])).known[0].tolist()
        [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """

    mode: Mode
    classes: int = 1
    ignore_index: int | None = None

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, get_args(Mode))
        check_positive(classes=self.classes)
        if self.mode == "binary" and self.classes > 1:
            raise ValueError(f"mode='binary' has one class beside the background, got classes={self.classes}")
        if self.mode == "multiclass" and self.classes < 2:
            raise ValueError(
                f"mode='multiclass' counts the background as a class and needs classes >= 2, got {self.classes}"
            )
        if self.mode != "multiclass" and self.ignore_index in (0, 1):
            raise ValueError(
                f"ignore_index={self.ignore_index} is one of the two values of a {self.mode} mask; mark ignored pixels "
                "by another one, such as 255"
            )

    @property
    def channels(self) -> int:
        """Number of logits."""
        return 1 if self.mode == "binary" else self.classes

    @property
    def values(self) -> int:
        """Number of mask values beside `ignore_index`."""
        return self.classes if self.mode == "multiclass" else 2

    def read(self, mask: Tensor, image: Tensor, *, values: bool = True) -> Tensor:
        """The int64 mask of `image` (N, C, *space) in the shape that `mode` says; a channel axis of length 1 may be there.

        Raises:
            ValueError: a shape that does not fit the image, or (`values=True`) a value that stands for no class.
        """
        lead = [len(image), self.channels] if self.mode == "multilabel" else [len(image)]
        wanted = torch.Size([*lead, *image.shape[2:]])
        if self.mode != "multilabel" and mask.ndim == image.ndim and mask.shape[1] == 1:
            mask = mask.squeeze(1)
        if mask.shape != wanted:
            raise ValueError(
                f"the mask has shape {tuple(mask.shape)}; for images {tuple(image.shape)} a {self.mode} mask with "
                f"classes={self.classes} is {tuple(wanted)}"
            )
        if mask.is_floating_point() and values and not torch.equal(mask, mask.round()):
            raise ValueError("the mask holds fractions; it must hold class numbers (resize masks by nearest neighbour)")
        mask = mask.long()
        if values:
            self._check_values(mask)
        return mask

    def _check_values(self, mask: Tensor) -> None:
        counted = mask if self.ignore_index is None else mask[mask != self.ignore_index]
        if not counted.numel():
            return
        low, high = (int(v) for v in counted.aminmax())
        if 0 <= low and high < self.values:
            return
        fix = f"pass ignore_index={high if high >= self.values else low} if that means 'no label'"
        if self.values == 2:
            fix = f"turn it into 0 and 1, such as (mask > 127) for masks of 0 and 255, or {fix}"
        elif high >= self.values:
            fix = f"pass classes={high + 1} or more, or {fix}"
        raise ValueError(
            f"the mask holds values {low} .. {high}; mode={self.mode!r} with classes={self.classes} has "
            f"0 .. {self.values - 1}{'' if self.ignore_index is None else f' and {self.ignore_index} (ignored)'}: {fix}"
        )

    def target(self, mask: Tensor) -> Target:
        """The target of a mask from `read`."""
        if self.mode != "multilabel":
            mask = mask.unsqueeze(1)
        valid = torch.ones_like(mask, dtype=torch.bool) if self.ignore_index is None else mask != self.ignore_index
        number = torch.ones_like(mask[:1, :1])
        if self.mode == "multiclass":
            number = torch.arange(self.classes, device=mask.device).view(-1, *[1] * (mask.ndim - 2))
        return Target(((mask == number) & valid).float(), valid.float())

    def mask(self, target: Target) -> Tensor:
        """The int64 mask of a target: on a coarse grid, of the class with the largest part of the cell."""
        if self.mode == "multiclass":
            mask, valid = target.known.argmax(1), target.valid.squeeze(1)
        else:
            mask, valid = (2 * target.known > target.valid).long(), target.valid
        if self.ignore_index is not None:
            mask = mask.masked_fill(valid == 0, self.ignore_index)
        return mask.squeeze(1) if self.mode == "binary" else mask

    def probability(self, logits: Tensor) -> Tensor:
        """(N, channels, *space) -> the same, softmax or sigmoid."""
        return logits.softmax(1) if self.mode == "multiclass" else logits.sigmoid()

    def logits(self, probability: Tensor) -> Tensor:
        """Finite logits of a probability, the inverse of `probability` up to a constant that changes nothing."""
        least = torch.finfo(probability.dtype).eps ** 2
        if self.mode == "multiclass":
            return probability.clamp_min(least).log()
        return probability.clamp_min(least).log() - (1 - probability).clamp_min(least).log()

    def decide(self, logits: Tensor) -> Tensor:
        """The int64 mask that logits (N, channels, *space) stand for, in the shape of `read`."""
        if self.mode == "multiclass":
            return logits.argmax(1)
        mask = (logits > 0).long()
        return mask.squeeze(1) if self.mode == "binary" else mask

    def check_logits(self, logits: Tensor, size: Sequence[int]) -> None:
        """Raise `ValueError` unless logits are (N, channels, *size)."""
        if logits.ndim != len(size) + 2 or logits.shape[1] != self.channels:
            raise ValueError(
                f"the network returned {tuple(logits.shape)}; mode={self.mode!r} with classes={self.classes} wants "
                f"(N, {self.channels}, {', '.join(map(str, size))}): build it with out_channels={self.channels}"
            )
        if logits.shape[2:] != torch.Size(size):
            raise ValueError(
                f"the network returned {tuple(logits.shape)} for a mask of size {tuple(size)}; the sizes must agree: "
                "resize its output inside the network, or crop the data to a size that it keeps"
            )
