"""T1 to T8 of the theory page, and what a network needs of its space, on every space: a new one costs one line of `CASES`."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from multiresnet import MultiResNet, ResidualUNet, UNet
from multiresnet.spaces import Haar, Hat, Mesh, Space, Sphere, Triangle, Wavelet
from multiresnet.testing import assert_every_parameter_has_gradient, randomise

# ------------------------------------------------------------------------------------------------------------ inner products


def plain(space, x, level):
    return x


def by_area(space, x, level):
    return x * torch.from_numpy(space.areas[level]) ** 0.5


def slopes(space, x, level):
    """Of H^1_0 along every axis: what the hats are orthonormal in. The vertices outside are zero."""
    for axis in range(2, x.ndim):
        x = x.diff(dim=axis) * 2 ** ((space.top - level) / 2)
    return x


@dataclass(frozen=True)
class Case:
    """A space, a grid of its finest level, and `isometry`: a map to where the inner product of a level is the dot product.

    `None`: the projection is oblique.
    """

    space: Space
    size: tuple[int, ...]
    isometry: Callable | None = plain

    def __str__(self):
        return f"{self.space}-{self.size}"


def random_mesh():
    """A tree with one to many children for each cell, any areas, and few or no neighbours."""
    rng = np.random.default_rng(0)
    parents = []
    for fine, coarse in ((60, 25), (25, 9), (9, 4)):
        step = np.concatenate([np.arange(coarse), rng.integers(0, coarse, fine - coarse)])
        parents.append(rng.permutation(step))
    return Mesh(parents, rng.uniform(0.1, 3, 60), [rng.integers(0, 60, rng.integers(0, 5)).tolist() for _ in range(60)])


class UnitHat(Hat):
    """With the number of halvings from the unit interval to the finest level, for the inner product."""

    top = 4


MIXED = (("zeros", "replicate"), "periodic")
CASES = [
    Case(Haar(1, "reflect"), (32,)),
    Case(Haar(2, "periodic"), (16, 24)),
    Case(Haar(3, "replicate"), (8, 8, 16)),
    Case(Haar(2, "zeros"), (13, 9), None),  # an average over less than a cell weighs more
    Case(Wavelet("db2", 1, "periodic"), (32,)),
    Case(Wavelet("sym4", 2, "periodic"), (16, 24)),
    Case(Wavelet("coif1", 3, "periodic"), (8, 8, 16)),
    Case(Wavelet("db2", 2, MIXED), (16, 21), None),
    Case(Wavelet("bior2.2", 2, "reflect"), (17, 24), None),
    Case(Wavelet("dmey", 2, "zeros"), (16, 24), None),
    Case(UnitHat(1), (17,), slopes),
    Case(UnitHat(2), (17, 17), slopes),
    Case(Hat(3), (9, 9, 10), None),
    Case(Hat(2, MIXED), (12, 16), None),
    Case(Hat(2, "periodic"), (16, 13), None),
    Case(Triangle(4), (256,)),
    Case(Triangle(3, "side", "replicate"), (64,)),
    Case(Sphere(8), (768,)),
    Case(Mesh.icosphere(3), (1280,), by_area),
    Case(random_mesh(), (60,), by_area),
]
every_space = pytest.mark.parametrize("case", CASES, ids=str)
LEVELS = 3  # of the networks


def element(case, channels=3, level=0, dtype=torch.float64):
    """A random element of `V_level`."""
    x = case.space.constrain(torch.randn(2, channels, *case.size, dtype=dtype))
    for finer in range(level):
        x = case.space.project(x, finer)
    return case.space.constrain(torch.randn_like(x), level)


def sizes(case, count=LEVELS):
    """Grids, finest first."""
    x, found = torch.zeros(1, 1, *case.size, dtype=torch.float64), []
    for level in range(count):
        found.append(tuple(x.shape[2:]))
        x = case.space.project(x, level)
    return found


def embed_from(case, w, level):
    """An element of `V_level` as one of `V_0`."""
    for finer in reversed(range(level)):
        w = case.space.embed(w, sizes(case)[finer], finer)
    return w


def dot(case, a, b, level=0):
    return (case.isometry(case.space, a, level) * case.isometry(case.space, b, level)).sum()


orthogonal = pytest.mark.parametrize("case", [case for case in CASES if case.isometry], ids=str)


# ----------------------------------------------------------------------------------------------------------------- T1 to T3


@orthogonal
def test_t1_projecting_over_levels_is_the_best_approximation(case, tolerance):
    """Least squares over a basis of the coarse space, by numpy."""
    depth = 2
    count = int(np.prod(sizes(case)[depth]))
    basis = torch.eye(count, dtype=torch.float64).view(1, count, *sizes(case)[depth])
    basis = embed_from(case, case.space.constrain(basis, depth), depth)
    target = element(case, channels=1)[:1]
    columns = case.isometry(case.space, basis, 0).flatten(2)[0].T.numpy()
    rhs = case.isometry(case.space, target, 0).flatten().numpy()
    best = np.linalg.lstsq(columns, rhs, rcond=None)[0].reshape(sizes(case)[depth])
    found = target
    for level in range(depth):
        found = case.space.project(found, level)
    found = case.space.constrain(found, depth)[0, 0].numpy()
    assert np.abs(found - best * (found != 0)).max() <= 100 * tolerance(torch.float64)


@every_space
def test_t2_synthesis_inverts_analysis_on_every_level(case, tolerance):
    for level, size in enumerate(sizes(case)):
        x = element(case, level=level)
        approximation, detail = case.space.analysis(x, level)
        assert (case.space.synthesis(approximation, detail, size, level) - x).abs().max() <= 10 * tolerance(x.dtype)
        assert (case.space.project(x, level) - approximation).abs().max() <= tolerance(x.dtype)
        assert torch.equal(case.space.detail(x, level), detail)
        assert detail.shape == (2, 3 * case.space.detail_bands(level), *approximation.shape[2:])


@orthogonal
def test_t2_parseval(case, tolerance):
    """The energies of the approximation and of the details add up to that of the function."""
    x = element(case)
    approximation, detail = case.space.analysis(x)
    smooth = case.space.synthesis(approximation, torch.zeros_like(detail), case.size)
    rough = case.space.synthesis(torch.zeros_like(approximation), detail, case.size)
    total = dot(case, x, x)
    assert abs(dot(case, smooth, smooth) + dot(case, rough, rough) - total) <= 10 * tolerance(x.dtype) * total


@every_space
def test_t3_project_inverts_embed(case, tolerance):
    for level, (size, coarse) in enumerate(zip(sizes(case), sizes(case)[1:])):
        w = case.space.constrain(torch.randn(2, 3, *coarse, dtype=torch.float64), level + 1)
        embedded = case.space.embed(w, size, level)
        assert (case.space.project(embedded, level) - w).abs().max() <= 10 * tolerance(w.dtype)
        assert torch.equal(case.space.constrain(embedded, level), embedded)


@orthogonal
def test_t3_embed_project_is_self_adjoint(case, tolerance):
    for level, size in enumerate(sizes(case)[:-1]):
        x, y = (element(case, level=level) for _ in range(2))
        px, py = (case.space.embed(case.space.project(v, level), size, level) for v in (x, y))
        limit = tolerance(x.dtype) * dot(case, x, x, level)
        assert abs(dot(case, px, y, level) - dot(case, x, py, level)) <= limit
        assert abs(dot(case, x - px, py, level)) <= limit


def free(case):
    """Whether nothing forces functions to zero."""
    return not (isinstance(case.space, Hat) and "zeros" in str(case.space.boundary))


@pytest.mark.parametrize("case", [case for case in CASES if free(case)], ids=str)
def test_constants_are_in_the_space(case, tolerance):
    one = torch.ones(1, 1, *case.size, dtype=torch.float64)
    limit = 1e-2 if case.space == Wavelet("dmey", 2, "zeros") else 10 * tolerance(one.dtype)  # its filters are cut off
    approximation, detail = case.space.analysis(one)
    assert (approximation - 1).abs().max() <= limit
    assert detail.abs().max() <= limit
    assert (case.space.embed(approximation, case.size) - 1).abs().max() <= limit


@every_space
def test_the_largest_fine_grid_of_a_coarse_one(case):
    for level, (size, coarse) in enumerate(zip(sizes(case), sizes(case)[1:])):
        refined = case.space.refine(coarse, level)
        assert all(n <= most for n, most in zip(size, refined, strict=True))
        x = case.space.project(torch.zeros(1, 1, *refined, dtype=torch.float64), level)
        assert tuple(x.shape[2:]) == coarse


# ----------------------------------------------------------------------------------------------------------------- T4 to T8


def strict(case, *, start=False, skip="detail"):
    net = MultiResNet(
        3, 2, space=case.space, channels=(4, 4, 6), num_blocks=1, patch_levels=0, merge="strict", skip=skip
    ).double()
    if not start:
        return randomise(net, 0.2)
    for parameter in net.sweeps[0].levels[0].head.parameters():  # only U_0, which alone does not start at zero
        nn.init.normal_(parameter)
    return net


def correction(level, prediction, skip):
    """F(R_pre, v): what a strict level computes beside the embedded coarse state."""
    h = level.merge.conv(skip if prediction is None else torch.cat([skip, prediction], 1))
    for block in level.blocks:
        h = block(h)
    return level.head.space.constrain(level.head.conv(level.head.activation(h)))


@every_space
def test_t4_each_resolution_is_the_embedded_coarser_one_and_a_correction(case, tolerance):
    net, v = strict(case), element(case)
    skips, outputs = net.encoder(v, levels=LEVELS), net.forward_resolutions(v)
    levels, grids = net.sweeps[0].levels, sizes(case)[::-1]
    assert (outputs[0] - correction(levels[0], None, skips[0])).abs().max() <= tolerance(v.dtype)
    for i in range(1, LEVELS):
        prediction = case.space.embed(outputs[i - 1], grids[i], LEVELS - 1 - i)
        assert (outputs[i] - prediction - correction(levels[i], prediction, skips[i])).abs().max() <= tolerance(v.dtype)


@every_space
def test_t5_telescoping_sum(case, tolerance):
    net, v = strict(case), element(case)
    skips, outputs, grids = net.encoder(v, levels=LEVELS), net.forward_resolutions(v), sizes(case)[::-1]
    total = 0
    for i, level in enumerate(net.sweeps[0].levels):
        prediction = case.space.embed(outputs[i - 1], grids[i], LEVELS - 1 - i) if i else None
        total = total + embed_from(case, correction(level, prediction, skips[i]), LEVELS - 1 - i)
    assert (net(v) - total).abs().max() <= 10 * tolerance(v.dtype)


class Mixing(nn.Module):
    """E_i(v) = Q_i v with an orthogonal mix of the channels at each level: invertible, commutes with the projections."""

    depth, patch_levels, in_channels, radius = LEVELS - 1, 0, 3, {}

    def __init__(self, space):
        super().__init__()
        self.space = space
        self.mix = [torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0] for _ in range(LEVELS)]

    def encode(self, v, i, *, inverse=False):
        return torch.einsum("oc,bc...->bo...", self.mix[i].T if inverse else self.mix[i], v)

    def forward(self, x, emb=None, *, levels):
        skips = []
        for i in reversed(range(levels)):
            x = self.encode(x, i)  # the coarser level gets the projection of the encoded function
            skips.append(x)
            x = self.space.project(x, self.depth - i) if i else x
        return skips[::-1]


@every_space
def test_t6_an_invertible_encoder_makes_a_conjugate_of_a_preconditioned_resnet(case, tolerance):
    decoder, encoder = strict(case, skip="approximation"), Mixing(case.space)
    parts = {"sweeps": list(decoder.sweeps), "restricts": [], "heads": [], "out_channels": 2}
    net = UNet(space=case.space, encoder=encoder, **parts)
    encoded = element(case)
    coarse = net.stage(LEVELS - 2)(case.space.project(encoded))
    prediction = case.space.embed(coarse, case.size)
    expected = prediction + correction(net.sweeps[0].levels[-1], prediction, encoded)
    conjugate = net(encoder.encode(encoded, LEVELS - 1, inverse=True))
    assert (conjugate - expected).abs().max() <= tolerance(encoded.dtype)


@every_space
def test_t7_at_the_start_the_network_is_the_embedded_coarsest_one(case):
    net, v = strict(case, start=True), element(case)
    outputs = net.forward_resolutions(v)
    assert outputs[0].abs().max() > 0.01
    for i, (coarse, fine) in enumerate(zip(outputs, outputs[1:])):
        assert torch.equal(fine, case.space.embed(coarse, fine.shape[2:], LEVELS - 2 - i))


@orthogonal
def test_t8_pythagoras(case, tolerance):
    """The error of a coarse answer is the detail energy of the target, and the error to its projection."""
    w, u = element(case), element(case, level=1)
    best = case.space.project(w)
    embedded, answer = (case.space.embed(v, case.size) for v in (best, u))
    error, lost, excess = (dot(case, v, v) for v in (w - answer, w - embedded, embedded - answer))
    assert abs(error - lost - excess) <= 10 * tolerance(w.dtype) * error


# ------------------------------------------------------------------------------------------------------- networks on a space


OPTIONS = [{}, {"patch_levels": 0}, {"patch_levels": 2}, {"skip": "packet"}, {"skip": "scattering"}, {"sweeps": 2}]


def small(case, build=MultiResNet, **options):
    options = {"channels": (4, 6), "num_blocks": 1, **options}
    return randomise(build(3, 2, space=case.space, **options).double(), 0.2)


@every_space
@pytest.mark.parametrize("options", [*OPTIONS, {"block": ("residual", "attention")}, {"delta": True}], ids=str)
def test_networks_keep_grid_and_conditions_at_every_resolution(case, options):
    net = small(case, **options)
    x = torch.randn(2, 3, *case.size, dtype=torch.float64)
    outputs = net.forward_resolutions(x)
    assert torch.equal(outputs[-1], net(x))
    assert outputs[-1].shape == (2, 2, *case.size)
    for i, y in enumerate(outputs):
        assert y.isfinite().all() and y.abs().max() > 0
        assert torch.equal(case.space.constrain(y, net.output_level(i)), y)


@every_space
@pytest.mark.parametrize("build", [MultiResNet, ResidualUNet])
def test_every_parameter_of_every_stage_learns(case, build):
    net = build(3, 2, space=case.space, channels=(4, 6), num_blocks=1).double()
    assert_every_parameter_has_gradient(net, element(case))
    assert_every_parameter_has_gradient(net.stage(0), element(case, level=1))


@every_space
def test_a_stage_at_the_projected_input_is_that_resolution(case, tolerance):
    net, x = small(case), element(case)
    projected = case.space.project(x)
    assert (net.stage(0)(projected) - net.forward_resolutions(x)[0]).abs().max() <= 10 * tolerance(x.dtype)


@every_space
def test_saved_and_loaded(case, tmp_path):
    net = small(case).float()
    net.save_pretrained(tmp_path)
    loaded, x = MultiResNet.from_pretrained(tmp_path), torch.randn(1, 3, *case.size)
    assert torch.equal(loaded(x), net(x))
    if type(case.space).__module__.startswith("multiresnet"):
        assert loaded.space == case.space and hash(loaded.space) == hash(case.space)


@every_space
def test_single_precision_and_autocast(case, tolerance):
    net, x = small(case).float(), element(case, dtype=torch.float32)
    expected = net.double()(x.double())
    assert (net.float()(x) - expected).abs().max() <= 100 * tolerance(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert net(x).isfinite().all()


@every_space
def test_only_boxes_of_boxes_are_cut_into_tiles(case):
    assert (small(case).receptive_field is not None) == isinstance(case.space, Haar)
