"""The network with the signature of MONAI's UNet, and the Haar pyramid as backbone of FlexibleUNet."""

import importlib
import importlib.metadata
import inspect
import warnings

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.inferers import SlidingWindowInferer
from monai.losses import DeepSupervisionLoss, DiceCELoss
from monai.metrics import DiceMetric
from monai.networks.nets import FLEXUNET_BACKBONE, FlexibleUNet, UNet
from monai.networks.utils import convert_to_onnx, convert_to_torchscript, copy_model_state
from torch import nn

import multiresnet
from multiresnet import haar_analysis
from multiresnet.integrations import monai as ours
from multiresnet.integrations.monai import HaarEncoder, MultiResNet
from multiresnet.spaces import Haar
from multiresnet.testing import assert_every_parameter_has_gradient, randomise

TINY = {"channels": (8, 8, 8), "strides": (2, 2), "num_res_units": 1}
SIZES = (33, 26, 17)
TWO_SWEEPS = {"channels": (32, 48, 64, 96), "num_blocks": ((1, 1, 1, 1), (1, 2, 2, 1)), "sweeps": 2}
NORMS = [
    None,
    "",
    "group",
    "LAYER",
    "batch",
    "instance",
    ("instance", {"affine": True}),
    ("group", {"num_groups": 2}),
    ("batch", {"track_running_stats": False}),
    ("localresponse", {"size": 3}),
]


def tiny(spatial_dims=2, **options):
    return randomise(MultiResNet(spatial_dims, 1, 2, **{**TINY, **options}), 0.1)


# --------------------------------------------------------------------------------------------------------------- the words


def test_the_signature_is_that_of_monais_unet():
    names = list(inspect.signature(UNet.__init__).parameters)
    assert list(inspect.signature(MultiResNet.__init__).parameters)[: len(names)] == names


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_without_options_it_is_the_core_network_with_two_sweeps(spatial_dims):
    torch.manual_seed(0)
    net = MultiResNet(spatial_dims, 2, 3)
    torch.manual_seed(0)
    core = multiresnet.MultiResNet(2, 3, space=Haar(spatial_dims), **TWO_SWEEPS)
    assert {f"network.{name}" for name in core.state_dict()} == set(net.state_dict())
    x = torch.randn(1, 2, *SIZES[:spatial_dims])
    assert torch.equal(net(x), core(x))
    assert net.dimensions == spatial_dims


def test_words_reach_the_core():
    torch.manual_seed(0)
    net = MultiResNet(
        3,
        1,
        2,
        (8, 8),
        ((1, 2, 2), 2),
        num_res_units=((1, 0), (2, 1)),
        act=("leakyrelu", {"negative_slope": 0.3, "inplace": True}),
        norm=("group", {"num_groups": 2}),
        patch_levels=2,
        skip="packet",
        boundary="replicate",
    )
    torch.manual_seed(0)
    core = multiresnet.MultiResNet(
        1,
        2,
        space=Haar(3, "replicate", ((1, 2, 2), (2, 2, 2), (2, 2, 2))),
        channels=(8, 8),
        num_blocks=((1, 0), (2, 1)),
        activation=lambda x: nn.functional.leaky_relu(x, 0.3),
        norm=lambda channels: nn.GroupNorm(2, channels),
        patch_levels=2,
        sweeps=2,
        skip="packet",
    )
    x = torch.randn(1, 1, 5, 16, 16)
    assert torch.equal(net(x), core(x))


def test_the_last_stride_stands_for_the_missing_ones():
    strides = MultiResNet(3, 1, 1, (8, 8, 8), ((1, 2, 2), (1, 1, 2))).network.space.strides
    assert strides == ((1, 2, 2), (1, 1, 2), (1, 1, 2))
    assert MultiResNet(2, 1, 1, (8, 8), strides=2).network.space.strides == ((2, 2), (2, 2))


def test_surplus_strides_warn_as_in_monai():
    with pytest.warns(UserWarning, match="last 1 are not used"):
        MultiResNet(2, 1, 1, (8, 8), (2, 2, 2))


