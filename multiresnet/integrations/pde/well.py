"""`MultiResNet` as a model of The Well's benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from multiresnet.integrations.pde.network import plain, surrogate
from multiresnet.spaces.boundary import Boundary

CODERS: Any = {Sequence: (plain, tuple), Mapping: (plain, dict)}  # hydra's lists and dictionaries are not JSON


class WellMultiResNet(nn.Module, PyTorchModelHubMixin, coders=CODERS):
    """The next frame of a simulation: `model._target_=multiresnet.integrations.pde.WellMultiResNet`.

    Args:
        dim_in: channels of the input, `n_steps_input * n_fields + n_constant_fields`: frames from old to new, then constants.
        dim_out: fields of a frame.
        n_spatial_dims: 1, 2 or 3.
        spatial_resolution: the usual grid; kept as an attribute, the network takes any.
        init_features: width of the finest level; the four levels are (1, 2, 2, 3) times as wide.
        gradient_checkpointing: recompute each level in the backward pass instead of storing what is inside it.
        n_constant_fields: `None` is `dim_in % dim_out`, which is right where there are fewer constants than fields.
        boundary: what lies outside the box, as in `multiresnet.spaces.Haar`.
        network: options of `multiresnet.MultiResNet`, stronger than `PRESETS["surrogate"]`. With `delta`, the default
            where the input holds a frame, the network predicts the change of the last frame; targets that are
            changes themselves (`DeltaWellDataset`) need `delta=False`.

    Shape:
        (N, dim_in, *spatial) -> (N, dim_out, *spatial).

    Examples:
        >>> import torch
        >>> net = WellMultiResNet(dim_in=9, dim_out=2, n_spatial_dims=2, spatial_resolution=(64, 33), init_features=8)
        >>> net.n_constant_fields, net(torch.zeros(1, 9, 64, 33)).shape
        (1, torch.Size([1, 2, 64, 33]))
    """

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        n_spatial_dims: int,
        spatial_resolution: Sequence[int],
        init_features: int = 32,
        gradient_checkpointing: bool = False,
        *,
        n_constant_fields: int | None = None,
        boundary: Boundary = "replicate",
        network: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.n_spatial_dims, self.spatial_resolution = n_spatial_dims, tuple(spatial_resolution)
        self.n_constant_fields = dim_in % dim_out if n_constant_fields is None else n_constant_fields
        self.network = surrogate(
            dim_in,
            dim_out,
            spatial_dims=n_spatial_dims,
            boundary=boundary,
            width=init_features,
            network=network,
            delta=dim_in - self.n_constant_fields >= dim_out,
        )
        self.network.set_grad_checkpointing(gradient_checkpointing)

    def forward(self, x: Tensor) -> Tensor:
        if self.n_constant_fields:  # to the front: the core adds the last channels, which must be the last frame
            x = x.roll(self.n_constant_fields, 1)
        return cast(Tensor, self.network(x))
