"""Masks of all shapes and values, and what is said about wrong ones."""

import pytest
import torch

from multiresnet.tasks.segmentation.labels import Labels

IMAGE = torch.zeros(2, 3, 4, 5)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.float32, torch.bool])
def test_masks_of_every_type_and_with_a_channel_axis_are_read(dtype):
    mask = torch.randint(2, (2, 4, 5))
    for given in (mask, mask.unsqueeze(1)):
        read = Labels("binary").read(given.to(dtype), IMAGE)
        assert read.dtype == torch.int64 and torch.equal(read, mask)


def test_a_mask_whose_batch_is_one_image_keeps_its_axes():
    assert Labels("multiclass", 2).read(torch.zeros(1, 1, 1, 7), torch.zeros(1, 3, 1, 7)).shape == (1, 1, 7)
    assert Labels("multilabel", 1).read(torch.zeros(1, 1, 4), torch.zeros(1, 3, 4)).shape == (1, 1, 4)


@pytest.mark.parametrize(
    ("labels", "values", "message"),
    [
        (
            Labels("binary"),
            [0, 255],
            r"holds values 0 \.\. 255; .*has 0 \.\. 1: turn it into 0 and 1, such as \(mask > 127\)",
        ),
        (Labels("multilabel", 1), [0, 255], r"\(mask > 127\)"),
        (
            Labels("multiclass", 3),
            [0, 3],
            r"0 \.\. 3; .*classes=3 has 0 \.\. 2: pass classes=4 or more, or .*ignore_index=3",
        ),
        (Labels("multiclass", 3), [-1, 2], r"-1 \.\. 2; .*: pass ignore_index=-1 if"),
        (Labels("multiclass", 3, ignore_index=255), [254, 255], r"254 \.\. 254; .*0 \.\. 2 and 255 \(ignored\)"),
    ],
)
def test_values_that_are_no_classes_are_named(labels, values, message):
    mask = torch.tensor([values])
    mask = mask.unsqueeze(1) if labels.mode == "multilabel" else mask
    with pytest.raises(ValueError, match=message):
        labels.read(mask, torch.zeros(1, 1, 2))


def test_ignored_values_are_no_error_wherever_they_are():
    for ignore in (255, -100, 3, 0):
        mask = torch.tensor([[ignore, 1, 2]])
        assert torch.equal(Labels("multiclass", 3, ignore).read(mask, torch.zeros(1, 1, 3)), mask)


def test_fractions_and_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="holds fractions.*nearest neighbour"):
        Labels("binary").read(torch.full((2, 4, 5), 0.5), IMAGE)
    with pytest.raises(ValueError, match=r"shape \(2, 5, 4\); for images \(2, 3, 4, 5\) a binary mask .*\(2, 4, 5\)"):
        Labels("binary").read(torch.zeros(2, 5, 4), IMAGE)
    with pytest.raises(ValueError, match=r"a multilabel mask with classes=3 is \(2, 3, 4, 5\)"):
        Labels("multilabel", 3).read(torch.zeros(2, 4, 5), IMAGE)


@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
def test_logits_of_a_probability_give_it_back(mode):
    labels = Labels(mode, 1 if mode == "binary" else 3)
    probability = labels.probability(torch.randn(2, labels.channels, 5, dtype=torch.float64) * 3)
    torch.testing.assert_close(labels.probability(labels.logits(probability)), probability)
    assert labels.logits(probability.round()).isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("multiclas", 3), "did you mean 'multiclass'"),
        (("multiclass", 1), "needs classes >= 2"),
        (("binary", 2), "one class beside the background"),
        (("multilabel", 0), "classes must be an integer >= 1"),
        (("binary", 1, 0), "ignore_index=0 is one of the two values"),
    ],
)
def test_impossible_labels_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Labels(*arguments)


def test_logits_that_do_not_fit_name_both_shapes():
    labels = Labels("multiclass", 3)
    with pytest.raises(ValueError, match=r"returned \(1, 2, 4, 5\); .*classes=3 wants \(N, 3, 4, 5\).*out_channels=3"):
        labels.check_logits(torch.zeros(1, 2, 4, 5), (4, 5))
    with pytest.raises(ValueError, match=r"\(1, 3, 4, 4\) for a mask of size \(4, 5\); the sizes must agree"):
        labels.check_logits(torch.zeros(1, 3, 4, 4), (4, 5))
