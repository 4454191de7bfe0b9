"""`Triangle`: its cells tile the triangle, and its neighbours are those that touch in the plane."""

import numpy as np
import pytest
import torch
from scipy.spatial import Delaunay

from multiresnet import MultiResNet
from multiresnet.spaces import Triangle
from multiresnet.testing import randomise


def lattice_corners(space, level=0):
    """Corners of each cell as integers."""
    return [set(map(tuple, c)) for c in (space.corners(level) * 2 ** (space.depth - level)).round().long().tolist()]


@pytest.mark.parametrize("depth", [1, 3, 5])
def test_cells_have_equal_areas_and_cover_the_triangle_once(depth):
    corners = Triangle(depth).corners().numpy()
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    areas = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 2
    assert np.allclose(areas, 0.5 / 4**depth, rtol=1e-12)
    points = np.random.default_rng(0).dirichlet((1, 1, 1), 100)[:, 1:]
    hits = np.sum([Delaunay(cell).find_simplex(points) >= 0 for cell in corners], 0)
    assert (hits == 1).all()


def test_children_lie_in_their_parent_and_share_its_centre(tolerance):
    space = Triangle(4)
    for level in range(4):
        fine, coarse = space.centres(level), space.centres(level + 1)
        assert (fine.unflatten(0, (-1, 4)).mean(1) - coarse).abs().max() <= tolerance(fine.dtype)
        for cell, parts in zip(space.corners(level + 1).numpy(), space.centres(level).unflatten(0, (-1, 4)).numpy()):
            assert (Delaunay(cell).find_simplex(parts) >= 0).all()


@pytest.mark.parametrize(("touching", "shared", "most"), [("side", 2, 3), ("corner", 1, 12)])
def test_neighbours_are_the_cells_that_touch(touching, shared, most):
    space = Triangle(4, touching)
    for level in range(5):
        corners, table = lattice_corners(space, level), space.table(level)
        assert table.shape == (4 ** (4 - level), most + 1)
        for i, row in enumerate(table.tolist()):
            touching = {j for j, other in enumerate(corners) if j != i and len(other & corners[i]) >= shared}
            assert row[0] == i
            assert {j for j in row[1:] if j >= 0} == touching
            assert len([j for j in row[1:] if j >= 0]) == len(touching)


def test_the_same_tap_looks_in_the_same_direction_and_turned_cells_look_the_other_way():
    space = Triangle(4)
    centres, table = space.centres(), space.table(0)
    turned = space.corners()[:, 1, 0] < space.corners()[:, 0, 0]
    for tap in range(1, space.taps):
        there = table[:, tap] >= 0
        direction = centres[table[:, tap]] - centres
        direction[turned] *= -1
        assert direction[there].std(0).max() < 1e-12


def test_a_linear_function_pools_to_its_value_at_the_centre(tolerance):
    space = Triangle(5)
    x = (2 + space.centres() @ torch.tensor([3.0, -5.0], dtype=torch.float64)).view(1, 1, -1)
    for level in range(3):
        x = space.project(x, level)
    expected = 2 + space.centres(3) @ torch.tensor([3.0, -5.0], dtype=torch.float64)
    assert (x[0, 0] - expected).abs().max() <= tolerance(x.dtype)


def test_symmetries_are_a_group_that_keeps_neighbours_and_children():
    space = Triangle(3)
    orders = space.symmetries()
    rows = {tuple(order.tolist()) for order in orders}
    assert len(rows) == 6 and tuple(range(64)) in rows
    assert all(tuple(a[b].tolist()) in rows for a in orders for b in orders)
    touching = [{j for j in row[1:] if j >= 0} for row in space.table(0).tolist()]
    for order in orders.tolist():
        assert all({order[j] for j in touching[i]} == touching[order[i]] for i in range(64))
    x = torch.randn(1, 1, 64)
    coarse = {tuple(order.tolist()) for order in space.symmetries(1)}
    for order in orders:
        moved = [tuple((order.view(-1, 4)[:, 0] // 4).tolist())]
        assert moved[0] in coarse
        assert torch.allclose(space.project(x[..., order]), space.project(x)[..., list(moved[0])])


def test_a_symmetric_kernel_commutes_with_all_symmetries(tolerance):
    space = Triangle(4, "side")
    conv = space.conv(1, 1).double()
    with torch.no_grad():
        conv.linear.weight[:, 1:] = 0.3
    x = torch.randn(2, 1, 256, dtype=torch.float64)
    for order in space.symmetries():
        assert (conv(x[..., order]) - conv(x)[..., order]).abs().max() <= tolerance(x.dtype)


def test_pixels_and_back():
    space = Triangle(5)
    ramp = torch.linspace(0, 1, 64)
    image = (ramp[None, :] + 2 * ramp.flip(0)[:, None]).expand(1, 1, 64, 64)
    cells = space.from_pixels(image)
    expected = (space.centres() @ torch.tensor([1.0, 2.0], dtype=torch.float64)).float()
    assert (cells[0, 0] - expected).abs().max() < 0.03
    picture = space.to_pixels(cells, 64)
    inside = ~picture.isnan()
    assert 0.48 < inside.float().mean() < 0.53
    assert (picture - image)[inside].abs().max() < 0.1
    numbers = space.to_pixels(torch.arange(1024.0).view(1, 1, -1), 256)
    assert set(numbers[~numbers.isnan()].long().tolist()) == set(range(1024))


def test_gradients_of_the_convolution():
    conv = randomise(Triangle(2).conv(2, 1).double())
    x = torch.randn(1, 2, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(conv, x)
    assert torch.autograd.gradgradcheck(conv, x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Triangle(0), "depth must be an integer from 1 to 12"),
        (lambda: Triangle(3, "edge"), "touching='edge' is unknown"),
        (lambda: Triangle(3, boundary="periodic"), "boundary='periodic' is unknown"),
        (lambda: Triangle(3).conv(1, 1, 5), "kernel_size must be 1 or 3"),
        (
            lambda: MultiResNet(1, 1, space=Triangle(3))(torch.zeros(1, 1, 60)),
            "levels of 64, 16, 4, 1 cells, none of 60",
        ),
        (
            lambda: MultiResNet(1, 1, space=Triangle(3))(torch.zeros(1, 1, 64)),
            "halves 4 times, but .* has only 3 levels",
        ),
        (lambda: MultiResNet(1, 1, space=Triangle(3))(torch.zeros(1, 1, 8, 8)), r"expected rank 3, \(N, 1, W\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
