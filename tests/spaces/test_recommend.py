"""`recommend` knows smooth data from data with jumps."""

import numpy as np
import pytest
import pywt
import torch

from multiresnet.spaces import Haar, recommend


def test_what_haar_loses_is_the_energy_of_its_details():
    x = torch.randn(3, 2, 16, 16, dtype=torch.float64)
    found = recommend(x, depth=2, wavelets=())
    centred = x - x.mean((2, 3), keepdim=True)
    detail, coarse = Haar(2).detail(centred), Haar(2).project(centred)
    first = 3 * detail.square().mean() / centred.square().mean()
    second = first + 3 * Haar(2).detail(coarse).square().mean() / centred.square().mean()
    assert np.allclose(found.lost["haar"], (first, second), rtol=1e-10)


def test_orthogonal_wavelets_lose_what_pywavelets_puts_into_details():
    x = np.random.default_rng(0).normal(size=64).cumsum()
    x -= x.mean()
    coefficients = pywt.wavedec(x, "db4", "periodization", level=3)
    found = recommend(torch.from_numpy(x).view(1, 1, -1), boundary="periodic", depth=1, wavelets=("db4",))
    both = [
        pywt.dwt(np.roll(x, s), "db4", "periodization")[1] for s in (0, 1)
    ]  # the filters are aligned by one sample or none
    lost = [(d**2).sum() / (x**2).sum() for d in both]
    assert min(abs(found.lost["db4"][0] - value) for value in lost) < 1e-12
    assert len(coefficients[-1]) == 32


def test_the_table_and_the_plot():
    import matplotlib.pyplot as plt

    t = torch.linspace(0, 1, 64)
    found = recommend(torch.sin(5 * t[:, None] + 3 * t).expand(2, 1, 64, 64), depth=3)
    assert found.best != "haar" and found.lost[found.best][0] < 0.1 * found.lost["haar"][0]
    lines = str(found).splitlines()
    assert lines[0].split()[-3:] == ["1", "2", "3"] and len(lines) == 1 + len(found.lost)
    assert sum(line.endswith("<") for line in lines) == 1
    figure, ax = plt.subplots()
    found.plot(ax)
    assert len(ax.lines) == len(found.lost)
    plt.close(figure)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (torch.zeros(1, 1, 32), {}, "constant, or not finite"),
        (torch.full((1, 1, 32), torch.nan), {}, "constant, or not finite"),
        (torch.randn(32, 32), {}, r"expected floating \(N, C, \*spatial\)"),
        (torch.ones(1, 1, 32, dtype=torch.int64), {}, "got torch.int64"),
        (torch.randn(1, 1, 32), {"depth": 6}, "needs at least 64 samples on each axis"),
        (torch.randn(1, 1, 32), {"wavelets": ("db99",)}, "name='db99' is unknown"),
    ],
)
def test_bad_input(data, options, message):
    with pytest.raises(ValueError, match=message):
        recommend(data, **options)
