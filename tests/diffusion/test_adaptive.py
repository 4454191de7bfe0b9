"""Sampling at several resolutions: exact on normal images, where the whole answer is known; and its wiring to networks."""

import math

import diffusers
import pytest
import torch
import torch.nn.functional as F

import multiresnet as mrn
from multiresnet.diffusion import AdaptiveResolutionSampler, GaussianPyramid, band_energy, denoise_coarse
from multiresnet.graphical import GaussianField
from multiresnet.spaces import Haar
from multiresnet.tasks import DiffusionTask
from multiresnet.tasks.diffusion.samplers import draw, make_scheduler

PERIODIC = Haar(2, "periodic")


@pytest.fixture(scope="module")
def field():
    """32 x 32 with the spectrum of turbulence, as images of standard deviation 1/2; its averages; and the pyramid of samples."""
    fields = [GaussianField.power_law((32, 32), exponent=3.0)]
    for _ in range(3):
        fields.append(fields[-1].pooled())
    x = 0.5 * fields[0].sample(3000, generator=torch.Generator().manual_seed(0))[:, None]
    return fields, GaussianPyramid.of(x, halvings=3, space=PERIODIC, stationary=True)


def best(fields, k):
    """The denoiser of the field after k halvings, in closed form."""
    return lambda x, sigma: 0.5 * fields[k].denoise(x[:, 0], noise=float(sigma[0]), scale=0.5)[:, None]


def normal_of(pyramid):
    return lambda k, x, sigma: pyramid.images[k].denoise(x, sigma)


def shrunk(coarse, x, sigma, energy):
    """Details one by one, S / (S + sigma^2): what one would try first."""
    details = []
    for level in range(len(energy)):
        x, detail = PERIODIC.analysis(x, level)
        details.append(detail)
    y = coarse(x, sigma / 2 ** len(energy))
    for level in reversed(range(len(energy))):
        gain = energy[level] / (energy[level] + float(sigma[0]) ** 2)
        y = PERIODIC.synthesis(y, gain * details[level], [2 * n for n in y.shape[2:]], level)
    return y


