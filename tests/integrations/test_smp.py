"""The Haar pyramid as an encoder, and the Multi-ResNet as an architecture, of segmentation-models-pytorch."""

import importlib
import io
import json
import warnings

import pytest
import segmentation_models_pytorch as smp
import torch
from torch.export import Dim

import multiresnet
from multiresnet import haar_analysis
from multiresnet.blocks import ResidualBlock
from multiresnet.integrations import smp as ours
from multiresnet.testing import assert_every_parameter_has_gradient, randomise

TINY = {"encoder_depth": 2, "decoder_channels": (8, 4), "num_blocks": 1}

TWO_SWEEPS = {"channels": (32, 48, 64, 96), "num_blocks": ((1, 1, 1, 1), (1, 2, 2, 1)), "sweeps": 2}


def get_encoder(name="haar", **options):
    return smp.encoders.get_encoder(name, weights=None, **options)


def export(model, x, run=torch.export.export, **options):
    """`run` with batch, height and width dynamic."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations
        return run(model, (x,), dynamic_shapes=({axis: Dim.AUTO for axis in (0, 2, 3)},), **options)


def script(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        torch.jit.save(torch.jit.script(model), buffer := io.BytesIO())
        return torch.jit.load(io.BytesIO(buffer.getvalue()))


def save_and_load(model, folder):
    model.save_pretrained(folder)
    return smp.from_pretrained(folder).train(model.training)


# ---------------------------------------------------------------------------------------------------------------- encoder


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("name", ["haar", "haar_ll"])
def test_features_are_the_haar_pyramid(name, channels):
    encoder, x = get_encoder(name, in_channels=channels), torch.randn(2, channels, 45, 70)
    features = encoder(x)
    assert features[0] is x
    for feature in features[1:]:
        x, detail = haar_analysis(x)
        torch.testing.assert_close(feature, torch.cat([x, detail], 1) if name == "haar" else x)
    assert encoder.out_channels == [feature.shape[1] for feature in features]


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("name", ["haar", "haar_ll"])
def test_dilated_levels_hold_the_coefficients_of_all_shifts(name, stride):
    """Every (r / stride)-th coefficient of an undecimated level is one of the decimated level."""
    x = torch.randn(1, 2, 64, 96)
    dilated = get_encoder(name, in_channels=2, output_stride=stride)
    assert dilated.output_stride == stride
    for i, (fine, coarse) in enumerate(zip(dilated(x), get_encoder(name, in_channels=2)(x), strict=True)):
        step = max(2**i // stride, 1)
        torch.testing.assert_close(fine[..., ::step, ::step], coarse)


def test_no_parameters_no_state():
    model = smp.Unet("haar", encoder_weights=None, decoder_channels=(8, 8, 8, 8, 8))
    assert not model.encoder.state_dict() and not list(model.encoder.buffers())
    torch.optim.AdamW([{"params": model.encoder.parameters(), "lr": 1e-5}, {"params": model.decoder.parameters()}])
    model.freeze_encoder()


@pytest.mark.compile
@pytest.mark.parametrize(
    "encoder",
    [ours.HaarEncoder(depth=2), ours.HaarEncoder(details=False, depth=2, output_stride=2)],
    ids=["haar", "haar_ll dilated"],
)
def test_every_tracer_reads_the_encoder(encoder):
    x = torch.randn(2, 3, 67, 90)
    torch.compiler.reset()
    for traced in (
        script(encoder),
        torch.fx.symbolic_trace(encoder),
        torch.compile(encoder, fullgraph=True, dynamic=True, backend="eager"),
        export(encoder, x).module(),
    ):
        for size in [(67, 90), (64, 64), (35, 101)]:
            x = torch.randn(2, 3, *size)
            torch.testing.assert_close(list(traced(x)), encoder(x))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: get_encoder(depth=0), "depth must be 1 to 5, got 0"),
        (lambda: get_encoder(depth=6), "use multiresnet.MultiResNet"),
        (lambda: get_encoder(output_stride=4), "must be 8, 16 or 32, got 4"),
        (lambda: get_encoder()(torch.zeros(1, 4, 8, 8)), "built for in_channels=3, got 4 channels"),
        (lambda: get_encoder()(torch.zeros(3, 8, 8)), "x.unsqueeze(0)"),
    ],
)
def test_bad_input_of_the_encoder(call, words):
    with pytest.raises(ValueError) as error:
        call()
    assert words in str(error.value)


# ----------------------------------------------------------------------------------------------------- decoders of the host

FAMILIES = {
    "unet": lambda depth: {"decoder_channels": (8,) * depth},
    "unetplusplus": lambda depth: {"decoder_channels": (8,) * depth},
    "manet": lambda depth: {"decoder_channels": (16,) * depth},
    "linknet": lambda depth: {},
    "fpn": lambda depth: {
        "decoder_pyramid_channels": 32,
        "decoder_segmentation_channels": 32,
        "upsampling": 2 ** (depth - 3),
    },
    "pspnet": lambda depth: {"psp_out_channels": 8, "upsampling": 2**depth},
    "pan": lambda depth: {"decoder_channels": 8},
    "upernet": lambda depth: {"decoder_channels": 8},
    "segformer": lambda depth: {"decoder_segmentation_channels": 8},
    "deeplabv3": lambda depth: {"decoder_channels": 8},
    "deeplabv3plus": lambda depth: {"decoder_channels": 8},
    "multiresnet": lambda depth: {"decoder_channels": (8,) * depth, "num_blocks": 1},
}


def test_dpt_by_way_of_timm(tmp_path):
    """smp builds DPT on encoders of timm only."""
    importlib.import_module("multiresnet.integrations.timm")
    options = {"decoder_readout": "ignore", "decoder_intermediate_channels": (8, 8, 8), "decoder_fusion_channels": 8}
    model = smp.DPT("tu-haar_pyramid", 3, None, **options, in_channels=1)
    x = torch.randn(2, 1, 64, 96)
    model(x).square().mean().backward()
    torch.optim.Adam(model.parameters()).step()
    y = model.predict(x)
    assert y.shape == x.shape
    assert torch.equal(save_and_load(model, tmp_path).predict(x), y)


def test_no_family_of_the_host_is_forgotten():
    assert set(smp.MODEL_ARCHITECTURES_MAPPING) == {*FAMILIES, "dpt"}
    with pytest.raises(ValueError, match="Encoder name must start with 'tu-'"):
        smp.DPT("haar", encoder_weights=None)


@pytest.mark.compile
@pytest.mark.parametrize(("depth", "in_channels"), [(3, 1), (4, 3), (5, 4)])
@pytest.mark.parametrize("family", FAMILIES)
def test_families(family, depth, in_channels, tmp_path):
    """Build, train a step, save, load, export."""
    options = {"encoder_depth": depth, "in_channels": in_channels, "classes": 2, **FAMILIES[family](depth)}
    model = smp.create_model(family, "haar", None, **options)
    x, before = torch.randn(2, in_channels, 128, 128), [p.detach().clone() for p in model.parameters()]
    y = model(x)
    assert y.shape == (2, 2, 128, 128)
    y.square().mean().backward()
    torch.optim.Adam(model.parameters()).step()
    assert any(not torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))

    loaded, x = save_and_load(model, tmp_path).eval(), x[:1]
    assert type(loaded) is type(model)
    y = model.predict(x)
    assert torch.equal(loaded.predict(x), y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations
        exported = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(exported(x), y, rtol=1e-4, atol=1e-5)


def test_what_the_host_says_of_missing_weights():
    with pytest.raises(KeyError, match="Wrong pretrained weights `imagenet` for encoder `haar`"):
        smp.Unet("haar")
    with pytest.raises(ValueError, match="Available pretrained options"):
        smp.encoders.get_preprocessing_fn("haar")


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors:UserWarning")
@pytest.mark.parametrize("family", ["linknet", "pspnet"])
def test_what_the_host_says_where_a_quarter_of_the_channels_is_none(family):
    model = smp.create_model(family, "haar_ll", None)
    with pytest.raises(RuntimeError, match="expected weight to be at least 1 at dimension 0"):
        model(torch.zeros(2, 3, 64, 64))


# ----------------------------------------------------------------------------------------------------------- architecture


def with_weights_of(core, model):
    """`model` with the weights of a network of the core."""
    weights = core.state_dict()
    renamed = {key: key.replace("decoder.", "").replace("segmentation_head.0.", "") for key in model.state_dict()}
    assert sorted(renamed.values()) == sorted(weights)
    model.load_state_dict({key: weights[name] for key, name in renamed.items()})
    return model


@pytest.mark.parametrize(
    ("options", "core_options"),
    [
        ({"encoder_depth": 4}, TWO_SWEEPS),
        (
            {"decoder_channels": (12, 8, 4), "encoder_depth": 3, "num_blocks": (2, 1, 0), "sweeps": 1, "norm": None},
            {"channels": (4, 8, 12), "num_blocks": (0, 1, 2), "norm": None},
        ),
        ({"encoder_depth": 1, "num_blocks": 3}, {"channels": (32,), "num_blocks": 3, "sweeps": 2}),
    ],
)
def test_it_is_the_network_of_the_core(options, core_options, tolerance):
    core = randomise(multiresnet.MultiResNet(2, 3, **core_options)).double()
    model = with_weights_of(core, smp.MultiResNet("haar", in_channels=2, classes=3, **options).double())
    for size in [(33, 50), (64, 16)]:
        x = torch.randn(2, 2, *size).double()
        expected = core(x)
        assert (model(x) - expected).abs().max() <= tolerance(x.dtype) * expected.abs().max()


def test_it_is_a_model_of_the_host():
    model = smp.create_model("MultiResNet", "haar", activation="sigmoid")  # encoder_weights="imagenet"
    assert isinstance(model, smp.base.SegmentationModel) and type(model) is smp.MultiResNet is ours.MultiResNet
    assert model.name == "multiresnet-haar" and model.classification_head is None
    x = torch.randn(1, 3, 40, 33)
    y = model.predict(x)
    assert y.shape == (1, 1, 40, 33) and y.min() > 0 and y.max() < 1 and not model.training
    assert torch.equal(model.segmentation_head(model.decoder(model.encoder(x))), model(x))


def test_registering_again_changes_nothing():
    names = list(smp.encoders.encoders), list(smp.MODEL_ARCHITECTURES_MAPPING)
    ours.register()
    assert names == (list(smp.encoders.encoders), list(smp.MODEL_ARCHITECTURES_MAPPING))


def test_residual_branches_start_at_zero_and_stay_when_the_host_initialises():
    model = smp.MultiResNet("haar")
    model.initialize()
    blocks = [module for module in model.modules() if isinstance(module, ResidualBlock)]
    assert len(blocks) == 5 + 7
    assert not any(p.any() for block in blocks for p in block.conv2.parameters())
    # a tenth of what torch gives to a convolution with 32 inputs of 3 x 3
    assert model.segmentation_head[0].heads[-1].conv.conv.weight.abs().max() <= 0.1 / (32 * 9) ** 0.5


@pytest.mark.parametrize("size", [(1, 1), (2, 7), (31, 18)])
def test_every_parameter_gets_a_gradient(size):
    model = smp.MultiResNet("haar", **TINY)
    assert_every_parameter_has_gradient(model, torch.randn(2, 3, *size))


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("tu-test_resnet", 32),
        ("densenet121", 64),  # its features are rounded down
        ("tu-test_convnext", 12),  # has no feature at half the resolution: Haar coefficients
        ("haar_ll", 3),
    ],
)
def test_other_encoders(name, first, tmp_path):
    model = smp.MultiResNet(name, **{**TINY, "encoder_depth": 4, "decoder_channels": (8, 8, 8, 4)})
    assert model.decoder.sweeps[0].levels[-1].merge.lift.conv.in_channels == first
    x = torch.randn(2, 3, 70, 53)
    model(x).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.decoder.parameters())
    loaded, model = save_and_load(model, tmp_path).eval(), randomise(model).eval()
    assert not torch.equal(loaded(x), model(x))
    loaded.load_state_dict(model.state_dict())
    assert torch.equal(loaded(x), model(x))
    scripted = script(model)
    for size in [(70, 53), (64, 96), (35, 101)]:
        x = torch.randn(1, 3, *size)
        torch.testing.assert_close(scripted(x), model(x), rtol=1e-3, atol=1e-4)


def test_half_resolution_of_the_image_where_the_encoder_has_none():
    model = smp.MultiResNet("tu-test_convnext", **TINY).eval()
    seen = []
    model.decoder.sweeps[0].levels[-1].register_forward_pre_hook(lambda module, args: seen.append(args[1]))
    x = torch.randn(1, 3, 64, 32)
    model(x)
    torch.testing.assert_close(seen[0], torch.cat(haar_analysis(x), 1))


def test_weights_of_other_encoders_are_the_business_of_the_host():
    with pytest.raises(KeyError, match="Wrong pretrained weights `none-such`"):
        smp.MultiResNet("resnet18", encoder_weights="none-such")
    with pytest.raises(KeyError, match="Wrong encoder name `harr`"):
        smp.MultiResNet("harr")


def test_classification_head():
    model = randomise(smp.MultiResNet("haar", aux_params={"classes": 7, "dropout": None}, **TINY))
    x = torch.randn(2, 3, 21, 30)
    masks, labels = model(x)
    assert masks.shape == (2, 1, 21, 30)
    head = model.classification_head[3]
    torch.testing.assert_close(labels, head(model.encoder(x)[-1].mean((2, 3))))


def test_saved_as_plain_values_and_loaded_with_other_classes(tmp_path):
    model = randomise(smp.MultiResNet("haar", 3, sweeps=2, num_blocks=((1, 1, 0), (0, 1, 2)), activation="sigmoid"))
    x = torch.randn(1, 3, 17, 25)
    assert torch.equal(save_and_load(model, tmp_path)(x), model(x))
    assert json.loads((tmp_path / "config.json").read_text())["num_blocks"] == [[1, 1, 0], [0, 1, 2]]
    with pytest.warns(UserWarning, match="Mismatched keys"):
        other = smp.from_pretrained(tmp_path, classes=4, strict=False)
    assert other(x).shape[1] == 4
    kept, weights = other.state_dict(), model.state_dict()
    assert [key for key in kept if "segmentation_head" not in key and not torch.equal(kept[key], weights[key])] == []


@pytest.mark.compile
@pytest.mark.parametrize("aux_params", [None, {"classes": 2}])
def test_script(aux_params):
    model = randomise(smp.MultiResNet("haar", in_channels=2, aux_params=aux_params, **TINY)).eval()
    scripted = script(model)
    for size in [(64, 64), (33, 50), (21, 87)]:
        x = torch.randn(2, 2, *size)
        torch.testing.assert_close(scripted(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.compile
@torch.no_grad()
def test_compile():
    model = randomise(smp.MultiResNet("haar", **TINY)).eval()
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    for size in [(17, 23), (40, 32), (33, 51)]:
        x = torch.randn(3, 3, *size)
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.compile
@pytest.mark.parametrize(
    "model",
    [lambda: smp.Unet("haar", 2, None, decoder_channels=(8, 8)), lambda: smp.MultiResNet("haar", **TINY)],
    ids=["unet", "multiresnet"],
)
@torch.no_grad()
def test_onnx(model):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = randomise(model()).eval()
    program = export(model, torch.randn(2, 3, 35, 42), torch.onnx.export, dynamo=True, verbose=False)
    session = runtime.InferenceSession(program.model_proto.SerializeToString())
    for size in [(2, 3, 35, 42), (1, 3, 64, 32), (3, 3, 21, 47)]:
        x = torch.randn(size)
        torch.testing.assert_close(program.exported_program.module()(x), model(x), rtol=1e-4, atol=1e-5)
        (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(y), model(x), rtol=1e-3, atol=1e-4)


# -------------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"decoder_chanels": (8, 8)}, TypeError, "did you mean 'decoder_channels'?"),
        ({"decoder_channels": (8, 8)}, ValueError, "decoder_channels=(8, 8) has fewer entries than encoder_depth=5"),
        ({"num_blocks": (1, 1)}, ValueError, "num_blocks has 2 entries for the 5 levels"),
        ({"sweeps": 3}, ValueError, "num_blocks has 2 rows for sweeps=3"),
        ({"norm": "bach"}, ValueError, "did you mean 'batch'?"),
        ({"encoder_depth": 6}, ValueError, "depth must be 1 to 5, got 6"),
        ({"classes": 0}, ValueError, "classes must be an integer >= 1, got 0"),
    ],
)
def test_bad_arguments(options, kind, words):
    with pytest.raises(kind) as error:
        smp.create_model("multiresnet", "haar", **options)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("x", "kind", "words"),
    [
        (torch.zeros(1, 1, 8, 8), ValueError, "built for in_channels=3, got 1 channels"),
        (torch.zeros(3, 8, 8), ValueError, "add the batch dimension"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), TypeError, "x.float() / 255"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.float64), TypeError, "the input is torch.float64"),
    ],
)
@pytest.mark.parametrize("encoder", ["haar", "resnet18"])
def test_bad_images(encoder, x, kind, words):
    with pytest.raises(kind) as error:
        smp.MultiResNet(encoder, **TINY)(x)
    assert words in str(error.value)


# --------------------------------------------------------------------------------------------------- another host


def test_host_of_another_version(monkeypatch):
    monkeypatch.setattr("multiresnet.integrations.host.version", lambda name: "0.7.1")
    with pytest.warns(UserWarning, match="segmentation-models-pytorch 0.7.1 lies outside the versions"):
        importlib.reload(ours)
