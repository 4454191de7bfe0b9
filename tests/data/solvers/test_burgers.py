import math

import numpy as np
import pytest
import torch

from multiresnet.data.solvers.burgers import BurgersPhysics, burgers, evolve_burgers, random_line


def grid(n):
    return torch.arange(n, dtype=torch.float64) * (2 * math.pi / n)


def last(u, **options):
    *_, out = evolve_burgers(u, **options)
    return out


def cole_hopf(u, viscosity, time):
    """Exact solution for a periodic u (n,) of zero mean on [0, 2 pi): u = -2 viscosity (ln phi)_x, phi_t = viscosity phi_xx."""
    n = len(u)
    k = np.fft.rfftfreq(n, 1 / n)
    potential = np.fft.irfft(np.divide(np.fft.rfft(u), 1j * k, out=np.zeros_like(k, complex), where=k > 0), n)
    phi = np.fft.rfft(np.exp(-potential / (2 * viscosity))) * np.exp(-viscosity * k**2 * time)
    k[-1] = 0 if n % 2 == 0 else k[-1]
    return -2 * viscosity * np.fft.irfft(1j * k * phi, n) / np.fft.irfft(phi, n)


@pytest.mark.parametrize("time", [0.2, 1.0, 3.0])
def test_solutions_are_those_of_cole_and_hopf(time):
    start = random_line(np.random.default_rng(0), 1024, 3)
    out = last(start, frames=1, interval=time, physics=BurgersPhysics(viscosity=0.05))
    exact = cole_hopf(start.numpy(), 0.05, time)
    assert np.abs(exact - start.numpy()).max() > 0.2
    np.testing.assert_allclose(out.numpy(), exact, atol=1e-6)


def test_fourth_order_in_time():
    start, errors = random_line(np.random.default_rng(1), 256, 2), []
    exact = torch.from_numpy(cole_hopf(start.numpy(), 0.1, 1.0))
    for dt in (0.04, 0.02):
        out = last(start, frames=1, interval=1.0, physics=BurgersPhysics(viscosity=0.1, dt=dt))
        errors.append(float((out - exact).abs().max()))
    assert errors[1] < 1e-4 and math.log2(errors[0] / errors[1]) > 3.5


def test_the_mean_stays_and_only_carries_the_waves_along():
    n, c = 128, 2 * math.pi / 4  # a quarter of the box per unit of time
    start = random_line(np.random.default_rng(2), n, 2)
    physics = BurgersPhysics(viscosity=0.2)
    still = last(start, frames=1, interval=1.0, physics=physics)
    carried = last(start + c, frames=1, interval=1.0, physics=physics)
    assert float(carried.mean()) == pytest.approx(c, rel=1e-14)
    torch.testing.assert_close(carried, c + still.roll(n // 4), atol=1e-6, rtol=0)


def test_a_box_of_another_length_is_the_same_in_other_units():
    start = random_line(np.random.default_rng(3), 128, 2)
    plain = last(start, frames=1, interval=0.5, physics=BurgersPhysics(viscosity=0.2))
    scaled = last(3 * start, frames=1, interval=0.5, physics=BurgersPhysics(viscosity=1.8, length=6 * math.pi))
    torch.testing.assert_close(scaled, 3 * plain)


def test_trajectories_follow_from_seed_and_index_bit_for_bit():
    options = {"frames": 3, "size": 64}
    many = burgers(5, seed=3, **options)
    assert many.shape == (5, 3, 1, 64) and many.dtype == np.float32
    np.testing.assert_array_equal(burgers(2, seed=3, first=3, **options), many[3:])
    assert np.abs(burgers(1, seed=4, **options) - many[:1]).max() > 0.1
    assert np.abs(many[0] - many[1]).max() > 0.1
    np.testing.assert_allclose(many[:, 0].std(-1), BurgersPhysics().speed, rtol=1e-5)


def test_frames_are_the_solution_of_cole_and_hopf():
    first, later = burgers(1, frames=2, size=512, interval=0.5)[0, :, 0].astype(np.float64)
    np.testing.assert_allclose(later, cole_hopf(first, 0.05, 0.5), atol=1e-4)


def test_progress_counts_frames():
    calls = []
    burgers(2, frames=2, size=64, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(
    "options, words",
    [
        ({"size": 4}, "8 <= size"),
        ({"size": 64, "physics": BurgersPhysics(resolution=32)}, "resolution=32"),
        ({"size": 8, "physics": BurgersPhysics(waves=11)}, "waves=11"),
        ({"physics": BurgersPhysics(viscosity=1e-3)}, "1024 points do not resolve the solution at time .* raise"),
        ({"trajectories": 0}, "trajectories must be"),
        ({"seed": -1}, "seed >= 0"),
    ],
)
def test_bad_arguments_are_explained(options, words):
    with pytest.raises(ValueError, match=words):
        burgers(**{"trajectories": 1, **options})


@pytest.mark.parametrize("options", [{"viscosity": 0.0}, {"dt": -1.0}, {"length": math.inf}])
def test_physics_refuses_impossible_values(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        BurgersPhysics(**options)
