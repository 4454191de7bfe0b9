"""The right triangle that divides into four of itself, with convolutions over triangles that truly touch."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from multiresnet.checks import check_choice
from multiresnet.spaces.cells import Quadtree, centre_and_neighbours

# Children of the triangle (0, 0), (1, 0), (0, 1): x -> sign / 2 x + shift; the last one is the turned one in the middle.
SIGNS = (1.0, 1.0, 1.0, -1.0)
SHIFTS = ((0.0, 0.0), (0.0, 0.5), (0.5, 0.0), (0.5, 0.5))


@dataclass(frozen=True)
class Triangle(Quadtree):
    """Functions on the triangle (0, 0), (1, 0), (0, 1), constant on 4**depth small ones (paper A, section 3 and the triangle data).

    A cell is numbered by the digits of its address, coarsest first: 0 at the right angle, 1 above, 2 to the right, 3 the turned
    one in the middle; so cells 4 i ... 4 i + 3 make cell i of the coarser level. Any triangle is an affine image of this one.

    Args:
        depth: halvings from the whole triangle to a cell, >= 1.
        touching: neighbours in a convolution: the 3 across the sides ("side"), or the 12 that share a corner ("corner"). Turned
            triangles see theirs turned by 180 degrees.
        boundary: outside lies nothing ("zeros"), or the cell itself again ("replicate").

    Shape:
        (N, C, 4**depth), and 4**(depth - level) cells on the coarser levels.

    Examples:
        >>> space = Triangle(depth=2)
        >>> space.centres().shape, space.project(torch.ones(1, 1, 16)).shape
        (torch.Size([16, 2]), torch.Size([1, 1, 4]))
    """

    depth: int
    touching: Literal["side", "corner"] = "corner"
    boundary: Literal["zeros", "replicate"] = "zeros"

    def __post_init__(self) -> None:
        if isinstance(self.depth, bool) or not isinstance(self.depth, int) or not 1 <= self.depth <= 12:
            raise ValueError(f"depth must be an integer from 1 to 12 (4**12 cells), got {self.depth!r}")
        check_choice("touching", self.touching, ("side", "corner"))
        check_choice("boundary", self.boundary, ("zeros", "replicate"))

    @property
    def taps(self) -> int:  # type: ignore[override]
        return 4 if self.touching == "side" else 13

    @property
    def num_levels(self) -> int:
        return self.depth + 1

    def cells(self, level: int) -> int:
        return int(4 ** (self.depth - level))

    def config(self) -> dict[str, object]:
        return {"Triangle": {"depth": self.depth, "touching": self.touching, "boundary": self.boundary}}

    def corners(self, level: int = 0) -> Tensor:
        """(cells, 3, 2): corners of each cell, float64, that at the right angle first."""
        side, origin, sign = _placed(self.depth - level)
        unit = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
        return (origin[:, None] + sign[:, None, None] * unit) / side

    def centres(self, level: int = 0) -> Tensor:
        """(cells, 2): centre of mass of each cell, float64."""
        return self.corners(level).mean(1)

    def symmetries(self, level: int = 0) -> Tensor:
        """(6, cells): rotations and reflections of the (equilateral) triangle as orders of the cells: `x[..., order]` turns x."""
        barycentric = _barycentric(self.centres(level))
        keys = [tuple(row) for row in (barycentric * 3 * 2 ** (self.depth - level)).round().long().tolist()]
        index = {key: cell for cell, key in enumerate(keys)}
        permutations = list(itertools.permutations(range(3)))
        return torch.tensor([[index[tuple(key[i] for i in p)] for key in keys] for p in permutations])

    def table(self, level: int) -> Tensor:
        rim = 2
        square, turned, lattice = _lattice(self.depth - level, rim)
        stencil = torch.tensor(_stencil(self.touching))  # of a triangle that is not turned
        offset = torch.where(turned[:, None, None] > 0, -stencil[:, :2], stencil[:, :2])
        kind = (turned[:, None] + stencil[:, 2]) % 2
        place = square[:, None] + offset + rim
        return centre_and_neighbours(lattice[place[..., 0], place[..., 1], kind], missing=self.boundary)

    def from_pixels(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, 4**depth): bilinear values at the centres; x runs along W, y upwards along H."""
        at = 2 * self.centres().to(images) - 1
        grid = torch.stack([at[:, 0], -at[:, 1]], 1).expand(len(images), 1, -1, -1)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False).squeeze(2)

    def to_pixels(self, x: Tensor, size: int, *, outside: float = math.nan) -> Tensor:
        """(N, C, cells) -> (N, C, size, size): the value of the cell under each pixel's centre, `outside` off the triangle."""
        _, _, lattice = _lattice(self.depth - self.level_of(x.shape[2]), 0)
        ticks = (torch.arange(size, dtype=torch.float64) + 0.5) / size * len(lattice)
        across, up = ticks[None, :].expand(size, size), ticks.flip(0)[:, None].expand(size, size)
        index = lattice[across.long(), up.long(), ((across % 1 + up % 1) > 1).long()].to(x.device)
        return F.pad(x, (0, 1), value=outside)[..., index]  # -1 is the last one


def _barycentric(points: Tensor) -> Tensor:
    return torch.cat([1 - points.sum(1, keepdim=True), points], 1)


@functools.cache
def _placed(depth: int) -> tuple[int, Tensor, Tensor]:
    """Cells per side, and of every cell the corner at its right angle, in cells, and whether it stands (1) or is turned (-1)."""
    origin, sign = torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    signs, shifts = torch.tensor(SIGNS, dtype=torch.float64), torch.tensor(SHIFTS, dtype=torch.float64)
    # a cell is origin + sign * unit triangle, in units of its side; its children in units of theirs
    for _ in range(depth):
        origin = (2 * origin[:, None] + 2 * sign[:, None, None] * shifts).flatten(0, 1)
        sign = (sign[:, None] * signs).flatten()
    return 2**depth, origin, sign


def _lattice(depth: int, rim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Every cell's square and whether it is turned in it (two triangles share a square), and which cell is where, -1 for none.

    The last one is (side + 2 * rim, side + 2 * rim, 2), with `rim` empty squares around.
    """
    side, origin, sign = _placed(depth)
    turned = (sign < 0).long()
    square = origin.round().long() - turned[:, None]
    lattice = torch.full((side + 2 * rim, side + 2 * rim, 2), -1)
    lattice[square[:, 0] + rim, square[:, 1] + rim, turned] = torch.arange(len(turned))
    return square, turned, lattice


@functools.cache
def _stencil(touching: str) -> list[tuple[int, int, int]]:
    """(squares to the right, squares up, 1 for the other kind) of the neighbours of a triangle that stands, anticlockwise."""

    def corners(i: int, j: int, turned: int) -> set[tuple[int, int]]:
        return {(i + turned, j + turned), (i + 1, j), (i, j + 1)}

    around = itertools.product(range(-2, 3), range(-2, 3), (0, 1))
    shared = 2 if touching == "side" else 1
    found = [cell for cell in around if shared <= len(corners(*cell) & corners(0, 0, 0)) < 3]

    def angle(cell: tuple[int, int, int]) -> float:
        x, y = (sum(corner[axis] for corner in corners(*cell)) / 3 - 1 / 3 for axis in (0, 1))
        return math.atan2(y, x) % math.tau

    return sorted(found, key=angle)
