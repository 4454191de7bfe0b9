import math
import sys

import numpy as np
import pytest

from multiresnet.data.solvers.darcy import DarcyPhysics, darcy, solve_darcy


def centres(n):
    return np.meshgrid(*[(np.arange(n) + 0.5) / n] * 2, indexing="ij")[::-1]  # x along the last axis


def orders(errors):
    return np.log2(np.array(errors[:-1]) / np.array(errors[1:]))


def test_sine_forcing_gives_a_sine():
    errors = []
    for n in (16, 32, 64):
        x, y = centres(n)
        exact = np.sin(math.pi * x) * np.sin(2 * math.pi * y)
        p = solve_darcy(np.full((n, n), 2.0), 10 * math.pi**2 * exact)
        errors.append(np.abs(p - exact).max())
    assert errors[-1] < 2e-3 and (orders(errors) > 1.9).all()


def test_second_order_for_a_smooth_permeability_on_a_long_box():
    # manufactured: p = sin(pi x / 2) y (1 - y) on 2 x 1, a = 1 + x y
    errors = []
    for n in (8, 16, 32):
        x, y = np.meshgrid((np.arange(2 * n) + 0.5) / n, (np.arange(n) + 0.5) / n)
        k = math.pi / 2
        p, a = np.sin(k * x) * y * (1 - y), 1 + x * y
        px, py = k * np.cos(k * x) * y * (1 - y), np.sin(k * x) * (1 - 2 * y)
        f = -(y * px + x * py + a * (-(k**2) * p - 2 * np.sin(k * x)))
        errors.append(np.abs(solve_darcy(a, f, length=2.0) - p).max())
    assert errors[-1] < 1e-3 and (orders(errors) > 1.9).all()


@pytest.mark.parametrize("turned", [False, True])
def test_second_order_across_layers(turned):
    # layers a(x) = 1, 10, 1 with jumps at cell faces; p = q(x) sin(pi y) with a q' = 1/2 - x, which has no jump
    errors = []
    for n in (16, 32, 64):
        x, y = centres(n)
        a = np.where(np.abs(x - 0.5) < 0.25, 10.0, 1.0)
        s = np.minimum(x, 1 - x)
        ramp = lambda s: (s - s**2) / 2  # noqa: E731
        q = np.where(s < 0.25, ramp(s), ramp(0.25) + (ramp(s) - ramp(0.25)) / 10)
        f = (1 + math.pi**2 * a * q) * np.sin(math.pi * y)
        p = solve_darcy(a.T, f.T).T if turned else solve_darcy(a, f)
        errors.append(np.abs(p - q * np.sin(math.pi * y)).max())
    assert errors[-1] < 2e-4 and (orders(errors) > 1.9).all()


def test_all_that_is_put_in_flows_out_through_the_boundary():
    a, p = (field[0, 0].astype(np.float64) for field in darcy(1, size=16, physics=DarcyPhysics(refinement=1)))
    out = 2 * sum((a[edge] * p[edge]).sum() for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]))
    assert out == pytest.approx(1.0, rel=1e-5)
    assert p.min() > 0


def test_pressure_scales_with_forcing_size_and_permeability():
    a, p = darcy(1, size=16)
    scaled = DarcyPhysics(low=6.0, high=24.0, forcing=5.0, length=3.0)
    b, q = darcy(1, size=16, physics=scaled)
    np.testing.assert_allclose(b, 2 * a)
    np.testing.assert_allclose(q, p * 5 * 9 / 2, rtol=1e-5)


def test_refinement_converges_to_the_pressure_of_the_same_medium():
    (a, p), (b, q), (c, r) = (darcy(1, size=16, physics=DarcyPhysics(refinement=m)) for m in (1, 2, 8))
    np.testing.assert_array_equal(a, c)
    np.testing.assert_array_equal(b, c)
    assert np.linalg.norm(q - r) < 0.5 * np.linalg.norm(p - r) < 0.05 * np.linalg.norm(r)


def test_two_phase_medium():
    a, _ = darcy(40, size=32)
    assert set(np.unique(a)) == {3.0, 12.0}
    assert (a == 12).mean() == pytest.approx(0.5, abs=0.1)
    # the field behind it is smooth: few neighbours differ
    assert 0.005 < (a[..., 1:] != a[..., :-1]).mean() < 0.1


def test_lognormal_medium_has_the_logarithm_of_the_two_phase_one():
    a, p = darcy(20, size=32, physics=DarcyPhysics(medium="lognormal"))
    log = np.log(a.astype(np.float64))
    assert log.mean() == pytest.approx(math.log(6.0), abs=0.15)
    np.testing.assert_allclose((log - math.log(6.0)).reshape(20, -1).__pow__(2).mean(1), math.log(2.0) ** 2, rtol=1e-4)
    assert p.min() > 0


def test_a_finer_grid_sees_the_same_medium():
    physics = DarcyPhysics(medium="lognormal", alpha=4.0)
    coarse, fine = (np.log(darcy(1, size=n, physics=physics)[0]) for n in (16, 64))
    assert np.abs(coarse - fine.reshape(1, 1, 16, 4, 16, 4).mean((3, 5))).max() < 0.05


def test_samples_follow_from_seed_and_index_bit_for_bit():
    a, p = darcy(5, size=16, seed=3)
    b, q = darcy(2, size=16, seed=3, first=3)
    assert a.shape == p.shape == (5, 1, 16, 16) and a.dtype == p.dtype == np.float32
    np.testing.assert_array_equal(b, a[3:])
    np.testing.assert_array_equal(q, p[3:])
    assert np.abs(darcy(1, size=16, seed=4)[0] - a[:1]).max() > 1 and np.abs(a[0] - a[1]).max() > 1


@pytest.mark.parametrize(
    "permeability, words",
    [
        (np.ones(4), r"must be \(ny, nx\)"),
        (np.zeros((4, 4)), "finite and > 0"),
        (np.full((4, 4), np.nan), "finite and > 0"),
    ],
)
def test_solver_refuses_impossible_permeabilities(permeability, words):
    with pytest.raises(ValueError, match=words):
        solve_darcy(permeability)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"medium": "twophase"}, "did you mean 'two-phase'"),
        ({"low": 0.0}, "DarcyPhysics.low must be"),
        ({"low": 13.0}, "low <= high"),
        ({"refinement": 0}, "refinement"),
    ],
)
def test_physics_refuses_impossible_values(options, words):
    with pytest.raises(ValueError, match=words):
        DarcyPhysics(**options)


def test_bad_arguments_are_explained():
    with pytest.raises(ValueError, match="size must be >= 4"):
        darcy(1, size=2)
    with pytest.raises(ValueError, match="trajectories must be"):
        darcy(0)


def test_missing_scipy_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    with pytest.raises(ImportError, match=r"multiresnet\[pde\]"):
        solve_darcy(np.ones((4, 4)))
