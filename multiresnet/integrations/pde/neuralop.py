"""`MultiResNet` as a model of neuraloperator: its `Trainer`, its checkpoints, its `get_model`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

from multiresnet.integrations.host import check_host
from multiresnet.integrations.pde.network import surrogate
from multiresnet.spaces.boundary import Boundary

check_host("neuraloperator", tested=">=2.0,<2.1", extra="neuralop")

from neuralop.models.base_model import BaseModel  # type: ignore[import-untyped]


class MultiResNetOperator(BaseModel, name="MultiResNet"):  # type: ignore[misc, call-arg]
    """Function on a grid to function on the same grid; `model_arch: multiresnet` in neuraloperator's configurations.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        n_dim: 1, 2 or 3.
        hidden_channels: width of the finest level; the four levels are (1, 2, 2, 3) times as wide.
        boundary: what lies outside the box, as in `multiresnet.spaces.Haar`.
        network: options of `multiresnet.MultiResNet`, stronger than `PRESETS["surrogate"]`. `delta` is off: the input need not
            be an earlier state of the output; switch it on for time stepping.

    Shape:
        (N, in_channels, *spatial) -> (N, out_channels, *spatial). Further entries of a batch are ignored.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        n_dim: int = 2,
        hidden_channels: int = 32,
        boundary: Boundary = "replicate",
        network: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.network = surrogate(
            in_channels,
            out_channels,
            spatial_dims=n_dim,
            boundary=boundary,
            width=hidden_channels,
            network=network,
            delta=False,
        )

    def forward(self, x: Tensor, **batch: Any) -> Tensor:
        """(N, in_channels, *spatial) -> (N, out_channels, *spatial); `batch` is what else the trainer passes on, as `y`."""
        return cast(Tensor, self.network(x))
