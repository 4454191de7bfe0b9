"""Models on disk: a folder with a JSON file and safetensors, nothing else, nothing downloaded."""

import json
import pickletools
import zipfile

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from multiresnet import PRESETS, MultiResNet, ResidualUNet, fold_tiled_skips
from multiresnet.spaces import Haar
from multiresnet.testing import randomise

BOTH = [MultiResNet, ResidualUNet]
SMALL = {"channels": (4, 6), "num_blocks": 1}
MODELS = {
    "default": lambda build: build(2, 1, **SMALL),
    "no space": lambda build: build(2, 1, space=None, **SMALL),
    "boundary per side": lambda build: build(2, 1, space=Haar(2, (("zeros", "reflect"), "periodic")), **SMALL),
    "strides": lambda build: build(2, 1, space=Haar(3, "replicate", ((1, 2, 2), (2, 2, 2))), **SMALL),
    "line": lambda build: build(2, 1, space=Haar(1, "periodic"), channels=[4, 6], num_blocks=[1, 2]),
    "sweeps": lambda build: build(2, 1, sweeps=2, num_blocks=((1, 0), (0, 1)), channels=(4, 6), patch_levels=2),
    "strict": lambda build: build(2, 1, merge="strict", patch_levels=0, **SMALL),
    "blocks": lambda build: build(2, 1, block=("residual", "transformer"), norm="layer", merge="concat", **SMALL),
    "attention": lambda build: build(2, 1, block="attention", emb_channels=3, **SMALL),
    "batch norm": lambda build: build(2, 1, norm="batch", **SMALL),
    "norm class": lambda build: build(2, 1, norm=nn.InstanceNorm2d, **SMALL),
    "no norm": lambda build: build(2, 1, norm=None, delta=True, **SMALL),
    "activation class": lambda build: build(2, 1, activation=nn.PReLU, **SMALL),
    "activation name": lambda build: build(2, 1, activation="SiLU", **SMALL),
    "activation function": lambda build: build(2, 1, activation=F.silu, **SMALL),
    "activation of C": lambda build: build(2, 1, activation=F.gelu, **SMALL),
    "paper": lambda build: build.paper(2, 1, hidden_channels=2, extra_blocks=1),
    "paper, periodic": lambda build: build.paper(2, 1, hidden_channels=2, space=Haar(2, "periodic")),
    "double": lambda build: build(2, 1, **SMALL).double(),
    "bfloat16": lambda build: build(2, 1, **SMALL).bfloat16(),
}


def output(net):
    """With fixed inputs, in evaluation mode."""
    torch.manual_seed(1)
    dtype = next(net.parameters()).dtype
    x = torch.randn(2, 2, *(18, 17, 16)[: net.space.spatial_dims]).to(dtype)
    emb = (torch.randn(2, net.emb_channels).to(dtype),) if net.emb_channels else ()
    with torch.no_grad():
        return net.eval()(x, *emb)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("build", BOTH)
def test_round_trip_is_exact(build, name, tmp_path):
    net = randomise(MODELS[name](build))
    net.save_pretrained(str(tmp_path))
    again = build.from_pretrained(str(tmp_path))
    assert type(again) is build
    assert again.space == net.space
    for (key, value), (other_key, other) in zip(net.state_dict().items(), again.state_dict().items(), strict=True):
        assert key == other_key and value.dtype == other.dtype and torch.equal(value, other)
    assert torch.equal(output(net), output(again))
    assert again.config.keys() == net.config.keys()
    again.save_pretrained(str(tmp_path / "twice"))
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / file).read_bytes() == (tmp_path / "twice" / file).read_bytes()


@pytest.mark.parametrize("skip", ["approximation", "detail", "packet", "scattering"])
def test_skips_come_back(skip, tmp_path):
    net = MultiResNet(2, 1, skip=skip, **SMALL)
    net.save_pretrained(tmp_path)  # a Path will do
    assert MultiResNet.from_pretrained(tmp_path).encoder.skip == skip


