"""`Mesh`: unbalanced Haar on partitions that numpy can sum over, and the icosphere."""

import math

import numpy as np
import pytest
import torch

from multiresnet import MultiResNet
from multiresnet.spaces import Haar, Mesh, Triangle
from multiresnet.spaces.icosphere import icosphere_corners


def test_project_is_the_mean_weighted_by_area(tolerance):
    rng = np.random.default_rng(0)
    parents, areas, x = rng.permutation([0, 0, 0, 1, 2, 2, 1, 0]), rng.uniform(0.1, 5, 8), rng.normal(size=8)
    space = Mesh([parents], areas, [[]] * 8)
    expected = [np.average(x[parents == p], weights=areas[parents == p]) for p in range(3)]
    found = space.project(torch.from_numpy(x).view(1, 1, -1))[0, 0].numpy()
    assert np.abs(found - expected).max() <= tolerance(torch.float64)
    assert np.abs(space.areas[1] - [areas[parents == p].sum() for p in range(3)]).max() <= tolerance(torch.float64)


def test_an_only_child_has_no_detail():
    space = Mesh([[0, 1, 1]], [1.0, 2.0, 2.0], [[], [], []])
    detail = space.detail(torch.randn(1, 1, 3))
    assert detail[..., 0] == 0 and detail[..., 1] != 0


