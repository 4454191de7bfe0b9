import math

import numpy as np
import pytest
import torch

from multiresnet.data.solvers.burgers import random_line
from multiresnet.data.solvers.kuramoto_sivashinsky import (
    KuramotoSivashinskyPhysics,
    evolve_kuramoto_sivashinsky,
    kuramoto_sivashinsky,
)


def last(u, **options):
    *_, out = evolve_kuramoto_sivashinsky(u, **options)
    return out


def state(n=128, seed=0):
    """A developed state on the default length."""
    return last(random_line(np.random.default_rng(seed), n, 3), frames=1, interval=60.0)


@pytest.mark.parametrize("viscosity", [1.0, 0.5])
@pytest.mark.parametrize("waves", [1, 7, 10, 15])
def test_small_waves_grow_or_decay_at_the_linear_rate(waves, viscosity):
    physics = KuramotoSivashinskyPhysics(viscosity=viscosity)
    x = torch.arange(128, dtype=torch.float64) * (physics.length / 128)
    k = 2 * math.pi * waves / physics.length
    out = last(1e-7 * torch.cos(k * x), frames=1, interval=3.0, physics=physics)
    grown = 1e-7 * math.exp(3 * (k**2 - viscosity * k**4)) * torch.cos(k * x)
    assert float((out - grown).abs().max()) < 1e-5 * float(grown.abs().max())


def test_the_mean_is_conserved():
    u = state() + 0.3
    assert float(last(u, frames=1, interval=20.0).mean()) == pytest.approx(float(u.mean()), rel=1e-13)


def test_energy_changes_by_what_the_equation_puts_in_and_takes_out():
    # d/dt mean(u^2) / 2 = mean(u_x^2) - viscosity mean(u_xx^2), integrated with Simpson's rule
    physics = KuramotoSivashinskyPhysics(viscosity=0.8, dt=0.0125)
    start = last(state(), frames=1, interval=1.0, physics=physics)  # without the waves that the solver removes
    frames = [start, *evolve_kuramoto_sivashinsky(start, frames=40, interval=0.025, physics=physics)]
    k = torch.arange(65, dtype=torch.float64) * (2 * math.pi / physics.length)
    rates = []
    for u in frames:
        modes = torch.fft.rfft(u)
        slope, curvature = (torch.fft.irfft(f * modes, n=128) for f in (1j * k, -(k**2)))
        rates.append(float((slope**2).mean() - 0.8 * (curvature**2).mean()))
    put_in = 0.025 / 3 * (rates[0] + 4 * sum(rates[1:-1:2]) + 2 * sum(rates[2:-1:2]) + rates[-1])
    change = float((frames[-1] ** 2).mean() - (start**2).mean()) / 2
    assert abs(change) > 1e-3
    assert change == pytest.approx(put_in, rel=1e-5)


def test_fourth_order_in_time():
    start = state()
    physics = [KuramotoSivashinskyPhysics(dt=dt) for dt in (0.02, 0.01, 0.005)]
    a, b, c = (last(start, frames=1, interval=1.0, physics=p) for p in physics)
    assert math.log2(float((a - b).norm() / (b - c).norm())) > 3.5


def test_shifted_and_mirrored_states_stay_shifted_and_mirrored():
    start = state()
    options = {"frames": 1, "interval": 5.0}
    out = last(start, **options)
    torch.testing.assert_close(last(start.roll(17), **options), out.roll(17), atol=1e-9, rtol=0)
    torch.testing.assert_close(last(-start.flip(0), **options), -out.flip(0), atol=1e-9, rtol=0)


def test_trajectories_are_on_the_attractor_from_the_first_frame():
    u = kuramoto_sivashinsky(4, frames=3, size=96, interval=10.0)
    assert u.shape == (4, 3, 1, 96) and u.dtype == np.float32
    assert np.abs(u.mean(-1)).max() < 1e-5
    # its known amplitude, sqrt(<u^2>) = 1.3 for long boxes
    np.testing.assert_allclose(np.sqrt((u**2).mean((0, 2, 3))), 1.3, rtol=0.15)


def test_trajectories_follow_from_seed_and_index_bit_for_bit():
    options = {"frames": 2, "size": 64, "spin_up": 5.0, "physics": KuramotoSivashinskyPhysics(length=32.0)}
    many = kuramoto_sivashinsky(5, seed=3, **options)
    np.testing.assert_array_equal(kuramoto_sivashinsky(2, seed=3, first=3, **options), many[3:])
    assert np.abs(kuramoto_sivashinsky(1, seed=4, **options) - many[:1]).max() > 0.1
    assert np.abs(many[0] - many[1]).max() > 0.1


def test_progress_counts_frames_and_spin_up():
    calls = []
    options = {"size": 64, "interval": 0.5, "physics": KuramotoSivashinskyPhysics(length=32.0)}
    kuramoto_sivashinsky(1, frames=2, spin_up=1.2, progress=lambda *at: calls.append(at), **options)
    assert calls == [(done, 5) for done in range(1, 6)]


@pytest.mark.parametrize(
    "options, words",
    [
        ({"size": 4}, "8 <= size"),
        ({"size": 64, "physics": KuramotoSivashinskyPhysics(resolution=32)}, "resolution=32"),
        ({"size": 32}, "48 points do not resolve the solution"),
        ({"spin_up": -1.0}, "spin_up >= 0"),
    ],
)
def test_bad_arguments_are_explained(options, words):
    with pytest.raises(ValueError, match=words):
        kuramoto_sivashinsky(1, **options)


@pytest.mark.parametrize("options", [{"viscosity": 0.0}, {"dt": math.nan}])
def test_physics_refuses_impossible_values(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        KuramotoSivashinskyPhysics(**options)
