"""What networks of other libraries do at the border of the box, made what ours do: pad by the space's rules, take any size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from multiresnet.spaces.boundary import Rule, Sides, boundary_index, pad

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)


def follow(model: nn.Module, sides: Sides) -> None:
    """Let the layers of a network that pads with zeros look beyond the border by the rules of the space, in place.

    Convolutions and maximum pools pad by `sides` before they run. Transposed convolutions whose outputs overlap, and linear
    upsampling, run on a domain that is larger by what they reach, and drop the excess. So a network of these, of pointwise
    layers, norms, attention and nearest-neighbour upsampling, commutes with periodic shifts by its total stride.

    Left as they are: layers with other paddings on other axes; what a network pads or interpolates by functions in its
    `forward`; the coordinates that the Fourier neural operators append to their input (their kernels are periodic by nature).

    Args:
        model: its layers are changed.
        sides: `space.sides`, see `multiresnet.spaces.boundary.parse_boundary`; all zeros changes nothing.
    """
    if all(pair == ("zeros", "zeros") for pair in sides):
        return
    # where zeros are asked for: a pool knows nothing beyond the border, interpolation repeats the edge
    repeating = cast(Sides, tuple(tuple("replicate" if rule == "zeros" else rule for rule in pair) for pair in sides))
    for layer in model.modules():
        if isinstance(layer, CONVS + POOLS) and (width := _same(layer.padding)):
            layer.padding = (0,) * len(sides)
            layer.register_forward_pre_hook(Extend(width, sides if isinstance(layer, CONVS) else repeating))
        elif isinstance(layer, TRANSPOSED):
            kernel, stride, margin, extra = (
                _same(value) for value in (layer.kernel_size, layer.stride, layer.padding, layer.output_padding)
            )
            if kernel > stride > 0 and kernel - 2 * margin + extra == stride:  # sizes grow by the stride exactly
                _on_larger_domain(layer, -(-kernel // stride) - 1, stride, sides)
        elif isinstance(layer, nn.Upsample) and layer.mode.endswith("linear") and not layer.align_corners:
            if (scale := _same(layer.scale_factor)) > 1:
                _on_larger_domain(layer, 1, scale, repeating)


def _same(value: Any) -> int:
    """The one number of all axes; 0 where they differ, or where there is none."""
    numbers = set(value) if isinstance(value, tuple) else {value}
    number = numbers.pop() if len(numbers) == 1 else 0
    return int(number) if isinstance(number, (int, float)) else 0


def _on_larger_domain(layer: nn.Module, reach: int, scale: int, sides: Sides) -> None:
    layer.register_forward_pre_hook(Extend(reach, sides))
    layer.register_forward_hook(Crop(reach * scale))


@dataclass(frozen=True)
class Extend:
    """Pads the input of a layer."""

    width: int
    sides: Sides

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (pad(inputs[0], self.width, self.sides), *inputs[1:])


@dataclass(frozen=True)
class Crop:
    """Drops the rim of the output of a layer."""

    width: int

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        inside = slice(self.width, -self.width)
        return output[(slice(None),) * 2 + (inside,) * (output.ndim - 2)]


class Padded(nn.Module):
    """A network that wants sizes divisible by `multiple`, for all sizes.

    The input grows at the far end of each axis, periodic axes by what is at their beginning, others by their last sample; the
    output is cut. Where sizes divide, nothing happens.

    Args:
        model: maps (N, C, *spatial) to (N, D, *spatial).
        multiple: of all axes.
        sides: `space.sides`.
    """

    def __init__(self, model: nn.Module, multiple: int, sides: Sides) -> None:
        super().__init__()
        self.model, self.multiple, self.sides = model, multiple, sides

    def forward(self, x: Tensor) -> Tensor:
        return self.cut(self.model(self.grow(x)), x)

    def grow(self, x: Tensor) -> Tensor:
        """`x`, as large as the network wants it."""
        for axis, pair in enumerate(self.sides, start=2):
            if missing := -x.shape[axis] % self.multiple:
                rule: Rule = "periodic" if "periodic" in pair else "replicate"
                index = boundary_index(x.shape[axis], 0, missing, (rule, rule), x.device)
                x = x.index_select(axis, index)
        return x

    def cut(self, y: Tensor, x: Tensor) -> Tensor:
        """The part of `y` that belongs to `x`."""
        return y[(slice(None),) * 2 + tuple(slice(n) for n in x.shape[2:])]


class Denoiser(Padded):
    """One that is called like diffusers' `UNet2DModel`: at time zero if no time step is given, with the last label if none is.

    (`multiresnet.tasks.DiffusionTask` gives both; its last label means "none".)
    """

    def forward(self, x: Tensor, timestep: Tensor | int = 0, class_labels: Tensor | None = None) -> Tensor:
        if self.config.num_class_embeds and class_labels is None:
            class_labels = torch.full((len(x),), self.config.num_class_embeds - 1, device=x.device)
        return self.cut(self.model(self.grow(x), timestep, class_labels).sample, x)

    @property
    def config(self) -> Any:
        """The options of the network, where the task looks for the number of labels."""
        return self.model.config
