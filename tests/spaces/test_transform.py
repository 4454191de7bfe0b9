"""The Haar transform against PyWavelets, its inverse and its adjoint."""

import math
import warnings

import numpy as np
import pytest
import pywt
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from multiresnet import haar_analysis, haar_pyramid, haar_synthesis

SIZES = [(8,), (9,), (8, 6), (7, 10), (9, 5), (4, 6, 8), (5, 4, 7), (3, 5, 9)]
PYRAMID_SIZES = [(16,), (37,), (100,), (16, 32), (17, 31), (50, 23), (16, 16, 16), (9, 17, 20)]
# Our rule of the upper side -> PyWavelets' signal extension mode. Haar never looks beyond the lower side.
MODES = {"replicate": "symmetric", "zeros": "symmetric", "periodic": "periodic", "reflect": "reflect"}


def dwtn(x, mode):
    """One level of PyWavelets in our layout and convention: (approximation, detail)."""
    axes = tuple(range(2, x.ndim))
    bands = pywt.dwtn(x, "haar", mode=mode, axes=axes)
    approximation, *details = (bands[key] / 2 ** (len(axes) / 2) for key in sorted(bands))
    return approximation, np.concatenate(details, 1)


def close(actual, expected, tolerance):
    """Equal up to the rounding of values of order one."""
    expected = torch.as_tensor(expected)
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    return (actual - expected).abs().max().item() <= tolerance(actual.dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("size", SIZES)
def test_analysis_is_pywt_dwtn_symmetric(size, dtype, tolerance):
    x = torch.randn(2, 3, *size, dtype=dtype)
    approximation, detail = haar_analysis(x)
    expected = dwtn(x.numpy(), "symmetric")
    assert close(approximation, expected[0], tolerance)
    assert close(detail, expected[1], tolerance)


@pytest.mark.parametrize("boundary", MODES)
@pytest.mark.parametrize("size", [(7,), (3,), (9, 5), (6, 7), (3, 5, 7)])
def test_an_odd_axis_is_completed_as_pywt_does(size, boundary, tolerance):
    x = torch.randn(1, 2, *size, dtype=torch.float64)
    for actual, expected in zip(haar_analysis(x, boundary=boundary), dwtn(x.numpy(), MODES[boundary]), strict=True):
        assert close(actual, expected, tolerance)


def test_replicate_is_also_pywt_constant(tolerance):
    x = torch.randn(1, 2, 7, 9, dtype=torch.float64)
    for actual, expected in zip(haar_analysis(x, boundary="replicate"), dwtn(x.numpy(), "constant"), strict=True):
        assert close(actual, expected, tolerance)


def test_axes_have_rules_of_their_own_and_only_the_upper_side_counts(tolerance):
    x = torch.randn(1, 2, 7, 9, dtype=torch.float64)
    boundary = ("periodic", ("replicate", "reflect"))
    expected = dwtn(x.numpy(), ("periodic", "reflect"))
    for actual, wanted in zip(haar_analysis(x, boundary=boundary), expected, strict=True):
        assert close(actual, wanted, tolerance)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("size", PYRAMID_SIZES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_pyramid_is_pywt_wavedecn_symmetric(size, depth, dtype, tolerance):
    x, dims = torch.randn(1, 2, *size, dtype=dtype), len(size)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # "level is too high" for the smallest sizes; it computes all the same
        coarsest, *levels = pywt.wavedecn(
            x.numpy(), "haar", mode="symmetric", level=depth, axes=tuple(range(2, dims + 2))
        )
    actual = haar_pyramid(x, depth)
    expected = [coarsest / 2 ** (depth * dims / 2)]
    for level, bands in zip(range(depth, 0, -1), levels, strict=True):
        stacked = np.concatenate([bands[key] for key in sorted(bands)], 1)
        expected.append(stacked / 2 ** (level * dims / 2))
    assert all(close(a, e, tolerance) for a, e in zip(actual, expected, strict=True))


def test_pyramid_of_depth_zero_is_the_input_and_depths_compose():
    x = torch.randn(1, 1, 13, 9)
    assert haar_pyramid(x, 0)[0] is x
    approximation, detail = haar_pyramid(x, 1)
    for once, twice in zip(haar_pyramid(x, 3), (*haar_pyramid(approximation, 2), detail), strict=True):
        assert torch.equal(once, twice)


def test_textbook_vector():
    """4x4 block means and differences by hand."""
    x = torch.tensor([[9.0, 7.0], [5.0, 3.0]]).view(1, 1, 2, 2)
    approximation, detail = haar_analysis(x)
    assert approximation.item() == 6.0
    assert detail.flatten().tolist() == [1.0, 2.0, 0.0]  # ad: last axis, da: first axis, dd


@pytest.mark.parametrize("size", [(16,), (8, 12), (4, 6, 8)])
def test_parseval_in_orthonormal_scaling(size, tolerance):
    x, scale = torch.randn(2, 3, *size, dtype=torch.float64), 2 ** len(size)
    energy = sum(scale * band.square().sum() for band in haar_analysis(x))
    assert abs(energy / x.square().sum() - 1) <= tolerance(x.dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_synthesis_inverts_analysis_at_every_size(dims, dtype, tolerance):
    for n in range(1, 18):
        size = (n, 18 - n, 1 + n % 5)[:dims]
        x = torch.rand(1, 2, *size, dtype=torch.float64).mul(2).sub(1).to(dtype)
        for boundary in MODES:
            back = haar_synthesis(*haar_analysis(x, boundary=boundary), size)
            assert back.dtype == dtype
            assert (back - x).abs().max() <= tolerance(dtype), (size, boundary)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_synthesis_is_exact_to_the_bit_for_small_integers(dtype):
    """Halving loses nothing where the bits suffice."""
    x = torch.randint(-16, 16, (2, 3, 13, 8)).to(dtype)
    assert torch.equal(haar_synthesis(*haar_analysis(x), (13, 8)), x)


@pytest.mark.parametrize("boundary", MODES)
def test_constants_have_no_detail_at_any_size(boundary):
    for n in range(1, 18):
        approximation, detail = haar_analysis(torch.full((1, 2, n, 18 - n), 3.0), boundary=boundary)
        assert torch.equal(approximation, torch.full_like(approximation, 3.0))
        assert not detail.any()


@given(
    size=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    boundary=st.sampled_from(sorted(MODES)),
    scale=st.floats(-3, 3),
)
def test_analysis_is_linear(size, boundary, scale):
    x, y = torch.randn(2, 1, 2, *size, dtype=torch.float64)
    of_sum = haar_analysis(x + scale * y, boundary=boundary)
    for total, a, b in zip(
        of_sum, haar_analysis(x, boundary=boundary), haar_analysis(y, boundary=boundary), strict=True
    ):
        torch.testing.assert_close(total, a + scale * b, atol=1e-13, rtol=0)


@given(x=st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=20), depth=st.integers(0, 4))
def test_pyramid_is_inverted_level_by_level(x, depth):
    signal = torch.tensor(x, dtype=torch.float64).view(1, 1, -1)
    sizes = [math.ceil(len(x) / 2**level) for level in range(depth + 1)]
    back, *details = haar_pyramid(signal, depth)
    for detail, size in zip(details, reversed(sizes[:-1]), strict=True):
        back = haar_synthesis(back, detail, (size,))
    assert (back - signal).abs().max() <= 1e-12 * 1e3


@pytest.mark.parametrize("boundary", MODES)
@pytest.mark.parametrize("size", [(6,), (5,), (4, 5), (3, 4, 2)])
def test_derivatives_of_analysis(size, boundary):
    x = torch.randn(1, 2, *size, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: haar_analysis(x, boundary=boundary), (x,))
    assert gradgradcheck(lambda x: haar_analysis(x, boundary=boundary), (x,))


@pytest.mark.parametrize("size", [(6,), (5,), (4, 5), (3, 4, 2)])
def test_derivatives_of_synthesis(size):
    bands = haar_analysis(torch.randn(1, 2, *size, dtype=torch.float64))
    bands = tuple(band.clone().requires_grad_() for band in bands)
    assert gradcheck(lambda a, d: haar_synthesis(a, d, size), bands)
    assert gradgradcheck(lambda a, d: haar_synthesis(a, d, size), bands)


@pytest.mark.parametrize("size", [(8,), (6, 8), (4, 6, 2)])
def test_backward_saves_no_tensor(size):
    x, saved = torch.randn(1, 2, *size, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(saved.append, lambda t: t):
        y = haar_synthesis(*haar_analysis(x), size)
    assert saved == []
    y.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


def test_memory_layouts_give_the_same_numbers():
    x = torch.randn(2, 3, 7, 10)
    strided = torch.randn(2, 3, 14, 20)[..., ::2, ::2].copy_(x)
    for variant in (
        x.contiguous(memory_format=torch.channels_last),
        strided,
        x.transpose(0, 1).clone().transpose(0, 1),
    ):
        for plain, other in zip(haar_analysis(x), haar_analysis(variant), strict=True):
            assert torch.equal(plain, other)
        assert torch.equal(haar_synthesis(*haar_analysis(variant), (7, 10)), haar_synthesis(*haar_analysis(x), (7, 10)))


def test_autocast_keeps_the_dtype_of_the_input():
    x = torch.randn(1, 2, 6, 7, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        approximation, detail = haar_analysis(x)
        y = haar_synthesis(approximation, detail, (6, 7))
    assert {approximation.dtype, detail.dtype, y.dtype} == {torch.float32}
    y.sum().backward()
    assert (x.grad - 1).abs().max() <= 1e-6


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: haar_analysis(torch.zeros(2, 3)), ValueError, "spatial_dims must be 1, 2 or 3, got 0"),
        (lambda: haar_analysis(torch.zeros(1, 1, 2, 2, 2, 2)), ValueError, "spatial_dims must be 1, 2 or 3, got 4"),
        (lambda: haar_analysis(torch.zeros(1, 4, 4), 2), ValueError, r"rank 4; got rank 3, shape \(1, 4, 4\)"),
        (
            lambda: haar_analysis(torch.zeros(1, 1, 4, dtype=torch.uint8)),
            TypeError,
            r"uint8; convert first.*x.float\(\)",
        ),
        (
            lambda: haar_analysis(torch.zeros(1, 1, 4), boundary="symmetric"),
            ValueError,
            "each side takes one of periodic",
        ),
        (lambda: haar_pyramid(torch.zeros(1, 1, 4), -1), ValueError, "depth must be >= 0, got -1"),
        (
            lambda: haar_synthesis(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3), (7,)),
            ValueError,
            r"size \(7,\) has an approximation of size \(4,\), got \(3,\)",
        ),
        (
            lambda: haar_synthesis(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3), (5, 6)),
            ValueError,
            r"expected a detail of shape \(1, 6, 3, 3\).*got \(1, 2, 3, 3\)",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
