import math

import numpy as np
import pytest
import torch

from multiresnet.data.solvers.shallow_water import ShallowWaterPhysics, evolve_shallow_water, shallow_water

WALLS = ["periodic", "reflect", ("periodic", "reflect"), ("reflect", "periodic")]


def last(state, **options):
    *_, out = evolve_shallow_water(state, **options)
    return out


def random_state(ny, nx, seed=0):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(2, 3, ny, nx, dtype=torch.float64, generator=generator)
    return torch.cat([0.5 + noise[:, :1], noise[:, 1:] - 0.5], 1)


def along_x(h, u, v=None):
    """A state (1, 3, 2, n) that does not vary along y."""
    rows = torch.stack([h, u, torch.zeros_like(h) if v is None else v])
    return rows[None, :, None].expand(1, 3, 2, -1)


def conserved(state):
    h = state[:, :1]
    return torch.cat([h, h * state[:, 1:]], 1).sum((2, 3))


@pytest.mark.parametrize("boundary", WALLS)
def test_a_lake_at_rest_stays_at_rest_exactly(boundary):
    still = torch.tensor([0.7, 0.0, 0.0], dtype=torch.float64)[None, :, None, None].expand(1, 3, 5, 7)
    assert torch.equal(last(still, frames=3, interval=0.1, boundary=boundary), still)


@pytest.mark.parametrize("boundary", WALLS)
def test_mass_is_conserved_to_rounding_also_by_discontinuous_flow(boundary):
    start = random_state(12, 10)
    out = last(start, frames=2, interval=0.5, boundary=boundary)
    before, after = conserved(start), conserved(out)
    assert float((out - start).abs().max()) > 0.1
    torch.testing.assert_close(after[:, 0], before[:, 0], rtol=1e-13, atol=0)
    for axis, component in ((1, 1), (0, 2)):  # walls push the water back, periodic sides do not
        rule = boundary if isinstance(boundary, str) else boundary[axis]
        kept = float((after[:, component] - before[:, component]).abs().max()) < 1e-12
        assert kept == (rule == "periodic")


@pytest.mark.parametrize("boundary, waves", [("periodic", 2.0), ("reflect", 1.5)])
def test_small_waves_oscillate_with_the_gravity_wave_frequency(boundary, waves):
    n, physics = 64, ShallowWaterPhysics(gravity=9.81, length=3.0)
    x = (torch.arange(n, dtype=torch.float64) + 0.5) * (physics.length / n)
    k = 2 * math.pi * waves / physics.length
    shape = torch.cos(k * x)
    start = along_x(0.4 + 1e-5 * shape, 0 * shape)
    period = 2 * math.pi / (k * math.sqrt(9.81 * 0.4))
    for turned in (False, True):  # the same along y, where dx = length / nx must be as before
        state = start[:, [0, 2, 1], :1].expand(1, 3, n, n).mT if turned else start
        frames = evolve_shallow_water(state, frames=8, interval=period / 8, boundary=boundary, physics=physics)
        for eighth, w in enumerate(frames, start=1):
            line = w[0, 0, :, 0] if turned else w[0, 0, 0]
            amplitude = float(((line - 0.4) * shape).mean() / shape.square().mean()) / 1e-5
            assert amplitude == pytest.approx(math.cos(2 * math.pi * eighth / 8), abs=0.02)


def stoker(x, t, left, right, g):
    """Exact depth and velocities after a dam at x = 0 breaks: rarefaction, contact, jump."""
    cl = math.sqrt(g * left)
    low, high = right, left
    for _ in range(100):
        h = (low + high) / 2
        rarefied = 2 * (cl - math.sqrt(g * h))
        pushed = (h - right) * math.sqrt(g / 2 * (h + right) / (h * right))
        low, high = (h, high) if rarefied > pushed else (low, h)
    u = 2 * (cl - math.sqrt(g * h))
    jump = h * u / (h - right)
    s = x / t
    fan = (2 * cl - s) / 3
    depth = np.select([s < -cl, s < u - math.sqrt(g * h), s < jump], [left, fan**2 / g, h], right)
    speed = np.select([s < -cl, s < u - math.sqrt(g * h), s < jump], [0, 2 * (cl + s) / 3, u], 0)
    return depth, speed, u


