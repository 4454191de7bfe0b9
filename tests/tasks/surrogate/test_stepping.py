import pytest
import torch
from torch import nn

import multiresnet as mrn
from multiresnet.tasks.resolutions import coarsen
from multiresnet.tasks.standardise import Standardise
from multiresnet.tasks.surrogate.stepping import Stepper, unrolled_loss


class Times(nn.Module):
    """x -> a x."""

    def __init__(self, a):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a, dtype=torch.float64))

    def forward(self, x):
        return self.a * x


def net(**options):
    space = mrn.spaces.Haar(1, "periodic")
    return mrn.MultiResNet(2, 1, space=space, **{"channels": (16, 16, 16), "num_blocks": 1, **options}).double()


def test_the_gradient_of_unrolled_training_is_that_of_the_chain():
    a, x, truth = 0.8, torch.rand(3, 1, 1, 5).double() + 1, torch.rand(3, 4, 1, 5).double() + 1
    model = Times(a)
    loss, error = unrolled_loss(Stepper(model, 1, 1), x, truth)
    loss.backward()
    energy = truth.square().sum((2, 3))  # (B, steps)
    residuals = torch.stack([a**i * x[:, 0] - truth[:, i - 1] for i in range(1, 5)], 1)
    torch.testing.assert_close(loss, (residuals.square().sum((2, 3)) / energy).mean())
    slopes = torch.stack([i * a ** (i - 1) * x[:, 0] for i in range(1, 5)], 1)  # d(a^i x) / da
    torch.testing.assert_close(model.a.grad, (2 * (residuals * slopes).sum((2, 3)) / energy).mean())
    assert error == loss and not error.requires_grad


def test_pushforward_has_no_gradient_through_the_first_steps():
    a, x, truth = 0.8, torch.rand(3, 1, 1, 5).double() + 1, torch.rand(3, 3, 1, 5).double() + 1
    model = Times(a)
    loss, _ = unrolled_loss(Stepper(model, 1, 1), x, truth, skip=2)
    loss.backward()
    energy, given = truth[:, 2].square().sum((1, 2)), a**2 * x[:, 0]
    residual = a * given - truth[:, 2]
    torch.testing.assert_close(loss, (residual.square().sum((1, 2)) / energy).mean())
    torch.testing.assert_close(model.a.grad, (2 * (residual * given).sum((1, 2)) / energy).mean())


def test_several_frames_at_once_feed_back_several():
    class Next(nn.Module):  # the two numbers after the last one
        def forward(self, x):
            return x[:, -1:] + torch.arange(1.0, 3.0).view(-1, 1)

    step = Stepper(Next(), input_steps=3, output_steps=2)
    x = torch.arange(3.0).view(1, 3, 1, 1)
    truth = torch.arange(3.0, 9.0).view(1, 6, 1, 1)
    assert torch.equal(step.rollout(x, 6), truth) and torch.equal(step.rollout(x, 3), truth[:, :3])
    assert unrolled_loss(step, x, truth)[0] == 0


@pytest.mark.parametrize("output_steps", [1, 2])
def test_the_last_frame_is_added_to_every_frame(output_steps):
    model = nn.Conv1d(6, 3 * output_steps, 1)
    history = torch.randn(2, 2, 3, 8)
    step = Stepper(model, 2, output_steps, add_last=True)
    change = model(history.flatten(1, 2)).view(2, output_steps, 3, 8)
    torch.testing.assert_close(step(history), history[:, 1:] + change)


def test_a_frame_added_from_outside_is_that_added_inside():
    """At all resolutions: the task's `add_last` does what the network's `delta` does."""
    inside, outside = net(delta=True), net()
    outside.load_state_dict(inside.state_dict())
    history = torch.randn(2, 2, 1, 21).double()
    ours = Stepper(outside, 2, 1, add_last=True).resolutions(history)
    for y, expected in zip(ours, Stepper(inside, 2, 1).resolutions(history), strict=True):
        torch.testing.assert_close(y, expected)


def test_deep_supervision_adds_up_the_resolutions():
    model = net()
    history, truth = torch.randn(3, 2, 1, 16).double(), torch.randn(3, 1, 1, 16).double()
    loss, error = unrolled_loss(Stepper(model, 2, 1), history, truth, deep_supervision=True)
    outputs = model.forward_resolutions(history.flatten(1, 2))
    assert [y.shape[-1] for y in outputs] == [4, 8, 16]
    energy = truth.square().mean((1, 2, 3))
    parts = [
        ((y - coarsen(model, truth[:, 0], i)).square().mean((1, 2)) / energy).mean() for i, y in enumerate(outputs)
    ]
    torch.testing.assert_close(loss, (parts[0] + 2 * parts[1] + 4 * parts[2]) / 7)
    torch.testing.assert_close(error, parts[2].detach())


def test_nothing_is_fed_back_where_the_target_is_another_field():
    step = Stepper(nn.Conv1d(2, 3, 1), input_steps=1, output_steps=1, channels=3)
    assert step.rollout(torch.zeros(4, 1, 2, 8), 1).shape == (4, 1, 3, 8)
    with pytest.raises(ValueError, match="steps=2: .* cannot be fed back"):
        step.rollout(torch.zeros(4, 1, 2, 8), 2)


def test_standardising_goes_and_comes_back():
    scale = Standardise()
    x = torch.randn(2, 3, 2, 4, 5)
    assert torch.equal(scale(x), x)
    scale.fit_to([1.0, -2.0], [4.0, 0.0])  # a deviation of 0 is left alone
    torch.testing.assert_close(scale(x)[:, :, 0], (x[:, :, 0] - 1) / 4)
    torch.testing.assert_close(scale(x)[:, :, 1], x[:, :, 1] + 2)
    torch.testing.assert_close(scale.inverse(scale(x)), x)
    assert scale.double().mean.dtype == torch.float64 and not scale.state_dict()
