"""Tiled equals whole, tile by tile averages over symmetries equal whole ones, and memory stays bounded."""

import itertools
import math
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from multiresnet import MultiResNet, ResidualUNet, spaces
from multiresnet.testing import randomise
from multiresnet.tile_plan import Axis, plan
from multiresnet.tiling import tiled_predict
from multiresnet.tta import Augmented, symmetries

RULES = ["zeros", "reflect", "replicate", "periodic"]


def build(space, kind=MultiResNet, in_channels=1, out_channels=2, dtype=torch.float64, **options):
    """A small network none of whose parameters is zero."""
    if options.pop("paper", False):
        net = kind.paper(in_channels, out_channels, hidden_channels=2, space=space)
        for name, module in list(net.named_modules()):
            if isinstance(module, nn.GroupNorm):
                net.set_submodule(name, nn.Identity())
    else:
        options = {"channels": (4, 4, 4), "num_blocks": 1, "norm": None, **options}
        net = kind(in_channels, out_channels, space=space, **options)
    return randomise(net).to(dtype).eval()


def field(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype)


@torch.no_grad()
def error(net, x, **options):
    """Largest difference between tiled and whole."""
    calls = []
    hook = net.register_forward_pre_hook(lambda module, arguments: calls.append(arguments))
    if isinstance(net, Augmented):
        hook.remove()
        hook = net.net.register_forward_pre_hook(lambda module, arguments: calls.append(arguments))
    tiled = tiled_predict(net, x, **options)
    hook.remove()
    assert min(seen[0].shape[2:].numel() for seen in calls) < x.shape[2:].numel(), (
        "only whole windows: nothing was tested"
    )
    return (tiled - net(x)).abs().max().item()


# ------------------------------------------------------------------------------------------------------- tiled equals whole


@pytest.mark.parametrize("patch_levels", [0, 1, 2])
@pytest.mark.parametrize("rule", RULES)
def test_equal_for_all_skips_sweeps_and_merges(rule, patch_levels, tolerance):
    channels = (4, 4) if patch_levels == 2 else (4, 4, 4)
    x = field(1, 1, 320 if rule == "periodic" else 323)
    combinations = itertools.product(["approximation", "detail", "packet", "scattering"], [1, 2], ["add", "concat"])
    for skip, sweeps, merge in combinations:
        options = {"channels": channels, "patch_levels": patch_levels, "skip": skip, "sweeps": sweeps, "merge": merge}
        assert error(build(spaces.Haar(1, rule), **options), x, tile=64) < tolerance(x.dtype), options


@pytest.mark.parametrize("boundary", ["zeros", "reflect", "replicate", ("zeros", "reflect"), ("reflect", "replicate")])
def test_equal_for_every_remainder_of_the_size_also_when_flipped(boundary, tolerance):
    net = build(spaces.Haar(1, [boundary]), sweeps=2, num_blocks=0)
    for n in range(96, 96 + net.space.reduction(net.depth)[0] + 1):
        x = field(1, 1, n)
        assert error(net, x, tile=16) < tolerance(x.dtype), n
        assert error(Augmented(net), x, tile=16, batch_size=2) < tolerance(x.dtype), n


@pytest.mark.parametrize("kind", [MultiResNet, ResidualUNet])
@pytest.mark.parametrize("rule", RULES)
def test_equal_on_417_by_419(kind, rule, tolerance):
    x = field(1, 1, *((416, 424) if rule == "periodic" else (417, 419)), dtype=torch.float32)
    net = build(spaces.Haar(2, rule), kind, dtype=x.dtype)
    assert error(net, x, tile=96, batch_size=4) < tolerance(x.dtype)


@pytest.mark.parametrize(
    ("kind", "boundary", "size", "options"),
    [
        (MultiResNet, (("zeros", "replicate"), "periodic"), (131, 128), {}),
        (MultiResNet, "reflect", (417, 35), {"paper": True}),
        (ResidualUNet, "zeros", (417, 35), {"paper": True}),
        (MultiResNet, "zeros", (131, 133), {"norm": "batch"}),
        (MultiResNet, "reflect", (131, 133), {"delta": True, "out_channels": 1}),
        (MultiResNet, "reflect", (131, 133), {"merge": "strict", "patch_levels": 0}),
        (ResidualUNet, "reflect", (131, 133), {"sweeps": 2, "num_blocks": 0}),
    ],
)
def test_equal_for_other_networks_in_2d(kind, boundary, size, options, tolerance):
    net, x = build(spaces.Haar(2, boundary), kind, **options), field(2, 1, *size)
    for buffer in net.buffers():  # statistics of batch norm, as after training
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 2)
    assert error(net, x, tile=(32, 48)) < tolerance(x.dtype)


