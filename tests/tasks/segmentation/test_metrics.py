"""Dice and IoU against enumeration and torchmetrics, however the data are cut into batches and processes."""

import math

import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from multiresnet.tasks.segmentation.labels import Labels
from multiresnet.tasks.segmentation.metrics import OverlapMetrics


def scores(predictions, masks, k, ignore):
    """Dice and IoU of class k over several images, by sets of pixels; NaN if it is nowhere."""
    here, there = set(), set()
    for i, (p, m) in enumerate(zip(predictions, masks)):
        kept = [(i, j) for j, v in enumerate(m.flatten().tolist()) if v != ignore]
        here |= {at for at in kept if p.flatten()[at[1]] == k}
        there |= {at for at in kept if m.flatten()[at[1]] == k}
    if not here | there:
        return math.nan, math.nan
    return 2 * len(here & there) / (len(here) + len(there)), len(here & there) / len(here | there)


def mean(values):
    known = [v for v in values if not math.isnan(v)]
    return sum(known) / len(known) if known else math.nan


@pytest.mark.parametrize("ignore", [None, 255, 1])
@pytest.mark.parametrize("ignore_background", [False, True])
def test_multiclass_equals_enumeration_on_images_of_different_sizes(ignore, ignore_background):
    labels = Labels("multiclass", 4, ignore)  # class 3 is neither there nor predicted
    metrics = OverlapMetrics(labels, ignore_background=ignore_background, names=["a", "b", "c", "d"])
    predictions, masks = [], []
    for size in [(1, 1), (3, 5), (4, 4), (2, 7)]:
        prediction, mask = torch.randint(3, size), torch.randint(3, size)
        if ignore == 255:
            mask[torch.rand(size) < 0.3] = 255
        metrics.update(prediction[None], mask[None])
        predictions.append(prediction)
        masks.append(mask)
    result = metrics.compute()
    counted = [k for k in range(4) if k != ignore and not (k == 0 and ignore_background)]
    by_class = {k: scores(predictions, masks, k, ignore) for k in range(4)}
    for k, name in enumerate("abcd"):
        if k == ignore:
            assert f"iou_{name}" not in result
        else:
            assert float(result[f"iou_{name}"]) == pytest.approx(by_class[k][1], nan_ok=True)
    assert math.isnan(result["iou_d"])
    assert float(result["dice"]) == pytest.approx(mean([by_class[k][0] for k in counted]))
    assert float(result["iou"]) == pytest.approx(mean([by_class[k][1] for k in counted]))
    images = [mean([scores([p], [m], k, ignore)[0] for k in counted]) for p, m in zip(predictions, masks)]
    assert float(result["dice_per_image"]) == pytest.approx(mean(images))


def test_iou_equals_that_of_torchmetrics():
    labels = Labels("multiclass", 3, ignore_index=255)
    prediction, mask = torch.randint(3, (4, 8, 8)), torch.randint(3, (4, 8, 8))
    mask[torch.rand(mask.shape) < 0.3] = 255
    metrics = OverlapMetrics(labels)
    metrics.update(prediction, mask)
    wanted = MulticlassJaccardIndex(3, average="none", ignore_index=255)(prediction, mask)
    result = metrics.compute()
    torch.testing.assert_close(torch.stack([result[f"iou_{k}"] for k in range(3)]), wanted)


def test_multilabel_equals_binary_label_by_label():
    labels = Labels("multilabel", 3, ignore_index=255)
    prediction, mask = torch.randint(2, (4, 3, 5, 6)), torch.randint(2, (4, 3, 5, 6))
    mask[torch.rand(mask.shape) < 0.3] = 255
    metrics = OverlapMetrics(labels)
    metrics.update(prediction, mask)
    result, dices = metrics.compute(), []
    for k in range(3):
        one = OverlapMetrics(Labels("binary", ignore_index=255))
        one.update(prediction[:, k], mask[:, k])
        wanted = scores(prediction[:, k], mask[:, k], 1, 255)
        assert float(one.compute()["dice"]) == pytest.approx(wanted[0])
        assert float(result[f"iou_{k}"]) == pytest.approx(wanted[1])
        dices.append(wanted[0])
    assert float(result["dice"]) == pytest.approx(mean(dices))


def test_empty_images_count_neither_as_0_nor_as_1():
    metrics = OverlapMetrics(Labels("binary"))
    nothing, one = torch.zeros(1, 2, 2, dtype=torch.int64), torch.ones(1, 2, 2, dtype=torch.int64)
    metrics.update(nothing, nothing)
    assert all(math.isnan(v) for v in metrics.compute().values())
    metrics.update(one, one)
    assert metrics.compute()["dice_per_image"] == 1
    metrics.update(one, nothing)  # but what is predicted where nothing is, is wrong
    result = metrics.compute()
    assert result["dice_per_image"] == 0.5 and result["iou"] == 0.5


def test_batches_and_processes_do_not_matter():
    labels = Labels("multiclass", 3, ignore_index=255)
    prediction, mask = torch.randint(3, (6, 4, 4)), torch.randint(3, (6, 4, 4))
    whole, first, second = (OverlapMetrics(labels) for _ in range(3))
    whole.update(prediction, mask)
    first.update(prediction[:1], mask[:1])
    for i in range(1, 6):
        second.update(prediction[i : i + 1], mask[i : i + 1])
    others = iter([second.overlaps, second.image_dice, second.images])
    first.dist_sync_fn = lambda mine, group: [mine, next(others)]
    first.distributed_available_fn = lambda: True
    for name, value in whole.compute().items():
        torch.testing.assert_close(first.compute()[name], value)


def test_names_must_be_as_many_as_classes():
    with pytest.raises(ValueError, match="2 class names for 3 classes"):
        OverlapMetrics(Labels("multiclass", 3), names=["a", "b"])
