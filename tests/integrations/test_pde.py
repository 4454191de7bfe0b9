"""The wrappers for The Well, PDEArena and neuraloperator."""

import copy
import functools
import json
import pickle
import subprocess
import sys
import types
from collections import UserDict, UserList

import pytest
import torch
from neuralop import H1Loss, LpLoss, Trainer, get_model
from neuralop.models.base_model import BaseModel
from torch import nn
from torch.utils.data import DataLoader

from multiresnet import MultiResNet
from multiresnet.integrations.pde import ArenaMultiResNet, WellMultiResNet, neuralop_class
from multiresnet.spaces import Haar
from multiresnet.testing import assert_every_parameter_has_gradient, assert_shift_equivariant, randomise

Operator = neuralop_class()
SIZES = (34, 21, 18)


def seeded(build, *args, **options):
    torch.manual_seed(0)
    return build(*args, **options)


def well(dim_in, dim_out, n_spatial_dims=2, **options):
    """In the order of the positions in The Well's own tests."""
    return WellMultiResNet(dim_in, dim_out, n_spatial_dims, SIZES[:n_spatial_dims], **{"init_features": 4, **options})


def arena(scalars=1, vectors=1, **options):
    options = {"time_history": 3, "time_future": 1, "activation": "gelu", "hidden_channels": 4, **options}
    components = (f"n_{side}_{kind}_components" for side in ("input", "output") for kind in ("scalar", "vector"))
    return ArenaMultiResNet(**dict(zip(components, (scalars, vectors) * 2, strict=True)), **options)


# --------------------------------------------------------------------------------------------------------- what they share


@pytest.mark.parametrize("width", [32, 33])
def test_each_is_the_core_network(width):
    """The surrogate preset; networks that are too wide to train without a norm have one."""
    options = {"channels": (width, 2 * width, 2 * width, 3 * width), "norm": None if width == 32 else "group"}
    core = seeded(MultiResNet, 4, 2, space=Haar(2, "replicate"), delta=True, **options)
    x = torch.randn(1, 4, 16, 17)
    expected = core(x)
    torch.testing.assert_close(seeded(well, 4, 2, init_features=width)(x), expected)
    frames = seeded(arena, 0, 1, time_history=2, hidden_channels=width)(x.unflatten(1, (2, 2)))
    torch.testing.assert_close(frames, expected[:, None])
    operator = seeded(Operator, 4, 2, hidden_channels=width, network={"delta": True})
    torch.testing.assert_close(operator(x), expected)


def test_defaults_have_the_widths_of_the_core():
    core = MultiResNet(2, 2, norm=None).state_dict()
    for net in (WellMultiResNet(2, 2, 2, (8, 8)), ArenaMultiResNet(2, 0, 2, 0, 1, 1), Operator(2, 2)):
        assert {name: value.shape for name, value in net.network.state_dict().items()} == {
            name: value.shape for name, value in core.items()
        }


@pytest.mark.parametrize(
    "build", [functools.partial(well, 4, 2), functools.partial(arena, 2, 0), functools.partial(Operator, 4, 2)]
)
def test_options_of_the_core_come_from_configurations(build):
    """Lists and mappings of a configuration library, here those of the standard library."""
    network = UserDict({"channels": UserList([8, 6]), "num_blocks": 1, "activation": "SiLU", "delta": False})
    net = build(network=network, boundary=UserList(["periodic", UserList(["zeros", "reflect"])]))
    assert net.network.space == Haar(2, ("periodic", ("zeros", "reflect")))
    assert net.network.num_levels == 2 and any(isinstance(module, nn.SiLU) for module in net.modules())
    with pytest.raises(TypeError, match="did you mean 'num_blocks'"):
        build(network={"num_block": 1})
    with pytest.raises(TypeError, match="is not plain data; give activations and norms by their names"):
        build(network={"activation": nn.SiLU})


