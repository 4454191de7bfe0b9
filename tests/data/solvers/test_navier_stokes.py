import math

import numpy as np
import pytest
import torch

from multiresnet.data import Physics, evolve, navier_stokes, spectral_resample, velocity

INVISCID = Physics(viscosity=0.0, drag=0.0, forcing=0.0)


def grid(n):
    x = torch.arange(n, dtype=torch.float64) * (2 * math.pi / n)
    return x, x[:, None]


def last(w, **options):
    *_, out = evolve(w, **options)
    return out


def ratio(a, b):
    return float((a - b).norm() / b.norm())


def turbulent(n=32, seed=0):
    """Smooth random vorticity of order 1, wavenumbers up to 5."""
    generator = torch.Generator().manual_seed(seed)
    w = spectral_resample(torch.randn(2, 11, 11, dtype=torch.float64, generator=generator), n)
    return w - w.mean((1, 2), keepdim=True)


@pytest.mark.parametrize("viscosity, drag, waves", [(1e-2, 0.0, 1), (5e-4, 0.1, 1), (1e-3, 0.05, 4)])
def test_taylor_green_vortex_decays_exactly(viscosity, drag, waves):
    x, y = grid(64)
    start = 2 * waves * torch.cos(waves * x) * torch.cos(waves * y)
    physics = Physics(viscosity=viscosity, drag=drag, forcing=0.0)
    out = last(start[None], frames=4, interval=0.5, physics=physics)[0]
    exact = start * math.exp(-(2 * viscosity * waves**2 + drag) * 2.0)
    assert ratio(out, exact) <= 1e-6


def test_waves_of_one_length_are_steady_in_every_direction():
    # psi and w are proportional when all |k| agree, so the advection terms cancel: 5 = |(5, 0)| = |(3, 4)|
    x, y = grid(64)
    start = torch.cos(5 * x) + torch.sin(3 * x + 4 * y) + torch.cos(4 * x - 3 * y + 1)
    assert ratio(last(start[None], frames=1, interval=1.0, physics=INVISCID)[0], start) < 1e-12


def test_advection_term_of_two_waves():
    # w = cos x + cos 2y: psi = cos x + cos(2y) / 4, u = -sin(2y) / 2, v = sin x, so dw/dt = -u w_x - v w_y
    x, y = grid(32)
    start = torch.cos(x) + torch.cos(2 * y)
    rate = -torch.sin(2 * y) / 2 * torch.sin(x) + 2 * torch.sin(x) * torch.sin(2 * y)
    dt = 1e-4
    after = last(start[None], frames=1, interval=dt, physics=INVISCID)[0]
    before = last(-start[None], frames=1, interval=dt, physics=INVISCID)[0]  # -w moves backwards in time
    assert ratio((after + before) / (2 * dt), rate) < 1e-6


def test_fourth_order_in_time_on_a_nonlinear_flow():
    physics = [Physics(viscosity=1e-2, forcing=0.05, dt=dt) for dt in (0.1, 0.05, 0.025)]
    a, b, c = (last(turbulent(), frames=1, interval=1.0, physics=p) for p in physics)
    order = math.log2(float((a - b).norm() / (b - c).norm()))
    assert order > 3.5


