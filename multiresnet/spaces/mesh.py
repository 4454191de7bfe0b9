"""Any nested partition: unbalanced Haar with the areas of the cells, and graph convolutions."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from multiresnet.checks import check_positive
from multiresnet.spaces.cells import CellSpace, check_kernel
from multiresnet.spaces.icosphere import corner_names, icosphere_corners, spherical_areas
from multiresnet.spaces.lookup import Lookup, gather, look_up

Ints = NDArray[np.int64]


class Mesh(CellSpace):
    """Functions that are constant on the cells of any mesh, with coarser cells that are unions of finer ones.

    The projection is the mean weighted by area, the details are the orthonormal complement of the constants in each coarse cell
    (unbalanced Haar; with four equal children as good as a quadtree's). A convolution sees a cell and the mean of
    its neighbours j, `y_i = b + W_0 x_i + W_1 mean_j x_j`, because neighbours have no order; with `centres` it also knows
    in which direction they lie, `+ sum_d W_(1 + d) mean_j e_ijd x_j` with the unit vector e_ij from cell i to cell j.

    Args:
        parents: for each step from a level to the coarser one, the coarse cell of each cell, `0 ... coarse cells - 1`.
        areas: of the finest cells, > 0, in any unit.
        neighbours: of each of the finest cells, as lists, or as one array filled up by -1. A coarse cell neighbours another where
            cells of them do.
        centres: (cells, axes) where the finest cells are, for the directions; those of coarse cells are means weighted by area.

    Shape:
        (N, C, cells) in the order of `areas`.

    Raises:
        ValueError: lengths that don't fit, cells without parent or children, an area <= 0, a level that is not coarser.

    Examples:
        >>> space = Mesh(parents=[[0, 0, 1]], areas=[1.0, 3.0, 2.0], neighbours=[[1], [0, 2], [1]])
        >>> space.project(torch.tensor([[[4.0, 8.0, 1.0]]]))
        tensor([[[7., 1.]]])
        >>> Mesh.icosphere(2).cells(0)
        320
    """

    def __init__(
        self,
        parents: Sequence[ArrayLike],
        areas: ArrayLike,
        neighbours: Sequence[Sequence[int]] | ArrayLike,
        centres: ArrayLike | None = None,
    ) -> None:
        self.areas = [np.asarray(areas, dtype=np.float64)]
        self.parents = [np.asarray(step, dtype=np.int64) for step in parents]
        if self.areas[0].ndim != 1 or not (self.areas[0] > 0).all() or not np.isfinite(self.areas[0]).all():
            raise ValueError("areas must be one finite number > 0 for each cell")
        for level, step in enumerate(self.parents):
            fine = len(self.areas[-1])
            if step.shape != (fine,):
                raise ValueError(f"parents[{level}] has the shape {step.shape}, level {level} has {fine} cells")
            coarse = int(step.max(initial=-1)) + 1
            if step.min(initial=0) < 0 or coarse >= fine or len(np.unique(step)) != coarse:
                raise ValueError(
                    f"parents[{level}] must name every coarse cell from 0 to {coarse - 1} at least once, and fewer than the {fine} "
                    f"cells of level {level}; it names {len(np.unique(step))}"
                )
            self.areas.append(np.bincount(step, weights=self.areas[-1]).astype(np.float64))
        self.edges = [_edges(neighbours, len(self.areas[0]))]
        for step in self.parents:
            pairs = step[self.edges[-1]]
            self.edges.append(np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0))
        self.centres = [] if centres is None else [np.asarray(centres, dtype=np.float64)]
        for found in self.centres:
            if found.ndim != 2 or len(found) != self.cells(0) or not np.isfinite(found).all():
                raise ValueError(f"centres must be finite, ({self.cells(0)}, axes); got the shape {found.shape}")
        for level, step in enumerate(self.parents if self.centres else ()):
            sums = [np.bincount(step, weights=x * self.areas[level]) for x in self.centres[level].T]
            self.centres.append(np.stack(sums, 1) / self.areas[level + 1][:, None])
        digest = hashlib.sha256()
        for array in (*self.parents, self.areas[0], self.edges[0], *self.centres[:1]):
            digest.update(array.tobytes() + b"|")
        self._digest = digest.hexdigest()

    @classmethod
    def icosphere(cls, levels: int) -> Mesh:
        """The unit sphere in 20 * 4**levels triangles, those of an icosahedron divided `levels` times; its coarsest level has 20.

        Args:
            levels: divisions, 1 to 8.
        """
        check_positive(levels=levels)
        corners = icosphere_corners(levels)
        count = len(corners)
        vertex = corner_names(corners)
        sides = np.sort(np.stack([vertex, np.roll(vertex, -1, 1)], 2).reshape(-1, 2), 1)
        order = np.lexsort(sides.T)  # each side belongs to two triangles, which so come together
        first, second = (order // 3).reshape(-1, 2).T
        neighbours: list[list[int]] = [[] for _ in range(count)]
        for i, j in zip(first.tolist(), second.tolist()):
            neighbours[i].append(j)
            neighbours[j].append(i)
        parents = [np.arange(20 * 4**level) // 4 for level in range(levels, 0, -1)]
        centres = corners.mean(1)
        return cls(
            parents, spherical_areas(corners), neighbours, centres / np.linalg.norm(centres, axis=1, keepdims=True)
        )

    @property
    def num_levels(self) -> int:
        return len(self.areas)

    def cells(self, level: int) -> int:
        return len(self.areas[level])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mesh) and other._digest == self._digest

    def __hash__(self) -> int:
        return hash(self._digest)

    def __repr__(self) -> str:
        return f"Mesh({self.cells(0)} cells, {self.num_levels} levels)"

    def config(self) -> dict[str, object]:
        cells, neighbours = self.edges[0].T
        table = [part.tolist() for part in np.split(neighbours, np.searchsorted(cells, range(1, self.cells(0))))]
        return {
            "Mesh": {
                "parents": [step.tolist() for step in self.parents],
                "areas": self.areas[0].tolist(),
                "neighbours": table,
                "centres": self.centres[0].tolist() if self.centres else None,
            }
        }

    def project(self, x: Tensor, level: int = 0) -> Tensor:
        step = _step(self, level, x.device)
        return (gather(x.transpose(1, 2), step.children) * step.weights.to(x)[..., None]).sum(2).transpose(1, 2)

    def embed(self, w: Tensor, size: Sequence[int], level: int = 0) -> Tensor:
        return gather(w.transpose(1, 2), _step(self, level, w.device).parents).squeeze(2).transpose(1, 2)

    def analysis(self, x: Tensor, level: int = 0) -> tuple[Tensor, Tensor]:
        step = _step(self, level, x.device)
        bands = torch.einsum("npkc,pkb->nbcp", gather(x.transpose(1, 2), step.children), step.analysis.to(x))
        return bands[:, 0], bands[:, 1:].flatten(1, 2)

    def synthesis(self, approximation: Tensor, detail: Tensor, size: Sequence[int], level: int = 0) -> Tensor:
        step = _step(self, level, approximation.device)
        bands = torch.cat([approximation, detail], 1).transpose(1, 2)
        seen = gather(bands, step.parents).squeeze(2).unflatten(2, (-1, approximation.shape[1]))  # (N, cells, bands, C)
        return torch.einsum("npbc,pb->ncp", seen, step.synthesis.to(bands))

    def detail_bands(self, level: int = 0) -> int:
        return int(np.bincount(self.parents[level]).max() - 1)

    def reduction(self, level: int) -> tuple[int, ...]:
        return (round(self.cells(0) / self.cells(level)),)

    def refine(self, size: Sequence[int], level: int = 0) -> tuple[int, ...]:
        return (self.cells(level),)

    def conv(self, in_channels: int, out_channels: int, kernel_size: int = 3, *, bias: bool = True) -> Any:
        return GraphConv(self, in_channels, out_channels, kernel_size, bias=bias)


class GraphConv(nn.Module):
    """The convolution of a `Mesh`; `kernel_size=1` sees the cell alone.

    Shape:
        (N, in_channels, cells) -> (N, out_channels, cells), on every level of the mesh.
    """

    def __init__(
        self, space: Mesh, in_channels: int, out_channels: int, kernel_size: int = 3, *, bias: bool = True
    ) -> None:
        super().__init__()
        check_kernel(kernel_size)
        self.space, self.kernel_size = space, kernel_size
        axes = space.centres[0].shape[1] if space.centres else 0
        self.linear = nn.Linear(in_channels * (2 + axes if kernel_size == 3 else 1), out_channels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        if self.kernel_size == 3:
            seen, weights = _around(self.space, self.space.level_of(x.shape[1]), x.device)
            means = torch.einsum("npkc,pkd->npdc", gather(x, seen), weights.to(x))
            x = torch.cat([x, means.flatten(2)], 2)
        return cast(Tensor, self.linear(x)).transpose(1, 2)


@dataclass(frozen=True, eq=False)
class Step:
    """From a level to the coarser one: k = the most children of a cell.

    Args:
        children: of each coarse cell, (coarse cells, k).
        parents: of each fine cell.
        weights: (coarse cells, k) areas of the children as parts of the whole.
        analysis: (coarse cells, k, k): children to bands, the mean first.
        synthesis: (fine cells, k): bands of the parent to the cell.
    """

    children: Lookup
    parents: Lookup
    weights: Tensor
    analysis: Tensor
    synthesis: Tensor


@functools.lru_cache(maxsize=64)
def _around(mesh: Mesh, level: int, device: torch.device) -> tuple[Lookup, Tensor]:
    """The neighbours of each cell, and what they count, (cells, neighbours, 1 + axes): equal parts, these times the directions."""
    table = _ragged(mesh.edges[level], mesh.cells(level))
    there = (table >= 0)[:, :, None]
    weights = there / there.sum(1, keepdims=True).clip(min=1)
    if mesh.centres:
        centres = mesh.centres[level]
        towards = centres[table] - centres[:, None]
        length = np.linalg.norm(towards, axis=2, keepdims=True)
        directions = np.divide(towards, length, out=np.zeros_like(towards), where=length > 0)
        weights = np.concatenate([weights, weights * directions], 2)
    return look_up(torch.from_numpy(table), len(table), device), torch.from_numpy(weights).to(device)


@functools.lru_cache(maxsize=64)
def _step(mesh: Mesh, level: int, device: torch.device) -> Step:
    parents, areas = mesh.parents[level], mesh.areas[level]
    fine, coarse = len(areas), mesh.cells(level + 1)
    children = _ragged(np.stack([parents, np.arange(fine)], 1), coarse)
    k = children.shape[1]
    there = children >= 0
    weights = np.where(there, areas[children], 0.0) / mesh.areas[level + 1][:, None]
    # Columns orthonormal in the weighted inner product, the first constant: Gram-Schmidt of sqrt(w) [1, e_1, e_2, ...]. A child
    # that is not there has the weight 0, and a band of zeros.
    root = np.sqrt(weights)
    start = np.broadcast_to(np.eye(k), (coarse, k, k)).copy()
    start[:, :, 0] = root
    start *= there[:, :, None]
    basis = np.zeros_like(start)
    for column in range(k):
        vector = start[:, :, column].copy()
        for _ in range(2):  # twice is enough
            vector -= np.einsum("pkb,pb->pk", basis, np.einsum("pkb,pk->pb", basis, vector))
        norm = np.linalg.norm(vector, axis=1, keepdims=True)
        basis[:, :, column] = np.where(norm > 0, vector / np.where(norm > 0, norm, 1), 0.0)
    scale = np.divide(1, root, out=np.zeros_like(root), where=there)
    slot = np.zeros(fine, dtype=np.int64)
    slot[children[there]] = np.nonzero(there)[1]
    return Step(
        look_up(torch.from_numpy(children), fine, device),
        look_up(torch.from_numpy(parents[:, None]), coarse, device),
        torch.from_numpy(weights).to(device),
        torch.from_numpy(basis * root[:, :, None]).to(device),
        torch.from_numpy((basis * scale[:, :, None])[parents, slot]).to(device),
    )


def _edges(neighbours: Any, cells: int) -> Ints:
    """Pairs (cell, neighbour), sorted, both ways, each once."""
    if len(neighbours) != cells:
        raise ValueError(f"neighbours has {len(neighbours)} rows for {cells} cells")
    pairs = [(i, int(j)) for i, row in enumerate(neighbours) for j in row if j >= 0]
    found = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    if found.max(initial=-1) >= cells:
        raise ValueError(f"neighbours names cell {found.max()}, the last one is {cells - 1}")
    both = np.concatenate([found, found[:, ::-1]])
    return np.unique(both[both[:, 0] != both[:, 1]], axis=0)


def _ragged(pairs: Ints, rows: int) -> Ints:
    """Pairs (row, entry) as a table (rows, most entries), filled up by -1."""
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    count = np.bincount(pairs[:, 0], minlength=rows)
    table = np.full((rows, max(int(count.max(initial=0)), 1)), -1, dtype=np.int64)
    table[pairs[:, 0], np.arange(len(pairs)) - np.repeat(np.cumsum(count) - count, count)] = pairs[:, 1]
    return table
