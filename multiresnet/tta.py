"""Test-time augmentation: the mean of a network over the symmetries of the square or the cube."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Symmetry:
    """A signed permutation of the spatial axes.

    Args:
        axes: the axis of the input that becomes axis `i` of the result.
        flips: whether axis `i` of the result is reversed.

    Examples:
        >>> quarter_turn = Symmetry((1, 0), (True, False))
        >>> x = torch.arange(6.0).view(1, 1, 2, 3)
        >>> torch.equal(quarter_turn(x), torch.rot90(x, dims=(2, 3)))
        True
    """

    axes: tuple[int, ...]
    flips: tuple[bool, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """(N, C, *spatial) -> (N, C, *(spatial in the new order))."""
        x = x.permute(0, 1, *(axis + 2 for axis in self.axes))
        reversed_axes = [i + 2 for i, flip in enumerate(self.flips) if flip]
        return x.flip(reversed_axes) if reversed_axes else x

    def then(self, other: Symmetry) -> Symmetry:
        """`other(self(x))` as one symmetry."""
        return Symmetry(
            tuple(self.axes[axis] for axis in other.axes),
            tuple(flip != self.flips[axis] for flip, axis in zip(other.flips, other.axes)),
        )

    def inverse(self) -> Symmetry:
        """The symmetry that undoes this one."""
        source = sorted(range(len(self.axes)), key=self.axes.__getitem__)
        return Symmetry(tuple(source), tuple(self.flips[i] for i in source))


def symmetries(
    spatial_dims: int, *, flips: bool | Sequence[int] = True, quarter_turns: bool = False
) -> tuple[Symmetry, ...]:
    """The group that flips and quarter turns generate, the identity first.

    Args:
        spatial_dims: 1, 2 or 3.
        flips: `True` for all spatial axes, or a list of them, such as `[-1]` for left-right only.
        quarter_turns: also turn by 90 degrees in the plane of the last two axes.

    Returns:
        `2**d` flips; with quarter turns 8 symmetries of the square, 16 in 3-D; 4 with `flips=False`.

    Raises:
        ValueError: an axis outside -d ... d - 1, or quarter turns in 1-D.

    Examples:
        >>> len(symmetries(3)), len(symmetries(2, quarter_turns=True)), len(symmetries(2, flips=[-1]))
        (8, 8, 2)
    """
    if quarter_turns and spatial_dims < 2:
        raise ValueError("a quarter turn needs two spatial axes; use quarter_turns=False in 1-D")
    if isinstance(flips, bool):
        flips = range(spatial_dims) if flips else ()
    if any(not -spatial_dims <= axis < spatial_dims for axis in flips):
        raise ValueError(
            f"flips={list(flips)} names a spatial axis outside {-spatial_dims} ... {spatial_dims - 1}; "
            "axis 0 is the first one after the channels"
        )
    axes = tuple(range(spatial_dims))
    flipped = {axis % spatial_dims for axis in flips}
    generators = [Symmetry(axes, tuple(i == axis for i in axes)) for axis in sorted(flipped)]
    if quarter_turns:
        generators.append(Symmetry((*axes[:-2], axes[-1], axes[-2]), tuple(i == spatial_dims - 2 for i in axes)))

    group = [Symmetry(axes, (False,) * spatial_dims)]
    for known in group:  # grows while new products appear
        group += [product for product in map(known.then, generators) if product not in group]
    return tuple(group)


class Augmented(nn.Module):
    """Mean of a network over flips and quarter turns of its input: `mean over g of g⁻¹ net(g x)`.

    The result commutes with every symmetry of the group, whatever the network does. It costs one pass for each symmetry.
    `tiled_predict(Augmented(net), x)` averages tile by tile and equals `Augmented(net)(x)` wherever plain tiling is exact.

    Channels are taken for scalars: components of a vector field would have to change sign. Choose symmetries that the
    data have: a street has no upside down (`flips=[-1]`), a periodic channel with walls no quarter turn.

    Args:
        net: maps (N, C, *spatial), optionally emb, to (N, C', *spatial).
        flips: `True`, `False`, or the spatial axes to flip, see `symmetries`.
        quarter_turns: also turn in the plane of the last two axes.
        activation: applied to each output before the mean, such as `torch.sigmoid` to average probabilities, not logits.

    Shape:
        (N, C, *spatial), optionally emb -> (N, C', *spatial).

    Raises:
        ValueError: at the first call, an axis to flip that the input doesn't have, or quarter turns in 1-D.

    Examples:
        >>> from multiresnet import MultiResNet
        >>> net = Augmented(MultiResNet(1, 1, channels=(16, 16), num_blocks=1), quarter_turns=True).eval()
        >>> x = torch.randn(1, 1, 9, 7)
        >>> torch.allclose(net(x.flip(2)), net(x).flip(2), atol=1e-6)
        True
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        flips: bool | Sequence[int] = True,
        quarter_turns: bool = False,
        activation: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.net, self.flips, self.quarter_turns, self.activation = net, flips, quarter_turns, activation

    def symmetries(self, spatial_dims: int) -> tuple[Symmetry, ...]:
        """What the mean is taken over."""
        return symmetries(spatial_dims, flips=self.flips, quarter_turns=self.quarter_turns)

    def term(self, x: Tensor, symmetry: Symmetry, emb: Tensor | None = None) -> Tensor:
        """`g⁻¹ activation(net(g x))`, one term of the mean."""
        g_x = symmetry(x)
        y = cast(Tensor, self.net(g_x) if emb is None else self.net(g_x, emb))
        if not isinstance(y, Tensor) or y.shape[2:] != g_x.shape[2:]:
            got = f"shape {tuple(y.shape)}" if isinstance(y, Tensor) else f"a {type(y).__name__}"
            raise ValueError(
                f"the network must keep the spatial size {tuple(g_x.shape[2:])} of its input; it gave {got}"
            )
        return symmetry.inverse()(y if self.activation is None else self.activation(y))

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        group = self.symmetries(x.ndim - 2)
        return functools.reduce(torch.add, (self.term(x, symmetry, emb) for symmetry in group)) / len(group)
