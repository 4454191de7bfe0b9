"""Values in mask files become classes, or an error that says file, value and fix."""

import re

import numpy as np
import pytest

from multiresnet.data.images.masks import MaskCode

LABELS = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)


def mask_of(*values: float, kind: type = np.uint8) -> np.ndarray:
    return np.array([values], kind)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.int64, np.float32, np.float64])
def test_labels_of_any_type_stay(kind: type) -> None:
    encoded = MaskCode(3).encode(LABELS.astype(kind), "a.png")
    np.testing.assert_array_equal(encoded, LABELS)


def test_binary_masks_of_truth_values() -> None:
    assert MaskCode().encode(np.array([[True, False]]), "a.png").tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("code", "stored", "wanted"),
    [
        (MaskCode(mask_values={255: 1}), (0, 255, 1), [0, 1, 1]),
        (MaskCode(mask_values=[0, 255]), (0, 255), [0, 1]),
        (MaskCode(mask_values={0: 1, 1: 0}), (0, 1), [1, 0]),
        (MaskCode(3, mask_values=[50, 100, 200]), (200, 50, 100), [2, 0, 1]),
        (MaskCode(2, ignore_index=255), (255, 1, 0), [255, 1, 0]),
        (MaskCode(2, ignore_index=-1, mask_values={7: -1}), (7, 1, 0), [-1, 1, 0]),
        (MaskCode(2, ignore_index=9, mask_values=[3, 4]), (9, 4, 3), [9, 1, 0]),
        (MaskCode(3, ignore_index=0), (0, 1, 2), [0, 1, 2]),
    ],
)
def test_mask_values(code: MaskCode, stored: tuple[int, ...], wanted: list[int]) -> None:
    for kind in (np.uint8, np.int32):
        assert code.encode(mask_of(*stored, kind=kind), "a.png").tolist() == [wanted]


@pytest.mark.parametrize("values", [["#000000", "#ff8001", "#0000ff"], {"#000000": 0, "#FF8001": 1, "#0000ff": 2}])
def test_colours(values: list[str] | dict[str, int]) -> None:
    colours = np.array([[0, 0, 0], [255, 128, 1], [0, 0, 255]], np.uint8)[LABELS]
    code = MaskCode(3, mask_values=values)
    np.testing.assert_array_equal(code.encode(np.moveaxis(colours, -1, 0), "a.png"), LABELS)
    assert code.encode(mask_of(0, 0), "grey.png").tolist() == [[0, 0]]  # black in a grey file
    with pytest.raises(ValueError, match=r"a\.png holds #0000fe at \(0, 2\), which is not in mask_values"):
        colours[0, 2, 2] = 254
        code.encode(np.moveaxis(colours, -1, 0), "a.png")
    with pytest.raises(ValueError, match=r"a\.png is float32.*8-bit RGB colours"):
        code.encode(np.zeros((3, 2, 2), np.float32), "a.png")


def test_multilabel_bands() -> None:
    bands = np.array([[[0, 1]], [[1, 1]]], np.uint8)
    np.testing.assert_array_equal(MaskCode(2, "multilabel").encode(bands, "a.npy"), bands)
    scaled = MaskCode(2, "multilabel", mask_values={255: 1}).encode(bands * 255, "a.npy")
    np.testing.assert_array_equal(scaled, bands)
    assert MaskCode(1, "multilabel").encode(bands[0], "a.npy").shape == (1, 1, 2)
    with pytest.raises(ValueError, match=r"a\.npy has 2 bands.*one per class: 3"):
        MaskCode(3, "multilabel").encode(bands, "a.npy")
    with pytest.raises(ValueError, match=r"a\.npy holds the values 0, 255.*multilabel.*mask_values=\{255: 1\}"):
        MaskCode(2, "multilabel").encode(bands * 255, "a.npy")


@pytest.mark.parametrize(
    ("code", "mask", "message"),
    [
        (
            MaskCode(),
            mask_of(0, 255),
            "a.png holds the values 0, 255; a binary mask has 0 and 1: pass mask_values={255: 1}",
        ),
        (MaskCode(), mask_of(255), "pass mask_values={255: 1}"),
        (MaskCode(), mask_of(0, 1, 2, 3), "a.png holds the values 0, 1, 2, 3; a binary mask has 0 and 1: mask_values="),
        (MaskCode(), mask_of(0, -1, kind=np.int8), "a.png holds the values -1, 0; a binary mask has 0 and 1"),
        (MaskCode(ignore_index=9), mask_of(0, 9, 255), "holds the values 0, 9, 255; a binary"),
        (MaskCode(), mask_of(*range(9)), "holds the values 0, 1, 2, ..., 8;"),
        (
            MaskCode(11),
            mask_of(0, 11),
            "a.png holds the label 11 at (0, 1); with classes=11 labels are 0..10: pass classes=12",
        ),
        (MaskCode(11), mask_of(0, 11), "or ignore_index=11 if it means 'no label'"),
        (
            MaskCode(2),
            mask_of(0, 1, -1, kind=np.int16),
            "a.png holds the label -1 at (0, 2); with classes=2 labels are 0..1",
        ),
        (MaskCode(2), mask_of(70000, kind=np.int32), "a.png holds the label 70000 at (0, 0)"),
        (MaskCode(2), mask_of(0, 0.5, kind=float), "a.png holds 0.5 at (0, 1); masks hold whole numbers"),
        (MaskCode(2), mask_of(0, np.nan, kind=float), "a.png holds nan at (0, 1)"),
        (
            MaskCode(2),
            np.zeros((3, 4, 5), np.uint8),
            "a.png has 3 channels, wanted one number per pixel; map colours by mask_val",
        ),
        (MaskCode(2, mask_values=[0, 9]), mask_of(0, 5), "a.png holds 5 at (0, 1), which is not in mask_values"),
    ],
)
def test_wrong_masks(code: MaskCode, mask: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        code.encode(mask, "a.png")


def test_jpeg_masks_are_pointed_out() -> None:
    with pytest.raises(ValueError, match="JPEG changes values, save masks as PNG"):
        MaskCode().encode(mask_of(0, 3, 252, 255), "a.jpg")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 0}, "classes must be an integer >= 1"),
        ({"mode": "bianry"}, "did you mean 'binary'"),
        ({"classes": 3, "mode": "binary"}, "binary has 1 class"),
        ({"classes": 1, "mode": "multiclass"}, "multiclass 2 or more"),
        ({"ignore_index": 1}, "ignore_index=1 is one of the two labels of a binary mask"),
        ({"classes": 2, "ignore_index": 2**15}, "must be below"),
        ({"mask_values": {255: 2}}, "maps 255 to 2, which is neither 0..1 nor ignore_index"),
        ({"mask_values": [0, 127, 255]}, "maps 255 to 2"),
        ({"classes": 2, "mask_values": ["#000", "#ffffff"]}, "written like '#ff0000', got '#000'"),
    ],
)
def test_impossible_codes(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        MaskCode(**arguments)
