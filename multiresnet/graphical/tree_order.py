"""Grids whose cells stand in the order of a tree: siblings next to each other (for 2 x 2 children the order of a quadtree)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

Factors = Sequence[tuple[int, ...]]  # children per axis of each level, coarsest first


def grid_size(factors: Factors, roots: Sequence[int]) -> tuple[int, ...]:
    """Leaves per axis below a grid of `roots`."""
    return tuple(n * math.prod(axis) for n, axis in zip(roots, zip(*factors)))


def to_tree(x: Tensor, factors: Factors) -> Tensor:
    """(N, *size, S) -> (N, leaves, S)."""
    dims = len(factors[0])
    sizes = [
        [x.shape[1 + axis] // math.prod(f[axis] for f in factors), *(f[axis] for f in factors)] for axis in range(dims)
    ]
    parts = x.reshape(len(x), *(n for axis in sizes for n in axis), x.shape[-1])
    return parts.permute(0, *_by_level(dims, len(factors) + 1), parts.ndim - 1).reshape(len(x), -1, x.shape[-1])


def from_tree(x: Tensor, factors: Factors, roots: Sequence[int]) -> Tensor:
    """(N, leaves, S) -> (N, *size, S), the inverse of `to_tree`."""
    dims, levels = len(roots), len(factors) + 1
    parts = x.reshape(len(x), *roots, *(n for level in factors for n in level), x.shape[-1])
    back = [1 + level * dims + axis for axis in range(dims) for level in range(levels)]
    return parts.permute(0, *back, parts.ndim - 1).reshape(len(x), *grid_size(factors, roots), x.shape[-1])


def _by_level(dims: int, levels: int) -> list[int]:
    return [1 + axis * levels + level for level in range(levels) for axis in range(dims)]
