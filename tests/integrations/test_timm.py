"""timm finds the models, and its wrappers, exporters, savers and smp take them for their own."""

import importlib
import importlib.metadata
import itertools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torch.nn.functional as F
from timm.layers import set_scriptable
from timm.models import group_parameters
from timm.models._hub import save_for_hf
from torch import Tensor, nn
from torch.export import Dim

import multiresnet
import multiresnet.integrations.timm as adapter
from multiresnet import count_saved_bytes
from multiresnet.testing import assert_every_parameter_has_gradient

HAAR = ["haar_pyramid", "haar_pyramid_ll"]
TINY: dict[str, Any] = {"channels": (8, 8, 12, 16), "num_blocks": ((1, 0, 1, 1), (1, 1, 0, 1))}
OPTIONS: dict[str, dict[str, Any]] = {"haar_pyramid": {}, "haar_pyramid_ll": {}, "multiresnet_small": TINY}
SIZES = [(65, 47), (64, 96), (1, 1)]


def create(name: str, **options: Any) -> nn.Module:
    return timm.create_model(name, **{**OPTIONS[name], **options}).eval()


def features(name: str, **options: Any) -> nn.Module:
    return create(name, features_only=True, **options)


def values(y: Any) -> list[Tensor]:
    return list(y.values()) if isinstance(y, dict) else list(y)


class Joined(nn.Module):
    """All features as one tensor."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([y.flatten() for y in self.net(x)])


def test_timm_lists_the_models_under_the_name_of_the_module() -> None:
    names = ["haar_pyramid", "haar_pyramid_ll", "multiresnet_base", "multiresnet_small"]
    assert timm.list_models(module="timm") == names
    assert timm.list_models(names, name_matches_cfg=True) == names
    assert timm.list_models(names, pretrained=True) == []
    assert set(names) < set(adapter.__all__)


@pytest.mark.parametrize("in_chans", [1, 3, 4])
@pytest.mark.parametrize("name", OPTIONS)
def test_feature_info_is_that_of_the_features(name: str, in_chans: int) -> None:
    levels = 4 if name == "multiresnet_small" else 5
    for count in range(1, levels + 1):
        for wanted in itertools.combinations(range(levels), count):
            net = features(name, in_chans=in_chans, out_indices=wanted)
            assert net.feature_info.reduction() == [2 ** (i + 1) for i in wanted]
            for height, width in SIZES if count in (1, levels) else SIZES[:1]:
                shapes = [tuple(y.shape) for y in net(torch.zeros(2, in_chans, height, width))]
                assert shapes == [
                    (2, channels, -(-height // r), -(-width // r))
                    for channels, r in zip(net.feature_info.channels(), net.feature_info.reduction())
                ]


@pytest.mark.parametrize("name", OPTIONS)
def test_negative_and_last_n_indices(name: str) -> None:
    x, all_features = torch.randn(1, 3, 33, 40), features(name)
    expected = all_features(x)
    for indices, chosen in ((2, expected[-2:]), ((-1, 0), [expected[-1], expected[0]])):
        net = features(name, out_indices=indices)
        if OPTIONS[name]:
            net.load_state_dict(all_features.state_dict(), strict=False)
        for y, z in zip(net(x), chosen, strict=True):
            torch.testing.assert_close(y, z)


def test_the_pyramid_is_that_of_average_pooling_and_of_the_core() -> None:
    x = torch.randn(2, 3, 64, 96)
    for i, (plain, full) in enumerate(zip(features("haar_pyramid_ll")(x), features("haar_pyramid")(x))):
        torch.testing.assert_close(plain, F.avg_pool2d(x, 2 ** (i + 1)))
        torch.testing.assert_close(full[:, :3], plain)
        above = F.avg_pool2d(x, 2**i)
        torch.testing.assert_close(full, torch.cat(multiresnet.haar_analysis(above), 1))


def test_features_are_the_states_of_the_core() -> None:
    """The core's own network, with the weights of the backbone, has them in its last sweep; its heads alone differ."""
    net = create("multiresnet_small", num_classes=0)
    core = multiresnet.MultiResNet(3, 1, sweeps=2, **TINY)
    weights = {k.removeprefix("body."): v for k, v in net.state_dict().items() if k.startswith("body.")}
    found = core.load_state_dict(weights, strict=False)
    assert all(key.startswith("heads.") for key in found.missing_keys)
    assert all(key.startswith(("restricts.1.", "norm.")) for key in found.unexpected_keys)
    states: list[Tensor] = []
    core.sweeps[-1].register_forward_hook(lambda module, args, output: states.extend(output))
    x = torch.randn(2, 3, 37, 50)
    core(x)
    for y, z in zip(net.forward_intermediates(x, intermediates_only=True), states[::-1], strict=True):
        torch.testing.assert_close(y, z, rtol=0, atol=0)


