"""The counterpart of `diffusers.UNet2DModel`."""

from __future__ import annotations

from collections.abc import Sequence

from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor

from multiresnet.checks import explain_typos
from multiresnet.encoders import SkipName
from multiresnet.integrations.diffusers.denoiser import Denoiser
from multiresnet.spaces.boundary import Boundary


class MultiResNet2DModel(Denoiser):
    """A Multi-ResNet that is built, called, saved and loaded like `diffusers.UNet2DModel`.

    Names that diffusers has, mean what they mean there, so `MultiResNet2DModel.from_config(unet.config)` gives the model
    for a U-Net's place; diffusers warns of the names that it drops. All arguments are plain JSON.

    Args:
        sample_size: what pipelines draw, an integer or (height, width); the model itself takes any size.
        in_channels: channels of the noisy image.
        out_channels: channels of the prediction.
        down_block_types: one name for each level, fine to coarse, of a block of diffusers: self-attention follows the residual
            blocks where the name contains `"Attn"`. `None`: everywhere but at the finest level.
        block_out_channels: width of each level, fine to coarse.
        layers_per_block: residual blocks of each level; one number or one for each.
        act_fn: `"silu"`, `"swish"`, `"mish"`, `"gelu"` or `"relu"`.
        norm_num_groups: of every norm, fewer where so many don't divide the width; `None` is 4.
        norm_eps: of every norm.
        time_embedding_dim: length of the vector that time and class become; `None` is four times the finest width.
        num_class_embeds: rows of the table of class labels, at least 2, or `None` for a model without classes.
        patch_levels: Haar levels above the finest level, as in `multiresnet.MultiResNet`: 1 runs the first width at half the
            resolution, 0 at the full one, as diffusers does.
        sweeps: coarse-to-fine passes.
        skip: what a level sees of the input, as in `multiresnet.MultiResNet`.
        boundary: what lies outside the image, as in `multiresnet.spaces.Haar`; `"periodic"` for tileable images.

    Shape:
        (N, in_channels, H, W), timestep -> (N, out_channels, H, W), any H, W >= 1.

    Raises:
        ValueError: names and widths of different lengths, a name with `"CrossAttn"`, an unknown option.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    @explain_typos
    def __init__(
        self,
        sample_size: int | Sequence[int] | None = None,
        in_channels: int = 3,
        out_channels: int = 3,
        down_block_types: Sequence[str] | None = None,
        block_out_channels: Sequence[int] = (224, 448, 672, 896),
        layers_per_block: int | Sequence[int] = 2,
        act_fn: str = "silu",
        norm_num_groups: int | None = 32,
        norm_eps: float = 1e-5,
        time_embedding_dim: int | None = None,
        num_class_embeds: int | None = None,
        patch_levels: int = 1,
        sweeps: int = 1,
        skip: SkipName = "detail",
        boundary: Boundary = "zeros",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._build(cross=False)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        class_labels: Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet2DOutput | tuple[Tensor]:
        """Predict what the scheduler was told to expect: the noise, the image or the velocity.

        Args:
            sample: (N, in_channels, H, W).
            timestep: one number, or one for each sample, (N,) or (N, 1), on the scale of diffusers' schedulers, 0 ... 999.
            class_labels: integers 0 ... num_class_embeds - 1, one or one for each sample.
            return_dict: whether to return a `UNet2DOutput` rather than a tuple of one tensor.

        Raises:
            ValueError: a wrong shape, number of timesteps or channels; labels missing, unexpected or out of range.
        """
        y = self.net(sample, self._embed(sample, timestep, class_labels))
        return UNet2DOutput(sample=y) if return_dict else (y,)


MultiResNet2DModel.__module__ = "multiresnet"  # where a saved pipeline is told to look
