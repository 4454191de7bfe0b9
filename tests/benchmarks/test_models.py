import sys

import pytest
import torch
from multiresnet_bench import models
from torch import nn

import multiresnet as mrn


@pytest.mark.parametrize("name", models.BUILDERS)
def test_every_network_keeps_the_size(name):
    try:
        model = models.build(name, 3, 2, params=200_000)
    except models.MissingPackage as error:
        pytest.skip(str(error))
    with torch.no_grad():
        assert model.eval()(torch.zeros(1, 3, 32, 64)).shape == (1, 2, 32, 64)
    assert mrn.count_macs(model, (32, 32)) > 0


@pytest.mark.parametrize("name", [name for name in models.BUILDERS if not name.startswith("smp-")])
def test_widths_follow_the_budget(name):
    steps = {"monai-segresnet": 0.7, "diffusers-unet": 0.6}  # widths in multiples of 8: the step from one to the next
    close = 0.02 if name in ("multiresnet", "multiresnet-fast", "residual-unet", "residual-unet-fast") else 0.15
    try:
        counts = [mrn.count_parameters(models.build(name, 3, 2, params=params)) for params in (2_000_000, 4_000_000)]
    except models.MissingPackage as error:
        pytest.skip(str(error))
    assert counts == [pytest.approx(params, rel=steps.get(name, close)) for params in (2_000_000, 4_000_000)]
    assert counts[0] < counts[1]


def test_the_paper_layout_at_the_reference_budget():
    built = models.build("residual-unet-paper", 3, 3, params=2_162_067)
    assert mrn.count_parameters(built) == 2_162_067
    assert mrn.count_parameters(models.build("residual-unet-paper", 3, 3)) == 2_162_067


def test_the_fast_pair_has_the_same_decoder_blocks():
    ours, classic = (models.build(f"{name}-fast", 3, 3) for name in ("multiresnet", "residual-unet"))
    blocks = [[str(level.blocks) for level in net.sweeps[0].levels] for net in (ours, classic)]
    assert blocks[0] == blocks[1]
    assert mrn.count_parameters(ours.encoder) == 0 < mrn.count_parameters(classic.encoder)


def test_unknown_name():
    with pytest.raises(
        ValueError, match="unknown model 'multiresnt' .did you mean 'multiresnet'.*package.module:function"
    ):
        models.build("multiresnt", 3, 3)


def own(in_channels, out_channels, *, params):
    return nn.Conv2d(in_channels, params, 1)


def plain(in_channels, out_channels):
    return nn.Conv2d(in_channels, out_channels, 1)


def no_module(in_channels, out_channels):
    return 7


def test_a_network_by_import_path(monkeypatch):
    monkeypatch.setitem(sys.modules, "networks_of_mine", sys.modules[__name__])
    assert models.build("networks_of_mine:own", 3, 2, params=5).out_channels == 5
    assert models.build("networks_of_mine:plain", 3, 2, params=5).out_channels == 2
    with pytest.raises(ValueError, match="returned int, expected a torch.nn.Module"):
        models.build("networks_of_mine:no_module", 3, 2)
    with pytest.raises(ValueError, match="found no model at 'networks_of_mine:absent'"):
        models.build("networks_of_mine:absent", 3, 2)
    with pytest.raises(ValueError, match="found no model at 'absent.module:f'"):
        models.build("absent.module:f", 3, 2)


def test_a_peer_that_is_not_installed_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(models.MissingPackage, match="segmentation-models-pytorch does not import.*pip install"):
        models.build("smp-resnet18", 3, 3)
