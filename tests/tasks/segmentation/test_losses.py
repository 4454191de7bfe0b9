"""Losses against torch, segmentation-models-pytorch, MONAI and closed forms, with ignored pixels and on coarse grids."""

import monai.losses
import pytest
import segmentation_models_pytorch.losses as smp
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.losses._functional import softmax_focal_loss_with_logits
from torch import nn

from multiresnet import MultiResNet
from multiresnet.tasks.resolutions import coarsen, resolution_weights
from multiresnet.tasks.segmentation.labels import Labels, Target
from multiresnet.tasks.segmentation.losses import LOSSES, SegmentationLoss

SIZES = {1: (41,), 2: (9, 7), 3: (5, 4, 3)}
MODES = {"binary": 1, "multiclass": 3, "multilabel": 3}


def example(mode, size, ignore_index=255, part=0.2):
    """Logits, a mask of which about a fifth is ignored, labels."""
    labels = Labels(mode, MODES[mode], ignore_index)
    logits = torch.randn(2, labels.channels, *size, dtype=torch.float64, requires_grad=True)
    shape = (2, *size) if mode != "multilabel" else (2, 3, *size)
    mask = torch.randint(labels.values, shape)
    if ignore_index is not None:
        mask[torch.rand(shape) < part] = ignore_index
    return logits, mask, labels