@pytest.mark.parametrize("rule", RULES)
def test_equal_in_3d(rule, tolerance):
    x = field(1, 1, *((48, 64, 40) if rule == "periodic" else (45, 61, 37)))
    net = build(spaces.Haar(3, rule), channels=(4, 4), num_blocks=0, sweeps=2, skip="packet")
    assert error(net, x, tile=24) < tolerance(x.dtype)
    if rule == "reflect":
        assert error(Augmented(net, flips=[0, -1]), x, tile=24) < tolerance(x.dtype)


def test_equal_on_an_anisotropic_grid(tolerance):
    space, x = spaces.Haar(3, "zeros", strides=((1, 2, 2), (1, 2, 2))), field(1, 1, 9, 61, 45)
    assert error(build(space, num_blocks=0), x, tile=(3, 16, 16)) < tolerance(x.dtype)


def test_equal_for_a_stage_of_a_larger_network(tolerance):
    stage, x = build(spaces.Haar(1, "reflect")).stage(1), field(1, 1, 401)
    assert error(stage, x, tile=16) < tolerance(x.dtype)


def test_half_the_halo_is_not_enough():
    net, x = build(spaces.Haar(1, "zeros")), field(1, 1, 323)
    assert error(net, x, tile=32, halo=net.receptive_field[0] // 4) > 1e-9


@pytest.mark.parametrize("norm", ["group", "instance", "layer"])
def test_norms_over_the_field_differ(norm):
    net, x = build(spaces.Haar(2, "zeros"), norm=norm), field(1, 1, 160, 160)
    assert error(net, x, tile=80) > 1e-4
    assert torch.equal(tiled_predict(net, x, tile=160), net(x))


def test_periodic_axis_that_is_no_multiple_of_the_cell(tolerance):
    net, x = build(spaces.Haar(1, "periodic"), num_blocks=0), field(1, 1, 403)
    whole = net(x)
    assert torch.equal(tiled_predict(net, x), whole)  # kept whole
    with pytest.raises(ValueError, match="periodic and its size 403"):
        tiled_predict(net, x, tile=64)
    reach = net.receptive_field[0] // 2
    wrong = (tiled_predict(net, x, tile=64, halo=reach) - whole).abs()[0, 0] > tolerance(x.dtype)
    assert wrong.any()
    assert not wrong[reach + 64 : -reach - 64].any()


# ------------------------------------------------------------------------------------------------- networks of unknown reach


def test_attention_needs_a_halo():
    net, x = build(spaces.Haar(2), block="attention", norm="layer"), field(1, 1, 64, 64)
    with pytest.raises(ValueError, match="give halo="):
        tiled_predict(net, x, tile=32)
    assert torch.equal(tiled_predict(net, x), net(x))  # one tile: nothing to know
    assert tiled_predict(net, x, tile=32, halo=16).shape == (1, 2, 64, 64)


def test_any_module_with_a_halo(tolerance):
    conv = nn.Sequential(nn.Conv2d(1, 3, 5, padding=2), nn.ReLU(), nn.Conv2d(3, 1, 3, padding=1)).double()
    pooled = nn.Sequential(nn.AvgPool2d(4), nn.Conv2d(1, 1, 3, padding=1), nn.Upsample(scale_factor=4)).double()
    x = field(2, 1, 76, 52)
    assert error(conv, x, tile=20, halo=3) < tolerance(x.dtype)
    assert error(pooled, x, tile=24, halo=8) < tolerance(x.dtype)
    assert error(conv, x, tile=20, halo=2) > 1e-6


# -------------------------------------------------------------------------------------------------------------- the tiles


def test_cores_partition_the_axis_and_windows_are_whole_cells():
    for cell, halo, size, tile, periodic in itertools.product((1, 4), (0, 3, 8), range(1, 40), (4, 9), (False, True)):
        axis = Axis(cell, halo, periodic)
        cores = axis.cores(size, tile)
        assert [n for start, stop in cores for n in range(start, stop)] == list(range(size))
        assert all(start % cell == 0 and stop - start <= tile for start, stop in cores)
        assert len(cores) <= math.ceil(size / (tile // cell * cell))
        for start, stop in cores:
            lower, upper = axis.window((start, stop), size)
            assert upper - lower <= size
            if (lower, upper) != (0, size):
                assert lower % cell == 0
                assert lower <= start - halo if periodic else lower <= max(start - halo, 0)
                assert upper >= stop + halo if periodic else upper >= min(stop + halo, size)
                assert upper % cell == 0 or (upper == size and not periodic)


class Spy:
    """An array-like that notes the size of everything read from it."""

    def __init__(self, array):
        self.array, self.shape, self.reads = array, array.shape, []

    def __getitem__(self, index):
        part = self.array[index]
        self.reads.append(part.size)
        return part


def test_only_windows_are_read_and_seen():
    net = build(spaces.Haar(2, "periodic"), channels=(4, 4), num_blocks=0)
    (halo, _), cell = (n // 2 for n in net.receptive_field), net.space.reduction(net.depth)[0]
    side = 32 + 2 * math.ceil(halo / cell) * cell
    seen = []
    net.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0].shape))
    for n in (128, 256):
        x = Spy(np.random.default_rng(0).standard_normal((2, 1, n, n)))
        seen.clear()
        tiled_predict(net, x, tile=32, batch_size=3)
        tiles = 2 * (n // 32) ** 2
        assert max(x.reads) == side**2
        assert sum(x.reads) == tiles * side**2
        assert {tuple(shape[1:]) for shape in seen} == {(1, side, side)}
        assert sum(shape[0] for shape in seen) == tiles
        assert max(shape[0] for shape in seen) == 3
        assert len(seen) == math.ceil(tiles / 3)


def test_default_tile_is_a_constant_or_the_halo():
    group = symmetries(3)[:1]
    for channels in ((4, 4), (4, 4, 4, 4, 4, 4)):
        net = build(spaces.Haar(3), channels=channels, num_blocks=2, merge="concat")
        cell, halo = net.space.reduction(net.depth)[0], net.receptive_field[0] // 2
        sides = {stop - start for tile in plan(net, (999, 999, 999), None, None, group) for start, stop in tile.core}
        wanted = max(96, halo)
        assert wanted // 2 < max(sides) <= wanted
        assert (halo > 96) == (cell > 4)


# ------------------------------------------------------------------------------------------------------- arrays and options


@pytest.fixture
def small():
    return build(spaces.Haar(2), in_channels=3, channels=(4, 4), num_blocks=0, dtype=torch.float32)


def test_arrays_of_all_kinds(small, tmp_path, tolerance):
    x = field(2, 3, 75, 61, dtype=torch.float32)
    expected = small(x).detach()
    np.save(tmp_path / "x.npy", x.numpy().astype(">f8"))  # neither the machine's byte order nor the network's type
    with h5py.File(tmp_path / "x.h5", "w") as file:
        stored, written = file.create_dataset("x", data=x.numpy()), file.create_dataset("y", expected.shape, "f4")
        memory_map = np.lib.format.open_memmap(tmp_path / "y.npy", "w+", np.float32, tuple(expected.shape))
        for source in (x, x.numpy(), np.load(tmp_path / "x.npy", mmap_mode="r"), stored):
            for out in (None, torch.empty_like(expected), np.empty_like(expected.numpy()), memory_map, written):
                result = tiled_predict(small, source, tile=24, out=out)
                assert out is None or result is out
                assert torch.allclose(torch.as_tensor(result[:]), expected, atol=tolerance(torch.float32))
                if out is not None:
                    out[:] = np.nan
        tiled_predict(small, x, tile=24, out=memory_map)
    again = torch.from_numpy(np.load(tmp_path / "y.npy"))  # pages that were given back are on disk
    assert torch.allclose(again, expected, atol=tolerance(torch.float32))


def test_a_private_memory_map_keeps_its_changes(small, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 64, 64), np.float32))
    x = np.load(tmp_path / "x.npy", mmap_mode="c")
    x[:] = 1
    tiled_predict(small, x, tile=32)
    assert (x == 1).all()


