import math

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from multiresnet.tasks.surrogate.metrics import (
    frame_errors,
    nrmse,
    r_mse,
    relative_l2,
    relative_squared_error,
    vrmse,
)
from multiresnet.tasks.surrogate.spectrum import BANDS, fourier_rmse, power_spectrum, spectrum_error


def frames(*shape):
    return torch.randn(shape, dtype=torch.float64)


def test_relative_errors_by_hand():
    truth, prediction = torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 3.0]])
    torch.testing.assert_close(relative_squared_error(prediction, truth), torch.tensor([1 / 25]))
    truth, prediction = frames(2, 3, 4, 5, 6).numpy(), frames(2, 3, 4, 5, 6).numpy()
    ours = relative_l2(torch.from_numpy(prediction), torch.from_numpy(truth))
    by_frame = [
        [np.linalg.norm((prediction - truth)[b, t]) / np.linalg.norm(truth[b, t]) for t in range(3)] for b in range(2)
    ]
    np.testing.assert_allclose(ours, by_frame)
    with pytest.raises(ValueError, match=r"\(1, 2\) and truth \(1, 3\)"):
        relative_squared_error(torch.ones(1, 2), torch.ones(1, 3))


def test_vrmse_measures_deviations_and_nrmse_values():
    # truth m + a sin, prediction m + (1 + e) a sin: the error is e a sin, the deviation a sin
    sine = torch.sin(2 * math.pi * torch.arange(32, dtype=torch.float64) / 32)
    mean, amplitude, e = torch.tensor([0.0, 7.0, -3.0]), torch.tensor([1.0, 2.0, 50.0]), 0.1
    truth = (mean[:, None] + amplitude[:, None] * sine).expand(2, 4, 3, 32)
    prediction = (mean[:, None] + (1 + e) * amplitude[:, None] * sine).expand_as(truth)
    torch.testing.assert_close(
        vrmse(prediction, truth), torch.full((2, 4, 3), e, dtype=torch.float64), rtol=1e-6, atol=0
    )
    expected = e * amplitude / (2 * mean.square() + amplitude.square()).sqrt()
    torch.testing.assert_close(nrmse(prediction, truth)[0, 0], expected.double())
    scaled = vrmse(5 * prediction - 1, 5 * truth - 1)
    torch.testing.assert_close(scaled, vrmse(prediction, truth), rtol=1e-6, atol=0)
    with pytest.raises(ValueError, match="same shape"):
        vrmse(truth, truth[:1])


def test_vrmse_of_a_constant_frame_is_finite():
    assert vrmse(torch.ones(1, 1, 1, 4), torch.zeros(1, 1, 1, 4), eps=0.25).item() == pytest.approx(2)


def test_r_mse_sums_over_five_steps_and_averages_over_the_rest():
    error = torch.arange(1.0, 7.0).view(1, 6, 1, 1, 1).expand(3, 6, 2, 4, 5)
    torch.testing.assert_close(r_mse(error, torch.zeros_like(error)), torch.full((3,), 1.0 + 4 + 9 + 16 + 25))
    with pytest.raises(ValueError, match="sums over 5 frames, got 4"):
        r_mse(error[:, :4], error[:, :4])


# ---- spectra -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(15,), (12, 9), (4, 5, 6)])
@pytest.mark.parametrize("boundary", ["periodic", "reflect", "mixed"])
def test_shells_hold_all_the_energy(size, boundary):
    boundary = ["periodic", ("zeros", "replicate"), "periodic"][: len(size)] if boundary == "mixed" else boundary
    x = frames(2, 3, *size)
    spectrum = power_spectrum(x, spatial_dims=len(size), boundary=boundary)
    torch.testing.assert_close(spectrum.sum(-1), x.flatten(2).square().mean(-1))


def test_a_wave_lies_in_its_shell():
    i, j = torch.meshgrid(torch.arange(32.0), torch.arange(24.0), indexing="ij")
    wave = 2 * torch.cos(2 * math.pi * (3 * i / 32 + 4 * j / 24)) + 1  # |k| = 5
    spectrum = power_spectrum(wave, spatial_dims=2)
    expected = torch.zeros(len(spectrum))
    expected[0], expected[5] = 1, 2
    torch.testing.assert_close(spectrum, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(16,), (7,), (9, 10)])