def test_parametric_activations_are_not_shared():
    acts = [m for m in tiny(act="PRELU").modules() if isinstance(m, nn.PReLU)]
    assert len({id(act.weight) for act in acts}) == len(acts) == 9  # 2 sweeps of 3 blocks, 3 heads


@pytest.mark.parametrize("norm", NORMS, ids=str)
def test_norms_train(norm):
    net = tiny(norm=norm)
    net(torch.randn(2, 1, 33, 26)).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize(
    "act", ["prelu", "swish", "MISH", ("relu", {"inplace": True}), (nn.LeakyReLU, {}), "elu"], ids=str
)
def test_activations_train(act):
    assert_every_parameter_has_gradient(tiny(act=act, norm=None), torch.randn(2, 1, 16, 16))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": (8,)}, "at least two"),
        ({"strides": (2,)}, "strides has 1 entries for 3 levels"),
        ({"strides": (2, 3)}, "1 or 2"),
        ({"strides": (1, 2)}, "1 or 2"),
        ({"spatial_dims": 4}, "spatial_dims must be 1, 2 or 3"),
        ({"kernel_size": (3, 3, 3)}, "kernel_size"),
        ({"up_kernel_size": 5}, "up_kernel_size"),
        ({"dropout": 0.1}, "dropout=0.1 is not supported: a MultiResNet has dropout=0"),
        ({"bias": False}, "bias"),
        ({"adn_ordering": "AN"}, "adn_ordering"),
        ({"num_res_units": -1}, "num_blocks"),
    ],
    ids=str,
)
def test_what_cannot_be_honoured_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MultiResNet(**{"spatial_dims": 2, "in_channels": 1, "out_channels": 2, **TINY, **options})


def test_what_monai_accepts_without_effect_is_accepted():
    MultiResNet(2, 1, 1, **TINY, kernel_size=[3, 3], up_kernel_size=3, dropout=0.0, bias=True, adn_ordering="NA")


def test_a_typo_names_the_argument():
    with pytest.raises(TypeError, match="did you mean 'num_res_units'"):
        MultiResNet(2, 1, 1, num_res_unit=2)


# ------------------------------------------------------------------------------------------------------------- properties


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_every_parameter_has_a_gradient(spatial_dims):
    assert_every_parameter_has_gradient(tiny(spatial_dims), torch.randn(2, 1, *SIZES[:spatial_dims]))


@pytest.mark.parametrize("size", [(1, 1), (5, 16), (7, 40)])
@pytest.mark.filterwarnings("ignore:spatial size:UserWarning")
def test_any_size(size):
    assert tiny()(torch.randn(2, 1, *size)).shape == (2, 2, *size)


def test_metadata_pass_through_as_in_monais_unet():
    items = [
        {"image": MetaTensor(torch.randn(1, 16, 24), affine=2 * torch.eye(4), meta={"filename": f"{i}.nii"})}
        for i in range(2)
    ]
    net = tiny()
    for x in (list_data_collate(items)["image"], items[0]["image"][None]):
        y, theirs = net(x), UNet(2, 1, 2, (4, 8), (2,))(x)
        assert isinstance(y, MetaTensor)
        assert y.meta == theirs.meta and y.is_batch == theirs.is_batch
        assert torch.equal(y.affine, theirs.affine)
        assert torch.equal(y.as_tensor(), net(x.as_tensor()))
    assert not isinstance(net(x.as_tensor()), MetaTensor)
    (first, second) = decollate_batch(net(list_data_collate(items)["image"]))
    assert first.shape == second.shape == (2, 16, 24)
    y.sum().backward()
    assert next(net.parameters()).grad is not None


# ------------------------------------------------------------------------------------------------------------ the workflow


def blobs(count, size=(24, 20, 18)):
    """Images of noise with brighter boxes, and the boxes."""
    label = torch.zeros(count, 1, *size)
    label[:, :, 4:12, 6:14, 5:13] = 1
    return label + 0.1 * torch.randn_like(label), label


