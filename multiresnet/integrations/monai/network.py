"""`multiresnet.MultiResNet` with the signature of MONAI's `UNet`."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import cast

from monai.data.meta_tensor import MetaTensor
from monai.networks.layers.utils import get_act_layer, get_norm_layer
from torch import Tensor, nn

from multiresnet import models
from multiresnet.assembly import Blocks
from multiresnet.checks import explain_typos
from multiresnet.encoders import SkipName
from multiresnet.integrations.scripted import Scripted
from multiresnet.layers import Norm
from multiresnet.spaces import Haar
from multiresnet.spaces.boundary import Boundary

PRESET = models.TWO_SWEEPS
MonaiLayer = str | tuple  # type: ignore[type-arg]  # a name, or a name and a dictionary of arguments


class MultiResNet(nn.Module):
    """Multi-ResNet in MONAI's words. Without options it has four levels and two sweeps.

    Args:
        spatial_dims: 1, 2 or 3.
        in_channels: channels of the input.
        out_channels: channels of the output.
        channels: width of each level, finest first; at least two.
        strides: which axes each halving halves, finest first: 2, or a tuple of 1s and 2s; at least `len(channels) - 1`.
            There are `patch_levels + len(channels) - 1` halvings; the last entry stands for those that are missing.
            One integer stands for all.
        kernel_size: 3 only.
        up_kernel_size: 3 only; upsampling has no parameters.
        num_res_units: residual blocks of each level: one number, one for each level, or one such tuple for each sweep;
            `None` is what was measured for four levels in two sweeps, and 1 for other networks.
        act: activation as in MONAI: a name, or a name (or class) and a dictionary of arguments.
        norm: normalisation as in MONAI; `"group"` and `"layer"` without arguments are `multiresnet`'s, `None` or `""` is none.
        dropout: 0 only.
        bias: true only.
        adn_ordering: orderings with the norm before the activation only; without dropout they are all the same.
        sweeps: as in `multiresnet.MultiResNet`.
        patch_levels: as in `multiresnet.MultiResNet`.
        skip: as in `multiresnet.MultiResNet`.
        detail_scale: as in `multiresnet.MultiResNet`.
        boundary: what lies outside the image, as in `multiresnet.spaces.Haar`.

    Shape:
        (N, in_channels, *spatial) -> (N, out_channels, *spatial), any spatial size >= 1.

    Raises:
        ValueError: fewer than two channels, too few strides, strides other than 1 and 2, a dimension other than 1, 2 or 3,
            or a value that these networks cannot honour.

    Examples:
        >>> import torch
        >>> net = MultiResNet(3, 1, 2, channels=(16, 32, 32), strides=((2, 2, 1), 2), num_res_units=1, act="PRELU")
        >>> net(torch.zeros(1, 1, 33, 40, 9)).shape
        torch.Size([1, 2, 33, 40, 9])
    """

    @explain_typos
    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = PRESET["channels"],
        strides: int | Sequence[int | Sequence[int]] = 2,
        kernel_size: int | Sequence[int] = 3,
        up_kernel_size: int | Sequence[int] = 3,
        num_res_units: int | Blocks | None = None,
        act: MonaiLayer = "GELU",
        norm: MonaiLayer | None = "group",
        dropout: float = 0.0,
        bias: bool = True,
        adn_ordering: str = "NDA",
        *,
        sweeps: int = PRESET["sweeps"],
        patch_levels: int = 1,
        skip: SkipName = "detail",
        detail_scale: float = 1.0,
        boundary: Boundary = "zeros",
    ) -> None:
        super().__init__()
        for name, value, allowed in (
            ("kernel_size", kernel_size, (3, (3,) * spatial_dims)),
            ("up_kernel_size", up_kernel_size, (3, (3,) * spatial_dims)),
            ("dropout", dropout, (0, None)),
            ("bias", bias, (True,)),
            ("adn_ordering", adn_ordering.replace("D", ""), ("NA",)),
        ):
            if (tuple(value) if isinstance(value, list) else value) not in allowed:
                raise ValueError(f"{name}={value!r} is not supported: a MultiResNet has {name}={allowed[0]!r}")
        if len(channels) < 2:
            raise ValueError(f"channels={tuple(channels)} has one level; give at least two")
        if num_res_units is None:
            measured = len(channels) == len(PRESET["channels"]) and sweeps == PRESET["sweeps"]
            num_res_units = cast(Blocks, PRESET["num_blocks"]) if measured else 1
        self.dimensions = spatial_dims
        self.network = models.MultiResNet(
            in_channels,
            out_channels,
            space=Haar(spatial_dims, boundary, _halvings(strides, spatial_dims, len(channels), patch_levels)),
            channels=channels,
            num_blocks=num_res_units,
            patch_levels=patch_levels,
            skip=skip,
            detail_scale=detail_scale,
            sweeps=sweeps,
            norm=_norm(norm, spatial_dims),
            activation=_activation(act),
        )

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(x, MetaTensor):
            return cast(Tensor, self.network(x))
        y = MetaTensor(self.network(x.as_tensor()))  # the core itself returns plain tensors
        return cast(Tensor, y.copy_meta_from(x))  # type: ignore[no-untyped-call]

    def __prepare_scriptable__(self) -> nn.Module:
        return Scripted(self, self.network.in_channels, self.dimensions)


def _halvings(
    strides: int | Sequence[int | Sequence[int]], spatial_dims: int, levels: int, patch_levels: int
) -> tuple[tuple[int, ...], ...]:
    """One tuple of 1s and 2s for each halving of the network."""
    wanted = patch_levels + levels - 1
    given = [strides] * wanted if isinstance(strides, int) else list(strides)
    if len(given) < levels - 1:
        raise ValueError(f"strides has {len(given)} entries for {levels} levels; give at least {levels - 1}")
    if len(given) > wanted:
        warnings.warn(f"strides has {len(given)} entries, the last {len(given) - wanted} are not used", stacklevel=4)
    given = (given + given[-1:] * patch_levels)[:wanted]
    return tuple((step,) * spatial_dims if isinstance(step, int) else tuple(step) for step in given)


def _norm(norm: MonaiLayer | None, spatial_dims: int) -> Norm:
    if norm is None or norm == "":
        return None
    if isinstance(norm, str) and norm.lower() in ("group", "layer"):  # MONAI asks for their sizes
        return cast(Norm, norm.lower())
    return functools.partial(get_norm_layer, norm, spatial_dims)


def _activation(act: MonaiLayer) -> nn.Module:
    layer = cast(nn.Module, get_act_layer(act))
    if getattr(layer, "inplace", False):
        layer.inplace = False  # type: ignore[assignment]  # pre-activation blocks still need what comes before
    return layer
