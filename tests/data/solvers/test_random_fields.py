import numpy as np
import pytest

from multiresnet.data.solvers.random_fields import random_field


def draw(waves, points, draws=4000, cutoff=3):
    generator = np.random.default_rng(0)
    return np.stack([random_field(generator, points, waves, lambda k: 1 / k, cutoff=cutoff) for _ in range(draws)])


def test_the_covariance_on_a_periodic_box_is_the_sum_over_its_waves():
    points = (np.array([0.1, 0.3]), np.array([0.0, 0.05, 0.5]))
    fields = draw(("periodic", "periodic"), points)
    ky, kx = np.mgrid[-3:4, -3:4]
    power = np.divide(1.0, kx**2 + ky**2, out=np.zeros((7, 7)), where=kx**2 + ky**2 > 0)
    for i, y in enumerate(points[0]):
        for j, x in enumerate(points[1]):
            exact = (power * np.cos(2 * np.pi * (ky * (y - 0.1) + kx * x))).sum()
            assert (fields[:, 0, 0] * fields[:, i, j]).mean() == pytest.approx(exact, abs=0.06 * power.sum())


def test_waves_fit_their_boundary():
    step, edge = 1e-4, np.array([0.0, 1e-4, 1 - 1e-4, 1.0])
    fields = draw(("odd", "even"), (edge, edge), draws=20)
    assert np.abs(fields[:, [0, -1]]).max() < 1e-12  # vanish at both ends
    slopes = np.diff(fields, axis=-1)[..., [0, -1]] / step
    assert np.abs(slopes).max() < 1e-2 < np.abs(np.diff(fields, axis=1)[:, [0, -1]] / step).max()
    around = draw(("periodic", "periodic"), (edge, edge), draws=20)
    np.testing.assert_allclose(around[:, 0], around[:, -1], atol=1e-12)


def test_means_vanish_and_every_wave_counts_alike():
    s = (np.arange(64) + 0.5) / 64
    for waves in (("periodic", "even"), ("even", "periodic"), ("even", "even")):
        fields = draw(waves, (s, s), draws=400)
        assert np.abs(fields.mean((1, 2))).max() < 1e-12
    along, across = (fields.mean(axis) for axis in (1, 2))  # waves along x alone, along y alone
    expected = (1 / (np.arange(1, 7) / 2) ** 2).sum()
    for part in (along, across):
        assert (part**2).mean() == pytest.approx(expected, rel=0.1)