def test_dam_break_converges_to_the_exact_solution():
    g, left, right, t = 9.81, 2.0, 0.3, 0.05
    physics, errors = ShallowWaterPhysics(gravity=g), []
    for n in (100, 400):
        x = (np.arange(n) + 0.5) / n - 0.5
        start = along_x(*(torch.from_numpy(np.where(x < 0, a, b)) for a, b in ((left, right), (0.0, 0.0), (1.0, -1.0))))
        h, u, v = last(start, frames=1, interval=t, boundary=("periodic", "reflect"), physics=physics)[0, :, 0].numpy()
        depth, speed, contact = stoker(x, t, left, right, g)
        carried = np.where(x < contact * t, 1.0, -1.0)
        errors.append([np.abs(h - depth).mean(), np.abs(u - speed).mean(), np.abs(v - carried).mean()])
        assert h.max() <= left + 1e-3 and h.min() >= right - 1e-3
    coarse, fine = np.array(errors)
    assert (fine < [0.004, 0.012, 0.02]).all()
    # order one for a jump, less for a contact; 4 times as many cells
    assert (coarse[:2] / fine[:2] > 3).all() and coarse[2] / fine[2] > 2


def test_second_order_on_a_wave_that_steepens():
    # a simple wave: u - 2 c is constant, so c moves at u + c = 3 c - 2 c0
    c0, t, errors = 1.0, 0.25, []

    def averages(n, at):
        """Cell averages of h and h u, from 16 points per cell."""
        x = (np.arange(16 * n) + 0.5) / (16 * n)
        start = x.copy()
        for _ in range(60):
            start = x - at * (3 * (c0 + 0.1 * np.sin(2 * np.pi * start)) - 2 * c0)
        c = c0 + 0.1 * np.sin(2 * np.pi * start)
        h, u = c**2, 2 * (c - c0)
        h, m = (a.reshape(n, 16).mean(1) for a in (h, h * u))
        return torch.from_numpy(h), torch.from_numpy(m / h)

    for n in (50, 100, 200):
        out = last(along_x(*averages(n, 0.0)), frames=1, interval=t)[0, :2, 0]
        errors.append(float((out - torch.stack(averages(n, t))).abs().mean()))
    assert errors[-1] < 1e-4
    assert math.log2(errors[0] / errors[1]) > 1.6 and math.log2(errors[1] / errors[2]) > 1.8


