"""The recursion: T4 to T8 of the theory page, every resolution as a model, sweeps, checkpointing, receptive field."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from multiresnet import MultiResNet, Preconditioned, ResidualUNet, UNet
from multiresnet.spaces import Haar
from multiresnet.testing import randomise

BOTH = [MultiResNet, ResidualUNet]
# These features at a coarse level depend on the function only through its projection onto the level that they predict.
PROJECTED = [
    {"skip": "approximation"},
    {"skip": "approximation", "patch_levels": 0},
    {"skip": "approximation", "patch_levels": 2},
    {"skip": "detail"},
    {"skip": "detail", "patch_levels": 2},
    {"skip": "detail", "detail_scale": 8},
]
# These look at finer details too, or compute with them.
DETAILED = [
    {"skip": "detail", "patch_levels": 0},
    {"skip": "packet"},
    {"skip": "packet", "patch_levels": 0},
    {"skip": "packet", "patch_levels": 2},
    {"skip": "scattering"},
    {"skip": "scattering", "patch_levels": 2},
    {"skip": "scattering", "detail_scale": 8},
]


def small(build=MultiResNet, space=None, **options):
    """Three levels, randomised, float64."""
    options = {"channels": (4, 6, 8), "num_blocks": 1, **options}
    return randomise(build(2, 1, space=space or Haar(2, "periodic"), **options).double(), 0.2)


def strict(build=MultiResNet, *, start=False, boundary="periodic"):
    net = build(
        3, 2, space=Haar(2, boundary), channels=(4, 4, 6, 6), num_blocks=1, patch_levels=0, merge="strict"
    ).double()
    if not start:
        net = randomise(net, 0.2)
    else:  # only U_0, which alone does not start at zero
        nn.init.normal_(net.sweeps[0].levels[0].head.conv.conv.weight)
    return net


def up(x, size):
    """The inclusion, without our code."""
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)[..., : size[0], : size[1]]


def residual(level, prediction, skip):
    """F(R_pre, v): what a strict level computes beside the embedded coarse state."""
    h = level.merge.conv(skip if prediction is None else torch.cat([skip, prediction], 1))
    for block in level.blocks:
        h = block(h)
    return level.head.conv(level.head.activation(h))


# ------------------------------------------------------------------------------------- preconditioning (definition 2, T4-T8)


@pytest.mark.parametrize("build", BOTH)
@pytest.mark.parametrize("size", [(16, 24), (13, 9)])
def test_t4_each_resolution_is_the_embedded_coarser_one_and_a_residual(build, size, tolerance):
    net, v = strict(build), torch.randn(2, 3, *size, dtype=torch.float64)
    skips = net.encoder(v, levels=4)
    outputs = net.forward_resolutions(v)
    assert (outputs[0] - residual(net.sweeps[0].levels[0], None, skips[0])).abs().max() <= tolerance(v.dtype)
    for i in range(1, 4):
        prediction = up(outputs[i - 1], skips[i].shape[2:])
        expected = prediction + residual(net.sweeps[0].levels[i], prediction, skips[i])
        assert (outputs[i] - expected).abs().max() <= tolerance(v.dtype)


def test_t4_the_coarser_one_is_the_stage_at_the_projected_input(tolerance):
    """U_i(v) = embed(U_(i-1)(P v)) + F_i, with U_(i-1) run as a model of its own. Needs skips without finer details."""
    net = small(patch_levels=0, merge="strict", skip="approximation")
    v = torch.randn(2, 2, 16, 16, dtype=torch.float64)
    coarse = net.stage(1)(F.avg_pool2d(v, 2))
    prediction = up(coarse, (16, 16))
    expected = prediction + residual(net.sweeps[0].levels[2], prediction, v)
    assert (net(v) - expected).abs().max() <= tolerance(v.dtype)


@pytest.mark.parametrize("build", BOTH)
def test_t5_telescoping_sum(build, tolerance):
    net, v = strict(build), torch.randn(2, 3, 16, 24, dtype=torch.float64)
    skips = net.encoder(v, levels=4)
    total, prediction = 0, None
    for i, level in enumerate(net.sweeps[0].levels):
        correction = residual(level, prediction, skips[i])
        state = correction if prediction is None else prediction + correction
        if i < 3:
            prediction = up(state, skips[i + 1].shape[2:])
        for finer in range(i + 1, 4):
            correction = up(correction, skips[finer].shape[2:])
        total = total + correction
    assert (net(v) - total).abs().max() <= tolerance(v.dtype)


@pytest.mark.parametrize("options", [{}, {"patch_levels": 0}, {"patch_levels": 2}, {"merge": "concat"}, {"sweeps": 2}])
@pytest.mark.parametrize("build", BOTH)
def test_t5_outputs_are_partial_sums_of_the_heads(build, options, tolerance):
    net, v = small(build, **options), torch.randn(1, 2, 24, 32, dtype=torch.float64)
    outputs = net.forward_resolutions(v)
    increments = []
    handles = [head.register_forward_hook(lambda m, x, y: increments.append(y)) for head in net.heads]
    assert torch.equal(net(v), outputs[-1])
    for handle in handles:
        handle.remove()
    total = increments[0]
    for output, increment in zip(outputs[1:], increments[1:], strict=True):
        total = up(total, increment.shape[2:]) + increment
        assert (output - total).abs().max() <= tolerance(v.dtype)


class OrthogonalEncoder(nn.Module):
    """E_i(v) = Q_i v with an orthogonal mix of the channels at each level: invertible, commutes with the projections."""

    depth, patch_levels, in_channels, radius = 2, 0, 3, {}

    def __init__(self, space):
        super().__init__()
        self.space = space
        self.mix = [torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0] for _ in range(3)]

    def channels(self, level):
        return 3

    def encode(self, v, i, *, inverse=False):
        q = self.mix[i].T if inverse else self.mix[i]
        return torch.einsum("oc,bchw->bohw", q, v)

    def forward(self, x, emb=None, *, levels):
        skips = []
        for i in reversed(range(levels)):
            x = self.encode(x, i)  # the coarser level gets the projection of the encoded function
            skips.append(x)
            x = F.avg_pool2d(x, 2)
        return skips[::-1]


def test_t6_an_invertible_encoder_makes_a_conjugate_of_a_preconditioned_resnet(tolerance):
    decoder = MultiResNet(3, 2, channels=(4, 4, 4), num_blocks=1, patch_levels=0, skip="approximation", merge="strict")
    encoder = OrthogonalEncoder(decoder.space)
    parts = {"sweeps": list(decoder.sweeps), "restricts": [], "heads": [], "out_channels": 2}
    net = randomise(UNet(space=decoder.space, encoder=encoder, **parts).double(), 0.2)
    encoded = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    coarse = net.stage(1)(F.avg_pool2d(encoded, 2))
    prediction = up(coarse, (16, 16))
    expected = prediction + residual(net.sweeps[0].levels[2], prediction, encoded)
    conjugate = net(encoder.encode(encoded, 2, inverse=True))
    assert (conjugate - expected).abs().max() <= tolerance(encoded.dtype)


@pytest.mark.parametrize("build", BOTH)
@pytest.mark.parametrize("size", [(16, 24), (13, 9)])
def test_t7_at_the_start_the_network_is_the_embedded_coarsest_one(build, size):
    net, v = strict(build, start=True), torch.randn(2, 3, *size, dtype=torch.float64)
    outputs = net.forward_resolutions(v)
    assert outputs[0].abs().max() > 0.1
    for coarse, fine in zip(outputs, outputs[1:]):
        assert torch.equal(fine, up(coarse, fine.shape[2:]))
    assert torch.equal(net(v), outputs[-1])


@pytest.mark.parametrize("build", BOTH)
@pytest.mark.parametrize("options", [{}, {"patch_levels": 0, "merge": "strict"}, {"sweeps": 2}])
def test_t7_a_given_preconditioner_is_kept_at_the_start_and_can_be_corrected(build, options):
    base = nn.Conv2d(2, 1, 3, padding=1).requires_grad_(False)
    net = Preconditioned(base, build(3, 1, channels=(4, 6), num_blocks=1, **options))
    x = torch.randn(2, 2, 9, 7)
    assert torch.equal(net(x), base(x))
    optimiser = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], 1e-2)
    for _ in range(3):
        loss = (net(x) - torch.ones_like(base(x))).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert not torch.equal(net(x), base(x))


def test_preconditioned_by_a_coarser_network_of_the_same_family():
    """Any module will do: here a smaller network on the full grid, trained along, with conditioning of the residual."""
    residual = MultiResNet(2, 1, channels=(4, 4), num_blocks=1, emb_channels=3)
    net = Preconditioned(MultiResNet(1, 1, channels=(4,), num_blocks=1), residual)
    x, emb = torch.randn(2, 1, 8, 8), torch.randn(2, 3)
    assert torch.equal(net(x, emb), net.base(x))
    net(x, emb).sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in net.base.parameters())


def test_t8_pythagoras(tolerance):
    """The error of a coarse output is the detail energy of the target and the error to its projection."""
    space = Haar(2)
    w, u = torch.randn(2, 3, 16, 24, dtype=torch.float64), torch.randn(2, 3, 8, 12, dtype=torch.float64)
    best = space.project(w)
    lost = (w - space.embed(best, (16, 24))).square().sum()
    error = (w - space.embed(u, (16, 24))).square().sum()
    assert abs(error - lost - 4 * (best - u).square().sum()) <= tolerance(w.dtype) * error
    assert abs(lost - 4 * space.detail(w).square().sum()) <= tolerance(w.dtype) * lost


# -------------------------------------------------------------------------------------------------- every resolution a model


@pytest.mark.parametrize("build", BOTH)
@pytest.mark.parametrize("options", [{}, {"patch_levels": 0}, {"patch_levels": 2}, {"sweeps": 2}, {"delta": True}])
@pytest.mark.parametrize("size", [(16, 24), (13, 9), (1, 1)])
@pytest.mark.filterwarnings("ignore:spatial size")
def test_resolutions_come_coarsest_first_and_end_with_the_output(build, options, size):
    net, x = small(build, **options), torch.randn(1, 2, *size, dtype=torch.float64)
    outputs = net.forward_resolutions(x)
    sizes = [size]
    for _ in range(2):
        sizes.append(tuple((n + 1) // 2 for n in sizes[-1]))
    assert [tuple(y.shape[2:]) for y in outputs] == sizes[::-1]
    assert {y.shape[:2] for y in outputs} == {(1, 1)}
    assert torch.equal(outputs[-1], net(x))


@pytest.mark.parametrize("i", [0, 1, 2])
@pytest.mark.parametrize("size", [(16, 24), (20, 12)])
@pytest.mark.parametrize("options", PROJECTED)
@pytest.mark.filterwarnings("ignore:spatial size")
def test_a_stage_at_the_projected_input_is_that_resolution(options, size, i, tolerance):
    """For every x."""
    net, x = small(**options), torch.randn(2, 2, *size, dtype=torch.float64)
    projected = x
    for level in range(2 - i):
        projected = net.space.project(projected, level)
    assert (net.stage(i)(projected) - net.forward_resolutions(x)[i]).abs().max() <= tolerance(x.dtype)


@pytest.mark.parametrize("i", [0, 1, 2])
@pytest.mark.parametrize(
    ("build", "options"),
    [(MultiResNet, o) for o in (*PROJECTED, *DETAILED)]
    + [(MultiResNet, {"merge": "strict", "patch_levels": 0}), (MultiResNet, {"merge": "concat", "delta": True})]
    + [(ResidualUNet, {"patch_levels": n}) for n in (0, 1, 2)]
    + [(ResidualUNet, {"merge": "strict", "patch_levels": 0}), (ResidualUNet, {"delta": True})],
)
def test_a_stage_equals_that_resolution_of_an_input_in_its_space(build, options, i, tolerance):
    net = small(build, **options)
    coarse = torch.randn(2, 2, 8 * 2**i, 4 * 2**i, dtype=torch.float64)
    embedded = coarse
    for _ in range(2 - i):
        embedded = up(embedded, [2 * n for n in embedded.shape[2:]])
    assert (net.stage(i)(coarse) - net.forward_resolutions(embedded)[i]).abs().max() <= tolerance(coarse.dtype)


@pytest.mark.parametrize("build", BOTH)
@pytest.mark.filterwarnings("ignore:spatial size")
def test_stages_take_conditioning_sweeps_odd_sizes_and_other_dimensions(build):
    net = build(
        1, 1, space=Haar(3, "reflect", ((1, 2, 2),)), channels=(4, 6, 8), num_blocks=1, sweeps=2, emb_channels=5
    )
    for i in range(3):
        x = torch.randn(2, 1, 3, 7, 9)
        assert net.stage(i)(x, torch.randn(2, 5)).shape == x.shape


@pytest.mark.parametrize("build", BOTH)
@pytest.mark.parametrize("options", [{}, {"sweeps": 2}])
def test_a_stage_shares_its_weights(build, options):
    net = small(build, **options)
    stage, x = net.stage(1), torch.randn(1, 2, 8, 8, dtype=torch.float64)
    assert {id(p) for p in stage.parameters()} <= {id(p) for p in net.parameters()}
    assert net.stage(2) is net
    before = net(x)
    stage(x).square().mean().backward()
    finest = [*net.heads[2].parameters(), *net.sweeps[0].levels[2].parameters()]
    assert all(p.grad is None for p in finest)  # a stage doesn't touch what is finer
    torch.optim.SGD(stage.parameters(), 0.1).step()
    assert not torch.equal(net(x), before)


@pytest.mark.parametrize(
    ("net", "i", "message"),
    [
        (lambda: small(), 3, r"stage must be in 0 \.\.\. 2, got 3"),
        (lambda: small(), -1, r"stage must be in 0 \.\.\. 2, got -1"),
        (lambda: MultiResNet.paper(1, 1, hidden_channels=2), 2, r"in 4 \.\.\. 4, got 2; built with one head"),
    ],
)
def test_missing_stage(net, i, message):
    with pytest.raises(ValueError, match=message):
        net().stage(i)


# ---------------------------------------------------------------------------------------------------------- checkpointing


def saved_bytes(net, x):
    storages = {}

    def pack(t):
        storages[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    own = {p.untyped_storage().data_ptr() for p in net.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = net(x)
    return sum(n for pointer, n in storages.items() if pointer not in own), y


@pytest.mark.parametrize(
    ("build", "options"),
    [
        (MultiResNet, {}),
        (MultiResNet, {"sweeps": 2}),
        (MultiResNet, {"merge": "strict", "patch_levels": 0}),
        (ResidualUNet, {}),
    ],
)
def test_checkpointing_gives_the_same_gradients_for_less_memory(build, options):
    net = small(build, num_blocks=2, **options)
    twin = copy.deepcopy(net)
    twin.set_grad_checkpointing()
    x = torch.randn(2, 2, 24, 16, dtype=torch.float64)
    plain, y = saved_bytes(net, x)
    y.square().sum().backward()
    less, y_twin = saved_bytes(twin, x)
    y_twin.square().sum().backward()
    assert torch.equal(y, y_twin)
    assert less < 0.7 * plain
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)
    twin.set_grad_checkpointing(False)
    assert saved_bytes(twin, x)[0] == plain


# --------------------------------------------------------------------------------------------------------- receptive field


def dependency(net, size):
    """Largest distance, in samples, from any output sample to an input that it depends on, by autograd."""
    x = torch.randn(1, net.in_channels, size, dtype=torch.float64, requires_grad=True)
    y, reach = net(x), 0
    for position in range(size // 2 - 8, size // 2 + 8):  # every alignment with the cells
        (gradient,) = torch.autograd.grad(y[0, 0, position], x, retain_graph=True)
        support = gradient[0].abs().sum(0).nonzero().flatten()
        reach = max(reach, (support - position).abs().max().item())
    return reach


@pytest.mark.parametrize(
    ("build", "options"),
    [
        (MultiResNet, {}),
        (MultiResNet, {"patch_levels": 0, "skip": "approximation"}),
        (MultiResNet, {"patch_levels": 2, "channels": (4, 4)}),
        (MultiResNet, {"skip": "packet", "merge": "concat"}),
        (MultiResNet, {"skip": "scattering", "sweeps": 2, "num_blocks": 0}),
        (MultiResNet, {"merge": "strict", "patch_levels": 0}),
        (ResidualUNet, {}),
        (ResidualUNet, {"patch_levels": 0, "num_blocks": 0}),
    ],
)
def test_receptive_field_is_a_bound_and_a_close_one(build, options):
    net = small(build, space=Haar(1, "zeros"), norm=None, **options)
    (side,) = net.receptive_field
    reach = dependency(net, 2 * side + 32 if side < 200 else side + 32)
    assert side // 2 / 2 <= reach <= side // 2


def test_receptive_field_of_other_networks():
    assert small(norm="layer", block=("residual", "residual", "attention")).receptive_field is None
    assert small(block="transformer").receptive_field is None
    space = Haar(3, strides=((1, 2, 2), (1, 2, 2), (1, 2, 2)))
    depth, height, width = MultiResNet(1, 1, space=space, channels=(4, 4, 4), num_blocks=1).receptive_field
    assert depth < height == width
    one, two = (MultiResNet.paper(1, 1, hidden_channels=2, extra_blocks=n).receptive_field for n in (1, 2))
    assert one[0] == one[1] < two[0]
