"""`Wavelet` against PyWavelets: the same coefficients, without the redundant ones; exact at every size."""

import numpy as np
import pytest
import pywt
import torch

from multiresnet.spaces import Haar, Wavelet
from multiresnet.spaces.filters import filters

ALL = pywt.wavelist(kind="discrete")
SOME = ["haar", "db2", "db3", "db7", "sym4", "coif2", "bior1.3", "bior3.1", "bior4.4", "rbio2.2", "rbio3.1", "dmey"]
NUMPY_MODE = {"periodic": "wrap", "reflect": "reflect", "replicate": "edge", "zeros": "edge"}


def by_pywavelets(x, name, rule):
    """`(averages, details)` along the last axis: PyWavelets on a signal that numpy has extended, those over the signal."""
    wavelet, found = pywt.Wavelet(name), filters(name, (rule, rule))
    bands = []
    for band, offset in enumerate(found.offsets):
        margin = 4 * wavelet.dec_len + (offset + 1) % 2
        extended = np.pad(x, (margin, margin), mode=NUMPY_MODE[rule])
        first = (offset + margin - 1) // 2
        coefficients = pywt.dwt(extended, wavelet, "zero")[band] / np.sqrt(2)
        bands.append(coefficients[first : first + (len(x) + 1 - band) // 2])
    return bands


@pytest.mark.parametrize("rule", NUMPY_MODE)
@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 20, 33, 150])
def test_coefficients_are_those_of_pywavelets(name, rule, size, tolerance):
    x = np.random.default_rng(0).normal(size=size)
    approximation, detail = Wavelet(name, 1, rule).analysis(torch.from_numpy(x).view(1, 1, -1))
    low, high = by_pywavelets(x, name, rule)
    assert np.abs(approximation[0, 0].numpy() - low).max() <= tolerance(torch.float64)
    assert np.abs(detail[0, 0].numpy()[: size // 2] - high).max(initial=0) <= tolerance(torch.float64)
    assert not detail[0, 0, size // 2 :].any()


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("size", [(32,), (16, 20), (8, 16, 12)])
def test_periodic_even_axes_have_the_periodisation_of_pywavelets(name, size, tolerance):
    """Rotated, because filters are aligned by the centre of their energy, and by one sample where their parity differs."""
    x = torch.randn(1, 1, *size, dtype=torch.float64)
    approximation, detail = Wavelet(name, len(size), "periodic").analysis(x)
    found, shifted, wavelet = filters(name, ("periodic", "periodic")), x, pywt.Wavelet(name)
    turn = (found.offsets[0] - wavelet.dec_len // 2) % 2
    for axis in range(len(size)):
        shifted = shifted.roll(-turn, axis + 2)
    theirs = pywt.dwtn(shifted[0, 0].numpy(), wavelet, "periodization")
    bands = torch.cat([approximation, detail], 1)[0]
    assert len(bands) == len(theirs)
    for key, band in zip(sorted(theirs), bands):
        for axis, letter in enumerate(key):
            steps = (found.offsets["ad".index(letter)] - turn - wavelet.dec_len // 2) // 2
            band = band.roll(steps, axis)
        assert np.abs(band.numpy() - theirs[key] * 2 ** (-len(size) / 2)).max() <= tolerance(torch.float64)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("rule", ["periodic", "reflect", "replicate"])
def test_every_wavelet_is_exact_at_odd_and_even_sizes(name, rule):
    space = Wavelet(name, 1, rule)
    for size in (21, 64, 8 * pywt.Wavelet(name).dec_len + 9):
        x = torch.randn(1, 1, size, dtype=torch.float64)
        assert (
            space.synthesis(*space.analysis(x), (size,)) - x
        ).abs().max() <= 1e-8  # PyWavelets' filters have 12 digits


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("rules", [("replicate", "replicate"), ("reflect", "replicate")])
def test_the_transform_is_well_conditioned(name, rules):
    """By aligning the filters: with both in the middle the matrix of `db10` has the condition number 1e4, that of `db30` 1e12."""
    size = 4 * pywt.Wavelet(name).dec_len + 1
    columns = torch.eye(size, dtype=torch.float64).view(size, 1, size)
    approximation, detail = Wavelet(name, 1, [rules]).analysis(columns)
    matrix = torch.cat([approximation, detail[..., : size // 2]], 2)[:, 0]
    assert np.linalg.cond(matrix.numpy()) < 12


@pytest.mark.parametrize("rule", NUMPY_MODE)
@pytest.mark.parametrize("size", [(8,), (6, 10), (4, 2, 8)])
def test_haar_is_haar(rule, size, tolerance):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    ours, haar = Wavelet("haar", len(size), rule), Haar(len(size), rule)
    for a, b in zip(ours.analysis(x), haar.analysis(x), strict=True):
        assert (a - b).abs().max() <= tolerance(x.dtype)


def test_vanishing_moments():
    """Details of db3 do not see polynomials of degree 2."""
    t = torch.linspace(0, 1, 65, dtype=torch.float64)
    _, detail = Wavelet("db3", 1, "replicate").analysis((3 * t**2 - t + 1).view(1, 1, -1))
    assert detail[..., 4:-4].abs().max() < 1e-10
    assert Haar(1).detail(t.square().view(1, 1, -1)).abs().max() > 1e-3


@pytest.mark.parametrize("size", [(7,), (50,), (6, 9)])
def test_derivatives(size):
    space = Wavelet("db2", len(size), "reflect")
    x = torch.randn(1, 1, *size, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: space.synthesis(*(b.sin() for b in space.analysis(x)), size), x)
    assert torch.autograd.gradgradcheck(lambda x: space.project(x).sin(), x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Wavelet("db99"), r"name='db99' is unknown \(did you mean 'db9'\?\)"),
        (lambda: Wavelet("morl"), "name='morl' is unknown"),
        (lambda: Wavelet("db2", 4), "spatial_dims must be 1, 2 or 3, got 4"),
        (lambda: Wavelet("db2", 2, "wrap"), "takes one of periodic, reflect"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
