"""Padding against numpy and torch, and the convolution that uses it."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from multiresnet.spaces.boundary import BoundaryConv, boundary_index, pad, parse_boundary

NUMPY_MODES = {"periodic": "wrap", "reflect": "reflect", "replicate": "edge", "zeros": "constant"}
TORCH_MODES = {"periodic": "circular", "reflect": "reflect", "replicate": "replicate", "zeros": "constant"}
CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
MIXED = [
    (("zeros", "replicate"),),
    (("reflect", "zeros"), "periodic"),
    (("replicate", "reflect"), ("zeros", "zeros"), "periodic"),
]


def numpy_pad(x, width, sides):
    """Side by side, axis by axis, each by numpy's mode."""
    y = x.detach().numpy()
    for axis, (lower, upper) in enumerate(sides, start=2):
        padded = {}
        for rule in (lower, upper):
            widths = [(0, 0)] * y.ndim
            widths[axis] = (width, width)
            padded[rule] = np.pad(y, widths, mode=NUMPY_MODES[rule])
        half = width + (y.shape[axis] + 1) // 2
        first, _ = np.split(padded[lower], [half], axis)
        _, last = np.split(padded[upper], [half], axis)
        y = np.concatenate([first, last], axis)
    return torch.as_tensor(y)


@pytest.mark.parametrize("needs_grad", [False, True])  # training takes another path
@pytest.mark.parametrize("rule", NUMPY_MODES)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_pad_is_numpy_pad_at_any_width(dims, rule, needs_grad):
    sides = parse_boundary(rule, dims)
    for n, width in itertools.product((1, 2, 3, 5), (0, 1, 2, 4, 7)):
        x = torch.randn(1, 2, *(n, 3, 2)[:dims], requires_grad=needs_grad)
        assert torch.equal(pad(x, width, sides), numpy_pad(x, width, sides)), (n, width)


@pytest.mark.parametrize("needs_grad", [False, True])
@pytest.mark.parametrize("boundary", MIXED)
def test_sides_and_axes_have_rules_of_their_own(boundary, needs_grad):
    sides = parse_boundary(boundary, len(boundary))
    for n, width in itertools.product((2, 3, 6), (1, 2, 5)):
        x = torch.randn(1, 2, *(n, 4, 3)[: len(boundary)], requires_grad=needs_grad)
        assert torch.equal(pad(x, width, sides), numpy_pad(x, width, sides)), (n, width)


@pytest.mark.parametrize("rule", TORCH_MODES)
def test_pad_is_torch_pad_where_torch_can(rule):
    x = torch.randn(2, 3, 5, 6, requires_grad=True)
    assert torch.equal(pad(x, 2, parse_boundary(rule, 2)), F.pad(x, [2] * 4, mode=TORCH_MODES[rule]))


@pytest.mark.parametrize("boundary", [*NUMPY_MODES, MIXED[1]])
@pytest.mark.parametrize(("size", "width"), [((4, 5), 1), ((4, 5), 2), ((2, 3), 4), ((1, 2), 3)])
def test_derivatives_of_pad(size, width, boundary):
    x = torch.randn(1, 1, *size, dtype=torch.float64, requires_grad=True)
    sides = parse_boundary(boundary, 2)
    assert gradcheck(lambda x: pad(x, width, sides), (x,))
    assert gradgradcheck(lambda x: pad(x, width, sides), (x,))


@pytest.mark.parametrize("boundary", [*NUMPY_MODES, MIXED[1]])
def test_pad_saves_no_tensor_and_leaves_the_gradient_alone(boundary):
    x, saved = torch.randn(1, 2, 4, 5, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(saved.append, lambda t: t):
        y = pad(x, 1, parse_boundary(boundary, 2))
    assert saved == []
    seed = torch.randn_like(y)
    kept = seed.clone()
    y.backward(seed)
    assert torch.equal(seed, kept)


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("boundary", [*NUMPY_MODES, "mixed"])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_convolution_is_the_plain_one_on_a_padded_input(dims, boundary, kernel_size, tolerance):
    sides = parse_boundary(MIXED[dims - 1] if boundary == "mixed" else boundary, dims)
    conv = BoundaryConv(2, 3, kernel_size, sides=sides).double()
    for size in ((7, 4, 3), (1, 2, 1), (3, 1, 2)):  # also narrower than the kernel
        x = torch.randn(2, 2, *size[:dims], dtype=torch.float64)
        expected = CONV[dims](numpy_pad(x, kernel_size // 2, sides), conv.conv.weight, conv.conv.bias)
        for variant in (x, x.clone().requires_grad_()):
            y = conv(variant)
            assert y.shape[2:] == x.shape[2:]
            assert (y - expected).abs().max() <= tolerance(x.dtype)


def test_convolution_works_on_channels_last_and_keeps_it():
    conv = BoundaryConv(4, 4, sides=parse_boundary("periodic", 2)).to(memory_format=torch.channels_last)
    x = torch.randn(2, 4, 6, 5)
    y = conv(x.contiguous(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, conv(x))


def test_convolution_without_bias_and_with_an_even_kernel():
    assert [*dict(BoundaryConv(1, 1, sides=parse_boundary("zeros", 1), bias=False).named_parameters())] == [
        "conv.weight"
    ]
    with pytest.raises(ValueError, match="kernel_size must be odd to keep the size, got 4"):
        BoundaryConv(1, 1, 4, sides=parse_boundary("zeros", 1))


def test_index_of_mixed_rules():
    index = boundary_index(3, 4, 4, ("reflect", "replicate"), torch.device("cpu"))
    assert index.tolist() == [0, 1, 2, 1, 0, 1, 2, 2, 2, 2, 2]


@pytest.mark.parametrize(
    ("boundary", "dims", "sides"),
    [
        ("zeros", 1, (("zeros", "zeros"),)),
        (("periodic", "zeros"), 2, (("periodic", "periodic"), ("zeros", "zeros"))),
        ((("zeros", "reflect"), "replicate"), 2, (("zeros", "reflect"), ("replicate", "replicate"))),
        ([["zeros", "reflect"]], 1, (("zeros", "reflect"),)),  # as JSON gives it
    ],
)
def test_spellings_of_a_boundary(boundary, dims, sides):
    assert parse_boundary(boundary, dims) == sides


@pytest.mark.parametrize(
    ("boundary", "message"),
    [
        ("circular", "boundary of axis 0 is .*each side takes one of periodic, reflect, replicate, zeros"),
        (("zeros",), "1 entries for 2 spatial axes.*one entry for each axis"),
        (("zeros", ("zeros", "periodic")), "axis 1 .*periodic on both sides or on none"),
        (("zeros", ("zeros", "zeros", "zeros")), "axis 1 .*each side takes one of"),
    ],
)
def test_bad_boundary(boundary, message):
    with pytest.raises(ValueError, match=message):
        parse_boundary(boundary, 2)
