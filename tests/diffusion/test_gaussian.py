"""Normal images against dense matrices, scipy's transform and the field whose filter is known."""

import math

import pytest
import scipy.fft
import torch

from multiresnet.diffusion import GaussianImages, GaussianPyramid, PrincipalAxes, Stationary, band_energy
from multiresnet.diffusion.gaussian import transform
from multiresnet.graphical import GaussianField
from multiresnet.spaces import Haar

F64 = torch.float64


@pytest.mark.parametrize("size", [(5,), (4, 7), (3, 4, 2)])
def test_transforms_against_scipy(size):
    x = torch.randn(2, 3, *size, dtype=F64)
    axes = list(range(2, x.ndim))
    cosines = transform(x, [False] * len(size))
    assert (cosines - torch.from_numpy(scipy.fft.dctn(x.numpy(), axes=axes, norm="ortho"))).abs().max() < 1e-12
    around = transform(x, [True] * len(size))
    if len(size) == 1:
        modes = torch.fft.fft(x, norm="ortho")
        assert (around - (modes.real - modes.imag)).abs().max() < 1e-12
    for there, periodic in ((cosines, False), (around, True)):
        assert (transform(there, [periodic] * len(size), inverse=True) - x).abs().max() < 1e-12
        assert float(there.square().sum()) == pytest.approx(float(x.square().sum()))


def wiener(mean, dense, x, sigma):
    seen = (x - mean).flatten()
    return mean + (dense @ torch.linalg.solve(dense + sigma**2 * torch.eye(len(dense)).double(), seen)).view_as(x)


@pytest.mark.parametrize("periodic", [(False, False), (True, False)])
def test_stationary_against_dense_matrices(periodic):
    """Two channels that are correlated, 3 x 4 pixels: 24 numbers."""
    torch.manual_seed(0)
    root = torch.randn(3, 4, 2, 2, dtype=F64)
    images = GaussianImages(torch.randn(1, 2, 3, 4, dtype=F64), Stationary(root @ root.mT, periodic))
    unit = torch.eye(24, dtype=F64).view(24, 2, 3, 4)
    modes = torch.einsum("...cd,nd...->nc...", root @ root.mT, transform(unit, periodic))
    dense = transform(modes, periodic, inverse=True).view(24, 24)
    x, sigma = torch.randn(2, 2, 3, 4, dtype=F64), torch.tensor([0.3, 2.0], dtype=F64)
    for n in range(2):
        wanted = wiener(images.means[0], dense, x[n], sigma[n])
        assert (images.denoise(x, sigma)[n] - wanted).abs().max() < 1e-12
    assert torch.equal(images.denoise(x, 2.0)[1], images.denoise(x, sigma)[1])


def test_principal_axes_against_dense_matrices():
    """Classes with means of their own, one covariance within them; guidance moves the mean."""
    torch.manual_seed(0)
    label = torch.arange(90) % 3
    x = torch.randn(90, 2, 3, 4).cumsum(-1).double() + 3 * label.view(-1, 1, 1, 1)
    batches = [{"image": x[:50], "label": label[:50]}, {"image": x[50:], "label": label[50:]}]
    images = GaussianImages.fit(batches)
    means = [x[label == c].mean(0) for c in range(3)]
    within = sum(torch.cov(x[label == c].flatten(1).T, correction=0) for c in range(3)) / 3
    found = images.denoise(x[:3], 0.8, label[:3])
    for c in range(3):
        assert (found[c] - wiener(means[c], within, x[c], 0.8)).abs().max() < 1e-5  # axes are kept in single precision
        guided = x.mean(0) + 2 * (means[c] - x.mean(0))
        assert (
            images.denoise(x[:3], 0.8, label[:3], guidance=2.0)[c] - wiener(guided, within, x[c], 0.8)
        ).abs().max() < 1e-5
    nothing = images.denoise(x[:3], 0.8)
    assert torch.equal(nothing, images.denoise(x[:3], 0.8, torch.full((3,), 3)))
    assert (nothing[1] - wiener(x.mean(0), within, x[1], 0.8)).abs().max() < 1e-5