def test_energy_and_enstrophy_are_conserved_without_viscosity():
    start = turbulent(48)
    out = last(start, frames=4, interval=0.5, physics=Physics(viscosity=0, drag=0, forcing=0, dt=0.01))
    energy = [velocity(w).square().sum(-3).mean((-1, -2)) for w in (start, out)]
    enstrophy = [w.square().mean((-1, -2)) for w in (start, out)]
    assert ratio(out, start) > 0.1  # the flow did move
    torch.testing.assert_close(energy[1], energy[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(enstrophy[1], enstrophy[0], rtol=1e-6, atol=0)


def test_forcing_puts_in_the_stated_power():
    physics = Physics(viscosity=0.0, drag=0.0, forcing=0.03, dt=0.01)
    start = turbulent(48)
    energy = [
        velocity(w).square().sum(-3).mean((-1, -2)) / 2
        for w in (start, last(start, frames=1, interval=1.0, physics=physics))
    ]
    torch.testing.assert_close(energy[1] - energy[0], torch.full((2,), 0.03, dtype=torch.float64), rtol=1e-5, atol=0)


def test_flow_in_a_box_of_another_size_is_the_same_flow_in_other_units():
    scaled = Physics(viscosity=4e-3, drag=0.1, forcing=0.0, length=4 * math.pi)
    plain = Physics(viscosity=1e-3, drag=0.1, forcing=0.0)
    a, b = (last(turbulent(), frames=1, interval=1.0, physics=p) for p in (scaled, plain))
    torch.testing.assert_close(a, b)


def test_velocity_is_divergence_free_and_has_the_vorticity():
    w = turbulent(32)
    u = velocity(w)
    k = torch.fft.fftfreq(32, 1 / 32, dtype=torch.float64)
    dx = lambda f: torch.fft.ifft(1j * k * torch.fft.fft(f)).real  # noqa: E731
    dy = lambda f: dx(f.mT).mT  # noqa: E731
    assert float((dx(u[:, 0]) + dy(u[:, 1])).abs().max()) < 1e-12
    torch.testing.assert_close(dx(u[:, 1]) - dy(u[:, 0]), w)


@pytest.mark.parametrize("size", [8, 15, 32, 33, 48])
def test_resampling_keeps_the_mean_and_the_low_waves(size):
    x, y = grid(32)
    coarse_x, coarse_y = grid(size)
    wave = lambda x, y: 0.7 + torch.cos(3 * x - 2 * y) + torch.sin(y)  # noqa: E731
    torch.testing.assert_close(spectral_resample(wave(x, y), size), wave(coarse_x, coarse_y))


def test_trajectories_follow_from_their_seed_and_index_alone():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    options = {"frames": 3, "size": 16, "spin_up": 0.5}
    many = navier_stokes(10, seed=3, **options)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    np.testing.assert_array_equal(navier_stokes(10, seed=3, **options), many)
    np.testing.assert_array_equal(navier_stokes(1, seed=3, **options), many[:1])
    np.testing.assert_array_equal(navier_stokes(2, seed=3, first=7, **options), many[7:9])
    assert np.abs(navier_stokes(1, seed=4, **options) - many[:1]).max() > 0.1
    assert np.abs(many[0] - many[9]).max() > 0.1


def test_frames_do_not_depend_on_the_time_step_or_the_grid():
    options = {"frames": 2, "size": 32, "spin_up": 0.0}
    smooth = {"viscosity": 5e-3}
    frames = navier_stokes(1, physics=Physics(**smooth), **options)
    finer_time = navier_stokes(1, physics=Physics(dt=0.0125, **smooth), **options)
    finer_space = navier_stokes(1, physics=Physics(resolution=96, **smooth), **options)
    assert np.linalg.norm(finer_time - frames) < 1e-4 * np.linalg.norm(frames)
    assert np.linalg.norm(finer_space - frames) < 1e-2 * np.linalg.norm(frames)


def test_the_flow_is_of_order_one_and_reports_progress():
    calls = []
    out = navier_stokes(2, frames=3, size=16, spin_up=1.0, progress=lambda done, total: calls.append((done, total)))
    assert out.shape == (2, 3, 1, 16, 16) and out.dtype == np.float32
    assert calls == [(done, 10) for done in range(1, 11)]
    assert abs(out.mean()) < 1e-5 and 0.3 < out.std() < 10


@pytest.mark.parametrize(
    "options, words",
    [
        ({"size": 4}, "8 <= size"),
        ({"size": 64, "physics": Physics(resolution=32)}, "resolution=32"),
        ({"size": 8}, "forcing_wavenumber=4 is not resolved by 12 points"),
        ({"trajectories": 0}, "trajectories must be"),
        ({"interval": 0.0}, "interval > 0"),
        ({"seed": -1}, "seed >= 0"),
        ({"size": 16, "physics": Physics(dt=0.5, forcing=5.0)}, r"blew up before time .*Physics\(dt=0.25\)"),
    ],
)
def test_bad_arguments_are_explained(options, words):
    with pytest.raises(ValueError, match=words):
        navier_stokes(**options)


@pytest.mark.parametrize("options", [{"viscosity": -1.0}, {"dt": 0.0}, {"drag": math.nan}, {"length": math.inf}])
def test_physics_refuses_impossible_values(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Physics(**options)


def test_evolve_refuses_a_wrong_shape():
    with pytest.raises(ValueError, match=r"\(B, n, n\)"):
        list(evolve(torch.zeros(8, 8), frames=1, interval=1.0))
