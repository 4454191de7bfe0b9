"""From the few words that the hosts have for a network to `MultiResNet`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from multiresnet.models import PRESETS, MultiResNet
from multiresnet.spaces import Haar
from multiresnet.spaces.boundary import Boundary

WIDEST_WITHOUT_NORM = 96


def plain(value: Any) -> Any:
    """A copy of plain data without the classes of a configuration library, fit for JSON.

    Raises:
        TypeError: something in it is not plain data, and would be lost in a saved configuration.

    Examples:
        >>> plain({"channels": [16, 32], "norm": None})
        {'channels': (16, 32), 'norm': None}
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return tuple(plain(item) for item in value)
    raise TypeError(f"{value!r} is not plain data; give activations and norms by their names, as a configuration does")


def surrogate(
    in_channels: int,
    out_channels: int,
    *,
    spatial_dims: int,
    boundary: Boundary,
    width: int,
    network: Mapping[str, Any] | None,
    **defaults: Any,
) -> MultiResNet:
    """`MultiResNet` with `PRESETS["surrogate"]`, then `defaults`, then the user's options `network`.

    The widths are (1, 2, 2, 3) times `width`, the proportions of the core's own. Networks that are too wide to train
    without a norm get the core's.
    """
    options = {"channels": (width, 2 * width, 2 * width, 3 * width), **PRESETS["surrogate"], **defaults}
    chosen = plain(network or {})
    options |= chosen
    if "norm" not in chosen and max(options["channels"]) > WIDEST_WITHOUT_NORM:
        options["norm"] = "group"
    return MultiResNet(in_channels, out_channels, space=Haar(spatial_dims, plain(boundary)), **options)
