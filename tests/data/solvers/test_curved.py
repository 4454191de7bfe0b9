"""Tracers on the sphere and heat on the triangle, against closed forms."""

import math

import numpy as np
import pytest

from multiresnet.data.solvers import sphere_advection as module
from multiresnet.data.solvers.sphere_advection import sphere_advection
from multiresnet.data.solvers.triangle_heat import triangle_heat
from multiresnet.spaces import Triangle


def grid(n=48):
    latitude = (np.arange(n) + 0.5) / n * math.pi - math.pi / 2
    longitude = np.arange(2 * n) * math.pi / n
    return np.meshgrid(longitude, latitude)


def test_a_turn_is_a_turn(monkeypatch):
    """Without shear the flow turns the sphere about an axis: Rodrigues' formula."""
    monkeypatch.setattr(module, "SHEAR", np.zeros((3, 3)))
    x = np.random.default_rng(0).normal(size=(50, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    speed = np.linalg.norm(module.TURN)
    axis, angle = module.TURN / speed, -0.7 * speed
    turned = (
        x * math.cos(angle) + np.cross(axis, x) * math.sin(angle) + np.outer(x @ axis, axis) * (1 - math.cos(angle))
    )
    assert np.abs(module._trace_back(x, 0.7) - turned).max() < 1e-7


def test_tracers_keep_their_integral_and_their_range():
    """The flow has no divergence."""
    longitude, latitude = grid(96)
    q = sphere_advection(longitude, latitude, trajectories=2, frames=4)
    weights = np.cos(latitude)
    integral = (q * weights).sum((-2, -1)) / weights.sum()
    assert np.abs(integral - integral[:, :1]).max() < 2e-3 * np.abs(q).max()
    assert np.abs(q.max((-2, -1)) - q[:, :1].max((-2, -1))).max() < 0.02 * np.abs(q).max()
    assert np.abs(q[:, -1] - q[:, 0]).mean() > 0.1 * np.abs(q).mean()


def test_values_do_not_depend_on_the_grid():
    longitude, latitude = grid(8)
    whole = sphere_advection(longitude, latitude, trajectories=3, frames=3, seed=5)
    part = sphere_advection(longitude[2, 3:5], latitude[2, 3:5], trajectories=1, frames=3, seed=5, first=2)
    assert np.allclose(whole[2:, :, :, 2, 3:5], part, atol=1e-6)


def test_heat_on_the_triangle_keeps_its_mean_and_smooths():
    u = triangle_heat(4, trajectories=3, frames=5).astype(np.float64)
    assert np.abs(u.mean(-1) - u[:, :1].mean(-1)).max() < 1e-6
    variance = u.var(-1)
    assert (variance[:, 1:] < variance[:, :-1]).all()


def test_the_slowest_wave_decays_as_lame_found():
    """The smallest eigenvalue of the insulated equilateral triangle of side 1 is (4 pi / 3)**2 (Lame 1833)."""
    u = triangle_heat(5, trajectories=2, frames=12, interval=0.02).astype(np.float64)[:, :, 0]
    deviation = u - u.mean(-1, keepdims=True)
    rate = -np.log(np.linalg.norm(deviation[:, 9], axis=-1) / np.linalg.norm(deviation[:, 7], axis=-1)) / 0.04
    assert np.abs(rate / (4 * math.pi / 3) ** 2 - 1).max() < 0.01


def test_heat_has_the_symmetries_of_the_triangle():
    """Cells that a symmetry exchanges cool alike: an initial state turned by it stays turned."""
    order = Triangle(3).symmetries()[3].numpy()
    from scipy.sparse import coo_array

    table = Triangle(3, "side").table(0)[:, 1:].numpy()
    i, k = np.nonzero(table >= 0)
    matrix = coo_array((np.ones(len(i)), (i, table[i, k]))).toarray()
    assert np.array_equal(matrix[order][:, order], matrix)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sphere_advection([0.0], [2.0]), "latitude in radians between -pi/2 and pi/2"),
        (lambda: sphere_advection([np.nan], [0.0]), "longitude must be finite"),
        (lambda: sphere_advection([0.0], [0.0], blobs=0), "blobs must be an integer >= 1"),
        (lambda: triangle_heat(0), "depth must be an integer"),
        (lambda: triangle_heat(3, frames=0), "frames must be an integer >= 1"),
    ],
)
def test_bad_requests(call, message):
    with pytest.raises(ValueError, match=message):
        call()
