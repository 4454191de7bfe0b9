import math

import pytest
import torch

from multiresnet.embeddings import Conditioning, sinusoids


def test_sinusoids_are_those_of_the_transformer():
    t, channels = torch.tensor([0.0, 1.0, 7.5]), 6
    y = sinusoids(t, channels, max_period=100.0)
    for n, time in enumerate(t.tolist()):
        frequencies = [1.0, 0.1, 0.01]  # 1 ... 1 / max_period, geometric
        expected = [math.cos(f * time) for f in frequencies] + [math.sin(f * time) for f in frequencies]
        torch.testing.assert_close(y[n], torch.tensor(expected))
    assert sinusoids(t, 5).shape == (3, 5) and not sinusoids(t, 5)[:, -1].any()


def test_the_embedding_is_the_sum_of_its_parts():
    torch.manual_seed(0)
    module = Conditioning(8, noise=True, parameters=2, classes=3).double()
    noise, parameters, label = torch.rand(4).double(), torch.rand(4, 2).double(), torch.tensor([0, 1, 2, 3])
    linear, table = module.linear, module.table
    hidden = (
        module.noise(sinusoids(noise, 8).double()) + parameters @ linear.weight.T + linear.bias + table.weight[label]
    )
    torch.testing.assert_close(module(noise=noise, parameters=parameters, label=label), module.mlp(hidden))


def test_samples_do_not_see_each_other_and_every_weight_learns():
    module = Conditioning(8, noise=True, parameters=2, classes=1)
    inputs = {"noise": torch.rand(2), "parameters": torch.rand(2, 2), "label": torch.tensor([0, 1])}
    both = module(**inputs)
    torch.testing.assert_close(both[:1], module(**{name: value[:1] for name, value in inputs.items()}))
    both.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in module.parameters())


@pytest.mark.parametrize(
    "inputs, words",
    [
        ({}, "'parameters' is missing"),
        ({"parameters": torch.ones(3, 2), "noise": torch.ones(3)}, "'noise' is unexpected"),
        ({"parameters": torch.ones(3)}, r"must be \(N, 2\), got \(3,\)"),
        ({"parameters": torch.ones(3, 1)}, r"must be \(N, 2\), got \(3, 1\)"),
    ],
)
def test_wrong_conditioning_is_explained(inputs, words):
    with pytest.raises(ValueError, match=words):
        Conditioning(8, parameters=2)(**inputs)


def test_labels_out_of_range_are_explained():
    module = Conditioning(8, classes=10)
    with pytest.raises(ValueError, match=r"0 \.\.\. 9 \(10 for none\), got 3 \.\.\. 11"):
        module(label=torch.tensor([3, 11]))
    with pytest.raises(ValueError, match=r"got -1"):
        module(label=torch.tensor([-1]))


def test_nothing_to_condition_on_is_explained():
    with pytest.raises(ValueError, match="nothing to condition on"):
        Conditioning(8)
