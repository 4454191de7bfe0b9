"""`MultiResNet` as a model of PDEArena."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from multiresnet.embeddings import Conditioning
from multiresnet.integrations.pde.network import surrogate
from multiresnet.spaces.boundary import Boundary

ACTIVATIONS = {name.lower(): name for name in nn.modules.activation.__all__}


class ArenaMultiResNet(nn.Module):
    """The next frames of a simulation, in the words of PDEArena's configuration files.

    Args:
        n_input_scalar_components: scalar fields of an input frame.
        n_input_vector_components: vector fields; each is two channels, three in 3-D.
        n_output_scalar_components: scalar fields of an output frame.
        n_output_vector_components: vector fields of an output frame.
        time_history: input frames.
        time_future: output frames.
        hidden_channels: width of the finest level; the four levels are (1, 2, 2, 3) times as wide.
        activation: `"gelu"`, `"relu"`, `"silu"`, or another class of `torch.nn` in any case.
        param_conditioning: `"scalar"` or `"scalar_<n>"`: `forward` takes a time and n parameters `z`.
        n_dims: 1, 2 or 3.
        conditioned: whether `forward` takes a time, which PDEArena gives to all models of its `COND_MODEL_REGISTRY`;
            `param_conditioning` implies it.
        boundary: what lies outside the box, as in `multiresnet.spaces.Haar`.
        network: options of `multiresnet.MultiResNet`, stronger than `PRESETS["surrogate"]`. `delta` adds the last input frame
            to all output frames; it is on where both have the same fields and there is no time (the last frame that
            `PDERefiner` gives is noise).

    Shape:
        (N, time_history, C, *spatial), with conditioning time (N,) and z (N,) or (N, n)
        -> (N, time_future, C_out, *spatial).

    Raises:
        ValueError: an unknown conditioning, a wrong rank, an argument of `forward` that is missing or unexpected.

    Examples:
        >>> import torch
        >>> net = ArenaMultiResNet(1, 1, 1, 1, time_history=4, time_future=1, hidden_channels=8, activation="gelu")
        >>> net(torch.zeros(2, 4, 3, 32, 33)).shape
        torch.Size([2, 1, 3, 32, 33])
    """

    def __init__(
        self,
        n_input_scalar_components: int,
        n_input_vector_components: int,
        n_output_scalar_components: int,
        n_output_vector_components: int,
        time_history: int,
        time_future: int,
        hidden_channels: int = 32,
        activation: str = "gelu",
        *,
        param_conditioning: str | None = None,
        n_dims: int = 2,
        conditioned: bool = False,
        boundary: Boundary = "replicate",
        network: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        axes = max(n_dims, 2)  # PDEArena counts two components in 1-D
        fields_in = n_input_scalar_components + axes * n_input_vector_components
        fields_out = n_output_scalar_components + axes * n_output_vector_components
        self.n_dims, self.time_future = n_dims, time_future
        self.parameters_wanted = _parameter_count(param_conditioning)
        conditioned = conditioned or bool(self.parameters_wanted)
        options = {"delta": fields_in == fields_out and not conditioned, **(network or {})}
        self.delta = options.pop("delta")
        if self.delta and fields_in != fields_out:
            raise ValueError(f"delta=True adds a frame of {fields_in} fields to frames of {fields_out}")
        self.network = surrogate(
            time_history * fields_in,
            time_future * fields_out,
            spatial_dims=n_dims,
            boundary=boundary,
            width=hidden_channels,
            network=options,
            activation=ACTIVATIONS.get(activation.lower(), activation),
            delta=False,
            emb_channels=4 * hidden_channels * conditioned,
        )
        self.conditioning = (
            Conditioning(self.network.emb_channels, noise=True, parameters=self.parameters_wanted)
            if conditioned
            else None
        )

    def forward(self, x: Tensor, time: Tensor | None = None, z: Tensor | None = None) -> Tensor:
        if x.ndim != self.n_dims + 3:
            raise ValueError(f"expected rank {self.n_dims + 3}, (N, T, C, *spatial); got shape {tuple(x.shape)}")
        if (time is None) != (self.conditioning is None) or (z is None) != (not self.parameters_wanted):
            extra = ", time" * bool(self.conditioning) + ", z" * bool(self.parameters_wanted)
            raise ValueError(f"with its param_conditioning and conditioned, the model is called as model(x{extra})")
        emb = None
        if self.conditioning is not None:
            emb = self.conditioning(noise=time, parameters=None if z is None else z.reshape(len(x), -1))
        y: Tensor = self.network(x.flatten(1, 2), emb).unflatten(1, (self.time_future, -1))
        return y + x[:, -1:] if self.delta else y


def _parameter_count(param_conditioning: str | None) -> int:
    if param_conditioning is None:
        return 0
    kind, _, count = param_conditioning.partition("_")
    if kind != "scalar" or not (count or "1").isdigit():
        raise ValueError(f"param_conditioning={param_conditioning!r} is unknown; choose 'scalar', 'scalar_<n>' or None")
    return int(count or 1)
