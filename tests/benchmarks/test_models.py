import inspect
import sys

import pytest
import torch
from multiresnet_bench import models
from multiresnet_bench.models import Budget
from torch import nn

import multiresnet as mrn
from multiresnet.spaces import Haar
from multiresnet.tasks.diffusion.labels import check_network

OURS = [name for name in models.BUILDERS if name not in models.PEERS]
SCALED = ["multiresnet", "residual-unet-fast", "multiresnet-paper", "residual-unet-paper"]
SCALED += [name for name in models.PEERS if not name.startswith("smp-")]
DENOISERS = (
    "multiresnet",
    "multiresnet-attention",
    "multiresnet-transformer",
    "multiresnet-lean",
    "residual-unet",
    "residual-unet-attention",
    "diffusers-unet",
)


def build(name, *args, **options):
    try:
        return models.build(name, *args, **options)
    except models.MissingPackage as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("size", [(37,), (37, 50)])
def test_ours_take_every_size(name, size):
    model = build(name, 3, 2, space=Haar(len(size), "periodic"))
    with torch.no_grad():
        assert model(torch.zeros(1, 3, *size)).shape == (1, 2, *size)


@pytest.mark.parametrize("name", SCALED)
def test_widths_follow_the_budget(name):
    coarse = {"monai-segresnet": 0.25, "diffusers-unet": 0.2}  # widths in multiples of 4: few to choose from
    exact = name in OURS and not name.endswith("-paper")
    model = build(name, 3, 2, budget=Budget(params=2_000_000))
    assert mrn.count_parameters(model) == pytest.approx(2_000_000, rel=0.02 if exact else coarse.get(name, 0.1))


def weights(seed, *args, **options):
    torch.manual_seed(seed)
    return torch.cat([weight.detach().view(-1) for weight in build(*args, **options).parameters()])


@pytest.mark.parametrize("name", ["multiresnet", "residual-unet-paper", "monai-unet", "neuralop-fno"])
def test_widths_follow_a_budget_of_macs(name):
    at = (32, 32)
    budget = Budget(macs=mrn.count_macs(build(name, 3, 2), at), at=at)
    first, second = (weights(0, name, 3, 2, budget=budget) for _ in range(2))
    assert torch.equal(first, second)
    assert mrn.count_macs(build(name, 3, 2, budget=budget), at) == pytest.approx(budget.macs, rel=0.02)


@pytest.mark.parametrize("budget", [None, Budget(params=100_000)])
@pytest.mark.parametrize("name", ["multiresnet", "residual-unet-paper", "monai-unet", "neuralop-fno"])
def test_weights_depend_on_the_seed_alone(name, budget):
    """Also in the first call, which searches."""
    first, second, other = (weights(seed, name, 4, 3, budget=budget) for seed in (0, 0, 1))
    assert torch.equal(first, second) and not torch.equal(first, other)


class OnlyWithNumbers(nn.Conv1d):
    """Has no shapes on the meta device."""

    def forward(self, x):
        return super().forward(x[..., x.nonzero().numel() :])


def test_a_network_that_needs_numbers_is_counted_on_the_cpu():
    builder = models.scaled(lambda ports, width: OnlyWithNumbers(ports.in_channels, width, 1), 4, 1)
    ports, budget = models.Ports(3, 2, Haar(1)), Budget(macs=3 * 10 * 8, at=(8,))
    first, second = (torch.manual_seed(0) and builder(ports, budget) for _ in range(2))
    assert first.out_channels == 10 and torch.equal(first.weight, second.weight)


def test_a_search_is_made_once(monkeypatch):
    budget = Budget(params=123_456)
    names = ("multiresnet", "multiresnet-paper")
    first = [build(name, 3, 2, budget=budget) for name in names]
    monkeypatch.setattr(mrn, "match_budget", None)
    monkeypatch.setattr(Budget, "cost", None)
    again = [build(name, 3, 2, budget=Budget(params=123_456)) for name in names]
    assert [str(model) for model in first] == [str(model) for model in again]


def test_a_budget_is_of_one_kind():
    with pytest.raises(ValueError, match="give one budget, params or macs; got params=None, macs=None"):
        Budget()
    with pytest.raises(ValueError, match="give one budget"):
        Budget(params=1, macs=1, at=(8, 8))
    with pytest.raises(ValueError, match="needs the spatial size at which it counts"):
        Budget(macs=1)
    with pytest.raises(ValueError, match="params must be an integer >= 1, got 0"):
        Budget(params=0)
    with pytest.raises(ValueError, match=r"counts at \(8,\), the network has 2 spatial dimensions"):
        models.build("multiresnet", 3, 3, budget=Budget(macs=1, at=(8,)))


