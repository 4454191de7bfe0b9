"""The Haar pyramid with the interface of the encoders of MONAI's `FlexibleUNet`."""

from __future__ import annotations

from typing import Any

from monai.networks.blocks.encoder import BaseEncoder
from torch import Tensor, nn

from multiresnet.integrations.haar_level import HaarLevel

DEPTH = 5  # the most that FlexibleUNet takes
# FlexibleUNet looks the channels up by name before it builds the encoder, so a name stands for one size.
SIZES = {"haar": (2, 3), **{f"haar_{dims}d_c{n}": (dims, n) for dims in (2, 3) for n in range(1, 17)}}


class HaarEncoder(nn.Module, BaseEncoder):
    """Approximation and details of five Haar levels, without parameters: `FlexibleUNet(..., backbone="haar_2d_c3")`.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        pretrained: there are no weights to load; must be false.
        expects: the `(spatial_dims, in_channels)` that the name of the backbone stands for.

    Shape:
        (N, in_channels, *spatial) -> five maps (N, in_channels * 2**spatial_dims, *spatial / 2**level), level 1 ... 5.

    Raises:
        ValueError: the image is not of the size that the name stands for, or pretrained weights are asked for.

    Examples:
        >>> import torch
        >>> encoder = HaarEncoder(spatial_dims=2, in_channels=1)
        >>> [tuple(feature.shape[1:]) for feature in encoder(torch.zeros(1, 1, 32, 48))]
        [(4, 16, 24), (4, 8, 12), (4, 4, 6), (4, 2, 3), (4, 1, 2)]
    """

    def __init__(
        self, spatial_dims: int, in_channels: int, pretrained: bool = False, expects: tuple[int, int] | None = None
    ) -> None:
        super().__init__()
        if expects and expects != (spatial_dims, in_channels):
            raise ValueError(
                f"this backbone is for spatial_dims={expects[0]}, in_channels={expects[1]}; "
                f"take backbone='haar_{spatial_dims}d_c{in_channels}' (in_channels 1 ... 16)"
            )
        if pretrained:
            raise ValueError(
                "the Haar pyramid has no parameters, so there are no pretrained weights; use pretrained=False"
            )
        self.levels = nn.ModuleList(HaarLevel(in_channels, spatial_dims=spatial_dims) for _ in range(DEPTH))
        self.channels = (in_channels * 2**spatial_dims,) * DEPTH

    def forward(self, x: Tensor) -> list[Tensor]:
        features: list[Tensor] = []
        for level in self.levels:  # each reads the approximation, which comes first
            x = level(x)
            features.append(x)
        return features

    @classmethod
    def get_encoder_names(cls) -> list[str]:
        return list(SIZES)

    @classmethod
    def get_encoder_parameters(cls) -> list[dict[str, Any]]:
        return [
            {"spatial_dims": dims, "in_channels": n, "pretrained": False, "expects": (dims, n)}
            for dims, n in SIZES.values()
        ]

    @classmethod
    def num_channels_per_output(cls) -> list[tuple[int, ...]]:
        return [(n * 2**dims,) * DEPTH for dims, n in SIZES.values()]

    @classmethod
    def num_outputs(cls) -> list[int]:
        return [DEPTH] * len(SIZES)
