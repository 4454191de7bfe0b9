"""Against torch's distributions, sums over all values, and counts of samples."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from multiresnet.hvae import Bernoulli, DiscretizedLogisticMixture, Gaussian

VALUES = torch.arange(256, dtype=torch.float64) / 127.5 - 1


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_logistic_probabilities_sum_to_one(scale: float) -> None:
    one = DiscretizedLogisticMixture(1, components=3)
    parameters = scale * random(1, one.num_parameters, 1, 1)
    nats = one.log_prob(parameters.expand(256, -1, -1, -1), VALUES.view(-1, 1, 1, 1))
    torch.testing.assert_close(nats.exp().sum(), torch.tensor(1.0, dtype=torch.float64))
    two = DiscretizedLogisticMixture(2, components=2)
    parameters = scale * random(1, two.num_parameters, 1, 1)
    pairs = torch.cartesian_prod(VALUES, VALUES).view(-1, 2, 1, 1)
    nats = two.log_prob(parameters.expand(len(pairs), -1, -1, -1), pairs)
    torch.testing.assert_close(nats.exp().sum(), torch.tensor(1.0, dtype=torch.float64))


def test_ten_components_of_rgb_have_the_published_parameters() -> None:
    assert DiscretizedLogisticMixture(3).num_parameters == 100


def test_logistic_against_differences_of_the_distribution_function() -> None:
    mixture = DiscretizedLogisticMixture(1, components=1)
    parameters = torch.tensor([0.0, 0.2, -2.0], dtype=torch.float64).view(1, 3, 1, 1)
    x = VALUES[3:-3].view(-1, 1, 1, 1)
    upper, lower = (torch.sigmoid((x - 0.2 + side / 255) * 2.0**0 * torch.e**2) for side in (1, -1))
    found = mixture.log_prob(parameters.expand(len(x), -1, -1, -1), x)
    torch.testing.assert_close(found, (upper - lower).log().flatten(), rtol=1e-9, atol=1e-9)


def test_a_channel_depends_on_those_before_it() -> None:
    """One narrow component whose second mean is tanh(c) times the first channel."""
    mixture = DiscretizedLogisticMixture(2, components=1)
    parameters = torch.tensor([0.0, 0.0, 0.1, -1.0, -7.0, 0.8]).view(1, 6, 1, 1).expand(500, -1, -1, -1)
    x = mixture.sample(parameters, generator=torch.Generator().manual_seed(0))
    inside = (x[:, 1].abs() < 0.99).flatten()
    wanted = 0.1 + torch.tanh(torch.tensor(0.8)) * x[inside, 0]
    assert float((x[inside, 1] - wanted).abs().max()) < 0.03
    assert float(mixture.sample(parameters, temperature=0.0).std(0).max()) == 0


def test_logistic_samples_have_their_probabilities() -> None:
    mixture, n = DiscretizedLogisticMixture(1, components=2), 200_000
    parameters = torch.tensor([0.5, -0.5, -1.5, -0.5, 0.3, -2.0]).view(1, 6, 1, 1)
    x = mixture.sample(parameters.expand(n, -1, -1, -1), generator=torch.Generator().manual_seed(0))
    mixture.check(x)
    counts = torch.bincount(((x + 1) * 127.5).round().long().flatten(), minlength=256).double()
    expected = n * mixture.log_prob(parameters.double().expand(256, -1, -1, -1), VALUES.view(-1, 1, 1, 1)).exp()
    assert float(((counts - expected).square() / expected).sum()) < 256 + 5 * 512**0.5


def test_gradients_are_finite_in_the_tails() -> None:
    mixture = DiscretizedLogisticMixture(1, components=2)
    parameters = torch.tensor([0.0, 50.0, -60.0, 0.0, -50.0, -60.0]).view(1, 6, 1, 1).requires_grad_()
    for value in (-1.0, 1 / 255, 1.0):
        nats = mixture.log_prob(parameters, torch.full((1, 1, 1, 1), value))
        nats.sum().backward()
        assert bool(nats.isfinite().all()) and bool(parameters.grad.isfinite().all())  # type: ignore[union-attr]


def test_bernoulli_against_torch() -> None:
    logits, x = random(4, 2, 3, 3), torch.where(random(4, 2, 3, 3) > 0, 1.0, -1.0).double()
    wanted = -F.binary_cross_entropy_with_logits(logits, (x + 1) / 2, reduction="none").flatten(1).sum(1)
    torch.testing.assert_close(Bernoulli(2).log_prob(logits, x), wanted)
    many = torch.full((100_000, 1, 1, 1), 0.7)
    share = (Bernoulli(1).sample(many, generator=torch.Generator().manual_seed(0)) > 0).float().mean()
    assert float(share) == pytest.approx(float(torch.sigmoid(torch.tensor(0.7))), abs=0.01)


def test_gaussian_against_torch() -> None:
    parameters, x = random(4, 4, 3), random(4, 2, 3)
    normal = torch.distributions.Normal(parameters[:, :2], parameters[:, 2:].exp())
    torch.testing.assert_close(Gaussian(2).log_prob(parameters, x), normal.log_prob(x).flatten(1).sum(1))
    torch.testing.assert_close(Gaussian(2).sample(parameters, temperature=0.0), parameters[:, :2])


def test_values_without_a_probability_are_refused() -> None:
    with pytest.raises(ValueError, match="black and white"):
        Bernoulli(1).check(torch.tensor([0.5]))
    for bad in (0.5, 1.5):
        with pytest.raises(ValueError, match="steps of 2 / 255"):
            DiscretizedLogisticMixture(1).check(torch.tensor([bad]))
    for likelihood in (Bernoulli(1), DiscretizedLogisticMixture(1), Gaussian(1)):
        likelihood.check(likelihood.quantise(torch.linspace(-1, 1, 77)))
    torch.testing.assert_close(DiscretizedLogisticMixture(1).quantise(VALUES), VALUES)
