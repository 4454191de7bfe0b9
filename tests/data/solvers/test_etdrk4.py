import math

import pytest
import torch

from multiresnet.data.solvers.etdrk4 import ETDRK4, evolve_line


@pytest.mark.parametrize("rate", [0.0, 1e-9, 1e-3, 0.5, -0.5, -20.0, -1e4])
def test_coefficients_are_the_integrals_of_the_method(rate):
    # int_0^1 exp(rate (1 - s)) (weights of Simpson's points) ds; in closed form the terms cancel near rate 0
    scheme = ETDRK4(torch.tensor([rate]), dt=1.0)
    s = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    decay = torch.exp(rate * (1 - s))
    wanted = {
        "stage": float(torch.exp(rate * (1 - s) / 2).mean()) / 2,
        "first": float((decay * (1 - 3 * s + 2 * s**2)).mean()),
        "middle": float((decay * (2 * s - 2 * s**2)).mean()),
        "last": float((decay * (2 * s**2 - s)).mean()),
    }
    for name, value in wanted.items():
        assert float(getattr(scheme, name)) == pytest.approx(value, abs=1e-9, rel=1e-3 if rate < -1e3 else 1e-6)


@pytest.mark.parametrize("stiffness", [0.0, -1.0, -3.0])
def test_fourth_order_on_a_nonlinear_equation(stiffness):
    # y' = L y - y^2 from y(0) = 1; exact solution of the logistic equation
    start, rate = torch.ones(1, dtype=torch.float64), torch.tensor([stiffness])
    growth = math.exp(stiffness)
    exact = 0.5 if stiffness == 0 else stiffness * growth / (stiffness - 1 + growth)
    errors = []
    for steps in (20, 40):
        scheme, y = ETDRK4(rate, 1 / steps), start
        for _ in range(steps):
            y = scheme.step(y, lambda y: -y.square())
        errors.append(abs(float(y) - exact))
    assert errors[1] < 1e-6 and math.log2(errors[0] / errors[1]) > 3.7


def test_without_a_linear_part_smooth_waves_follow_their_characteristics():
    # u_t + u u_x = 0 before breaking: u(x, t) = u0(x - u t)
    x = torch.arange(128, dtype=torch.float64) * (2 * math.pi / 128)
    (u,) = evolve_line(torch.sin(x), lambda k: 0 * k, frames=1, interval=0.4, length=2 * math.pi, dt=0.01)
    torch.testing.assert_close(u, torch.sin(x - 0.4 * u), atol=1e-7, rtol=0)


def test_waves_whose_products_would_alias_are_removed():
    x = torch.arange(48, dtype=torch.float64) * (2 * math.pi / 48)
    options = {"frames": 1, "interval": 0.1, "length": 2 * math.pi, "dt": 0.01}
    (u,) = evolve_line(torch.cos(16 * x), lambda k: 0 * k, **options)
    assert float(u.abs().max()) < 1e-12
    with pytest.raises(ValueError, match="48 points do not resolve the solution at time 0.1"):
        list(evolve_line(torch.cos(15 * x), lambda k: 0 * k, **options))


def test_time_steps_that_blow_up_are_reported():
    noise = torch.randn(64, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"blew up before time .* smaller dt, e.g. 0.5"):
        list(evolve_line(100 * noise, lambda k: 0 * k, frames=1, interval=50.0, length=1.0, dt=1.0))


@pytest.mark.parametrize(
    "options, words", [({"frames": -1}, "frames >= 0"), ({"interval": 0.0}, "interval must be > 0")]
)
def test_bad_arguments_are_explained(options, words):
    options = {"frames": 1, "interval": 1.0, "length": 1.0, "dt": 0.1} | options
    with pytest.raises(ValueError, match=words):
        list(evolve_line(torch.zeros(16), lambda k: 0 * k, **options))
    with pytest.raises(ValueError, match="n >= 8"):
        list(evolve_line(torch.zeros(4), lambda k: 0 * k, **options))
