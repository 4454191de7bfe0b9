"""Energies per level against PyWavelets; white noise and series of known decay; the report."""

import dataclasses
import json
import math

import diffusers
import pytest
import pywt
import torch
from matplotlib.figure import Figure

from multiresnet.diffusion import Spectrum, band_energy, crossing_times
from multiresnet.spaces.transform import haar_synthesis

F64 = torch.float64
SIZES = {1: (32,), 2: (16, 24), 3: (8, 16, 8)}


def coefficients(x, levels):
    """By PyWavelets: the details of each level, finest first, then the approximation, each (N, anything)."""
    axes = tuple(range(2, x.ndim))
    approximation, *details = pywt.wavedecn(x.numpy(), "haar", mode="periodization", level=levels, axes=axes)
    bands = [torch.cat([torch.from_numpy(band).flatten(1) for band in level.values()], 1) for level in details[::-1]]
    return [*bands, torch.from_numpy(approximation).flatten(1)]


def haar_series(details, size, *, images, seed=0):
    """White coefficients of energy `details[j]` at level j, 1 for the approximation; a series in the Haar basis."""
    generator = torch.Generator().manual_seed(seed)
    dims = len(size)
    x = torch.randn(images, 1, *[n >> len(details) for n in size], generator=generator, dtype=F64)
    x = x * 2 ** (-dims * len(details) / 2)  # from orthonormal coefficients to means of cells
    for level in reversed(range(len(details))):
        d = torch.randn(images, 2**dims - 1, *x.shape[2:], generator=generator, dtype=F64)
        d = d * details[level] ** 0.5 * 2 ** (-dims * (level + 1) / 2)
        x = haar_synthesis(x, d, [2 * n for n in x.shape[2:]])
    return x


