"""Under `DistributedDataParallel`, which refuses a second step when a parameter of the first one had no gradient."""

import importlib

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel


@pytest.fixture
def group(tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def two_steps(net, *inputs):
    parallel = DistributedDataParallel(net)
    for _ in range(2):
        y = parallel(*inputs)
        sum(part.square().mean() for part in (y if isinstance(y, (list, tuple)) else [y])).backward()


def test_an_unused_parameter_is_refused(group):
    net = nn.Conv2d(1, 1, 1)
    net.unused = nn.Parameter(torch.zeros(1))
    with pytest.raises(RuntimeError, match="Expected to have finished reduction"):
        two_steps(net, torch.randn(1, 1, 4, 4))


def smp_unet(adapter):
    return importlib.import_module("segmentation_models_pytorch").Unet("haar", encoder_weights=None), 64


def smp_multiresnet(adapter):
    return adapter.MultiResNet(decoder_channels=(8, 8, 8, 8, 8)), 45


def smp_with_labels(adapter):
    return adapter.MultiResNet(decoder_channels=(8, 8, 8, 8, 8), aux_params={"classes": 2}), 45


def timm_features(adapter):
    return importlib.import_module("timm").create_model("multiresnet_small", features_only=True), 45


def timm_classifier(adapter):
    return importlib.import_module("timm").create_model("multiresnet_small", num_classes=5), 45


def monai_net(adapter):
    return adapter.MultiResNet(2, 3, 1, channels=(8, 8)), 45


def monai_backbone(adapter):
    return importlib.import_module("monai.networks.nets").FlexibleUNet(3, 1, "haar_2d_c3"), 64


def the_well(adapter):
    return adapter.WellMultiResNet(3, 1, 2, (45, 45), init_features=8), 45


def neuraloperator(adapter):
    pytest.importorskip("neuralop")
    return adapter.neuralop_class()(3, 1, hidden_channels=8), 45


CASES = [
    ("smp", smp_unet),
    ("smp", smp_multiresnet),
    ("smp", smp_with_labels),
    ("timm", timm_features),
    ("timm", timm_classifier),
    ("monai", monai_net),
    ("monai", monai_backbone),
    ("pde", the_well),
    ("pde", neuraloperator),
]


@pytest.mark.parametrize(("host", "build"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_every_parameter_takes_part(group, host, build):
    adapter = importlib.import_module(f"multiresnet.integrations.{host}")
    net, size = build(adapter)
    two_steps(net, torch.randn(2, 3, size, size))


@pytest.mark.parametrize("conditional", [False, True])
def test_every_parameter_of_the_diffusers_models_takes_part(group, conditional):
    adapter = importlib.import_module("multiresnet.integrations.diffusers")
    layout = {"sample_size": 17, "block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4}
    net = (adapter.MultiResNet2DConditionModel if conditional else adapter.MultiResNet2DModel)(
        **layout, **({"cross_attention_dim": 6} if conditional else {})
    )
    x, t = torch.randn(2, net.config.in_channels, 17, 17), torch.tensor([3, 500])
    inputs = (x, t, torch.randn(2, 4, 6)) if conditional else (x, t)
    parallel = DistributedDataParallel(net)
    for _ in range(2):
        parallel(*inputs).sample.square().mean().backward()