@pytest.mark.parametrize("dims", SIZES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ignore_index", [None, 255, -1])
@pytest.mark.parametrize("name", ["dice", "jaccard", "tversky", "lovasz"])
def test_overlap_losses_equal_those_of_smp(name, ignore_index, mode, dims):
    logits, mask, labels = example(mode, SIZES[dims], ignore_index)
    kinds = {"dice": smp.DiceLoss, "jaccard": smp.JaccardLoss, "tversky": smp.TverskyLoss, "lovasz": smp.LovaszLoss}
    options = {"alpha": 0.3, "beta": 0.7} if name == "tversky" else {}
    # theirs are for two dimensions, and the last for float32
    there = (logits.float() if name == "lovasz" else logits).flatten(2).unsqueeze(-1)
    wanted = kinds[name](mode, ignore_index=ignore_index, **options)(there, mask.reshape(*mask.shape[:-dims], -1, 1))
    torch.testing.assert_close(SegmentationLoss(name, labels)(logits, labels.target(mask)), wanted, check_dtype=False)


@pytest.mark.parametrize("dims", SIZES)
def test_cross_entropy_and_focal_equal_torch_and_smp(dims):
    logits, mask, labels = example("multiclass", SIZES[dims])
    target = labels.target(mask)
    torch.testing.assert_close(
        SegmentationLoss("ce", labels)(logits, target), F.cross_entropy(logits, mask, ignore_index=255)
    )
    kept = mask != 255
    pixels = logits.movedim(1, -1)[kept]
    torch.testing.assert_close(
        SegmentationLoss("focal", labels)(logits, target), softmax_focal_loss_with_logits(pixels, mask[kept])
    )
    for mode in ("binary", "multilabel"):
        logits, mask, labels = example(mode, SIZES[dims])
        target = labels.target(mask)
        pixels, truth = logits.reshape(mask.shape)[mask != 255], mask[mask != 255]
        torch.testing.assert_close(
            SegmentationLoss("ce", labels)(logits, target), F.binary_cross_entropy_with_logits(pixels, truth.double())
        )
        torch.testing.assert_close(
            SegmentationLoss("focal", labels)(logits, target), smp.FocalLoss("binary")(pixels, truth)
        )


def test_dice_tversky_and_focal_equal_those_of_monai():
    logits, mask, labels = example("multiclass", (6, 5, 4), ignore_index=None)
    target, options = labels.target(mask), dict(softmax=True, to_onehot_y=True, batch=True, smooth_nr=0, smooth_dr=0)
    for name, loss in {
        "dice": monai.losses.DiceLoss(**options),
        "jaccard": monai.losses.DiceLoss(jaccard=True, **options),
        "tversky": monai.losses.TverskyLoss(alpha=0.3, beta=0.7, **options),
    }.items():
        torch.testing.assert_close(SegmentationLoss(name, labels)(logits, target), loss(logits, mask.unsqueeze(1)))
    focal = monai.losses.FocalLoss(gamma=2, use_softmax=True, to_onehot_y=True, reduction="none")
    wanted = focal(logits, mask.unsqueeze(1)).sum() / mask.numel()
    torch.testing.assert_close(SegmentationLoss("focal", labels)(logits, target), wanted, check_dtype=False)


def test_lovasz_is_the_jaccard_loss_of_certain_predictions():
    # prediction 0 0 1 2, truth 0 1 1 1: IoU 1/2, 1/3; class 2 is not in the truth and does not count
    labels = Labels("multiclass", 3)
    logits = 1e4 * F.one_hot(torch.tensor([[0, 0, 1, 2]]), 3).movedim(-1, 1).double()
    loss = SegmentationLoss("lovasz", labels)(logits, labels.target(torch.tensor([[0, 1, 1, 1]])))
    assert loss.item() == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_binary_dice_and_cross_entropy_by_hand():
    # p = 1/2, 3/4, 1/4 at t = 1, 1, 0; the fourth pixel is ignored
    logits = torch.tensor([[[0.0, 3.0, 1 / 3, 7.0]]]).double()
    logits[..., 1:3] = logits[..., 1:3].log()
    labels = Labels("binary", ignore_index=9)
    target = labels.target(torch.tensor([[1, 1, 0, 9]]))
    dice = 1 - 2 * (1 / 2 + 3 / 4) / (3 / 2 + 2)
    entropy = -(torch.tensor([1 / 2, 3 / 4, 3 / 4]).double().log().mean())
    assert SegmentationLoss("dice", labels)(logits, target).item() == pytest.approx(dice)
    assert SegmentationLoss("ce", labels)(logits, target).item() == pytest.approx(entropy.item())
    assert SegmentationLoss("0.5 * dice + 2*ce", labels)(logits, target).item() == pytest.approx(
        dice / 2 + 2 * entropy.item()
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", LOSSES)
def test_ignored_pixels_have_no_influence_and_no_gradient(name, mode):
    logits, mask, labels = example(mode, (6, 5), part=0.4)
    loss = SegmentationLoss(name, labels)
    value = loss(logits, labels.target(mask))
    value.backward()
    ignored = (mask == 255).reshape(2, -1, 6, 5).expand_as(logits)
    assert not logits.grad[ignored].any() and logits.grad[~ignored].any()
    changed = logits.detach().masked_fill(ignored, 1e4)
    torch.testing.assert_close(loss(changed, labels.target(mask)), value.detach())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_a_labelled_pixel_is_0(name, mode):
    logits, mask, labels = example(mode, (3, 4))
    value = SegmentationLoss(name, labels)(logits, labels.target(torch.full_like(mask, 255)))
    value.backward()
    assert value.shape == () and value.item() == 0 and not logits.grad.any()


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_a_class_is_finite(name):
    logits, mask, labels = example("multiclass", (4, 4), ignore_index=None)
    loss = SegmentationLoss(name, labels)(logits, labels.target(mask.clamp_max(1)))
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()
    logits, mask, labels = example("binary", (4, 4), ignore_index=None)
    loss = SegmentationLoss(name, labels)(logits, labels.target(0 * mask))
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()


def test_an_ignored_class_of_the_range_counts_as_no_class():
    logits, mask, labels = example("multiclass", (8, 8), ignore_index=0)
    assert (mask == 0).any()
    wanted = F.cross_entropy(logits, mask, ignore_index=0)
    torch.testing.assert_close(SegmentationLoss("ce", labels)(logits, labels.target(mask)), wanted)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["ce", "dice", "jaccard", "tversky", "focal"])
def test_on_coarse_grids_the_loss_is_least_at_the_shares_of_the_classes(name, mode):
    _, mask, labels = example(mode, (13, 10))
    net = MultiResNet(1, labels.channels, channels=(8, 8, 8), num_blocks=1)
    full = labels.target(mask)
    target = Target(*(coarsen(net, part.double(), 0) for part in (full.known, full.valid)))
    assert target.known.shape[2:] == (4, 3)
    perfect = labels.logits(target.shares()).requires_grad_()
    loss = SegmentationLoss(name, labels)
    least = loss(perfect, target)
    for _ in range(5):
        assert loss(perfect.detach() + torch.randn_like(perfect), target) > least
    if name in ("dice", "jaccard", "tversky"):
        assert least.item() == pytest.approx(0, abs=1e-6)
    else:
        least.backward()
        assert perfect.grad.abs().max() < 1e-6


def test_shares_by_hand_and_wholly_ignored_cells():
    labels = Labels("multiclass", 2, ignore_index=255)
    net = MultiResNet(1, 2, channels=(8, 8), num_blocks=1, patch_levels=0)
    mask = torch.tensor([[[0, 1, 255, 255], [1, 255, 255, 255]]])
    full = labels.target(mask)
    target = Target(*(coarsen(net, part, 1) for part in (full.known, full.valid)))
    assert target is not full and torch.equal(target.known, full.known)  # the last grid is that of the mask
    half = Target(*(coarsen(net, part, 0) for part in (full.known, full.valid)))
    torch.testing.assert_close(half.shares()[0, :, 0], torch.tensor([[1 / 3, 0], [2 / 3, 0]]))
    assert half.valid.flatten().tolist() == [0.75, 0]
    assert labels.mask(half).tolist() == [[[1, 255]]]
    logits = torch.zeros(1, 2, 1, 2, requires_grad=True)
    SegmentationLoss("dice+ce+lovasz", labels)(logits, half).backward()
    assert not logits.grad[..., 1].any() and logits.grad[..., 0].any()


@pytest.mark.parametrize("mode", MODES)
def test_the_mask_of_a_target_is_the_mask(mode):
    _, mask, labels = example(mode, (7, 6))
    assert torch.equal(labels.mask(labels.target(mask)), mask)


def test_class_weights_are_those_of_torch_and_smp():
    weights = [0.2, 1.0, 3.0]
    logits, mask, labels = example("multiclass", (6, 6))
    target = labels.target(mask)
    wanted = F.cross_entropy(logits, mask, torch.tensor(weights).double(), ignore_index=255)
    torch.testing.assert_close(SegmentationLoss("ce", labels, weights)(logits, target), wanted)
    wanted = smp.DiceLoss("multiclass", ignore_index=255, class_weights=weights)(logits, mask)
    torch.testing.assert_close(SegmentationLoss("dice", labels, weights)(logits, target), wanted)

    logits, mask, labels = example("binary", (6, 6), ignore_index=None)
    wanted = (
        F.binary_cross_entropy_with_logits(
            logits[:, 0], mask.double(), torch.where(mask == 1, 3.0, 0.5), reduction="sum"
        )
        / torch.where(mask == 1, 3.0, 0.5).sum()
    )
    torch.testing.assert_close(SegmentationLoss("ce", labels, [0.5, 3.0])(logits, labels.target(mask)), wanted)

    logits, mask, labels = example("multilabel", (6, 6), ignore_index=None)
    each = F.binary_cross_entropy_with_logits(logits, mask.double(), reduction="none").mean((0, 2, 3))
    wanted = (each * torch.tensor(weights)).sum() / sum(weights)
    torch.testing.assert_close(SegmentationLoss("ce", labels, weights)(logits, labels.target(mask)), wanted)


def test_a_given_module_is_called_as_torch_does():
    logits, mask, labels = example("multiclass", (5, 5))
    loss = SegmentationLoss(nn.CrossEntropyLoss(ignore_index=255), labels)
    torch.testing.assert_close(loss(logits, labels.target(mask)), F.cross_entropy(logits, mask, ignore_index=255))
    logits, mask, labels = example("binary", (5, 5), ignore_index=None)
    loss = SegmentationLoss(nn.BCEWithLogitsLoss(), labels)
    wanted = F.binary_cross_entropy_with_logits(logits[:, 0], mask.double())
    torch.testing.assert_close(loss(logits, labels.target(mask)), wanted)
    with pytest.raises(ValueError, match=r"returned shape \(2, 1, 5, 5\).*reduction='mean'"):
        SegmentationLoss(nn.BCEWithLogitsLoss(reduction="none"), labels)(logits, labels.target(mask))


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_logits_are_judged_in_float32(name):
    logits, mask, labels = example("multiclass", (8, 8))
    low = logits.detach().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        value = SegmentationLoss(name, labels)(low, labels.target(mask))
    assert value.dtype == torch.float32
    assert torch.equal(value, SegmentationLoss(name, labels)(low.float(), labels.target(mask)))


def test_weights_of_the_resolutions_double_and_sum_to_1():
    weights = resolution_weights(4)
    assert sum(weights) == pytest.approx(1) and weights[-1] > 0.5
    assert [b / a for a, b in zip(weights, weights[1:])] == [2, 2, 2]


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("dicee", "did you mean 'dice'"),
        ("dice+", "not a sum of names"),
        ("dice-ce", "not a sum of names"),
        ("ce*2", "not a sum of names"),
        ("", "not a sum of names"),
    ],
)
def test_a_wrong_loss_is_explained(loss, message):
    with pytest.raises(ValueError, match=message):
        SegmentationLoss(loss, Labels("binary"))


def test_wrong_class_weights_are_explained():
    three = Labels("multiclass", 3)
    with pytest.raises(ValueError, match="needs 3 values, one per class, got 2"):
        SegmentationLoss("ce", three, [1.0, 2.0])
    with pytest.raises(ValueError, match=r"needs 2 values, \(background, foreground\), got 1"):
        SegmentationLoss("ce", Labels("binary"), [1.0])
    for weights in ([1.0, -1.0, 1.0], [0.0, 0.0, 0.0]):
        with pytest.raises(ValueError, match="must be >= 0"):
            SegmentationLoss("ce", three, weights)
    for loss in ("lovasz", nn.CrossEntropyLoss()):
        with pytest.raises(ValueError, match="do not apply to this loss"):
            SegmentationLoss(loss, three, [1.0, 1.0, 1.0])