def test_importing_the_wrappers_imports_no_host():
    code = (
        "import sys, multiresnet.integrations.pde; assert not {'neuralop', 'the_well', 'pdearena'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --------------------------------------------------------------------------------------------------------------- The Well


@pytest.mark.parametrize("dim_in", [1, 3, 5])
@pytest.mark.parametrize("dim_out", [1, 3, 5])
@pytest.mark.parametrize("n_spatial_dims", [1, 2, 3])
def test_well_shapes(dim_in, dim_out, n_spatial_dims):
    x = torch.randn(2, dim_in, *SIZES[:n_spatial_dims])
    assert well(dim_in, dim_out, n_spatial_dims)(x).shape == (2, dim_out, *SIZES[:n_spatial_dims])


def test_well_corrects_the_last_frame_and_not_the_constants():
    x = torch.randn(1, 4 * 2 + 1, 16, 16)
    for constants, last in ((None, slice(6, 8)), (1, slice(6, 8)), (3, slice(4, 6))):
        net = well(9, 2, n_constant_fields=constants)
        for head in net.network.heads:
            nn.init.zeros_(head.conv.conv.weight), nn.init.zeros_(head.conv.conv.bias)
        assert torch.equal(net(x), x[:, last])
    assert not well(9, 2, network={"delta": False}).network.delta


def test_every_parameter_of_the_wells_has_a_gradient():
    assert_every_parameter_has_gradient(well(5, 2), torch.randn(2, 5, *SIZES[:2]))


def test_a_periodic_box_stays_one():
    assert_shift_equivariant(well(2, 2, boundary="periodic"), torch.randn(1, 2, 32, 16), shift=16)


def test_gradient_checkpointing_changes_no_gradient():
    x = torch.randn(2, 5, *SIZES[:2])
    plain, frugal = (seeded(well, 5, 2, gradient_checkpointing=on) for on in (False, True))
    for net in (plain, frugal):
        net(x).square().sum().backward()
    assert all(sweep.checkpointing for sweep in frugal.network.sweeps)
    for p, q in zip(plain.parameters(), frugal.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_the_wells_training_loop(tmp_path):
    """instantiate(), channels_first_default, one-step rollouts, GradScaler, checkpoint: as its Trainer does it."""
    n_steps, fields, constants, size = 4, 3, 2, (19, 16)
    config = {"gradient_checkpointing": False, "init_features": 4, "network": {"num_blocks": 1}}
    net = WellMultiResNet(
        **config, n_spatial_dims=2, spatial_resolution=size, dim_in=n_steps * fields + constants, dim_out=fields
    )
    optimizer, scaler = torch.optim.AdamW(net.parameters(), 1e-3), torch.amp.GradScaler("cpu", enabled=False)
    before = copy.deepcopy(net.state_dict())
    for _ in range(2):
        frames = torch.randn(2, n_steps + 3, *size, fields)
        moving, constant, target = frames[:, :n_steps], torch.randn(2, *size, constants), frames[:, n_steps:]
        predictions = []
        for _ in range(target.shape[1]):
            x = torch.cat([moving.movedim(-1, 2).flatten(1, 2), constant.movedim(-1, 1)], 1)
            y = net(x).movedim(1, -1).unsqueeze(1)
            moving = torch.cat([moving[:, 1:], y], 1)
            predictions.append(y)
        loss = (torch.cat(predictions, 1) - target).square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    assert loss.isfinite() and all(not torch.equal(p, before[name]) for name, p in net.state_dict().items())
    torch.save({"model_state_dict": net.state_dict()}, tmp_path / "last.pt")
    other = WellMultiResNet(14, 3, 2, size, **config)
    other.load_state_dict(torch.load(tmp_path / "last.pt", weights_only=True)["model_state_dict"])
    assert torch.equal(net(x), other(x))


def test_well_models_are_saved_as_hub_folders(tmp_path):
    network = UserDict({"channels": UserList([8, 6]), "num_blocks": 1})
    net = randomise(well(5, 2, boundary=UserList(["periodic", "zeros"]), network=network))
    net.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["network"]["channels"] == [8, 6] and config["boundary"] == ["periodic", "zeros"]
    twin = WellMultiResNet.from_pretrained(tmp_path)
    x = torch.randn(1, 5, *SIZES[:2])
    assert torch.equal(twin(x), net(x)) and twin.spatial_resolution == net.spatial_resolution


# --------------------------------------------------------------------------------------------------------------- PDEArena


@pytest.mark.parametrize("time_future", [1, 2])
@pytest.mark.parametrize(
    ("n_dims", "scalars", "vectors", "channels"), [(1, 1, 1, 3), (2, 1, 1, 3), (2, 2, 0, 2), (3, 0, 2, 6)]
)
def test_arena_shapes(n_dims, scalars, vectors, channels, time_future):
    net = arena(scalars, vectors, n_dims=n_dims, time_future=time_future)
    x = torch.randn(2, 3, channels, *SIZES[:n_dims])
    assert net(x).shape == (2, time_future, channels, *SIZES[:n_dims])
    assert_every_parameter_has_gradient(net, x)


def test_arena_corrects_the_last_frame():
    x = torch.randn(1, 3, 3, 16, 16)
    net = arena(time_future=2)
    for head in net.network.heads:
        nn.init.zeros_(head.conv.conv.weight), nn.init.zeros_(head.conv.conv.bias)
    assert torch.equal(net(x), x[:, [-1, -1]])
    assert not arena(network={"delta": False})(x)[0].equal(x[0, -1:])
    assert not ArenaMultiResNet(2, 0, 1, 0, 1, 1).delta
    with pytest.raises(ValueError, match="a frame of 2 fields to frames of 1"):
        ArenaMultiResNet(2, 0, 1, 0, 1, 1, network={"delta": True})


@pytest.mark.parametrize(
    ("param_conditioning", "z"), [(None, None), ("scalar", torch.rand(2)), ("scalar_2", torch.rand(2, 2))]
)
def test_conditioned_models_depend_on_what_they_are_given(param_conditioning, z):
    net = randomise(arena(param_conditioning=param_conditioning, conditioned=True))
    x, time = torch.randn(2, 3, 3, 17, 16), torch.tensor([1, 2])
    y = net(x, time, z)
    assert y.shape == (2, 1, 3, 17, 16) and not net.delta
    assert not torch.allclose(y, net(x, time + 1, z))
    assert z is None or not torch.allclose(y, net(x, time, z + 1))
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())


@pytest.mark.parametrize(
    ("options", "given", "signature"),
    [
        ({}, ("time",), "model(x)"),
        ({"conditioned": True}, (), "model(x, time)"),
        ({"conditioned": True}, ("time", "z"), "model(x, time)"),
        ({"param_conditioning": "scalar"}, ("time",), "model(x, time, z)"),
    ],
    ids=str,
)
def test_a_wrong_call_is_told_the_right_one(options, given, signature):
    with pytest.raises(ValueError, match=f"is called as {signature.replace('(', '.').replace(')', '.')}$"):
        arena(**options)(torch.randn(1, 3, 3, 8, 8), **{name: torch.ones(1) for name in given})


def test_arena_mistakes():
    with pytest.raises(ValueError, match=r"rank 5, \(N, T, C, \*spatial\); got shape \(1, 3, 8, 8\)"):
        arena()(torch.randn(1, 3, 8, 8))
    with pytest.raises(ValueError, match="choose 'scalar', 'scalar_<n>' or None"):
        arena(param_conditioning="vector")
    with pytest.raises(ValueError, match="did you mean 'GELU'"):
        arena(activation="gelo")


def test_pde_refiners_padding_does_not_reach_the_network(monkeypatch):
    """PDERefiner replaces `nn.Conv2d` before it builds its model."""
    expected = seeded(arena, conditioned=True)
    monkeypatch.setattr(nn, "Conv2d", functools.partial(nn.Conv2d, padding_mode="circular"))
    net = seeded(arena, conditioned=True)
    x, time = torch.randn(1, 3, 3, 19, 16), torch.ones(1)
    assert torch.equal(net(x, time), expected(x, time))


def test_arenas_training_and_rollout():
    net = arena(time_history=2)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    before = copy.deepcopy(net.state_dict())
    for _ in range(2):
        x, y = torch.randn(2, 2, 3, 16, 19), torch.randn(2, 1, 3, 16, 19)
        loss = (net(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(not torch.equal(p, before[name]) for name, p in net.state_dict().items())
    with torch.no_grad():
        for _ in range(3):
            x = torch.cat([x, net(x)], 1)[:, -2:]
    assert x.isfinite().all()


# ---------------------------------------------------------------------------------------------------------- neuraloperator


def loader(n=4):
    return DataLoader([{"x": torch.randn(1, 16, 17), "y": torch.randn(1, 16, 17)} for _ in range(n)], batch_size=2)


def train(net, epochs=1, **options):
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=30)
    l2 = LpLoss(d=2, p=2)
    return Trainer(model=net, n_epochs=epochs).train(
        train_loader=loader(),
        test_loaders={"test": loader()},
        optimizer=optimizer,
        scheduler=scheduler,
        training_loss=l2,
        eval_losses={"h1": H1Loss(d=2), "l2": l2},
        **options,
    )


@pytest.mark.filterwarnings("ignore:.*received unexpected keyword arguments:UserWarning")  # neuralop's losses, of `x`
def test_neuralops_trainer_saves_resumes_and_loads(tmp_path):
    net = Operator(in_channels=1, out_channels=1, hidden_channels=4, network={"num_blocks": 1})
    before = copy.deepcopy(list(net.parameters()))
    errors = train(net, save_every=1, save_dir=tmp_path)
    assert errors["test_l2"] > 0
    assert all(not torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))
    twin = Operator.from_checkpoint(tmp_path, "model")
    x = torch.randn(2, 1, 16, 17)
    assert torch.equal(twin(x), net(x))
    train(twin, epochs=2, resume_from_dir=tmp_path)
    assert not torch.equal(twin(x), net(x))


def test_neuralops_get_model():
    class Config(dict):
        model = {"model_arch": "MultiResNet", "data_channels": 3, "out_channels": 2, "n_dim": 3, "hidden_channels": 4}

    net = get_model(Config())
    assert type(net) is Operator and BaseModel._models["multiresnet"] is Operator
    assert net(torch.randn(1, 3, *SIZES)).shape == (1, 2, *SIZES)


def test_operators_can_be_copied_and_pickled():
    net, x = Operator(1, 1, hidden_channels=4), torch.randn(1, 1, 16, 16)
    assert torch.equal(copy.deepcopy(net)(x), net(x))
    assert torch.equal(pickle.loads(pickle.dumps(net))(x), net(x))


def test_neuraloperator_of_another_version(monkeypatch):
    monkeypatch.setattr("multiresnet.integrations.host.version", lambda name: "0.3.0")
    monkeypatch.delitem(sys.modules, "multiresnet.integrations.pde.neuralop")
    monkeypatch.setattr("multiresnet.integrations.pde.neuralop", types.SimpleNamespace(), raising=False)
    with pytest.warns(UserWarning, match="neuraloperator 0.3.0 lies outside"):
        neuralop_class()
    monkeypatch.setitem(BaseModel._models, "multiresnet", Operator)
