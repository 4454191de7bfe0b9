"""Conditions hold exactly, for random weights and any network."""

import numpy as np
import pytest
import torch
from torch import nn

from multiresnet import Constrained, MultiResNet, StaticFields, spaces
from multiresnet.conditions import Dirichlet, DivergenceFree, Mean, Neumann, difference, divergence
from multiresnet.testing import assert_every_parameter_has_gradient, randomise

SIZES = [(9,), (8, 11), (5, 6, 7), (2, 2)]


def faces(y):
    return [y.select(axis, side) for axis in range(2, y.ndim) for side in (0, -1)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("weight", ["jump", "distance"])
def test_dirichlet_values_are_copied_to_the_bit(size, weight):
    y, given = 1e3 * torch.randn(2, 3, *size), torch.randn(2, 3, *size)
    u = Dirichlet(given, weight=weight)(y, torch.empty(0))
    assert all(torch.equal(a, b) for a, b in zip(faces(u), faces(given), strict=True))


@pytest.mark.parametrize("size", SIZES[:3])
def test_the_lift_is_transfinite_interpolation(size, tolerance):
    """Multilinear functions are their own lift."""
    ticks = [torch.linspace(0, 1, n, dtype=torch.float64) for n in size]
    u = torch.ones(size, dtype=torch.float64)
    for axis, t in enumerate(ticks):
        u = u * (1 + (axis + 1) * t).view(-1, *(1,) * (len(size) - 1 - axis))
    u = u.expand(1, 1, *size)
    assert (Dirichlet(u)(torch.zeros_like(u), u) - u).abs().max() <= tolerance(u.dtype)


def test_values_on_some_sides_and_from_the_input():
    x = torch.randn(2, 2, 6, 8)
    y = torch.randn(2, 1, 6, 8)
    u = Dirichlet(lambda x: x[:, 1:], [(True, False), (False, False)])(y, x)
    assert torch.equal(u[:, :, 0], x[:, 1:, 0])
    assert torch.allclose(u[:, :, 1:], y[:, :, 1:] + x[:, 1:, :1])  # lifted as a constant along the axis
    assert torch.equal(Dirichlet(2.0)(y, x)[..., -1], torch.full((2, 1, 6), 2.0))


def test_the_weight_falls_to_the_sides():
    u = Dirichlet(0.0, weight="distance")(torch.ones(1, 1, 5), torch.empty(0))
    assert torch.equal(u[0, 0], torch.tensor([0.0, 0.75, 1.0, 0.75, 0.0]))


@pytest.mark.parametrize("size", SIZES)
def test_neumann_has_no_slope_at_the_sides(size):
    u = Neumann()(torch.randn(2, 3, *size), torch.empty(0))
    for axis in range(2, u.ndim):
        slope = u.diff(dim=axis)
        if u.shape[axis] > 2:
            assert slope.select(axis, 0).abs().max() == slope.select(axis, -1).abs().max() == 0


def test_means_are_conserved(tolerance):
    x, y = torch.randn(4, 3, 16, 16), 10 * torch.randn(4, 2, 16, 16)
    for condition, expected in (
        (Mean(), x[:, 1:].mean((2, 3))),
        (Mean(0.5), torch.full((4, 2), 0.5)),
        (Mean(lambda x: x[:, :2, 0, 0]), x[:, :2, 0, 0]),
    ):
        assert (condition(y, x).mean((2, 3)) - expected).abs().max() <= tolerance(x.dtype)
    mesh = spaces.Mesh.icosphere(2)
    areas = torch.from_numpy(mesh.areas[0])
    x, y = torch.randn(2, 1, 320, dtype=torch.float64), torch.randn(2, 1, 320, dtype=torch.float64)
    found = Mean(weights=areas)(y, x)
    assert ((found - x) @ areas).abs().max() <= tolerance(x.dtype)


@pytest.mark.parametrize("boundary", ["periodic", "reflect", "replicate", "zeros", ("periodic", "replicate")])
@pytest.mark.parametrize("differences", ["central", "forward"])
def test_stream_functions_have_no_divergence(boundary, differences):
    options = {"boundary": boundary, "spacing": (0.5, 0.25), "differences": differences}
    velocity = DivergenceFree(boundary, spacing=(0.5, 0.25), differences=differences)(torch.randn(2, 1, 16, 12), None)
    free, any_field = (divergence(v, **options).abs().max() for v in (velocity, torch.randn_like(velocity)))
    assert free <= 1e-6 * any_field


def test_differences_are_those_of_numpy(tolerance):
    y = torch.randn(1, 1, 6, 8, dtype=torch.float64)
    inner = np.gradient(y[0, 0].numpy(), 0.5, axis=1)[:, 1:-1]
    assert np.abs(difference(y, 3, 0.5, "replicate")[0, 0, :, 1:-1].numpy() - inner).max() <= tolerance(y.dtype)
    t = torch.arange(64, dtype=torch.float64) * 2 * torch.pi / 64
    psi = (t.sin()[:, None] * t.cos()[None]).expand(1, 1, 64, 64)
    u, v = DivergenceFree(spacing=2 * torch.pi / 64)(psi, None)[0]
    assert (u - t.cos()[:, None] * t.cos()).abs().max() < 2e-3
    assert (v - t.sin()[:, None] * t.sin()).abs().max() < 2e-3


def test_around_any_network():
    net = Constrained(nn.Conv2d(1, 1, 3, padding=1), Mean(), Dirichlet(1.0))
    u = net(torch.randn(3, 1, 8, 8))
    assert all((face == 1).all() for face in faces(u))
    ours = Constrained(MultiResNet(1, 1, channels=(8, 8), num_blocks=1, emb_channels=3), Dirichlet())
    assert (ours.in_channels, ours.emb_channels, ours.space) == (1, 3, spaces.Haar(2))
    assert_every_parameter_has_gradient(ours, torch.randn(2, 1, 16, 16), emb=torch.randn(2, 3))
    x, emb = torch.randn(2, 1, 9, 9), torch.randn(2, 3)
    assert all(face.abs().max() == 0 for face in faces(randomise(ours)(x, emb)))


def test_static_fields_come_before_the_channels(tolerance):
    fields = torch.randn(2, 8, 8)
    net = StaticFields(MultiResNet(3, 1, channels=(8, 8), num_blocks=1, delta=True), fields)
    x = torch.randn(4, 1, 8, 8)
    assert torch.equal(net(x), net.model(torch.cat([fields.expand(4, 2, 8, 8), x], 1)))
    assert net.in_channels == 1 and net.delta and "fields" in net.state_dict()
    assert_every_parameter_has_gradient(net, x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: StaticFields(nn.Identity(), torch.zeros(2, 4))(torch.zeros(1, 1, 5)),
            r"are on \(4,\), the input on \(5,\)",
        ),
        (
            lambda: StaticFields(MultiResNet(2, 1), torch.zeros(2, 4, 4)),
            "2 fields leave none of the model's in_channels=2",
        ),
        (lambda: StaticFields(nn.Identity(), torch.zeros(4)), r"fields are \(C, \*spatial\)"),
        (lambda: Constrained(nn.Identity()), "give at least one condition"),
        (
            lambda: Dirichlet(torch.zeros(3, 5))(torch.zeros(1, 1, 4, 4), None),
            r"shape \(3, 5\), which does not broadcast",
        ),
        (lambda: Dirichlet(0.0, [(True, True)])(torch.zeros(1, 1, 4, 4), None), "sides needs a pair .* each of 2 axes"),
        (lambda: Dirichlet(0.0, "left")(torch.zeros(1, 1, 4, 4), None), 'sides is "all" or a pair'),
        (lambda: Dirichlet()(torch.zeros(1, 1, 4, 1), None), "axis 1 has 1 sample"),
        (lambda: Dirichlet(weight="smooth"), "weight='smooth' is unknown"),
        (
            lambda: Mean()(torch.zeros(1, 3, 4), torch.zeros(1, 1, 4)),
            "last 3 channels of the input, which has 1; give value=",
        ),
        (lambda: DivergenceFree()(torch.zeros(1, 1, 4), None), r"stream functions are \(N, k, H, W\)"),
        (lambda: DivergenceFree(spacing=0.0), "spacing must be a number > 0"),
        (lambda: DivergenceFree(differences="upwind"), "differences='upwind' is unknown"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
