import math

import numpy as np
import pytest
from scipy.sparse import diags_array, eye_array, kron
from scipy.sparse.linalg import expm_multiply, spsolve

from multiresnet.data.solvers.dirichlet import heat, poisson, solve_poisson


def laplacian(ny, nx):
    """Five-point differences at the inner vertices, by scipy."""
    one = [diags_array([1.0, -2.0, 1.0], offsets=[-1, 0, 1], shape=(n - 2, n - 2)) * (n - 1) ** 2 for n in (ny, nx)]
    return (kron(one[0], eye_array(nx - 2)) + kron(eye_array(ny - 2), one[1])).tocsc()


@pytest.mark.parametrize("shape", [(3, 3), (9, 17), (20, 11)])
def test_poisson_is_the_sparse_solution(shape):
    f = np.random.default_rng(0).normal(size=shape)
    expected = spsolve(-laplacian(*shape), f[1:-1, 1:-1].ravel())
    u = solve_poisson(f)
    assert np.abs(u[1:-1, 1:-1].ravel() - expected).max() < 1e-12
    assert not u[[0, -1]].any() and not u[:, [0, -1]].any()


def test_poisson_converges_at_second_order():
    errors = []
    for n in (17, 33, 65):
        x = np.linspace(0, 1, n)
        exact = np.sin(math.pi * x)[:, None] * (x * (1 - x))[None]
        f = math.pi**2 * exact + 2 * np.sin(math.pi * x)[:, None] * np.ones(n)
        errors.append(np.abs(solve_poisson(f) - exact).max())
    assert (np.log2(np.divide(errors[:-1], errors[1:])) > 1.9).all()


def test_heat_is_the_exponential_of_the_differences():
    u = heat(2, frames=3, size=13, interval=2e-3).astype(np.float64)
    for trajectory in u[:, :, 0]:
        expected = expm_multiply(2e-3 * laplacian(13, 13), trajectory[1][1:-1, 1:-1].ravel())
        assert np.abs(trajectory[2][1:-1, 1:-1].ravel() - expected).max() < 1e-6


def test_samples_depend_on_seed_and_index_only():
    f, u = poisson(4, size=9, seed=3)
    again = poisson(2, size=9, seed=3, first=2)
    assert np.array_equal(f[2:], again[0]) and np.array_equal(u[2:], again[1])
    assert np.array_equal(heat(3, frames=2, size=9)[1:], heat(2, frames=2, size=9, first=1))
    assert np.abs(f[:, :, 0]).min() > 0  # the forcing does not vanish on the boundary


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: solve_poisson(np.zeros((2, 9))), r"both at least 3; got \(2, 9\)"),
        (lambda: solve_poisson(np.full((9, 9), np.nan)), "forcing must be finite"),
        (lambda: poisson(2, size=4), "size must be an integer >= 5"),
        (lambda: heat(2, interval=0.0), "need interval > 0"),
        (lambda: heat(0), "trajectories must be an integer >= 1"),
    ],
)
def test_bad_requests(call, message):
    with pytest.raises(ValueError, match=message):
        call()