def test_few_axes_and_a_rest():
    """Beyond 256 axes variances are their mean: exact for a field that is white there."""
    torch.manual_seed(0)
    axes = torch.linalg.qr(torch.randn(400, 400, dtype=F64))[0]
    spread = torch.full((400,), 0.1, dtype=F64)
    spread[:50] = torch.linspace(1, 5, 50)
    x = (torch.randn(20_000, 400, dtype=F64) * spread.sqrt()) @ axes.T
    images = GaussianImages.fit(x.view(-1, 1, 20, 20))
    assert images.covariance.axes.shape == (400, 256)
    dense = axes * spread @ axes.T
    wanted = wiener(torch.zeros(1, 20, 20).double(), dense, x[0].view(1, 20, 20), 0.7)
    assert (images.denoise(x[:1].view(1, 1, 20, 20), 0.7)[0] - wanted).abs().max() < 0.1


def test_fit_is_the_covariance_of_the_modes():
    x = torch.randn(40, 2, 4, 3).cumsum(-1) + 3
    images = GaussianImages.fit([x[:15], x[15:]], stationary=True)
    assert torch.allclose(images.means, x.double().mean(0, keepdim=True))
    modes = transform(x.double(), (False, False))
    for a in range(4):
        for b in range(3):
            wanted = torch.cov(modes[:, :, a, b].T, correction=0)
            assert torch.allclose(images.covariance.covariance[a, b], wanted, atol=1e-10)


def test_large_images_are_stationary():
    assert isinstance(GaussianImages.fit(torch.randn(2, 1, 65, 64)).covariance, Stationary)
    assert isinstance(GaussianImages.fit(torch.randn(2, 1, 8, 8)).covariance, PrincipalAxes)


def test_periodic_fields_have_their_own_filter():
    """Fitted to a stationary field, it is the field's Wiener filter, up to what samples tell."""
    field = GaussianField.power_law((8, 8), exponent=2.0)
    generator = torch.Generator().manual_seed(0)
    x = field.sample(40_000, generator=generator)[:, None]
    images = GaussianImages.fit(x, stationary=True, periodic=(True, True))
    z = field.sample(20, generator=generator) + 0.7 * torch.randn(20, 8, 8, generator=generator)
    wanted = field.denoise(z, noise=0.7)
    assert (images.denoise(z[:, None], 0.7)[:, 0] - wanted).abs().max() < 0.05 * float(wanted.std())


@pytest.mark.parametrize("space", [None, Haar(2, "periodic"), Haar(2, ("periodic", "reflect"))])
def test_pyramid(space):
    x = torch.randn(30, 1, 8, 12).cumsum(-1)
    pyramid = GaussianPyramid.of(iter([x[:10], x[10:]]), halvings=2, space=space, stationary=True)
    periodic = [rule == "periodic" for rule, _ in (space or Haar(2)).sides]
    for images, averages in zip(pyramid.images, (x, *(torch.nn.functional.avg_pool2d(x, n) for n in (2, 4)))):
        wanted = GaussianImages.fit(averages, stationary=True, periodic=periodic)
        assert torch.allclose(images.means, wanted.means, atol=1e-5)
        assert torch.allclose(images.covariance.covariance, wanted.covariance.covariance, atol=1e-4)
        assert images.covariance.periodic == tuple(periodic)
    assert pyramid.energy == pytest.approx(band_energy(x, levels=2)[:2].tolist())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GaussianImages.fit([]), "no images to fit"),
        (lambda: GaussianPyramid.of([], halvings=1), "no images to fit"),
        (lambda: GaussianPyramid.of(torch.zeros(2, 1, 8, 8), halvings=0), "halvings must be"),
        (lambda: GaussianImages.fit(torch.full((1, 1, 4), math.nan)), "must be finite"),
        (lambda: GaussianImages.fit(torch.zeros(1, 1, 4, dtype=torch.uint8)), "floating point images"),
        (lambda: GaussianImages.fit([torch.zeros(1, 1, 4), torch.zeros(1, 1, 5)]), "all of one size"),
        (
            lambda: GaussianImages.fit(torch.zeros(2, 1, 4)).denoise(torch.zeros(1, 1, 5), 1.0),
            r"expected images \(N, 1, 4\)",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
