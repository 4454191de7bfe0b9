"""How good samples are: KID and FID on features of a small classifier trained on the same data, so nothing is downloaded.

The figures compare samplers and models on one data set. They are not those of Inception features in papers.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .samplers import Sampler
from .task import DiffusionTask

__all__ = ["FeatureClassifier", "compare", "images_and_labels", "quality", "train_classifier"]


class FeatureClassifier(nn.Module):
    """A small convolutional classifier; called on images (N, C, H, W), it gives standardised features (N, num_features).

    The features are those before the last, linear layer, with mean 0 and variance 1 each over the training images.
    """

    def __init__(self, channels: int, classes: int, *, num_features: int = 64) -> None:
        super().__init__()
        self.num_features, self.accuracy = num_features, float("nan")
        self.body = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(256, num_features),
            nn.ReLU(),
        )
        self.last = nn.Linear(num_features, classes)
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("std", torch.ones(num_features))

    def logits(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, classes)."""
        return cast(Tensor, self.last(self.body(x)))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, (self.body(x) - self.mean) / self.std)


def train_classifier(
    images: Tensor, labels: Tensor, *, epochs: int = 20, lr: float = 2e-3, batch_size: int = 64, seed: int = 0
) -> FeatureClassifier:
    """Train a `FeatureClassifier` on nine tenths of the images; `accuracy` is that on the rest.

    Takes about 10 s on one core for 1,800 images of 8 x 8. The global random state is left as it was.

    Args:
        images: (N, C, H, W) in [-1, 1].
        labels: (N,) int64.
        epochs: passes over the data.
        lr: highest learning rate of Adam, which falls as a cosine.
        batch_size: images at a time.
        seed: of weights, order and split.
    """
    if len(images) < 10 or len(images) != len(labels):
        raise ValueError(f"wanted 10 or more images with a label each, got {len(images)} images, {len(labels)} labels")
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        order = torch.randperm(len(images))
        held_out, train = order[: len(order) // 10], order[len(order) // 10 :]
        model = FeatureClassifier(images.shape[1], int(labels.max()) + 1)
        optimizer = torch.optim.Adam(model.parameters(), lr)
        batches = -(-len(train) // batch_size)
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * batches)
        for _ in range(epochs):
            for part in train[torch.randperm(len(train))].split(batch_size):
                optimizer.zero_grad()
                cross_entropy(model.logits(images[part]), labels[part]).backward()
                optimizer.step()
                falling.step()
    model.eval().requires_grad_(False)
    features = torch.cat([model.body(part) for part in images[train].split(1024)])
    std = features.std(0)
    if not std.max() > 0:
        raise ValueError(
            "the classifier has learned nothing: all its features are constant; try a smaller lr, or other images"
        )
    model.mean, model.std = features.mean(0), std.clamp_min(float(std.max()) / 100)  # some, even most, may be dead
    guesses = torch.cat([model.logits(part).argmax(1) for part in images[held_out].split(1024)])
    model.accuracy = float((guesses == labels[held_out]).float().mean())
    return model


@torch.no_grad()
def compare(
    real: Tensor, generated: Tensor, features: nn.Module, *, subsets: int = 50, subset_size: int = 500, seed: int = 0
) -> dict[str, float]:
    """KID (unbiased, 1801.01401) and FID (1706.08500) by torchmetrics, between two sets of images.

    Args:
        real: (N, C, H, W), as `features` takes them.
        generated: (M, C, H, W).
        features: (N, C, H, W) -> (N, F). FID needs clearly more than F images to mean anything; KID does not.
        subsets: random subsets that KID is averaged over.
        subset_size: their size, at most that of the smaller set.
        seed: of the subsets.

    Returns:
        {"kid", "kid_std", "fid"}; kid_std is the standard deviation over the subsets.
    """
    # torchmetrics.image has them only where torch-fidelity is installed, which they need for Inception alone
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    if min(len(real), len(generated)) < 2:
        raise ValueError(f"wanted 2 or more images of each kind, got {len(real)} and {len(generated)}")
    codes = [torch.cat([features(part).float() for part in images.split(1024)]) for images in (real, generated)]
    given = _Given(codes[0].shape[1])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*will save all extracted features")
        kid = KernelInceptionDistance(feature=given, subsets=subsets, subset_size=min(subset_size, *map(len, codes)))
    fid = FrechetInceptionDistance(feature=given)
    for metric in (kid, fid):
        metric.update(codes[0], real=True)
        metric.update(codes[1], real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mean, std = kid.compute()
    return {"kid": float(mean), "kid_std": float(std), "fid": float(fid.compute())}


class _Given(nn.Module):
    """Stands for the network where the features are computed already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, x: Tensor) -> Tensor:
        return x


def quality(
    task: DiffusionTask,
    data: Any,
    *,
    n: int | None = None,
    sampler: Sampler | Any = "dpm-solver++",
    steps: int | None = None,
    guidance: float = 1.0,
    features: nn.Module | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """KID and FID of samples against the data, with the classes of the data.

    Args:
        task: trained.
        data: (images, labels) as tensors, labels `None` for data without; or a loader of batches {"image", "label"}.
        n: number of samples, `None` for as many as there are data.
        sampler: as in `DiffusionTask.sample`.
        steps: as there.
        guidance: as there.
        features: images -> (N, F); `None` trains a `FeatureClassifier` on the data, which then need labels.
        seed: of everything random.

    Returns:
        {"kid", "kid_std", "fid"} of the samples, {"kid_of_data", "fid_of_data"}: the same between two halves of the data,
        which is what a perfect model would have, and {"accuracy"} of the classifier where there is one.
    """
    images, labels = images_and_labels(data)
    if features is None:
        if labels is None:
            raise ValueError("the data have no labels to train a classifier on: give features=, images -> (N, F)")
        features = train_classifier(images, labels, seed=seed)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    n = len(images) if n is None else n
    wanted = None
    if task.num_classes:
        if labels is None:
            raise ValueError("the model has classes, the data have no labels")
        wanted = labels[order.repeat(-(-n // len(order)))[:n]]
    drawn = task.sample(
        n, size=images.shape[1:], sampler=sampler, steps=steps, label=wanted, guidance=guidance, seed=seed
    )
    half = len(images) // 2
    reference = compare(images[order[:half]], images[order[half:]], features, seed=seed)
    return {
        **compare(images, drawn.cpu(), features, seed=seed),
        **{f"{name}_of_data": reference[name] for name in ("kid", "fid")},
        **({"accuracy": features.accuracy} if isinstance(features, FeatureClassifier) else {}),
    }


def images_and_labels(data: Any) -> tuple[Tensor, Tensor | None]:
    """All images and labels of a loader, or a pair of tensors as it is."""
    if isinstance(data, Sequence) and isinstance(data[0], Tensor):
        return data[0], data[1]
    batches = list(data)
    labelled = all("label" in batch for batch in batches)
    return (
        torch.cat([batch["image"] for batch in batches]),
        torch.cat([batch["label"] for batch in batches]) if labelled else None,
    )
