"""What both models share: a Multi-ResNet and its conditioning, built from a config in the words of diffusers' U-Nets."""

# mypy: disable-error-code="assignment"

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.activations import get_activation
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from multiresnet.blocks import BlockName
from multiresnet.embeddings import Conditioning
from multiresnet.layers import GroupNorm
from multiresnet.models import MultiResNet
from multiresnet.pretrained import from_json
from multiresnet.spaces import Haar


class Denoiser(ModelMixin, ConfigMixin):  # type: ignore[misc]  # both say config_name
    """Base class of the models; their constructors hold the config, `_build` makes the modules from it."""

    _supports_gradient_checkpointing = True
    _no_split_modules = ["DecoderLevel", "Head"]
    # "lift" is the first layer: its type is the one that inputs have to have. The conditioning casts to that of its weights.
    _skip_layerwise_casting_patterns = ["norm", "lift", "conditioning"]
    gradient_checkpointing = False

    def _build(self, *, cross: bool) -> int:
        """Make `net` and `conditioning`; the length of the vector between them."""
        config = self.config
        widths, names, classes = (config[k] for k in ("block_out_channels", "down_block_types", "num_class_embeds"))
        if names is None:  # diffusers' defaults, for any number of levels
            most = len(widths) - 1
            names = [*["CrossAttn"] * max(most, 1), *[""] * (most > 0)] if cross else ["", *["Attn"] * most]
        if len(names) != len(widths):
            raise ValueError(
                f"down_block_types has {len(names)} entries for the {len(widths)} levels of block_out_channels={widths}"
            )
        kinds = [block_kind(name) for name in names]
        if ("cross" in kinds) != cross:
            raise ValueError(
                f"{type(self).__name__} {'attends to tokens' if cross else 'has no tokens to attend to'}; for "
                f"down_block_types={names} take MultiResNet2D{'' if cross else 'Condition'}Model"
            )
        if classes is not None and classes < 2:
            raise ValueError(f"num_class_embeds must be at least 2, or None for a model without classes; got {classes}")
        emb_channels = config["time_embedding_dim"] or 4 * widths[0]
        self.net = MultiResNet(
            config["in_channels"],
            config["out_channels"],
            space=Haar(2, from_json(config["boundary"])),
            channels=widths,
            num_blocks=config["layers_per_block"],
            patch_levels=config["patch_levels"],
            skip=config["skip"],
            sweeps=config["sweeps"],
            norm=functools.partial(group_norm, config["norm_num_groups"] or 4, config["norm_eps"]),
            activation=type(get_activation(config["act_fn"])),
            block=kinds,
            emb_channels=emb_channels,
        )
        # one row for each label; in classifier-free guidance the last one is "no class"
        self.conditioning = Conditioning(emb_channels, noise=True, classes=(classes or 1) - 1)
        return int(emb_channels)

    def _embed(self, sample: Tensor, timestep: Tensor | float, class_labels: Tensor | None) -> Tensor:
        rows = self.config["num_class_embeds"]
        if (class_labels is None) != (rows is None):
            what = "missing" if class_labels is None else "unexpected"
            raise ValueError(f"class_labels are {what}: the model was built with num_class_embeds={rows}")
        if class_labels is not None and torch.as_tensor(class_labels).is_floating_point():
            raise TypeError(f"class_labels must be integers, got {class_labels.dtype}")
        return self.conditioning(  # type: ignore[no-any-return]
            noise=one_for_each("timestep", timestep, sample),
            label=None if class_labels is None else one_for_each("class_labels", class_labels, sample),
        )

    def enable_gradient_checkpointing(self, gradient_checkpointing_func: Callable[..., Any] | None = None) -> None:
        """Recompute each level in the backward pass instead of storing what is inside it."""
        if gradient_checkpointing_func is not None:
            raise ValueError("levels are recomputed by torch.utils.checkpoint; leave out gradient_checkpointing_func")
        super().enable_gradient_checkpointing()

    def _set_gradient_checkpointing(self, enable: bool = True, gradient_checkpointing_func: Any = None) -> None:
        self.gradient_checkpointing = enable
        self.net.set_grad_checkpointing(enable)

    def _keep_attention(self, change: object, *_: Any, **__: Any) -> None:
        """Refuse the switches that diffusers hands to every model that has them, and that would change nothing here."""
        if change:
            raise ValueError(
                "attention is torch's scaled_dot_product_attention, which chooses its kernel itself "
                "(torch.nn.attention.sdpa_kernel); there is nothing to switch, leave this call out"
            )

    set_use_memory_efficient_attention_xformers = _keep_attention
    set_use_npu_flash_attention = set_use_xla_flash_attention = set_attention_slice = _keep_attention

    def set_attention_backend(self, backend: str) -> None:
        """Only `"native"`, which is torch's."""
        self._keep_attention(backend.lower() != "native")


def block_kind(name: str) -> BlockName:
    """What the name of one of diffusers' blocks says that the level computes."""
    return "cross" if "CrossAttn" in name else "attention" if "Attn" in name else "residual"


def group_norm(groups: int, eps: float, channels: int) -> nn.Module:
    """Group norm, with fewer groups where so many don't divide the channels."""
    return GroupNorm(math.gcd(groups, channels), channels, eps=eps)


def one_for_each(name: str, value: Tensor | float, sample: Tensor) -> Tensor:
    """A number, or a tensor of one number or of one for each sample, as (N,)."""
    numbers = torch.as_tensor(value, device=sample.device)
    if numbers.ndim > 2 or numbers.numel() not in (1, len(sample)):
        raise ValueError(
            f"{name} must be one number, or one for each of the {len(sample)} samples; got shape {tuple(numbers.shape)}"
        )
    return numbers.reshape(-1).expand(len(sample))