def test_transform_on_the_fly_and_integer_input(small):
    x = torch.randint(0, 256, (2, 3, 75, 61), dtype=torch.uint8)
    prepare = lambda t: t.float() / 255  # noqa: E731
    expected = small(prepare(x)).argmax(1).byte()
    result = tiled_predict(small, x.numpy(), tile=24, prepare=prepare, transform=lambda y: y.argmax(1).byte())
    assert result.dtype == torch.uint8
    assert torch.equal(result, expected)
    out = np.empty((2, 1, 75, 61), bool)
    tiled_predict(small, x, tile=24, prepare=prepare, transform=lambda y: y[:, :1] > y[:, 1:], out=out)
    assert np.array_equal(out[:, 0], expected.numpy() == 0)


def test_bfloat16_goes_into_numpy(small):
    x, out = field(1, 3, 40, 40, dtype=torch.float32), np.empty((1, 2, 40, 40), np.float32)
    tiled_predict(small.bfloat16(), x, tile=24, out=out)
    assert np.abs(out - small(x.bfloat16()).float().detach().numpy()).max() < 4e-2


def test_conditioning_follows_its_entry(tolerance):
    net = build(spaces.Haar(2), emb_channels=3)
    x, emb = field(3, 1, 70, 66), field(3, 3)
    tiled = tiled_predict(net, x, tile=40, emb=emb, batch_size=2)
    assert (tiled - net(x, emb)).abs().max() < tolerance(x.dtype)
    assert (tiled - net(x, emb.flip(0))).abs().max() > 1e-3