@pytest.mark.parametrize("name", PRESETS)
def test_presets_come_back(name, tmp_path):
    net, x = randomise(MultiResNet(2, 1, **PRESETS[name])), torch.randn(1, 2, 33, 40)
    net.save_pretrained(str(tmp_path))
    assert torch.equal(MultiResNet.from_pretrained(str(tmp_path))(x), net(x))


def test_the_folder_holds_json_and_safetensors_only(tmp_path):
    """No pickle: neither a zip archive of torch.save nor a pickle stream."""
    MultiResNet(2, 1, space=Haar(2, "periodic"), **SMALL).save_pretrained(str(tmp_path))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["build"] == "MultiResNet"
    assert config["space"] == {"Haar": {"spatial_dims": 2, "boundary": "periodic", "strides": []}}
    weights = tmp_path / "model.safetensors"
    assert not zipfile.is_zipfile(weights)
    with pytest.raises(ValueError), weights.open("rb") as stream:
        list(pickletools.genops(stream))


def test_state_dict_loads_with_weights_only(tmp_path):
    net, other = (randomise(MultiResNet(2, 1, **SMALL)) for _ in range(2))
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(output(net), output(other))


def test_a_save_that_was_killed_halfway_does_no_harm(tmp_path):
    net, newer = (randomise(MultiResNet(2, 1, **SMALL)) for _ in range(2))
    net.save_pretrained(str(tmp_path))
    (tmp_path / ".model.safetensors.12345").write_bytes(b"\x00half")
    (tmp_path / ".config.json.12345").write_text("{")
    assert torch.equal(output(MultiResNet.from_pretrained(str(tmp_path))), output(net))
    newer.save_pretrained(str(tmp_path))
    assert torch.equal(output(MultiResNet.from_pretrained(str(tmp_path))), output(newer))


def test_a_save_that_fails_leaves_the_old_one(tmp_path):
    net = randomise(MultiResNet(2, 1, **SMALL))
    net.save_pretrained(str(tmp_path))
    with pytest.raises(TypeError):
        MultiResNet(2, 1, activation=lambda x: x.relu(), **SMALL).save_pretrained(str(tmp_path))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert torch.equal(output(MultiResNet.from_pretrained(str(tmp_path))), output(net))


def test_a_missing_folder_or_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config.json in .*save_pretrained \(nothing is downloaded\)"):
        MultiResNet.from_pretrained("somebody/some-model")
    MultiResNet(2, 1, **SMALL).save_pretrained(str(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="no model.safetensors in"):
        MultiResNet.from_pretrained(str(tmp_path))


@pytest.mark.parametrize(
    "make", [lambda: MultiResNet(2, 1, **SMALL), lambda: MultiResNet.paper(2, 1, hidden_channels=2)]
)
def test_another_class(make, tmp_path):
    make().save_pretrained(str(tmp_path))
    with pytest.raises(ValueError, match=r"holds a MultiResNet, not a ResidualUNet.*multiresnet.MultiResNet.from_pre"):
        ResidualUNet.from_pretrained(str(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"activation": lambda x: x.relu()},
            "cannot be written to config.json; build the model with a torch.nn activation",
        ),
        ({"activation": nn.ReLU()}, "torch.nn activation class or its name"),
        ({"norm": lambda channels: nn.GroupNorm(1, channels)}, "with a named norm, or save the weights yourself"),
    ],
)
def test_what_json_cannot_say(options, message, tmp_path):
    with pytest.raises(TypeError, match=message):
        MultiResNet(2, 1, **options, **SMALL).save_pretrained(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "make",
    [lambda: MultiResNet(2, 1, **SMALL).stage(0), lambda: fold_tiled_skips(MultiResNet.paper(2, 1, hidden_channels=2))],
)
def test_what_has_no_config(make, tmp_path):
    with pytest.raises(ValueError, match="has no config; save the model that it belongs to"):
        make().save_pretrained(str(tmp_path))