def test_walls_take_the_cosine_transform_of_scipy(size):
    x = frames(*size)
    energy = dctn(x.numpy(), norm="ortho") ** 2 / math.prod(size)
    k = np.sqrt(sum((np.arange(n) / 2).reshape(-1, *(1,) * (len(size) - a - 1)) ** 2 for a, n in enumerate(size)))
    expected = np.bincount(np.floor(k + 1e-9).astype(int).ravel(), weights=energy.ravel())
    np.testing.assert_allclose(power_spectrum(x, spatial_dims=len(size), boundary="replicate"), expected, atol=1e-14)


def test_a_ramp_between_walls_has_no_leakage():
    ramp = torch.linspace(-1, 1, 64, dtype=torch.float64)
    high = [power_spectrum(ramp, spatial_dims=1, boundary=b)[13:].sum() for b in ("reflect", "periodic")]
    assert high[0] < 1e-3 * high[1]  # the periodic one sees a jump


def test_bands_are_those_of_pdebench():
    assert BANDS == {"low": (0, 5), "mid": (5, 13), "high": (13, None)}
    x = torch.arange(64, dtype=torch.float64) / 64
    amplitudes = {"low": (4, 1.0), "mid": (12, 0.5), "high": (13, 0.25)}  # wavenumbers at the borders
    waves = {band: a * torch.cos(2 * math.pi * k * x) for band, (k, a) in amplitudes.items()}
    truth = sum(waves.values())
    for band, wave in waves.items():
        # the wave 1.2 times as high: its energy 1.44 times; the same wave shifted: no error of the energy
        error = spectrum_error(truth + 0.2 * wave, truth, spatial_dims=1)
        assert {b: round(v.item(), 9) for b, v in error.items()} == {b: 0.44 * (b == band) for b in BANDS}
        rmse = fourier_rmse(truth + 0.2 * wave, truth, spatial_dims=1)
        expected = {b: 0.2 * amplitudes[b][1] / math.sqrt(2) * (b == band) for b in BANDS}
        assert {b: v.item() for b, v in rmse.items()} == pytest.approx(expected, abs=1e-12)
    shifted = spectrum_error(truth.roll(5), truth, spatial_dims=1)
    assert max(value.item() for value in shifted.values()) < 1e-12
    assert fourier_rmse(truth.roll(5), truth, spatial_dims=1)["low"] > 0.1


@pytest.mark.parametrize("boundary", ["periodic", "zeros"])
def test_the_bands_of_the_error_sum_to_the_mse(boundary):
    prediction, truth = frames(2, 3, 1, 30, 28), frames(2, 3, 1, 30, 28)
    bands = fourier_rmse(prediction, truth, spatial_dims=2, boundary=boundary)
    torch.testing.assert_close(
        sum(value.square() for value in bands.values()), (prediction - truth).square().mean((-1, -2))
    )


def test_a_small_grid_has_no_high_band():
    assert set(spectrum_error(frames(1, 8), frames(1, 8), spatial_dims=1)) == {"low"}
    assert set(fourier_rmse(frames(1, 16), frames(1, 16), spatial_dims=1)) == {"low", "mid"}


def test_half_precision_frames_have_spectra():
    x = torch.randn(1, 8, 8).bfloat16()
    torch.testing.assert_close(power_spectrum(x, spatial_dims=2).sum(-1), x.float().square().mean((1, 2)))


def test_all_errors_of_frames_are_those_of_the_functions():
    prediction, truth = frames(2, 3, 2, 32), frames(2, 3, 2, 32)
    errors = frame_errors(prediction, truth, boundary="periodic", units=lambda x: 2 * x + 10)
    assert {tuple(value.shape) for value in errors.values()} == {(2, 3)}
    torch.testing.assert_close(errors["nrmse"], nrmse(2 * prediction + 10, 2 * truth + 10).mean(-1))
    torch.testing.assert_close(errors["vrmse"], vrmse(prediction, truth).mean(-1))
    torch.testing.assert_close(errors["rel_l2"], relative_l2(prediction, truth))
    high = fourier_rmse(prediction, truth, spatial_dims=1)["high"].mean(-1)
    torch.testing.assert_close(errors["frmse_high"], high)
    names = {"rel_l2", "nrmse", "vrmse"} | {f"{kind}_{band}" for kind in ("spectrum", "frmse") for band in BANDS}
    assert set(errors) == names
