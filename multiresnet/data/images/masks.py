"""What the values in mask files mean: their classes, with errors that name the file, the value and the fix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multiresnet.checks import check_choice, check_positive

__all__ = ["MODES", "MaskCode", "MaskValues"]

MODES = ("binary", "multiclass", "multilabel")
MaskValues = Mapping[int | str, int] | Sequence[int | str]


@dataclass(frozen=True)
class MaskCode:
    """From the values in mask files to classes.

    Args:
        classes: 1 for a binary mask of 0 and 1; else their number, with the background: values 0 .. classes - 1.
        mode: `"binary"`, `"multiclass"` or `"multilabel"` (a band of 0 and 1 for each class); `None` is binary for one
            class, multiclass for more.
        ignore_index: value that marks pixels without a label, after `mask_values`.
        mask_values: what stands for what. A mapping from file values to classes leaves other values as they are; a list
            has the value of each class at its place and allows no others. Colours are written `"#ff0000"`, and every
            colour that occurs must be listed.

    Raises:
        ValueError: impossible choices; from `encode`, a mask that does not fit them.

    Examples:
        >>> MaskCode(mask_values={255: 1}).encode(np.array([[0, 255]], np.uint8), "a.png")
        array([[0, 1]], dtype=int16)
        >>> MaskCode().encode(np.array([[0, 255]], np.uint8), "a.png")
        Traceback (most recent call last):
        ValueError: a.png holds the values 0, 255; a binary mask has 0 and 1: pass mask_values={255: 1}
        >>> colours = np.array([[[255, 0]], [[0, 0]], [[0, 0]]], np.uint8)  # red, black
        >>> MaskCode(classes=2, mask_values=["#000000", "#ff0000"]).encode(colours, "a.png")
        array([[1, 0]], dtype=int16)
    """

    classes: int = 1
    mode: str | None = None
    ignore_index: int | None = None
    mask_values: MaskValues | None = None

    def __post_init__(self) -> None:
        check_positive(classes=self.classes)
        if self.mode is None:
            object.__setattr__(self, "mode", "binary" if self.classes == 1 else "multiclass")
        check_choice("mode", self.mode, MODES)
        if (self.mode == "binary") != (self.classes == 1) and self.mode != "multilabel":
            raise ValueError(
                f"mode={self.mode!r} with classes={self.classes}: binary has 1 class, multiclass 2 or more"
            )
        if self.mode != "multiclass" and self.ignore_index in (0, 1):
            raise ValueError(f"ignore_index={self.ignore_index} is one of the two labels of a {self.mode} mask")
        if max(self.classes, abs(self.ignore_index or 0)) >= 2**15:  # encoded masks are int16
            raise ValueError(f"classes={self.classes} and ignore_index={self.ignore_index} must be below 2**15")
        _ = self.mapping

    @property
    def labels(self) -> int:
        """Number of values that a label can have."""
        return self.classes if self.mode == "multiclass" else 2

    @cached_property
    def mapping(self) -> dict[int, int]:
        """File value -> class; colours as 0xRRGGBB."""
        values = self.mask_values
        if values is None:
            return {}
        pairs = list(values.items()) if isinstance(values, Mapping) else [(v, i) for i, v in enumerate(values)]
        for value, label in pairs:
            if label != self.ignore_index and not 0 <= label < self.labels:
                raise ValueError(
                    f"mask_values maps {value!r} to {label}, which is neither 0..{self.labels - 1} nor ignore_index"
                )
        return {_colour(v) if isinstance(v, str) and v.startswith("#") else int(v): label for v, label in pairs}

    @property
    def colours(self) -> bool:
        """Whether `mask_values` lists colours."""
        return any(isinstance(value, str) and value.startswith("#") for value in self.mask_values or ())

    def encode(self, mask: NDArray[Any], source: object, *, spatial_dims: int = 2) -> NDArray[np.int16]:
        """Classes of a mask as `read_mask` gives it: (*space), or (classes, *space) if multilabel.

        Args:
            mask: (*space), or (bands, *space) for colours and multilabel.
            source: the file, for the message.
            spatial_dims: number of axes of space.
        """
        mask = self._one_number_per_label(mask, source, spatial_dims)
        if mask.dtype.kind == "f":
            mask = _whole_numbers(mask, source)
        elif mask.dtype.kind == "b":
            mask = mask.view(np.uint8)
        found = _values(mask)
        if self.mapping and (self.colours or not isinstance(self.mask_values, Mapping)):
            unlisted = [v for v in found if v not in self.mapping and v != self.ignore_index]
            if unlisted:
                raise ValueError(
                    f"{source} holds {_shown(unlisted[:1], self.colours)}{_place(mask, unlisted[0])}, "
                    "which is not in mask_values"
                )
        encoded = mask.astype(np.int32 if mask.dtype.itemsize < 4 else np.int64)
        for value, label in self.mapping.items():
            encoded[mask == value] = label
        self._check(encoded, source)
        return encoded.astype(np.int16)

    def _one_number_per_label(self, mask: NDArray[Any], source: object, spatial_dims: int) -> NDArray[Any]:
        bands = mask.ndim > spatial_dims
        if self.mode == "multilabel":
            mask = mask if bands else mask[None]
            if len(mask) != self.classes:
                raise ValueError(f"{source} has {len(mask)} bands; a multilabel mask has one per class: {self.classes}")
        elif self.colours:
            if mask.dtype != np.uint8 or (bands and len(mask) != 3):
                raise ValueError(f"{source} is {mask.dtype} of shape {mask.shape}; mask_values lists 8-bit RGB colours")
            red, green, blue = mask.astype(np.int32) if bands else [mask.astype(np.int32)] * 3
            mask = np.asarray(red << 16 | green << 8 | blue)
        elif bands:
            raise ValueError(
                f"{source} has {len(mask)} channels, wanted one number per pixel; map colours by "
                'mask_values=["#000000", "#ff0000", ...], in the order of the classes'
            )
        return mask

    def _check(self, mask: NDArray[Any], source: object) -> None:
        values = _values(mask)
        wrong = [v for v in values if not (0 <= v < self.labels or v == self.ignore_index)]
        if not wrong:
            return
        big = [v for v in wrong if v >= self.labels]
        lossy = "; JPEG changes values, save masks as PNG" if str(source).lower().endswith((".jpg", ".jpeg")) else ""
        if self.mode != "multiclass":
            kind = "a binary mask" if self.mode == "binary" else "each band of a multilabel mask"
            one = set(values) <= {0, *wrong} and len(wrong) == 1 == len(big)
            many = "mask_values={...} says which values stand for 1, ignore_index=... which do not count, classes=... counts more"
            fix = f"pass mask_values={{{wrong[0]}: 1}}" if one else many
            raise ValueError(f"{source} holds the values {_shown(values)}; {kind} has 0 and 1: {fix}{lossy}")
        label = (big or wrong)[-1]
        fix = f"pass classes={label + 1}, or " if big and label < 256 else "pass "
        raise ValueError(
            f"{source} holds the label {label}{_place(mask, label)}; with classes={self.classes} labels are "
            f"0..{self.labels - 1}: {fix}ignore_index={label} if it means 'no label', or mask_values={{...}}{lossy}"
        )


def _colour(text: str) -> int:
    if len(text) != 7:
        raise ValueError(f"a colour in mask_values is written like '#ff0000', got {text!r}")
    return int(text[1:], 16)


def _whole_numbers(mask: NDArray[Any], source: object) -> NDArray[np.int64]:
    odd = ~np.isfinite(mask) | (mask != np.rint(mask))
    if odd.any():
        place = tuple(np.argwhere(odd)[0].tolist())
        raise ValueError(f"{source} holds {mask[place]} at {place}; masks hold whole numbers")
    return mask.astype(np.int64)


def _values(mask: NDArray[Any]) -> list[int]:
    """Different values, ascending."""
    low, high = int(mask.min()), int(mask.max())
    if high - low > 2**16:
        return [int(v) for v in np.unique(mask)]
    counts = np.bincount(mask.ravel().astype(np.intp) - low)  # without the sort
    return [int(v) + low for v in np.flatnonzero(counts)]


def _place(mask: NDArray[Any], value: int) -> str:
    return f" at {tuple(np.argwhere(mask == value)[0].tolist())}"


def _shown(values: list[int], colours: bool = False) -> str:
    texts = [f"#{v:06x}" if colours else str(v) for v in values]
    return ", ".join(texts if len(texts) <= 6 else [*texts[:3], "...", texts[-1]])
