"""The contract between the recursion and the spaces that it runs on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn


class Space(ABC):
    """Nested spaces `V_J ⊂ ... ⊂ V_1 ⊂ V_0` of functions on one domain; level 0 is the finest, a level halves the one before.

    A space has no parameters and no state: instances are immutable, comparable and written to JSON by `config`.
    An element of `V_level` is a tensor (N, C, *grid). Three identities make it a space, and `tests/spaces` checks them:
    `project(embed(w)) == w`, `embed∘project` is a projection (an orthogonal one, where a space does not say otherwise),
    `synthesis(*analysis(x)) == x`.
    """

    spatial_dims: int  # axes of the tensor that run over cells
    tileable: bool = (
        False  # whether a window of cells is the same space again, and sees no further than `reduction` says
    )

    @abstractmethod
    def project(self, x: Tensor, level: int = 0) -> Tensor:
        """Orthogonal projection `V_level -> V_(level + 1)`: (N, C, *grid) -> (N, C, *coarse grid)."""

    @abstractmethod
    def embed(self, w: Tensor, size: Sequence[int], level: int = 0) -> Tensor:
        """Inclusion `V_(level + 1) ⊂ V_level`: (N, C, *coarse grid) -> (N, C, *size)."""

    @abstractmethod
    def analysis(self, x: Tensor, level: int = 0) -> tuple[Tensor, Tensor]:
        """`(approximation, detail)` of an element of `V_level`; detail is (N, C * detail_bands(level), *coarse grid)."""

    @abstractmethod
    def synthesis(self, approximation: Tensor, detail: Tensor, size: Sequence[int], level: int = 0) -> Tensor:
        """Exact inverse of `analysis`: -> (N, C, *size)."""

    @abstractmethod
    def detail_bands(self, level: int = 0) -> int:
        """Number of detail coefficients beside each coefficient of `V_(level + 1)`."""

    @abstractmethod
    def conv(self, in_channels: int, out_channels: int, kernel_size: int = 3, *, bias: bool = True) -> nn.Module:
        """A local linear map on one level, (N, in_channels, *grid) -> (N, out_channels, *grid), that knows the boundary."""

    @abstractmethod
    def reduction(self, level: int) -> tuple[int, ...]:
        """Length of a cell of `V_level` in cells of `V_0`, per axis."""

    @abstractmethod
    def config(self) -> dict[str, object]:
        """Plain constructor arguments under the key of the class name, for JSON."""

    def detail(self, x: Tensor, level: int = 0) -> Tensor:
        """What `project` loses: the detail part of `analysis`."""
        return self.analysis(x, level)[1]

    @property
    def anchored(self) -> bool:
        """Whether zero means something, because functions vanish somewhere: data are then scaled, never shifted."""
        return False

    def refine(self, size: Sequence[int], level: int = 0) -> tuple[int, ...]:
        """The (largest) grid of `V_level` whose coarse grid is `size`."""
        cells, coarse = self.reduction(level), self.reduction(level + 1)
        return tuple(n * b // a for n, a, b in zip(size, cells, coarse))

    def constrain(self, y: Tensor, level: int = 0) -> Tensor:
        """What every output must obey on the grid of `V_level`, imposed. The default leaves it as it is."""
        return y

    def fit(self, x: Tensor, depth: int) -> Tensor:
        """Bring an arbitrary input (N, C, *spatial) onto the grid of `V_0`. The default takes every size as it is."""
        return x

    def unfit(self, y: Tensor, size: Sequence[int]) -> Tensor:
        """Inverse of `fit`: (N, C, *grid of V_0) -> (N, C, *size)."""
        return y