def test_modes_are_restored_and_nothing_is_recorded(small):
    net = nn.Sequential(small, nn.BatchNorm2d(2)).train()
    net[1].eval()
    x = field(1, 3, 40, 40, dtype=torch.float32).requires_grad_()
    y = tiled_predict(net, x, tile=40)
    assert (net.training, net[0].training, net[1].training) == (True, True, False)
    assert not y.requires_grad and not y.is_inference()
    with pytest.raises(RuntimeError):
        tiled_predict(nn.Sequential(net, nn.Linear(7, 7)), x, tile=40)
    assert net.training and not net[1].training


# ------------------------------------------------------------------------------------------------------------- symmetries


@pytest.mark.parametrize(
    ("dims", "options", "order"),
    [
        (1, {}, 2),
        (2, {}, 4),
        (3, {}, 8),
        (2, {"quarter_turns": True}, 8),
        (3, {"quarter_turns": True}, 16),
        (2, {"quarter_turns": True, "flips": False}, 4),
        (2, {"quarter_turns": True, "flips": [0]}, 8),
        (3, {"flips": [-1]}, 2),
        (2, {"flips": False}, 1),
    ],
)
def test_symmetries_form_a_group(dims, options, order):
    group = symmetries(dims, **options)
    assert len(set(group)) == len(group) == order
    x = torch.randn(1, 2, *(3, 4, 5)[:dims])
    assert torch.equal(group[0](x), x)
    for g, h in itertools.product(group, group):
        assert g.then(h) in group
        assert torch.equal(g.then(h)(x), h(g(x)))
        assert torch.equal(g.inverse()(g(x)), x)


def test_quarter_turns_are_those_of_torch():
    x = torch.randn(1, 1, 4, 5)
    turned = [g(x) for g in symmetries(2, flips=False, quarter_turns=True)]
    for k in range(4):
        assert any(y.shape == (r := torch.rot90(x, k, (2, 3))).shape and torch.equal(y, r) for y in turned)


@pytest.mark.parametrize("boundary", ["reflect", ("zeros", "replicate")])
def test_augmented_commutes_with_all_its_symmetries(boundary, tolerance):
    net = build(spaces.Haar(2, boundary))
    augmented, x = Augmented(net, quarter_turns=True), field(1, 1, 23, 18)
    y = augmented(x)
    for g in augmented.symmetries(2)[1:]:
        assert (augmented(g(x)) - g(y)).abs().max() < tolerance(x.dtype)
        assert (net(g(x)) - g(net(x))).abs().max() > 1e-6


