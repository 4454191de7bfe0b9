"""The space of piecewise constant functions: projections, inclusions, anisotropic grids. T1 to T3 of the theory page."""

import dataclasses
import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from multiresnet import haar_analysis
from multiresnet.spaces import Haar

RULES = ["periodic", "reflect", "replicate", "zeros"]
AVG_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
EVEN = [(8,), (8, 12), (4, 8, 6)]
STRIDES = ((1, 2, 2), (2, 2, 2))


def noise(*size, **options):
    return torch.randn(2, 3, *size, dtype=torch.float64, **options)


def dot(a, b):
    return (a * b).sum().item()


# ------------------------------------------------------------------------------------------------ projection and inclusion


@pytest.mark.parametrize("boundary", RULES)
@pytest.mark.parametrize(("size", "depth"), [((64,), 5), ((32, 64), 5), ((16, 8, 24), 3)])
def test_t1_projection_over_levels_is_average_pooling_and_scaled_ll(size, depth, boundary, tolerance):
    space, x = Haar(len(size), boundary), noise(*size)
    projected = ll = x
    for level in range(depth):
        projected = space.project(projected, level)
        # Orthonormal LL, the sum over a cell divided by 2**(d / 2), by slicing.
        for axis in range(2, ll.ndim):
            even, odd = (ll.index_select(axis, torch.arange(s, ll.shape[axis], 2)) for s in (0, 1))
            ll = (even + odd) / math.sqrt(2)
    assert (projected - AVG_POOL[len(size)](x, 2**depth)).abs().max() <= tolerance(x.dtype)
    assert (projected - ll / 2 ** (depth * len(size) / 2)).abs().max() <= tolerance(x.dtype)


@pytest.mark.parametrize("boundary", ["zeros", "replicate"])
def test_at_odd_sizes_the_last_cell_averages_what_is_inside(boundary, tolerance):
    """torch's pooling with count_include_pad=False is the reference."""
    for size in [(1,), (7,), (7, 9), (5, 6), (1, 3), (3, 5, 7)]:
        x, dims = noise(*size), len(size)
        expected = AVG_POOL[dims](x, 2, ceil_mode=True, count_include_pad=False)
        assert (Haar(dims, boundary).project(x) - expected).abs().max() <= tolerance(x.dtype)


@pytest.mark.parametrize("boundary", RULES)
@pytest.mark.parametrize("size", [(9,), (7, 10), (5, 4, 7)])
def test_project_and_detail_are_the_parts_of_the_analysis(size, boundary, tolerance):
    space, x = Haar(len(size), boundary), noise(*size)
    approximation, detail = space.analysis(x)
    assert (space.project(x) - approximation).abs().max() <= tolerance(x.dtype)
    assert torch.equal(space.detail(x), detail)
    for ours, function in zip((approximation, detail), haar_analysis(x, boundary=boundary), strict=True):
        assert torch.equal(ours, function)
    assert space.detail_bands() == detail.shape[1] // 3 == 2 ** len(size) - 1


@pytest.mark.parametrize("size", EVEN)
def test_t3_embed_project_is_an_orthogonal_projection(size, tolerance):
    space, x, y = Haar(len(size)), noise(*size), noise(*size)
    limit = tolerance(x.dtype) * x.numel()
    coarse = space.project(y)

    def cell_mean(v):
        return space.embed(space.project(v), size)

    assert (space.project(space.embed(coarse, size)) - coarse).abs().max() <= tolerance(x.dtype)  # pool . up = identity
    assert (cell_mean(cell_mean(x)) - cell_mean(x)).abs().max() <= tolerance(x.dtype)  # idempotent
    assert abs(dot(cell_mean(x), y) - dot(x, cell_mean(y))) <= limit  # self-adjoint
    assert (
        abs(dot(space.embed(coarse, size), x) - 2 ** len(size) * dot(coarse, space.project(x))) <= limit
    )  # up = 2^d pool^T
    assert abs(dot(x - cell_mean(x), cell_mean(y))) <= limit  # what is lost is orthogonal to what is kept


@pytest.mark.parametrize("boundary", RULES)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_constants_stay_constants_at_every_size(dims, boundary, tolerance):
    space = Haar(dims, boundary)
    for n in range(1, 18):
        size = (n, 18 - n, 3)[:dims]
        coarse = space.project(torch.full((1, 1, *size), 0.3, dtype=torch.float64))
        assert coarse.shape[2:] == tuple(math.ceil(s / 2) for s in size)
        fine = space.embed(coarse, size)
        assert fine.shape[2:] == size
        assert (fine - 0.3).abs().max() <= tolerance(fine.dtype)