@pytest.mark.parametrize("dims", SIZES)
def test_energy_of_pywavelets_and_parseval(dims):
    x = torch.randn(3, 2, *SIZES[dims], dtype=F64).cumsum(-1) + 0.3
    bands = coefficients(x, 2)
    energy = band_energy(x, levels=2)
    assert energy.dtype == F64 and energy.shape == (3,)
    torch.testing.assert_close(energy, torch.stack([band.square().mean() for band in bands]))
    spectrum = Spectrum.of([x], levels=2)
    assert spectrum.coefficients == tuple(band.shape[1] // 2 for band in bands)
    total = sum(6 * count * value for count, value in zip(spectrum.coefficients, spectrum.energy))
    assert total == pytest.approx(float(x.square().sum()), rel=1e-12)
    assert sum(spectrum.shares) == pytest.approx(1)


def test_levels_and_sides_that_do_not_divide():
    x = torch.randn(2, 1, 29, 31)
    assert len(band_energy(x)) == 4  # 29 -> 14 -> 7 -> 3
    torch.testing.assert_close(band_energy(x), band_energy(x[..., :24, :24], levels=3), rtol=0, atol=0)
    assert Spectrum.of([x]).size == (29, 31) and sum(Spectrum.of([x]).coefficients) == 24 * 24
    assert len(band_energy(torch.randn(1, 1, 2, 9), levels=1)) == 2
    # many small numbers beside a large one: float32 sums would lose them
    x = torch.full((1, 1, 2**20), 1e-4)
    x[..., :2] = 100.0
    approximation = (2 * 100.0**2 + (2**20 - 2) * 1e-8) * 2 / 2**20
    assert float(band_energy(x, levels=1)[1]) == pytest.approx(approximation, rel=1e-7)


@pytest.mark.parametrize("dims", SIZES)
def test_white_noise_is_as_strong_in_every_band(dims):
    """F1: variance sigma^2 in all coefficients, whatever their level."""
    energy = band_energy(0.7 * torch.randn(2000, 1, *SIZES[dims], dtype=F64), levels=2)
    torch.testing.assert_close(energy, torch.full((3,), 0.49, dtype=F64), rtol=0.05, atol=0)
    assert Spectrum.of([torch.randn(2000, 1, *SIZES[dims])], levels=2).decay == pytest.approx(-dims / 2, abs=0.05)


def test_white_noise_stays_white_and_is_added_to_the_coefficients():
    """F1: the coefficients of white noise are uncorrelated, and T(alpha x + sigma eps) = alpha T(x) + sigma T(eps)."""
    white = torch.cat(coefficients(torch.randn(20_000, 1, 4, 4, dtype=F64), 2), 1)
    covariance = white.T @ white / len(white)
    assert (covariance - torch.eye(16, dtype=F64)).abs().max() < 6 / math.sqrt(len(white))

    x, eps = torch.randn(2, 5, 1, 16, 16, dtype=F64)
    x = x.cumsum(-1)
    parts = [torch.cat(coefficients(part, 3), 1) for part in (0.6 * x + 0.8 * eps, x, eps)]
    assert (parts[0] - 0.6 * parts[1] - 0.8 * parts[2]).abs().max() < 1e-13
    # so energies add up, to the mean of the cross term
    clean, noise, both = (band_energy(part, levels=3) for part in (x, eps, 0.6 * x + 0.8 * eps))
    cross = [a * b for a, b in zip(coefficients(x, 3), coefficients(eps, 3))]
    wanted = 0.36 * clean + 0.64 * noise + 0.96 * torch.stack([band.mean() for band in cross])
    torch.testing.assert_close(both, wanted)


@pytest.mark.parametrize(("dims", "smooth"), [(1, 0.5), (2, 0.0), (2, 0.75), (3, 0.3)])
def test_known_decay_is_recovered(dims, smooth):
    """F2: details of energy 2^{j (2 s + d)} at level j, put together by the inverse transform."""
    size = {1: (256,), 2: (32, 32), 3: (16, 16, 16)}[dims]
    details = [0.01 * 2 ** (level * (2 * smooth + dims)) for level in range(3)]
    spectrum = Spectrum.of(haar_series(details, size, images=200).split(50), levels=3)
    assert spectrum.energy[:3] == pytest.approx(details, rel=0.12) and spectrum.images == 200
    assert spectrum.decay == pytest.approx(smooth, abs=0.05)


def test_decay_of_a_hoelder_function_and_of_a_random_walk():
    """F2: a smooth function has s = 1; Brownian motion is Hölder continuous of any exponent < 1/2."""
    t = torch.arange(4096, dtype=F64) / 4096
    assert Spectrum.of([(3 * t).sin()[None, None]], levels=5).decay == pytest.approx(1.0, abs=0.01)
    walks = torch.randn(300, 1, 4096, dtype=F64).cumsum(-1)
    assert Spectrum.of([walks], levels=6).decay == pytest.approx(
        0.5, abs=0.06
    )  # steps of the grid bend the finest level
    assert math.isnan(Spectrum((1.0, 2.0), 1, (8,), 1).decay) and math.isnan(
        Spectrum((0.0, 1.0, 2.0), 1, (8,), 1).decay
    )
    assert Spectrum((0.0, 1.0, 16.0, 2.0), 2, (8, 8), 1).decay == pytest.approx(1.0)  # the two that are known


def test_batches_count_by_their_images():
    x = torch.randn(7, 3, 8, 8) * torch.arange(1, 8).view(7, 1, 1, 1)
    whole, parts = Spectrum.of(x, levels=2), Spectrum.of(iter([x[:1], x[1:6], x[6:]]), levels=2)
    assert parts.energy == pytest.approx(whole.energy, rel=1e-12) and whole == Spectrum.of([x], levels=2)
    assert (parts.images, parts.size, parts.spatial_dims, parts.levels) == (7, (8, 8), 2, 2)


def test_ratios_and_compaction():
    spectrum = Spectrum((0.25, 4.0, 100.0), 2, (8, 8), 10)  # of 48, 12 and 4 coefficients
    assert spectrum.coefficients == (48, 12, 4)
    assert spectrum.snr(2.0).tolist() == [0.0625, 1.0, 25.0]
    assert spectrum.snr(torch.tensor([[1.0], [math.inf]])).tolist() == [[[0.25, 4.0, 100.0]], [[0.0, 0.0, 0.0]]]
    assert spectrum.drowned_at() == (0.5, 2.0, 10.0) and spectrum.drowned_at(4.0) == (0.25, 1.0, 5.0)
    for sigma, place in zip(spectrum.drowned_at(0.3), range(3)):
        assert float(spectrum.snr(sigma)[place]) == pytest.approx(0.3)
    # energies 12, 48 and 400 of 460
    assert spectrum.shares == pytest.approx([12 / 460, 48 / 460, 400 / 460])
    for part, wanted in ((0.5, 4), (400 / 460, 4), (0.9, 16), (0.99, 64), (1.0, 64)):
        assert spectrum.compaction(part) == wanted / 64


def test_json():
    spectrum = Spectrum.of([torch.randn(3, 1, 12, 9)], levels=2)
    assert Spectrum.from_json(spectrum.to_json()) == spectrum
    found = json.loads(spectrum.to_json())
    assert found["size"] == [12, 9] and len(found["energy"]) == 3
    for text, said in (
        ("energy", "not JSON"),
        ("[1, 2]", "got list"),
        ("{}", "got the keys"),
        (json.dumps(found | {"levels": 2}), "levels"),
        (json.dumps(found | {"energy": "high"}), "list of numbers"),
        (json.dumps(found | {"energy": [1.0, None]}), "list of numbers"),
        (json.dumps(found | {"size": [1.5, 2]}), "integers"),
        (json.dumps(found | {"energy": [1.0, -1.0]}), ">= 0"),
        (json.dumps(found | {"images": 0}), "images must be"),
    ):
        with pytest.raises(ValueError, match=said):
            Spectrum.from_json(text)


def test_table():
    spectrum = Spectrum((0.25, 4.0, 1e8), 2, (8, 8), 10)
    plain = spectrum.table().splitlines()
    assert plain[0] == "10 images of 8 x 8" and plain[2].split() == ["0", "2", "48", "0.5", "0.00%", "0.5"]
    assert [line.split()[1] for line in plain[2:5]] == ["2", "4", "4"]
    scheduler = diffusers.DDPMScheduler()
    first, second, never = crossing_times(spectrum, scheduler)
    timed = spectrum.table(scheduler).splitlines()
    assert timed[2].endswith(f" {first} of 1000") and timed[3].endswith(f" {second} of 1000")
    assert never is None and timed[4].endswith(" never")
    assert "grows 16.00-fold" in timed[5] and "smoothness 1.00" in timed[5]


@pytest.mark.parametrize(
    "scheduler",
    [None, diffusers.DDPMScheduler(rescale_betas_zero_snr=True), diffusers.FlowMatchEulerDiscreteScheduler()],
)
def test_plot(scheduler, tmp_path):
    spectrum = Spectrum((0.0, 0.25, 4.0, 100.0), 2, (8, 8), 10)  # one level without energy
    figure = spectrum.plot(scheduler)
    assert isinstance(figure, Figure)
    left, right = figure.axes
    assert left.get_yscale() == right.get_yscale() == "log"
    assert list(left.lines[0].get_ydata()) == [0.25, 4.0, 100.0]
    curves = {line.get_label(): line for line in right.lines if not line.get_label().startswith("_")}
    assert list(curves) == ["0", "1", "2", "average"]
    x, ratio = curves["2"].get_data()
    crossing = spectrum.drowned_at()[2] if scheduler is None else crossing_times(spectrum, scheduler)[2]
    assert x[(ratio > 1).argmin()] == pytest.approx(crossing, rel=0.1 if scheduler is None else 0)
    figure.savefig(tmp_path / "spectrum.png")  # warnings are errors


@pytest.mark.parametrize(
    ("x", "levels", "said"),
    [
        (torch.zeros(4, 8), None, "1 to 3 spatial axes"),
        (torch.zeros(1, 1, 8, 8, 8, 8), None, "1 to 3 spatial axes"),
        (torch.zeros(0, 1, 8, 8), None, "none of them empty"),
        (torch.zeros(1, 1, 3, 8), None, "pass levels=1"),
        (torch.zeros(1, 1, 8, 8), 4, "halved 3 times at most"),
        (torch.zeros(1, 1, 8, 8), 0, "integer >= 1"),
    ],
)
def test_bad_images(x, levels, said):
    with pytest.raises(ValueError, match=said):
        band_energy(x, levels=levels)


def test_bad_spectra():
    with pytest.raises(TypeError, match="floating point"):
        band_energy(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="no batches"):
        Spectrum.of([])
    with pytest.raises(ValueError, match="of one size"):
        Spectrum.of([torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 16)])
    for x in (torch.full((1, 1, 8, 8), math.nan), torch.zeros(1, 1, 8, 8)):
        with pytest.raises(ValueError, match="look for NaN"):
            Spectrum.of([x])
    good = Spectrum((1.0, 2.0), 2, (8, 8), 1)
    for change, said in (
        ({"spatial_dims": 3}, "as many sides"),
        ({"energy": (1.0,)}, "at least one level"),
        ({"energy": (1.0,) * 9}, "halved 3 times at most"),
    ):
        with pytest.raises(ValueError, match=said):
            dataclasses.replace(good, **change)
    with pytest.raises(ValueError, match="part must be"):
        good.compaction(1.5)
    with pytest.raises(ValueError, match="snr must be"):
        good.drowned_at(0.0)