def test_training_and_sliding_windows():
    net = MultiResNet(3, 1, 2, channels=(8, 16), strides=2, num_res_units=1)
    image, label = blobs(2)
    loss, optimizer = DiceCELoss(to_onehot_y=True, softmax=True), torch.optim.AdamW(net.parameters(), 1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        loss(net(image), label).backward()
        optimizer.step()
    image, label = (torch.cat(x.split(1), 2) for x in blobs(2))
    with torch.no_grad():
        y = SlidingWindowInferer((24, 20, 18), overlap=0)(image, net)
        torch.testing.assert_close(y, torch.cat([net(window) for window in image.split(24, 2)], 2))
    metric = DiceMetric(include_background=False, num_classes=2)
    metric(y.argmax(1, keepdim=True), label)
    assert metric.aggregate().item() > 0.9


def test_deep_supervision_takes_the_outputs_of_all_resolutions():
    net = tiny(3)
    image, label = blobs(1)
    outputs = net.network.forward_resolutions(image)[::-1]  # MONAI wants the finest first
    criterion = DiceCELoss(to_onehot_y=True, softmax=True)
    loss = DeepSupervisionLoss(criterion)(outputs, label)
    assert len(outputs) == 3 and loss.item() > criterion(outputs[0], label).item()
    loss.backward()
    assert all(p.grad is not None for p in net.parameters())


def test_supervised_trainer():
    pytest.importorskip("ignite")
    from monai.engines import SupervisedEvaluator, SupervisedTrainer

    image, label = blobs(2)
    batches = [{"image": image, "label": label}] * 2
    net = tiny(3)
    before = [p.clone() for p in net.parameters()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI and ignite on a new torch
        SupervisedTrainer(
            device="cpu",
            max_epochs=1,
            train_data_loader=batches,
            network=net,
            optimizer=torch.optim.AdamW(net.parameters(), 1e-3),
            loss_function=DiceCELoss(to_onehot_y=True, softmax=True),
            decollate=False,
        ).run()
        evaluator = SupervisedEvaluator(
            device="cpu",
            val_data_loader=batches[:1],
            network=net,
            inferer=SlidingWindowInferer((16, 16, 16)),
            decollate=False,
        )
        evaluator.run()
    assert evaluator.state.output["pred"].shape == (2, 2, 24, 20, 18)
    assert all(not torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))


def test_copy_model_state():
    net, other = tiny(), tiny()
    _, changed, unchanged = copy_model_state(other, net)
    assert not unchanged and len(changed) == len(net.state_dict())
    x = torch.randn(1, 1, *SIZES[:2])
    assert torch.equal(net(x), other(x))


def test_a_bundle_finds_the_class_by_its_path():
    config = {
        "network": {"_target_": "multiresnet.integrations.monai.MultiResNet", "spatial_dims": 2, "in_channels": 1}
    }
    config["network"].update(out_channels=2, channels=[8, 8], strides=[[2, 1]], kernel_size=[3, 3], act=["relu", {}])
    config["network"].update(num_res_units=[[1, 1], [0, 1]], norm=["group", {"num_groups": 4}])
    net = ConfigParser(config).get_parsed_content("network")
    assert isinstance(net, MultiResNet) and net.network.space.strides == ((2, 1), (2, 1))
    net(torch.randn(1, 1, 9, 9)).sum().backward()


# ----------------------------------------------------------------------------------------------------------------- export


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated
@pytest.mark.parametrize(
    ("spatial_dims", "norm"), [(1, "group"), (2, ("batch", {"track_running_stats": False})), (3, "batch")]
)
def test_torchscript_by_monais_own_function(spatial_dims, norm, tmp_path):
    net = tiny(spatial_dims, norm=norm, act="PRELU").eval()
    size = (16, 24, 32)[:spatial_dims]
    path = tmp_path / "net.ts"
    convert_to_torchscript(net, path, verify=True, inputs=[torch.randn(4, 1, *size)])  # atol=0, as MONAI's tests
    x = torch.randn(1, 1, *SIZES[:spatial_dims])
    torch.testing.assert_close(torch.jit.load(path)(x), net(x), rtol=1e-4, atol=1e-5)


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_onnx_by_monais_own_function():
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    net, x = tiny(3).eval(), torch.randn(1, 1, *SIZES)
    model = convert_to_onnx(net, [x], use_trace=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(y, net(x).detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.compile
def test_compile_and_autocast():
    net, x = tiny(3), torch.randn(1, 1, *SIZES)
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), net(x), rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = net(x)
    assert y.dtype == torch.bfloat16
    assert (y.float() - net(x)).abs().max() <= 0.05 * net(x).abs().max()


# --------------------------------------------------------------------------------------------------------------- backbone


@pytest.mark.parametrize(("spatial_dims", "in_channels"), [(2, 1), (2, 3), (3, 1), (3, 2)])
def test_backbone_features_are_the_haar_pyramid(spatial_dims, in_channels):
    entry = FLEXUNET_BACKBONE.register_dict[f"haar_{spatial_dims}d_c{in_channels}"]
    encoder, x = entry["type"](**entry["parameter"]), torch.randn(2, in_channels, *SIZES[:spatial_dims])
    features = encoder(x)
    assert len(features) == entry["feature_number"] and not encoder.state_dict()
    assert tuple(feature.shape[1] for feature in features) == entry["feature_channel"] == encoder.channels
    for feature in features:
        x, detail = haar_analysis(x, spatial_dims=spatial_dims)
        torch.testing.assert_close(feature, torch.cat([x, detail], 1))


@pytest.mark.parametrize("upsample", ["nontrainable", "deconv", "pixelshuffle"])
@pytest.mark.parametrize(("backbone", "spatial_dims", "in_channels"), [("haar", 2, 3), ("haar_3d_c1", 3, 1)])
def test_flexible_unet(backbone, spatial_dims, in_channels, upsample):
    decoder = {"decoder_channels": (16, 8, 8, 8, 4), "upsample": upsample}
    net = FlexibleUNet(in_channels, 2, backbone, spatial_dims=spatial_dims, **decoder)
    y = net(torch.randn(2, in_channels, *(64, 32, 32)[:spatial_dims]))
    assert y.shape == (2, 2, *(64, 32, 32)[:spatial_dims])
    y.square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_a_wrong_size_names_the_right_backbone():
    with pytest.raises(ValueError, match="take backbone='haar_3d_c1'"):
        FlexibleUNet(in_channels=1, out_channels=2, backbone="haar", spatial_dims=3)
    FlexibleUNet(in_channels=3, out_channels=2, backbone="haar")  # the entry of the registry was not spoilt
    with pytest.raises(ValueError, match="no pretrained weights"):
        FlexibleUNet(in_channels=3, out_channels=2, backbone="haar", pretrained=True)


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated
def test_the_backbone_is_scriptable():
    encoder = HaarEncoder(2, 1)
    scripted = torch.jit.script(encoder)
    for x in (torch.randn(1, 1, 33, 64), torch.randn(2, 1, 40, 31)):
        for ours_, theirs in zip(encoder(x), scripted(x), strict=True):
            assert torch.equal(ours_, theirs)


def test_registering_twice_changes_nothing():
    before = {name: dict(entry) for name, entry in FLEXUNET_BACKBONE.register_dict.items()}
    ours.register()
    assert FLEXUNET_BACKBONE.register_dict.keys() == before.keys()
    assert FLEXUNET_BACKBONE.register_dict["haar_2d_c4"] == before["haar_2d_c4"]


# --------------------------------------------------------------------------------------------------------------- the host


def test_another_version_warns(monkeypatch):
    monkeypatch.setattr("multiresnet.integrations.host.version", lambda name: "1.4.0")
    with pytest.warns(UserWarning, match="monai 1.4.0 lies outside"):
        importlib.reload(ours)
