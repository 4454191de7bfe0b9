"""What spins hear of their neighbours, `A u`, as a matrix or as a convolution over an image."""

from __future__ import annotations

from typing import Literal, Protocol, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiresnet.checks import check_choice

Border = Literal["periodic", "zeros"]  # with the other boundaries A would not be symmetric
_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class Couplings(Protocol):
    """A symmetric linear map of spins, none with itself, and the map whose entries are the squares of its own."""

    def __call__(self, u: Tensor) -> Tensor:
        """`A u`."""

    def squared(self, v: Tensor) -> Tensor:
        """`sum_j A_ij² v_j`."""


class Dense(nn.Module):
    """Any symmetric matrix.

    Args:
        matrix: A, (n, n).

    Shape:
        (N, n) -> (N, n).
    """

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        check_couplings(matrix)
        self.matrix = nn.Parameter(matrix.clone())

    def forward(self, u: Tensor) -> Tensor:
        return u @ self.matrix.T

    def squared(self, v: Tensor) -> Tensor:
        """`sum_j A_ij² v_j`."""
        return v @ self.matrix.square().T


class Stencil(nn.Module):
    """The same couplings around every pixel: A is a convolution.

    What is learned is made symmetric, and without the centre, at every call.

    Args:
        kernel: couplings to the neighbours, one to three odd sides, equal at an offset and at its opposite, 0 in the centre.
        boundary: `"zeros"`: nothing beyond the edge, or `"periodic"`.

    Shape:
        (N, 1, *size) -> (N, 1, *size); a periodic size not below the kernel's.

    Examples:
        >>> neighbours = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
        >>> Stencil(neighbours, boundary="zeros")(torch.ones(1, 1, 2, 3))[0, 0].tolist()
        [[2.0, 3.0, 2.0], [2.0, 3.0, 2.0]]
    """

    def __init__(self, kernel: Tensor, *, boundary: Border = "zeros") -> None:
        super().__init__()
        check_choice("boundary", boundary, get_args(Border))
        check_kernel(kernel)
        self.kernel, self.boundary = nn.Parameter(kernel.clone()), boundary

    def forward(self, u: Tensor) -> Tensor:
        return self._convolve(u, self.symmetric())

    def squared(self, v: Tensor) -> Tensor:
        """`sum_j A_ij² v_j`."""
        return self._convolve(v, self.symmetric().square())

    def symmetric(self) -> Tensor:
        """The kernel that is used."""
        even = 0.5 * (self.kernel + self.kernel.flip(list(range(self.kernel.ndim))))
        off_centre = torch.ones_like(even)
        off_centre[tuple(n // 2 for n in even.shape)] = 0
        return even * off_centre

    def _convolve(self, u: Tensor, kernel: Tensor) -> Tensor:
        check_grid(u, kernel, self.boundary)
        radii = [n // 2 for n in kernel.shape]
        if self.boundary == "zeros":
            return _CONV[kernel.ndim](u, kernel[None, None], padding=radii)
        widths = [width for radius in reversed(radii) for width in (radius, radius)]
        return _CONV[kernel.ndim](F.pad(u, widths, mode="circular"), kernel[None, None])


def check_couplings(couplings: Tensor) -> None:
    """Raise `ValueError` unless they are (n, n), finite and symmetric."""
    if couplings.ndim != 2 or couplings.shape[0] != couplings.shape[1]:
        raise ValueError(f"couplings must be (n, n), got {tuple(couplings.shape)}")
    if not bool(couplings.isfinite().all()):
        raise ValueError("couplings must be finite")
    if not torch.allclose(couplings, couplings.T):
        raise ValueError("couplings must be symmetric; what i does to j, j does to i: use (A + A.T) / 2")


def check_kernel(kernel: Tensor) -> None:
    """Raise `ValueError` unless it has one to three odd sides, is finite and even, and 0 in the centre."""
    if kernel.ndim not in _CONV or any(n % 2 == 0 for n in kernel.shape):
        raise ValueError(f"kernel must have one to three axes of odd length, got {tuple(kernel.shape)}")
    if not bool(kernel.isfinite().all()):
        raise ValueError("kernel must be finite")
    if not torch.allclose(kernel, kernel.flip(list(range(kernel.ndim)))):
        raise ValueError("kernel must be the same at an offset and at its opposite: use (k + k.flip((0, 1))) / 2")
    if float(kernel[tuple(n // 2 for n in kernel.shape)]) != 0:
        raise ValueError("kernel must be 0 in its centre: no spin is coupled to itself")


def check_grid(u: Tensor, kernel: Tensor, boundary: str) -> None:
    """Raise `ValueError` unless u is (N, 1, *size) for the kernel, no neighbour being met twice around a periodic axis."""
    if u.ndim != kernel.ndim + 2 or u.shape[1] != 1:
        raise ValueError(f"spins of a grid must be (N, 1, {', '.join('DHW'[-kernel.ndim :])}), got {tuple(u.shape)}")
    if boundary == "periodic" and any(n < k for n, k in zip(u.shape[2:], kernel.shape)):
        raise ValueError(
            f"around a periodic grid of {tuple(u.shape[2:])} a kernel of {tuple(kernel.shape)} meets itself; "
            "the grid must not be smaller"
        )
