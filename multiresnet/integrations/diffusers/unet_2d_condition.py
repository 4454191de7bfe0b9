"""The counterpart of `diffusers.UNet2DConditionModel`."""

from __future__ import annotations

from collections.abc import Sequence

from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor, nn

from multiresnet.checks import check_positive, explain_typos
from multiresnet.context import Context
from multiresnet.encoders import SkipName
from multiresnet.integrations.diffusers.denoiser import Denoiser
from multiresnet.spaces.boundary import Boundary


class MultiResNet2DConditionModel(Denoiser):
    """A Multi-ResNet with cross-attention that is built, called, saved and loaded like `diffusers.UNet2DConditionModel`.

    Args:
        sample_size: as in `MultiResNet2DModel`, as are all that are not explained here.
        in_channels: channels of the noisy latents.
        out_channels: channels of the prediction.
        down_block_types: cross-attention follows self-attention where the name contains `"CrossAttn"`. `None`: everywhere but
            at the coarsest of several levels.
        block_out_channels: width of each level, fine to coarse.
        layers_per_block: blocks of each level.
        act_fn: as there.
        norm_num_groups: as there.
        norm_eps: as there.
        cross_attention_dim: length of a token of `encoder_hidden_states`.
        time_embedding_dim: as there; tokens are projected to this length too.
        num_class_embeds: as there.
        time_cond_proj_dim: `None`, which pipelines look for: the model takes no guidance scale as an input.
        patch_levels: as there.
        sweeps: as there.
        skip: as there.
        boundary: as there.

    Shape:
        (N, in_channels, H, W), timestep, (N, T, cross_attention_dim) -> (N, out_channels, H, W), any H, W, T >= 1.

    Raises:
        ValueError: names and widths of different lengths, no name with `"CrossAttn"`, an unknown option.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    @explain_typos
    def __init__(
        self,
        sample_size: int | Sequence[int] | None = None,
        in_channels: int = 4,
        out_channels: int = 4,
        down_block_types: Sequence[str] | None = None,
        block_out_channels: Sequence[int] = (320, 640, 1280, 1280),
        layers_per_block: int | Sequence[int] = 2,
        act_fn: str = "silu",
        norm_num_groups: int | None = 32,
        norm_eps: float = 1e-5,
        cross_attention_dim: int = 1280,
        time_embedding_dim: int | None = None,
        num_class_embeds: int | None = None,
        time_cond_proj_dim: None = None,
        patch_levels: int = 1,
        sweeps: int = 1,
        skip: SkipName = "detail",
        boundary: Boundary = "zeros",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        refuse(time_cond_proj_dim=time_cond_proj_dim)
        check_positive(cross_attention_dim=cross_attention_dim)
        self.token_projection = nn.Linear(cross_attention_dim, self._build(cross=True))

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor,
        class_labels: Tensor | None = None,
        timestep_cond: None = None,
        attention_mask: None = None,
        cross_attention_kwargs: None = None,
        added_cond_kwargs: None = None,
        down_block_additional_residuals: None = None,
        mid_block_additional_residual: None = None,
        down_intrablock_additional_residuals: None = None,
        encoder_attention_mask: Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet2DConditionOutput | tuple[Tensor]:
        """Predict what the scheduler was told to expect. Arguments that are not explained have to be `None`.

        Args:
            sample: (N, in_channels, H, W).
            timestep: as in `MultiResNet2DModel`.
            encoder_hidden_states: (N, T, cross_attention_dim), T >= 1.
            class_labels: as in `MultiResNet2DModel`.
            timestep_cond: guidance scale embedding.
            attention_mask: of self-attention.
            cross_attention_kwargs: scales of LoRA, masks of regions.
            added_cond_kwargs: image embeddings, sizes of SDXL.
            down_block_additional_residuals: of a ControlNet.
            mid_block_additional_residual: of a ControlNet.
            down_intrablock_additional_residuals: of a T2I adapter.
            encoder_attention_mask: (N, T), true or 1 for the tokens that count; without any, all of the sample's do.
            return_dict: whether to return a `UNet2DConditionOutput` rather than a tuple of one tensor.

        Raises:
            ValueError: a wrong shape; something given that has to be `None`.
        """
        refuse(
            timestep_cond=timestep_cond,
            attention_mask=attention_mask,
            cross_attention_kwargs=cross_attention_kwargs,
            added_cond_kwargs=added_cond_kwargs,
            down_block_additional_residuals=down_block_additional_residuals,
            mid_block_additional_residual=mid_block_additional_residual,
            down_intrablock_additional_residuals=down_intrablock_additional_residuals,
        )
        width, shape = self.token_projection.in_features, tuple(getattr(encoder_hidden_states, "shape", ()))
        if len(shape) != 3 or (shape[0], shape[2]) != (len(sample), width):
            got = shape or type(encoder_hidden_states).__name__
            raise ValueError(
                "expected encoder_hidden_states of shape (N, T, cross_attention_dim) = "
                f"({len(sample)}, >= 1, {width}), got {got}"
            )
        mask = None if encoder_attention_mask is None else encoder_attention_mask.bool()
        if mask is not None:
            mask = mask | ~mask.any(1, keepdim=True)  # the softmax over nothing is not a number
        vector = self._embed(sample, timestep, class_labels)
        y = self.net(sample, Context(vector, self.token_projection(encoder_hidden_states), mask))
        return UNet2DConditionOutput(sample=y) if return_dict else (y,)


MultiResNet2DConditionModel.__module__ = "multiresnet"


def refuse(**arguments: object) -> None:
    """Raise `ValueError` unless all are `None`."""
    given = [name for name, value in arguments.items() if value is not None]
    if given:
        raise ValueError(f"MultiResNet2DConditionModel does not know {', '.join(given)}: leave out, or pass None")
