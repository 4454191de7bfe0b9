"""Counting, and networks that meet a budget."""

import pytest
import torch
from torch import nn

from multiresnet import MultiResNet, ResidualUNet, count_macs, count_parameters, match_budget
from multiresnet.spaces import Haar

BOTH = [MultiResNet, ResidualUNet]


def test_parameters_of_a_network_by_hand():
    """One level, no patches: lift 3x3, one block of two 3x3, head 3x3."""
    net = MultiResNet(2, 3, channels=(8,), num_blocks=1, patch_levels=0, skip="approximation", norm=None)
    assert count_parameters(net) == (2 * 9 + 1) * 8 + 2 * (8 * 9 + 1) * 8 + (8 * 9 + 1) * 3


def test_macs_of_a_network_by_hand():
    """The same network at 10 x 7; the counter knows products only, so biases are free."""
    net = MultiResNet(2, 3, channels=(8,), num_blocks=1, patch_levels=0, skip="approximation")
    assert count_macs(net, (10, 7)) == 70 * 9 * (2 * 8 + 2 * 8 * 8 + 8 * 3)


def test_macs_in_other_types_and_with_conditioning():
    net = ResidualUNet(1, 1, space=Haar(1), channels=(4, 4), num_blocks=1, emb_channels=3)
    assert count_macs(net.double(), (64,)) == count_macs(net.float(), (64,)) > 0
    assert count_macs(net, (128,)) > 1.9 * count_macs(net, (64,))


@pytest.mark.parametrize("params", [30_000, 500_000, 20_000_000])
@pytest.mark.parametrize("build", BOTH)
def test_parameters_are_met(build, params):
    with torch.device("meta"):
        net = match_budget(build, params=params, in_channels=2, out_channels=1)
    assert abs(count_parameters(net) / params - 1) <= 0.02


@pytest.mark.parametrize("macs", [60_000_000, 1_000_000_000])
@pytest.mark.parametrize("build", BOTH)
def test_macs_are_met(build, macs):
    with torch.device("meta"):
        net = match_budget(build, macs=macs, at=(64, 48), in_channels=2, out_channels=1)
    assert abs(count_macs(net, (64, 48)) / macs - 1) <= 0.02


@pytest.mark.parametrize("build", BOTH)
@pytest.mark.parametrize("budget", [{"params": 400_000}, {"macs": 90_000_000, "at": (64, 64)}])
def test_blocks_are_chosen_at_fixed_widths(build, budget):
    with torch.device("meta"):
        options = {"channels": (16, 24, 40), "num_blocks": (1, 2, 2), "in_channels": 1, "out_channels": 1}
        net = match_budget(build, **budget, vary="num_blocks", **options)
    found = count_macs(net, (64, 64)) if "macs" in budget else count_parameters(net)
    assert abs(found / next(iter(budget.values())) - 1) <= 0.02
    assert net.config["channels"] == (16, 24, 40)


def test_other_options_are_kept_and_widths_stay_fast():
    options = {"channels": (16, 32, 64), "num_blocks": 1, "patch_levels": 2, "delta": True}
    net = match_budget(MultiResNet, params=3_000_000, in_channels=2, out_channels=2, **options)
    assert net.patch_levels == 2 and net.delta
    fine, middle, coarse = net.config["channels"]
    assert 1.7 < middle / fine < 2.3 and 1.7 < coarse / middle < 2.3
    assert {width % 16 for width in (fine, middle, coarse)} == {0}
    assert net(torch.zeros(1, 2, 32, 32)).shape == (1, 2, 32, 32)


def test_a_function_can_be_matched():
    def build(channels, num_blocks=1):
        return nn.Sequential(*(nn.Conv1d(a, b, 1) for a, b in zip(channels, channels[1:], strict=False)))

    net = match_budget(build, params=10_000, channels=(8, 16, 8))
    assert abs(count_parameters(net) / 10_000 - 1) <= 0.02
    with pytest.raises(ValueError, match="no default for channels: pass it"):
        match_budget(build, params=10_000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give one budget, params or macs; got params=None, macs=None"),
        ({"params": 1000, "macs": 1000, "at": (8, 8)}, "give one budget"),
        ({"macs": 1000}, "needs the spatial size at which it counts"),
        ({"params": 0}, "the budget must be >= 1, got 0"),
        ({"params": 10}, "no choice of channels comes within 2% of 10 parameters; the nearest, .*, has"),
        ({"params": 10, "vary": "num_blocks"}, "no choice of num_blocks comes within 2% of 10 parameters"),
        ({"params": 1000, "vary": "depth"}, "vary='depth' is unknown; choose from channels, num_blocks"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        match_budget(MultiResNet, in_channels=1, out_channels=1, **options)
