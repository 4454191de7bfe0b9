"""Images and class labels at the door of a generative model, and the two ways in which denoising networks are called."""

from __future__ import annotations

import inspect
from typing import Any, cast

import torch
from torch import Tensor, nn

from multiresnet.embeddings import Conditioning
from multiresnet.unet import UNet

__all__ = [
    "check_images",
    "check_labels",
    "check_network",
    "hide_labels",
    "image_facts",
    "labels_of",
    "network_inputs",
    "network_output",
]


def image_facts(data: Any) -> dict[str, Any]:
    """What a data module of images says: channels, dimension, boundary, number of classes and size."""
    facts = {name: getattr(data, name) for name in ("channels", "spatial_dims", "boundary", "classes")}
    size = (data.size,) * data.spatial_dims if isinstance(data.size, int) else tuple(data.size)
    return {**facts, "size": size}


def check_images(x: Tensor) -> None:
    """Raise `ValueError` unless images are in [-1, 1]."""
    if bool((x.abs() > 1.01).any()):
        raise ValueError(f"images must be in [-1, 1], got {float(x.min()):.4g} ... {float(x.max()):.4g}")


def hide_labels(label: Tensor, part: float, classes: int) -> Tensor:
    """Labels (N,), a random part of them replaced by `classes`, "none"."""
    return label.masked_fill(torch.rand(label.shape, device=label.device) < part, classes)


def check_network(model: nn.Module, classes: int, emb_channels: int, *, deep: bool) -> int:
    """Refuse networks that cannot be used as denoisers; return the channels of `emb`, 0 for one like diffusers' `UNet2DModel`.

    Raises:
        TypeError: an unknown way to be called.
        ValueError: a network without conditioning, or with the wrong number of classes, or without resolutions if `deep`.
    """
    if deep and not isinstance(model, UNet):
        raise ValueError(f"deep_supervision needs a network of multiresnet, {type(model).__name__} has one output")
    parameters = inspect.signature(model.forward).parameters
    if "emb" in parameters:
        wanted = int(getattr(model, "emb_channels", emb_channels))
        if not wanted:
            raise ValueError(
                "the network was built without conditioning; it has to know the noise level: "
                f"build it with emb_channels={emb_channels}"
            )
        return wanted
    if "timestep" not in parameters:
        raise TypeError(
            f"{type(model).__name__}.forward({', '.join(parameters)}) is not known; wanted forward(x, emb), or "
            "forward(x, timestep, class_labels=None) as in diffusers; wrap it in a module that has one of them"
        )
    rows = getattr(getattr(model, "config", None), "num_class_embeds", None)
    if rows is not None and rows != (classes + 1 if classes else 0):
        raise ValueError(
            f"{type(model).__name__} has num_class_embeds={rows}, wanted {f'{classes + 1}, for' if classes else 'None:'} "
            f"{classes} classes{' and no label' if classes else ''}"
        )
    return 0


def network_inputs(
    conditioning: Conditioning | None, x: Tensor, condition: Tensor, label: Tensor | None
) -> tuple[Tensor | None, ...]:
    """What the network is called with, by position: (x, emb), or (x, timestep, class_labels) where there is no `emb`."""
    return (x, condition, label) if conditioning is None else (x, conditioning(noise=condition, label=label))


def network_output(output: Any) -> Tensor:
    """The tensor in what a network returned; diffusers puts it into `.sample`."""
    return cast(Tensor, getattr(output, "sample", output))


def labels_of(batch: dict[str, Tensor], classes: int, *, ignore: bool) -> Tensor | None:
    """The labels of a training batch, or None for a model without classes."""
    label = batch.get("label")
    if not classes:
        if label is not None and not ignore:
            raise ValueError("the batch has labels, the model no classes: say classes=..., or classes=0 to ignore them")
        return None
    if label is None:
        raise ValueError(
            f"the model has {classes} classes, the batch has no 'label'; train with classes=0, or label the data"
        )
    _check_range(label, classes - 1, classes)
    return label


def check_labels(label: Tensor | None, batch: int, classes: int, *, guidance: float, dropped: bool) -> Tensor | None:
    """Labels to denoise or sample with: `None` becomes the label `classes`, "none", if the model knows it."""
    if not classes:
        if label is not None or guidance != 1:
            raise ValueError("the model was trained without classes: leave out label and guidance")
        return None
    if label is None:
        if guidance != 1:
            raise ValueError(f"guidance={guidance} leads towards a class: give label=...")
        label = torch.tensor(classes)
    label = label.reshape(-1)
    if len(label) not in (1, batch) or label.is_floating_point():
        raise ValueError(
            f"label must be one integer or one for each of the {batch} images, got {label.dtype} {tuple(label.shape)}"
        )
    if not dropped and (guidance != 1 or bool((label == classes).any())):
        raise ValueError(
            "the model was trained with drop_label=0 and knows no 'no label': give label=..., without guidance"
        )
    _check_range(label, classes, classes)
    return label.expand(batch)


def _check_range(label: Tensor, last: int, classes: int) -> None:
    if label.numel() and not (0 <= int(label.min()) and int(label.max()) <= last):
        raise ValueError(f"class labels must be 0 ... {classes - 1}, got {int(label.min())} ... {int(label.max())}")
