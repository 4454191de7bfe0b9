"""Denoising networks for diffusers: its schedulers, pipelines and training scripts take them where they take its own U-Nets.

A saved pipeline names its classes by their module, which for these is `multiresnet`: `import multiresnet` before
`DiffusionPipeline.from_pretrained(folder)` is all that loading needs.

Examples:
    >>> import torch
    >>> net = MultiResNet2DModel(sample_size=21, in_channels=1, out_channels=1, block_out_channels=(16, 32), layers_per_block=1)
    >>> net(torch.randn(2, 1, 21, 21), timestep=10).sample.shape
    torch.Size([2, 1, 21, 21])
    >>> net = MultiResNet2DConditionModel(block_out_channels=(16, 32), layers_per_block=1, cross_attention_dim=8)
    >>> net(torch.randn(2, 4, 20, 20), 10, torch.randn(2, 7, 8)).sample.shape
    torch.Size([2, 4, 20, 20])
"""

from multiresnet.integrations.host import check_host

check_host("diffusers", tested=">=0.42,<0.43", extra="diffusion")

from diffusers.models.modeling_utils import ModelMixin

from multiresnet.integrations.diffusers.unet_2d import MultiResNet2DModel
from multiresnet.integrations.diffusers.unet_2d_condition import MultiResNet2DConditionModel

__all__ = ["ModelMixin", "MultiResNet2DConditionModel", "MultiResNet2DModel"]