@pytest.mark.parametrize("wanted", [(0, 1, 2, 3), (1, 3)])
@pytest.mark.parametrize("name", OPTIONS)
def test_all_wrappers_of_timm_agree(name: str, wanted: tuple[int, ...]) -> None:
    x, found = torch.randn(2, 3, 65, 47), []
    for kind in (None, "getter", "list", "dict", "hook", "fx"):
        torch.manual_seed(0)
        net = features(name, out_indices=wanted, **({"feature_cls": kind} if kind else {}))
        found.append(values(net(x)))
    assert [len(maps) for maps in found] == [len(wanted)] * len(found)
    for maps in found[1:]:
        for y, z in zip(found[0], maps):
            torch.testing.assert_close(y, z)
    by_config = features(name, feature_cfg={"out_indices": wanted, "feature_cls": "list"})
    assert by_config.feature_info.reduction() == [2 ** (i + 1) for i in wanted]


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("name", HAAR)
def test_output_stride_keeps_the_samples_of_the_decimated_pyramid(name: str, stride: int) -> None:
    x = torch.randn(1, 3, 64, 96)
    net = features(name, output_stride=stride)
    assert net.feature_info.reduction() == [min(2 ** (i + 1), stride) for i in range(5)]
    for i, (y, z) in enumerate(zip(net(x), features(name)(x))):
        step = max(2 ** (i + 1) // stride, 1)
        assert y.shape[2] == 64 // min(2 ** (i + 1), stride)
        torch.testing.assert_close(y[..., ::step, ::step], z)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_classifier_and_its_parts(name: str) -> None:
    x = torch.randn(2, 3, 33, 40)
    net = create(name, num_classes=7, global_pool="max", drop_rate=0.5)
    maps = net.forward_features(x)
    pooled = net.forward_head(maps, pre_logits=True)
    assert maps.shape[1] == net.num_features and pooled.shape == (2, net.head_hidden_size)
    torch.testing.assert_close(net.get_classifier()(pooled), net(x))
    assert torch.equal(net(x), net(x)) and not torch.equal(net.train()(x), net(x))  # dropout
    net.eval().reset_classifier(5)
    torch.testing.assert_close(net.forward_head(maps, pre_logits=True), pooled)  # still the maximum
    assert net(x).shape == (2, 5) == (2, net.num_classes)
    net.reset_classifier(0, "avg")
    assert net(x).shape == (2, net.num_features) and isinstance(net.get_classifier(), nn.Identity)
    net.reset_classifier(0, "")
    torch.testing.assert_close(net(x).shape, maps.shape)
    assert net.no_weight_decay() == set()


@pytest.mark.parametrize("name", OPTIONS)
def test_intermediates_come_with_the_features_or_alone_or_early(name: str) -> None:
    net, x = create(name), torch.randn(1, 3, 33, 40)
    final, maps = net.forward_intermediates(x)
    torch.testing.assert_close(final, net.forward_features(x))
    last, early = net.forward_intermediates(x, [2, 1], stop_early=True, norm=True)
    for y, z in zip([last, *early], [maps[2], maps[2], maps[1]], strict=True):
        torch.testing.assert_close(y, z)


def test_stopping_early_computes_no_finer_level() -> None:
    net, ran = create("multiresnet_small"), []
    for level in net.body.sweeps[-1].levels:
        level.register_forward_hook(lambda module, args, output: ran.append(output.shape[1]))
    net.forward_intermediates(torch.randn(1, 3, 32, 32), [2], stop_early=True)
    assert ran == [16, 12]


def test_every_parameter_has_a_gradient() -> None:
    x = torch.randn(2, 3, 35, 42)
    for name in OPTIONS:
        assert_every_parameter_has_gradient(create(name, num_classes=3), x)
    for wanted in [(0,), (1,), (2,), (3,), (0, 3), (0, 1, 2, 3)]:
        assert_every_parameter_has_gradient(Joined(features("multiresnet_small", out_indices=wanted)), x)
    assert not list(features("haar_pyramid").parameters())


def test_gradient_checkpointing_stores_less_and_changes_nothing() -> None:
    x, stored, gradients = torch.randn(2, 3, 64, 64), [], []
    for enable in (False, True):
        torch.manual_seed(0)
        net = Joined(features("multiresnet_small", channels=(16, 16), num_blocks=2)).train()
        net.net.set_grad_checkpointing(enable)
        stored.append(count_saved_bytes(net, x))
        net(x).square().sum().backward()
        gradients.append([parameter.grad for parameter in net.parameters()])
    assert stored[1] < stored[0] / 2
    torch.testing.assert_close(gradients[0], gradients[1])
    with pytest.raises(AssertionError, match="not supported"):
        features("haar_pyramid").set_grad_checkpointing()


def test_groups_of_parameters_follow_the_data() -> None:
    net = create("multiresnet_small")
    order = [
        "body.sweeps.0.levels.0.merge.lift.conv.bias",
        "body.sweeps.0.levels.3.merge.lift.conv.bias",
        "body.restricts.0.mix.0.conv.bias",
        "body.sweeps.1.levels.1.merge.coarse.conv.bias",
        "body.sweeps.1.levels.3.merge.coarse.conv.bias",
        "body.restricts.1.mix.0.conv.bias",
        "fc.bias",
    ]
    for coarse, expected in ((False, [0, 3, 3, 5, 7, 7, 8]), (True, [0, 0, 0, 1, 1, 1, 2])):
        groups = group_parameters(net, net.group_matcher(coarse), reverse=True)
        assert [groups[name] for name in order] == expected


def test_pruning_keeps_the_classifier_only_if_asked() -> None:
    net, x = create("multiresnet_small", num_classes=3), torch.randn(1, 3, 32, 32)
    expected, maps = net(x), net.forward_intermediates(x, intermediates_only=True)
    assert net.prune_intermediate_layers([-1], prune_head=False) == [3]
    torch.testing.assert_close(net(x), expected)
    assert net.prune_intermediate_layers([1, 2]) == [1, 2]
    torch.testing.assert_close(net.forward_features(x), maps[2])
    with pytest.raises(ValueError, match=r"indices=\[0\] are not all among the features \[1, 2\] that pruning left"):
        net.forward_intermediates(x, [0])
    net.reset_classifier(4, "avg")
    assert net(x).shape == (1, 4) and net.num_features == 12


@pytest.mark.parametrize("name", OPTIONS)
def test_saved_for_the_hub_and_read_from_the_folder(name: str, tmp_path: Path) -> None:
    net, x = create(name, num_classes=3, in_chans=4), torch.randn(1, 4, 33, 40)
    save_for_hf(net, tmp_path, safe_serialization=True)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    torch.testing.assert_close(again(x), net(x), rtol=0, atol=0)
    backbone = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, features_only=True).eval()
    for y, z in zip(backbone(x), net.forward_intermediates(x, intermediates_only=True), strict=True):
        torch.testing.assert_close(y, z, rtol=0, atol=0)