def drawn(fields, pyramid, snr, *, naive=False, steps=30):
    """Band energies of 500 samples, and the cost in cells that denoisers of a resolution looked at."""
    cells = []

    def denoise(x, sigma):
        k = sum(energy < snr * float(sigma[0]) ** 2 for energy in pyramid.energy)
        cells.append(0.25**k)
        if k == 0:
            return best(fields, 0)(x, sigma)
        if naive:
            return shrunk(best(fields, k), x, sigma, pyramid.energy[:k])
        return denoise_coarse(best(fields, k), normal_of(pyramid), x, sigma, space=PERIODIC, halvings=k)

    scheduler = make_scheduler("dpm-solver++", schedule="cosine", limits=(0.01, 80.0))
    noise = torch.randn(500, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    x = draw(denoise, scheduler, noise, steps=steps)
    return band_energy(x, levels=3), sum(cells) / len(cells)


def test_no_band_is_biased_at_half_the_cost(field):
    """Against the whole denoiser on the same noise; shrinking the details one by one loses a fifth."""
    whole, cost = drawn(*field, snr=0.0)
    assert cost == 1.0
    for snr in (0.1, 0.5, 1.0):
        found, cost = drawn(*field, snr=snr)
        print(f"snr {snr}: cost {cost:.2f}, bias of the bands {(found / whole - 1).tolist()}")
        assert cost < 0.5
        assert (found / whole - 1).abs().max() < 0.01
    naive, _ = drawn(*field, snr=0.5, naive=True)
    assert (naive / whole - 1).min() < -0.2


def test_exact_where_the_coarse_stage_knows_nothing_better(field):
    _, pyramid = field
    x, sigma = torch.randn(3, 1, 32, 32), torch.full((3,), 2.0)
    for k in (1, 2, 3):
        found = denoise_coarse(pyramid.images[k].denoise, normal_of(pyramid), x, sigma, space=PERIODIC, halvings=k)
        assert torch.allclose(found, pyramid.images[0].denoise(x, sigma), atol=1e-6)


def test_averages_are_those_of_the_coarse_stage():
    """Whatever it says: the answer's averages differ from its own by what W and W_k differ in, and from nothing else."""
    pyramid = GaussianPyramid.of(torch.randn(64, 1, 7, 9).cumsum(-1), halvings=2)
    space, x, sigma = Haar(2), torch.randn(2, 1, 7, 9), torch.full((2,), 1.5)
    said = torch.randn(2, 1, 2, 3)
    found = denoise_coarse(lambda *_: said, normal_of(pyramid), x, sigma, space=space, halvings=2)
    pooled = space.project(space.project(x), 1)
    wanted = said - pyramid.images[2].denoise(pooled, sigma / 4)
    difference = space.project(space.project(found - pyramid.images[0].denoise(x, sigma)), 1)
    assert torch.allclose(difference, wanted, atol=1e-5)


@pytest.fixture
def task():
    torch.manual_seed(0)
    net = mrn.MultiResNet(1, 1, channels=(16, 16, 16), num_blocks=1, emb_channels=16)
    return DiffusionTask(mrn.testing.randomise(net), emb_channels=16, classes=3)


@pytest.fixture
def pyramid():
    x = torch.randn(64, 1, 16, 16, generator=torch.Generator().manual_seed(0)).cumsum(-1).cumsum(-2)
    label = torch.arange(64) % 3
    x = x / x.std() / 2 + label.view(-1, 1, 1, 1) / 4
    return GaussianPyramid.of([{"image": x, "label": label}], halvings=2)


def test_without_a_threshold_it_is_the_whole_network(task, pyramid):
    sampler = AdaptiveResolutionSampler(task, pyramid, snr=0)
    options = {"size": (1, 16, 16), "steps": 3, "seed": 0}
    assert torch.equal(sampler.sample(2, **options), task.sample(2, **options))
    assert sampler.cost([0.1, 1.0], (16, 16)) == 1.0


def test_a_stage_denoises_averages_as_the_whole_network_does(task):
    """Told the noise of the image, not that of its average, as in training."""
    x, sigma = torch.randn(2, 1, 16, 16), torch.tensor([0.5, 2.0])
    task.denoise(x, sigma)  # builds the conditioning
    emb = task.conditioning(noise=task.levels.condition(sigma), label=torch.full((2,), 3))
    alpha = (1 + sigma**2).rsqrt().view(-1, 1, 1, 1)
    velocity = task.model.forward_resolutions(alpha * x, emb)[-2]
    pooled = F.avg_pool2d(x, 2)
    wanted = alpha * (alpha * pooled - sigma.view(-1, 1, 1, 1) * velocity)
    stage = task.model.num_levels - 2
    assert torch.allclose(task.denoise(pooled, sigma / 2, stage=stage), wanted, atol=1e-5)


@pytest.mark.parametrize("sampler", ["dpm-solver++", "ddim", "edm-heun", "flow"])
def test_coarse_stages_run_where_noise_drowns(task, pyramid, sampler):
    """Grids that the network was shown, step by step, for samplers of every kind."""
    adaptive = AdaptiveResolutionSampler(task, pyramid, snr=0.5)
    seen, asked = [], []
    original = task.denoise

    def watched(x, sigma, *rest, **options):
        seen.append(x.shape[-1])
        return original(x, sigma, *rest, **options)

    task.denoise = watched
    whole = adaptive.denoise

    def noted(x, sigma, *rest, **options):
        asked.append(float(sigma[0]))
        return whole(x, sigma, *rest, **options)

    adaptive.denoise = noted
    given = diffusers.FlowMatchEulerDiscreteScheduler() if sampler == "flow" else sampler
    images = adaptive.sample(2, size=(1, 16, 16), sampler=given, steps=10, label=1, guidance=2.0, seed=0)
    assert images.shape == (2, 1, 16, 16) and images.isfinite().all()
    assert seen == [16 // 2 ** adaptive.halvings(sigma) for sigma in asked]
    assert set(seen) == {4, 8, 16}


def test_switches_follow_the_energies(task, pyramid):
    adaptive = AdaptiveResolutionSampler(task, pyramid, snr=0.25)
    for level, energy in enumerate(pyramid.energy):
        switch = math.sqrt(energy / 0.25)
        assert adaptive.halvings(0.999 * switch) == level
        assert adaptive.halvings(1.001 * switch) >= level + 1
    costs = [adaptive.cost([sigma], (16, 16)) for sigma in (0.01, 3.0, 30.0)]
    assert costs[0] == 1.0 and costs[0] > costs[1] >= costs[2]


def test_guidance_is_that_of_the_stage(task, pyramid):
    adaptive = AdaptiveResolutionSampler(task, pyramid)
    x, label = torch.randn(2, 1, 16, 16), torch.tensor([0, 2])
    without, with_ = adaptive.denoise(x, 30.0), adaptive.denoise(x, 30.0, label)
    guided = adaptive.denoise(x, 30.0, label, guidance=3.0)
    assert adaptive.halvings(30.0) == 2
    assert torch.allclose(guided, without + 3 * (with_ - without), atol=1e-4)


def test_bad_input(task, pyramid):
    with pytest.raises(ValueError, match="network of this package with an output at every resolution, got Linear"):
        AdaptiveResolutionSampler(DiffusionTask(torch.nn.Linear(1, 1)), pyramid)
    one = mrn.MultiResNet.paper(1, 1, hidden_channels=4)
    with pytest.raises(ValueError, match="MultiResNet with one output"):
        AdaptiveResolutionSampler(DiffusionTask(one), pyramid)
    with pytest.raises(ValueError, match="snr must be a number > 0"):
        AdaptiveResolutionSampler(task, pyramid, snr=-1.0)
    with pytest.raises(ValueError, match="one sigma for all images"):
        AdaptiveResolutionSampler(task, pyramid).denoise(torch.zeros(2, 1, 16, 16), torch.tensor([1.0, 2.0]))