def test_walls_are_mirrors():
    # between walls the water moves as in a periodic box of twice the size that is symmetric to start with
    w = random_state(6, 8)
    sign = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)[:, None, None]
    double = torch.cat([w, w.flip(-1) * sign], -1)
    walls = last(w, frames=2, interval=0.2, boundary=("periodic", "reflect"))
    box = last(double, frames=2, interval=0.2, physics=ShallowWaterPhysics(length=2.0))
    torch.testing.assert_close(box[..., :8], walls, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(box[..., 8:].flip(-1) * sign, walls, rtol=1e-12, atol=1e-12)


def test_both_axes_are_treated_alike():
    w = random_state(8, 8)
    turned = w[:, [0, 2, 1]].mT
    out = last(w, frames=1, interval=0.2, boundary=("reflect", "periodic"))
    other = last(turned, frames=1, interval=0.2, boundary=("periodic", "reflect"))
    torch.testing.assert_close(other[:, [0, 2, 1]].mT, out, rtol=1e-12, atol=1e-12)


def test_shear_flow_is_steady():
    v = torch.tensor([1.0, 1.0, -2.0, 0.5, 0.5, 3.0], dtype=torch.float64)
    start = along_x(torch.full((6,), 0.8, dtype=torch.float64), torch.zeros(6, dtype=torch.float64), v)
    torch.testing.assert_close(last(start, frames=1, interval=0.5), start, rtol=1e-15, atol=0)


def test_trajectories_follow_from_seed_and_index_bit_for_bit():
    options = {"frames": 3, "size": 8, "boundary": ("periodic", "reflect")}
    many = shallow_water(5, seed=3, **options)
    assert many.shape == (5, 3, 3, 8, 8) and many.dtype == np.float32
    np.testing.assert_array_equal(shallow_water(2, seed=3, first=3, **options), many[3:])
    assert np.abs(shallow_water(1, seed=4, **options) - many[:1]).max() > 1e-2
    assert np.abs(many[0] - many[1]).max() > 1e-2


@pytest.mark.parametrize("boundary", ["periodic", "reflect"])
def test_the_initial_state_is_what_the_physics_says_on_every_grid(boundary):
    physics = ShallowWaterPhysics(gravity=4.0, depth=2.0, height=0.05, swirl=0.2)
    (frame,) = shallow_water(1, frames=1, size=64, boundary=boundary, physics=physics)[0]
    h, flow = frame[0].astype(np.float64), frame[1:].astype(np.float64)
    assert h.mean() == pytest.approx(2.0, rel=1e-6)
    assert np.log(h).std() == pytest.approx(0.05, rel=0.01)
    assert np.sqrt((flow**2).sum(0).mean()) == pytest.approx(0.2 * math.sqrt(8.0), rel=0.01)
    (coarse,) = shallow_water(1, frames=1, size=16, boundary=boundary, physics=physics)[0]
    averaged = frame.reshape(3, 16, 4, 16, 4).mean((2, 4))
    assert np.abs(coarse - averaged).max() < 0.02 * np.abs(frame - frame.mean((1, 2), keepdims=True)).max()


def test_frames_keep_the_mass_and_converge_with_the_grid():
    frames = shallow_water(1, frames=5, size=16, physics=ShallowWaterPhysics(resolution=64))
    np.testing.assert_allclose(frames[:, :, 0].mean((2, 3)), 1.0, rtol=1e-6)
    finer = shallow_water(1, frames=5, size=16, physics=ShallowWaterPhysics(resolution=128))
    change = finer - finer[:, :1]
    assert np.linalg.norm(frames - finer) < 0.02 * np.linalg.norm(change)


def test_progress_counts_frames():
    calls = []
    shallow_water(2, frames=3, size=4, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 6) for done in range(1, 7)]


@pytest.mark.parametrize(
    "options, words",
    [
        ({"size": 2}, "size >= 4"),
        ({"size": 24, "physics": ShallowWaterPhysics(resolution=32)}, "multiple of it, got 24 and 32"),
        ({"boundary": "zeros"}, 'must be "periodic" or "reflect"'),
        ({"boundary": (("reflect", "zeros"), "periodic")}, "or one of them per axis"),
        ({"frames": 0}, "frames must be"),
        ({"interval": 0.0}, "interval > 0"),
        ({"first": -1}, "first >= 0"),
    ],
)
def test_bad_arguments_are_explained(options, words):
    with pytest.raises(ValueError, match=words):
        shallow_water(1, **options)


@pytest.mark.parametrize("options", [{"depth": 0.0}, {"cfl": 1.5}, {"height": -1.0}, {"gravity": math.nan}])
def test_physics_refuses_impossible_values(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ShallowWaterPhysics(**options)


def test_water_that_runs_out_is_reported():
    generator = torch.Generator().manual_seed(3)
    h = 10 ** (-14 * torch.rand(1, 1, 8, 8, dtype=torch.float64, generator=generator))
    flow = 10 * torch.randn(1, 2, 8, 8, dtype=torch.float64, generator=generator)
    with pytest.raises(ValueError, match="water ran out .* before time 0.2: take a smaller"):
        last(torch.cat([h, flow], 1), frames=1, interval=0.2)
    with pytest.raises(ValueError, match="h must be > 0 everywhere, got 0.0"):
        last(torch.zeros(1, 3, 4, 4), frames=1, interval=0.2)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 2, 8, 8), (1, 3, 8, 1)])
def test_evolve_refuses_a_wrong_shape(shape):
    with pytest.raises(ValueError, match=r"\(B, 3, ny, nx\)"):
        list(evolve_shallow_water(torch.ones(shape), frames=1, interval=1.0))