def test_weights_for_colours_serve_grey_images(tmp_path: Path) -> None:
    net, x = create("multiresnet_small", num_classes=3), torch.randn(1, 1, 33, 40)
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    source = {"file": str(tmp_path / "weights.pth"), "num_classes": 3}
    grey = create("multiresnet_small", num_classes=3, in_chans=1, pretrained=True, pretrained_cfg_overlay=source)
    torch.testing.assert_close(grey(x), net(x.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("name", OPTIONS)
def test_no_weights_are_published(name: str) -> None:
    with pytest.raises(RuntimeError, match="No pretrained weights exist"):
        create(name, pretrained=True)


@pytest.mark.parametrize("name", OPTIONS)
def test_device_and_type_of_the_parameters(name: str) -> None:
    net = create(name, num_classes=3, device="meta", dtype=torch.float64)
    for _ in range(2):
        assert {(p.device.type, p.dtype) for p in net.parameters()} == {("meta", torch.float64)}
        net.reset_classifier(0)
        net.reset_classifier(3)
    other = create(name, num_classes=3, dtype=torch.float64)
    net.to_empty(device="cpu").load_state_dict(other.state_dict())
    x = torch.randn(1, 3, 16, 17, dtype=torch.float64)
    torch.testing.assert_close(net(x), other(x))
    assert [y.dtype for y in net.bfloat16().forward_intermediates(x.bfloat16())[1]][0] == torch.bfloat16


def scripted(net: nn.Module, x: Tensor) -> Callable[[Tensor], Any]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
        return torch.jit.script(net)


def exported(net: nn.Module, x: Tensor) -> Callable[[Tensor], Any]:
    sizes = {0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO}
    return torch.export.export(net, (x,), dynamic_shapes=(sizes,)).module()


def compiled(net: nn.Module, x: Tensor) -> Callable[[Tensor], Any]:
    return torch.compile(net, fullgraph=True, backend="eager")


def in_onnx(net: nn.Module, x: Tensor) -> Callable[[Tensor], Any]:
    pytest.importorskip("onnxruntime")
    sizes = {0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO}
    with warnings.catch_warnings():
        program = torch.onnx.export(net, (x,), dynamo=True, verbose=False, dynamic_shapes=(sizes,))
    assert program is not None
    return program


slow = pytest.mark.slow  # torch thinks long about sizes that vary
FORMS = [
    *((form, name) for form in (scripted, compiled) for name in ("haar_pyramid_ll", "multiresnet_small")),
    (exported, "haar_pyramid_ll"),
    *(pytest.param(form, "haar_pyramid", marks=slow) for form in (compiled, exported, in_onnx)),
    *(pytest.param(form, "multiresnet_small", marks=slow) for form in (exported, in_onnx)),
]


@pytest.mark.compile
@pytest.mark.parametrize(("form", "name"), FORMS)
def test_features_in_other_forms_serve_other_sizes(form: Callable[..., Callable[[Tensor], Any]], name: str) -> None:
    small = {"channels": (8, 12), "num_blocks": 1} if OPTIONS[name] else {}
    net = features(name, out_indices=(0, 1), **small)
    other = form(net, torch.randn(2, 3, 33, 40))
    for x in (torch.randn(2, 3, 33, 40), torch.randn(3, 3, 50, 27)):
        for y, z in zip(other(x), net(x), strict=True):
            torch.testing.assert_close(y, z, rtol=1e-4, atol=1e-5)


@pytest.mark.compile
@pytest.mark.parametrize("name", OPTIONS)
def test_script_of_the_classifier_and_of_the_graph_of_torch_fx(name: str) -> None:
    x = torch.randn(3, 3, 50, 27)
    with set_scriptable(True):
        net = create(name, num_classes=3)
    torch.testing.assert_close(scripted(net, x)(x), net(x), rtol=1e-4, atol=1e-5)
    graph = features(name, feature_cls="fx")
    for y, z in zip(scripted(graph, x)(x), graph(x), strict=True):
        torch.testing.assert_close(y, z, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("haar_pyramid", {"encoder_depth": 5}),
        ("haar_pyramid_ll", {"encoder_depth": 3, "decoder_channels": (32, 16, 8), "in_channels": 1}),
        ("multiresnet_small", {"encoder_depth": 4, "decoder_channels": (64, 32, 16, 8)}),
    ],
)
def test_as_an_encoder_of_smp(name: str, options: dict[str, Any]) -> None:
    net = smp.Unet(f"tu-{name}", encoder_weights=None, classes=2, **options).train()
    x = torch.randn(2, options.get("in_channels", 3), 64, 96)
    y = net(x)
    assert y.shape == (2, 2, 64, 96)
    y.square().mean().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_dilated_encoder_of_smp() -> None:
    net = smp.DeepLabV3("tu-haar_pyramid", encoder_weights=None, encoder_output_stride=8).eval()
    assert net.encoder(torch.randn(1, 3, 64, 96))[-1].shape == (1, 12, 8, 12)
    assert net(torch.randn(1, 3, 64, 96)).shape == (1, 1, 64, 96)


@pytest.mark.parametrize("name", OPTIONS)
def test_wrong_images_are_named(name: str) -> None:
    for net in (create(name), features(name)):
        for x, message in (
            (torch.zeros(1, 4, 8, 8), "built for in_channels=3, got 4 channels"),
            (torch.zeros(3, 8, 8), "add the batch dimension"),
            (torch.zeros(1, 3, 0, 8), "no samples"),
        ):
            with pytest.raises(ValueError, match=message):
                net(x)
        with pytest.raises(TypeError, match="floating point"):
            net(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_wrong_options_are_named() -> None:
    with pytest.raises(ValueError, match="output_stride must be 8, 16 or 32, got 4"):
        create("haar_pyramid", output_stride=4)
    with pytest.raises(TypeError, match="output_stride"):
        create("multiresnet_small", output_stride=8)
    with pytest.raises(ValueError, match="num_blocks has 2 rows for sweeps=3"):
        create("multiresnet_small", sweeps=3)
    for name in OPTIONS:
        with pytest.raises(TypeError, match="depht"):
            create(name, depht=3)
        with pytest.raises(ValueError, match="must be 'NCHW', got 'NHWC'"):
            create(name).forward_intermediates(torch.zeros(1, 3, 8, 8), output_fmt="NHWC")
        with pytest.raises(AssertionError, match="feature index 9 is out of range"):
            features(name, out_indices=(9,))


def test_an_untested_host_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    host = importlib.import_module("multiresnet.integrations.host")
    monkeypatch.setattr(host, "version", lambda package: "2.0.0")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        importlib.reload(adapter)  # timm warns of each model that is registered again
    assert "timm 2.0.0 lies outside" in str(told[0].message)