def test_the_paper_layout_at_the_reference_budget():
    built = models.build("residual-unet-paper", 3, 3, budget=Budget(params=2_162_067))
    assert mrn.count_parameters(built) == 2_162_067
    assert mrn.count_parameters(models.build("residual-unet-paper", 3, 3)) == 2_162_067


def test_the_fast_pair_has_the_same_decoder_blocks():
    ours, classic = (models.build(f"{name}-fast", 3, 3) for name in ("multiresnet", "residual-unet"))
    blocks = [[str(level.blocks) for level in net.sweeps[0].levels] for net in (ours, classic)]
    assert blocks[0] == blocks[1]
    assert mrn.count_parameters(ours.encoder) == 0 < mrn.count_parameters(classic.encoder)


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("name", DENOISERS)
def test_denoisers_learn_under_the_task(name, classes, monkeypatch):
    from multiresnet.tasks import DiffusionTask

    size = (3, 32, 32) if classes else (1, 28, 28)
    budget = Budget(params=100_000) if name in models.PEERS else None
    model = build(name, size[0], size[0], emb_channels=16, classes=classes, budget=budget)
    task = DiffusionTask(model, classes=classes, emb_channels=16, lr=1e-3)
    task.configure_model()
    monkeypatch.setattr(task, "log", lambda *args, **options: None)
    before = [weight.detach().clone() for weight in model.parameters()]
    optimizer = task.configure_optimizers()["optimizer"]
    batch = {"image": torch.rand(2, *size) * 2 - 1} | ({"label": torch.tensor([0, 2])} if classes else {})
    task.training_step(batch, 0).backward()
    optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters()))
    assert mrn.count_macs(model, size[1:]) > 0


@pytest.mark.parametrize("name", ["residual-unet-paper", "smp-resnet18", "monai-unet", "neuralop-fno"])
def test_the_others_take_no_noise_level(name):
    with pytest.raises(models.Unsuitable, match="takes no noise level"):
        models.build(name, 3, 3, emb_channels=16)


def test_diffusers_network_as_the_task_wants_it():
    plain, labelled = (build("diffusers-unet", 1, 1, emb_channels=16, classes=classes) for classes in (0, 3))
    assert check_network(plain, 0, 16, deep=False) == check_network(labelled, 3, 16, deep=False) == 0
    assert list(inspect.signature(labelled.forward).parameters) == ["x", "timestep", "class_labels"]
    x = torch.zeros(2, 1, 20, 20)
    with torch.no_grad():
        unlabelled, last, first = (
            labelled(x, 7, label) for label in (None, torch.tensor([3, 3]), torch.tensor([0, 0]))
        )
        assert torch.equal(unlabelled, last) and not torch.equal(first, last)
        assert torch.equal(plain(x), plain(x, 0)) and not torch.equal(plain(x), plain(x, 500))


def test_unknown_name():
    with pytest.raises(
        ValueError, match="unknown model 'multiresnt' .did you mean 'multiresnet'.*package.module:function"
    ):
        models.build("multiresnt", 3, 3)


def own(in_channels, out_channels, *, params):
    return nn.Conv2d(in_channels, params, 1)


def conditioned(in_channels, out_channels, *, macs, at, space, emb_channels, classes):
    return nn.Bilinear(in_channels * emb_channels, macs + at[0], classes)


def plain(in_channels, out_channels):
    return nn.Conv2d(in_channels, out_channels, 1)


def no_module(in_channels, out_channels):
    return 7


def test_a_network_by_import_path(monkeypatch):
    monkeypatch.setitem(sys.modules, "networks_of_mine", sys.modules[__name__])
    assert models.build("networks_of_mine:own", 3, 2, budget=Budget(params=5)).out_channels == 5
    assert models.build("networks_of_mine:plain", 3, 2, budget=Budget(params=5)).out_channels == 2
    model = models.build(
        "networks_of_mine:conditioned", 3, 2, budget=Budget(macs=5, at=(7, 7)), emb_channels=2, classes=4
    )
    assert model.weight.shape == (4, 6, 12) and model.in_channels == 3
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