def test_pairs_of_equal_cells_are_haar(tolerance):
    space, haar = Mesh([np.arange(8) // 2, np.arange(4) // 2], np.ones(8), [[]] * 8), Haar(1)
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    for a, b in zip(space.analysis(x), haar.analysis(x), strict=True):
        assert (a.abs() - b.abs()).abs().max() <= tolerance(x.dtype)  # up to the sign of the wavelet


def test_four_equal_children_span_what_a_quadtree_spans(tolerance):
    tree = Triangle(2)
    space = Mesh([np.arange(16) // 4], np.ones(16), [[]] * 16)
    x = torch.randn(1, 1, 16, dtype=torch.float64)
    assert (space.project(x) - tree.project(x)).abs().max() <= tolerance(x.dtype)
    assert (space.embed(tree.project(x), (16,)) - tree.embed(tree.project(x), (16,))).abs().max() <= tolerance(x.dtype)


def test_the_convolution_averages_over_neighbours(tolerance):
    space = Mesh([[0, 0, 1, 1]], np.ones(4), [[1, 2], [0], [0], []])
    conv = space.conv(2, 3).double()
    x = torch.randn(1, 2, 4, dtype=torch.float64)
    own, others = conv.linear.weight.split(2, 1)
    mean = torch.stack([(x[..., 1] + x[..., 2]) / 2, x[..., 0], x[..., 0], 0 * x[..., 0]], -1)
    expected = own @ x + others @ mean + conv.linear.bias[:, None]
    assert (conv(x) - expected).abs().max() <= tolerance(x.dtype)
    assert torch.autograd.gradcheck(conv, x.requires_grad_())
    assert torch.autograd.gradgradcheck(conv, x)


def test_with_centres_the_convolution_knows_directions(tolerance):
    """On a line with unequal steps: the mean of the neighbours, and that times the sign of the way to them."""
    line = [[1], [0, 2], [1, 3], [2]]
    space = Mesh([[0, 0, 1, 1]], [1.0, 3.0, 1.0, 1.0], line, centres=[[0.0], [1.0], [3.0], [3.5]])
    conv = space.conv(1, 1).double()
    x = torch.tensor([[[2.0, 3.0, 5.0, 7.0]]], dtype=torch.float64)
    own, mean, way = conv.linear.weight[0]
    means, ways = torch.tensor([[3.0, 3.5, 5.0, 5.0], [3.0, 1.5, 2.0, -5.0]], dtype=torch.float64)
    expected = own * x + mean * means + way * ways + conv.linear.bias
    assert (conv(x) - expected).abs().max() <= tolerance(x.dtype)
    assert space.centres[1].ravel().tolist() == [0.75, 3.25]


def test_coarse_cells_neighbour_where_their_cells_do():
    line = [[j for j in (i - 1, i + 1) if 0 <= j < 8] for i in range(8)]
    space = Mesh([np.arange(8) // 2, np.arange(4) // 2], np.ones(8), line)
    assert space.edges[1].tolist() == [[0, 1], [1, 0], [1, 2], [2, 1], [2, 3], [3, 2]]
    assert space.edges[2].tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("levels", [1, 3])
def test_the_icosphere_covers_the_sphere(levels, tolerance):
    space, corners = Mesh.icosphere(levels), icosphere_corners(levels)
    assert space.cells(0) == 20 * 4**levels and space.cells(levels) == 20
    assert abs(space.areas[0].sum() - 4 * math.pi) <= 10 * tolerance(torch.float64)
    assert np.abs(np.linalg.norm(corners, axis=2) - 1).max() < 1e-12
    centres = corners.mean(1)
    for level in range(levels + 1):
        degree = np.bincount(space.edges[level][:, 0])
        assert (degree == 3).all()
    for i, j in space.edges[0]:
        assert np.linalg.norm(centres[i] - centres[j]) < 2.5 / 2**levels
        shared = {tuple(p) for p in corners[i].round(9)} & {tuple(p) for p in corners[j].round(9)}
        assert len(shared) == 2
    inside, coarse = (
        c / np.linalg.norm(c, axis=1, keepdims=True)
        for c in (corners.reshape(-1, 12, 3).mean(1), icosphere_corners(levels - 1).mean(1))
    )
    assert np.abs(inside - coarse).max() < 0.1


def test_order_of_cells_does_not_matter(tolerance):
    """The same mesh with its cells in another order gives the same network."""
    mesh, order = Mesh.icosphere(2), np.random.default_rng(0).permutation(320)
    place = np.argsort(order)
    neighbours = [[] for _ in range(320)]
    for i, j in mesh.edges[0]:
        neighbours[place[i]].append(place[j])
    shuffled = Mesh([mesh.parents[0][order], mesh.parents[1]], mesh.areas[0][order], neighbours, mesh.centres[0][order])
    nets = []
    for space in (mesh, shuffled):
        torch.manual_seed(0)
        nets.append(
            MultiResNet(1, 1, space=space, channels=(8, 8), num_blocks=1, skip="approximation", patch_levels=0).double()
        )
    x = torch.randn(2, 1, 320, dtype=torch.float64)
    assert (nets[1](x[..., order]) - nets[0](x)[..., order]).abs().max() <= 10 * tolerance(x.dtype)


GOOD = {"parents": [[0, 0, 1]], "areas": [1.0, 1.0, 1.0], "neighbours": [[1], [0], []]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"areas": [1.0, 0.0, 1.0]}, "areas must be one finite number > 0"),
        ({"areas": [1.0, float("nan"), 1.0]}, "areas must be one finite number > 0"),
        ({"parents": [[0, 1]]}, r"parents\[0\] has the shape \(2,\), level 0 has 3 cells"),
        ({"parents": [[0, 2, 2]]}, "must name every coarse cell from 0 to 2 .* it names 2"),
        ({"parents": [[0, 1, 2]]}, "fewer than the 3 cells"),
        ({"parents": [[-1, 0, 0]]}, "must name every coarse cell"),
        ({"neighbours": [[1], [0]]}, "neighbours has 2 rows for 3 cells"),
        ({"neighbours": [[7], [0], []]}, "names cell 7, the last one is 2"),
        ({"centres": [[0.0], [1.0]]}, r"centres must be finite, \(3, axes\); got the shape \(2, 1\)"),
        ({"centres": [[0.0], [1.0], [float("inf")]]}, "centres must be finite"),
    ],
)
def test_bad_meshes(change, message):
    Mesh(**GOOD)
    with pytest.raises(ValueError, match=message):
        Mesh(**{**GOOD, **change})


def test_equal_meshes_are_equal():
    assert Mesh(**GOOD) == Mesh(**GOOD) != Mesh.icosphere(1)
    assert repr(Mesh.icosphere(1)) == "Mesh(80 cells, 2 levels)"