@pytest.mark.parametrize("boundary", ["zeros", "replicate"])
def test_project_inverts_embed_on_odd_grids_where_the_edge_is_repeated(boundary):
    space = Haar(2, boundary)
    for n in range(1, 18):
        w = torch.randn(1, 2, math.ceil(n / 2), math.ceil((18 - n) / 2))
        assert torch.equal(space.project(space.embed(w, (n, 18 - n))), w)


def test_embed_repeats_each_value_at_large_odd_sizes():
    """Single precision rounds n / ceil(n / 2): the ratio must be taken as exactly 2."""
    n = 100_001
    w = torch.arange((n + 1) // 2, dtype=torch.float64).view(1, 1, -1)
    assert torch.equal(Haar(1).embed(w, (n,)).flatten(), (torch.arange(n) // 2).double())


@given(level=st.integers(0, 3), size=st.tuples(st.integers(1, 9), st.integers(1, 9)), scale=st.floats(-3, 3))
def test_operations_are_linear(level, size, scale):
    space, (x, y) = Haar(2, ("periodic", ("zeros", "reflect"))), torch.randn(2, 1, 2, *size, dtype=torch.float64)
    for operation in (
        lambda v: space.project(v, level),
        lambda v: space.detail(v, level),
        lambda v: space.embed(v, [2 * n for n in size], level),
    ):
        error = operation(x + scale * y) - operation(x) - scale * operation(y)
        assert error.abs().max() <= 1e-12


# ---------------------------------------------------------------------------------------------------------- derivatives


@pytest.mark.parametrize("boundary", [*RULES, ("periodic", ("zeros", "reflect"))])
@pytest.mark.parametrize("size", [(4, 6), (5, 3)])
def test_derivatives(size, boundary):
    space, x = Haar(2, boundary), torch.randn(1, 2, *size, dtype=torch.float64, requires_grad=True)
    w, d = (band.detach().requires_grad_() for band in space.analysis(x))
    for function, inputs in (
        (space.project, (x,)),
        (space.analysis, (x,)),
        (lambda w: space.embed(w, size), (w,)),
        (lambda w, d: space.synthesis(w, d, size), (w, d)),
    ):
        assert gradcheck(function, inputs)
        assert gradgradcheck(function, inputs)


@pytest.mark.parametrize("size", [*EVEN, (7, 10), (3, 5, 7)])
@pytest.mark.parametrize("boundary", RULES)
def test_backward_saves_no_tensor(size, boundary):
    space, x, saved = Haar(len(size), boundary), noise(*size, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(saved.append, lambda t: t):
        w, d = space.analysis(x)
        y = space.synthesis(space.project(x), d, size) + space.embed(w, size)
    assert saved == []
    y.sum().backward()


# ----------------------------------------------------------------------------------------------------- anisotropic grids


def test_strides_give_shapes_and_reductions(tolerance):
    space, x = Haar(3, "periodic", STRIDES), noise(5, 12, 9)
    assert [space.reduction(level) for level in range(5)] == [(1, 1, 1), (1, 2, 2), (2, 4, 4), (4, 8, 8), (8, 16, 16)]
    assert [space.detail_bands(level) for level in range(3)] == [3, 7, 7]
    shapes = [tuple(x.shape[2:])]
    for level in range(3):
        approximation, detail = space.analysis(x, level)
        assert (space.project(x, level) - approximation).abs().max() <= tolerance(x.dtype)
        assert detail.shape[1] == 3 * space.detail_bands(level)
        back = space.synthesis(approximation, detail, x.shape[2:], level)
        assert (back - x).abs().max() <= tolerance(x.dtype)
        x = approximation
        shapes.append(tuple(x.shape[2:]))
    assert shapes == [(5, 12, 9), (5, 6, 5), (3, 3, 3), (2, 2, 2)]


def test_an_axis_that_is_not_halved_is_left_alone():
    space, x = Haar(3, strides=STRIDES), noise(3, 4, 6)
    assert torch.equal(space.project(x), F.avg_pool3d(x, (1, 2, 2)))
    w = noise(3, 2, 3)
    expected = w.repeat_interleave(2, 3).repeat_interleave(2, 4)
    assert torch.equal(space.embed(w, (3, 4, 6)), expected)
    assert torch.equal(space.embed(w, (3, 3, 5)), expected[:, :, :, :3, :5])


@pytest.mark.parametrize(
    ("size", "depth", "strides"),
    [
        ((16, 64, 64), 3, ((1, 2, 2), (1, 2, 2), (2, 2, 2))),
        ((64, 64), 2, ((2, 2), (2, 2))),
        ((10, 40), 3, ((1, 2), (1, 2), (2, 2))),
        ((100,), 2, ((2,), (2,))),
        ((1, 9), 3, ((1, 2), (1, 2), (1, 2))),
    ],
)
def test_strides_chosen_from_the_size(size, depth, strides):
    space = Haar.for_size(size, depth, boundary="reflect")
    assert space == Haar(len(size), "reflect", strides)


# ------------------------------------------------------------------------------------------------------------- the class


def test_spaces_are_values():
    assert Haar(2, "zeros") == Haar(2, ("zeros", ("zeros", "zeros")))
    assert hash(Haar(2, ["periodic", "zeros"])) == hash(Haar(2, ("periodic", ("zeros", "zeros"))))
    assert Haar(2, "zeros") != Haar(2, "reflect") != Haar(3, "reflect")
    with pytest.raises(dataclasses.FrozenInstanceError):
        Haar(2).boundary = "periodic"


@pytest.mark.parametrize("space", [Haar(1), Haar(2, ("periodic", ("zeros", "reflect"))), Haar(3, "reflect", STRIDES)])
def test_config_rebuilds_the_space(space):
    assert Haar(**space.config()["Haar"]) == space


def test_convolution_carries_the_boundary():
    space = Haar(2, ("periodic", "zeros"))
    x = torch.randn(1, 2, 6, 5)
    conv = space.conv(2, 4, bias=False)
    y = conv(x)
    assert torch.allclose(conv(x.roll(2, 2)), y.roll(2, 2), atol=1e-6)
    assert not torch.allclose(conv(x.roll(2, 3)), y.roll(2, 3), atol=1e-6)


def test_fit_takes_every_size_and_warns_once_for_each_that_is_too_small():
    x = torch.zeros(1, 1, 19, 7)
    with pytest.warns(UserWarning, match=r"size \(19, 7\) is smaller than 2\*\*3.*fewer levels would do"):
        assert Haar(2).fit(x, 3) is x
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Haar(2).fit(x, 3)  # told already
        Haar(2).fit(x, 2)
        Haar(2, strides=((2, 1),)).fit(x, 3)  # the second axis is halved only twice


def test_channels_last():
    space, x = Haar(2, "periodic"), torch.randn(2, 3, 7, 10)
    bands = space.analysis(x)
    x_last, w_last = (t.contiguous(memory_format=torch.channels_last) for t in (x, bands[0]))
    assert torch.equal(space.project(x_last), space.project(x))
    assert torch.equal(space.synthesis(*space.analysis(x_last), (7, 10)), space.synthesis(*bands, (7, 10)))
    assert torch.equal(space.embed(w_last, (7, 10)), space.embed(bands[0], (7, 10)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast(dtype, tolerance):
    space, x = Haar(2, "reflect"), torch.rand(1, 2, 7, 6)
    w = space.project(x.to(dtype))
    assert w.dtype == space.embed(w, (7, 6)).dtype == dtype
    assert (w.float() - space.project(x)).abs().max() <= tolerance(dtype)
    conv, x = space.conv(2, 2), x.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = space.embed(space.project(conv(x)), (7, 6))
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Haar(4), "spatial_dims must be 1, 2 or 3, got 4"),
        (lambda: Haar(0), "spatial_dims must be 1, 2 or 3, got 0"),
        (lambda: Haar(2, "circular"), "each side takes one of periodic, reflect, replicate, zeros"),
        (lambda: Haar(3, ("zeros", "zeros")), "2 entries for 3 spatial axes"),
        (lambda: Haar(2, strides=((2, 2, 2),)), r"takes 2 values 1 or 2, at least one of them 2; got \(2, 2, 2\)"),
        (lambda: Haar(2, strides=((1, 1),)), "at least one of them 2"),
        (lambda: Haar(2, strides=((4, 2),)), "2 values 1 or 2"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