def test_augmented_is_the_mean_over_flips(small, tolerance):
    x = field(1, 3, 21, 18, dtype=torch.float32)
    expected = (small(x).sigmoid() + small(x.flip(3)).sigmoid().flip(3)) / 2
    assert torch.allclose(Augmented(small, flips=[-1], activation=torch.sigmoid)(x), expected, atol=1e-6)


@pytest.mark.parametrize("boundary", ["reflect", ("zeros", "replicate"), "periodic"])
def test_tiled_augmented_equals_whole(boundary, tolerance):
    net = build(spaces.Haar(2, boundary), channels=(4, 4))
    x = field(2, 1, *((88, 64) if boundary == "periodic" else (89, 66)))
    assert error(Augmented(net, quarter_turns=True), x, tile=28, batch_size=3) < tolerance(x.dtype)
    assert error(Augmented(net, flips=[0], activation=torch.sigmoid), x, tile=28) < tolerance(x.dtype)


# ----------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("kind", "options", "match"),
    [
        (ValueError, {"tile": 3}, "tile=3 on axis 0 is smaller than the coarsest cell of the network, 4"),
        (ValueError, {"tile": (32, 32, 32)}, "one for each of the 2 axes"),
        (ValueError, {"tile": 32.0}, "tile takes an integer"),
        (ValueError, {"halo": -1}, "halo takes an integer >= 0"),
        (ValueError, {"batch_size": 0}, "batch_size must be an integer >= 1"),
        (ValueError, {"x": torch.zeros(3, 64, 64)}, "with 2 spatial axes; x has 1"),
        (ValueError, {"x": torch.zeros(64, 64)}, "must be an array"),
        (ValueError, {"x": [[1.0]]}, "got list"),
        (ValueError, {"x": torch.zeros(0, 3, 64, 64)}, "none empty"),
        (ValueError, {"x": torch.zeros(1, 4, 64, 64)}, "in_channels=3, got 4"),
        (TypeError, {"x": np.zeros((1, 3, 64, 64), np.uint8)}, "prepare=lambda"),
        (ValueError, {"out": torch.zeros(1, 3, 64, 64)}, r"out must have shape \(1, 2, 64, 64\)"),
        (ValueError, {"transform": lambda y: y.mean((2, 3))}, "transform must keep"),
        (ValueError, {"emb": torch.zeros(2, 3)}, "one row for each of the 1 entries"),
        (ValueError, {"net": nn.Conv2d(3, 1, 3), "halo": 1}, "must keep the spatial size"),
        (TypeError, {"net": torch.sin}, "torch.nn.Module"),
    ],
)
def test_bad_inputs(kind, options, match, small):
    arguments = {"net": small, "x": torch.zeros(1, 3, 64, 64), "tile": 32, **options}
    with pytest.raises(kind, match=match):
        tiled_predict(arguments.pop("net"), arguments.pop("x"), **arguments)


def test_the_output_is_not_the_input(small):
    x = torch.zeros(1, 3, 64, 64)
    with pytest.raises(ValueError, match="out is x"):
        tiled_predict(small, x, out=x)


def test_symmetries_that_dont_exist():
    with pytest.raises(ValueError, match="two spatial axes"):
        symmetries(1, quarter_turns=True)
    with pytest.raises(ValueError, match="outside -2 ... 1"):
        symmetries(2, flips=[2])


# ------------------------------------------------------------------------------------------------------------ peak memory

MEASURE = """
import sys, h5py, torch
from multiresnet import MultiResNet
from multiresnet.tiling import tiled_predict
torch.set_num_threads(1)
n = int(sys.argv[1])
net = MultiResNet(1, 2, norm=None, channels=(8, 8, 8), num_blocks=0)
with h5py.File(sys.argv[2], "w") as file:
    x, y = file.create_dataset("x", (1, 1, n, n), "f4"), file.create_dataset("y", (1, n, n), "u1", chunks=(1, 256, 256))
    tiled_predict(net, x, tile=256, transform=lambda y: y.argmax(1).byte(), out=y)
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_does_not_grow_with_the_field(tmp_path):
    peaks = [
        int(
            subprocess.run(
                [sys.executable, "-c", MEASURE, str(n), str(tmp_path / f"{n}.h5")], capture_output=True, check=True
            ).stdout
        )
        for n in (1024, 4096)
    ]
    assert peaks[1] - peaks[0] < 32 * 1024, peaks  # kB; the larger field alone has 64 MB
