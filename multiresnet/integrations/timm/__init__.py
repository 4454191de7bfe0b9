"""Multi-ResNets in timm: `haar_pyramid`, a feature pyramid without parameters, and `multiresnet_*`, backbones with all scales.

Importing this module registers them. The functions stand here because timm calls a model's module by the end of its path.
"""

from __future__ import annotations

from typing import Any

from multiresnet.integrations.host import check_host

check_host("timm", tested=">=1.0.15,<1.1")

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from multiresnet.integrations.timm.features import Features
from multiresnet.integrations.timm.haar_pyramid import HaarPyramid as HaarPyramid
from multiresnet.integrations.timm.multi_resnet import MultiResNet as MultiResNet
from multiresnet.models import TWO_SWEEPS

__all__ = ["HaarPyramid", "MultiResNet"]  # timm appends the models


def _cfg(side: int, first_conv: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (side, side),
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": first_conv,
        "classifier": "fc",
    }


_LIFTS = tuple(f"body.sweeps.0.levels.{i}.merge.lift.conv" for i in range(4))  # what sees the image, at each level

default_cfgs = generate_default_cfgs(
    {
        "haar_pyramid": _cfg(7),
        "haar_pyramid_ll": _cfg(7),
        "multiresnet_small": _cfg(14, _LIFTS),
        "multiresnet_base": _cfg(14, _LIFTS),
    }
)


def _build(model: type[nn.Module], name: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    levels = tuple(range(len(kwargs.get("channels", range(5)))))
    feature_cfg = {"out_indices": levels, "feature_cls": Features, **kwargs.pop("feature_cfg", {})}
    return build_model_with_cfg(model, name, pretrained, feature_cfg=feature_cfg, **kwargs)


@register_model
def haar_pyramid(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Averages and details at five reductions, 2 to 32, without a parameter."""
    return _build(HaarPyramid, "haar_pyramid", pretrained, **kwargs)


@register_model
def haar_pyramid_ll(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Averages alone: the image at five reductions, 2 to 32."""
    return _build(HaarPyramid, "haar_pyramid_ll", pretrained, **{"details": False, **kwargs})


@register_model
def multiresnet_small(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Two sweeps over four levels."""
    return _build(MultiResNet, "multiresnet_small", pretrained, **{**TWO_SWEEPS, **kwargs})


@register_model
def multiresnet_base(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """`multiresnet_small`, twice as wide and with more blocks where they are cheap."""
    layout = {"channels": (64, 96, 128, 192), "num_blocks": ((1, 1, 2, 2), (1, 2, 3, 2)), "sweeps": 2}
    return _build(MultiResNet, "multiresnet_base", pretrained, **{**layout, **kwargs})
