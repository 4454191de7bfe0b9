"""Compilers, export, mixed precision and the ways in which large models are built and copied."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.export import Dim

from multiresnet import MultiResNet, ResidualUNet, haar_analysis, haar_synthesis
from multiresnet.spaces import Haar
from multiresnet.testing import randomise

BOTH = [MultiResNet, ResidualUNet]
MIXED = (("reflect", "zeros"), "replicate")


def tiny(build, boundary="zeros", **options):
    options = {"channels": (4, 6), "num_blocks": 1, **options}
    return randomise(build(2, 1, space=Haar(2, boundary), **options), 0.2)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


# ---------------------------------------------------------------------------------------------------------------- compile


@pytest.mark.compile
@pytest.mark.parametrize(("build", "boundary"), [(ResidualUNet, "zeros"), (MultiResNet, MIXED)])
def test_a_compiled_network_takes_other_sizes_and_trains(build, boundary):
    net = tiny(build, boundary)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    for size in [(16, 16), (17, 22), (9, 31)]:
        x = torch.randn(2, 2, *size)
        torch.testing.assert_close(compiled(x), net(x), rtol=1e-4, atol=1e-5)
    x = torch.randn(2, 2, 13, 18)
    compiled(x).square().mean().backward()
    gradients = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    net(x).square().mean().backward()
    for gradient, p in zip(gradients, net.parameters(), strict=True):
        torch.testing.assert_close(gradient, p.grad, rtol=1e-4, atol=1e-5)
    torch.optim.SGD(net.parameters(), 0.1).step()
    torch.testing.assert_close(compiled(x), net(x), rtol=1e-4, atol=1e-5)


@pytest.mark.compile
@pytest.mark.parametrize(("build", "boundary"), [(MultiResNet, "zeros"), (ResidualUNet, "periodic")])
@torch.no_grad()
def test_one_graph_serves_odd_and_even_sizes(build, boundary):
    """One graph for each parity on each level would soon hit the compiler's limit of 8."""
    net, graphs = tiny(build, boundary, channels=(4, 4, 4)), []

    def count(module, inputs):
        graphs.append(module)
        return module.forward

    compiled = torch.compile(net, fullgraph=True, backend=count)
    for n, m in [(16, 16), (17, 19), (21, 40), (22, 41), (23, 35), (24, 50), (25, 37), (26, 39), (28, 33), (31, 32)]:
        x = torch.randn(1, 2, n, m)
        torch.testing.assert_close(compiled(x), net(x), rtol=1e-4, atol=1e-5)
    assert len(graphs) <= 3  # the first size alone, then all sizes; a square input may be told apart


@pytest.mark.compile
@pytest.mark.parametrize(
    "options",
    [
        {"skip": "packet", "sweeps": 2},
        {"skip": "scattering", "patch_levels": 2, "norm": "group"},
        {"merge": "strict", "patch_levels": 0},
        {"block": "attention", "merge": "concat", "delta": True},
        {"block": "transformer", "emb_channels": 3},
    ],
)
def test_options_compile(options):
    net = tiny(MultiResNet, **options)
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    emb = (torch.randn(2, 3),) if net.emb_channels else ()
    x = torch.randn(2, 2, 19, 26)
    torch.testing.assert_close(compiled(x, *emb), net(x, *emb), rtol=1e-4, atol=1e-5)


@pytest.mark.compile
def test_paper_layout_and_other_dimensions_compile():
    for net, size in [
        (MultiResNet.paper(2, 1, hidden_channels=2), (16, 33)),
        (MultiResNet(2, 1, space=Haar(3, "reflect", ((1, 2, 2),)), channels=(4, 6), num_blocks=1), (5, 8, 9)),
    ]:
        x = torch.randn(1, 2, *size)
        compiled = torch.compile(net, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(x), net(x), rtol=1e-4, atol=1e-5)


@pytest.mark.compile
@pytest.mark.slow
@pytest.mark.parametrize("build", BOTH)
@pytest.mark.filterwarnings("ignore")
def test_generated_code(build):
    """The default backend: forward, backward, another size."""
    net = tiny(build, "periodic")
    compiled = torch.compile(net, fullgraph=True)
    for size in [(16, 16), (17, 22)]:
        x = torch.randn(2, 2, *size)
        y = compiled(x)
        torch.testing.assert_close(y, net(x), rtol=1e-3, atol=1e-4)
        y.sum().backward()


@pytest.mark.compile
def test_the_transform_compiles_with_its_derivative():
    def round_trip(x):
        return haar_synthesis(*haar_analysis(x, boundary="periodic"), x.shape[2:])

    compiled = torch.compile(round_trip, fullgraph=True, backend="aot_eager")
    for size in [(8, 8), (7, 10), (9, 5)]:
        x = torch.randn(1, 2, *size, requires_grad=True)
        y = compiled(x)
        torch.testing.assert_close(y, x)
        (gradient,) = torch.autograd.grad((y * y.detach()).sum(), x)
        torch.testing.assert_close(gradient, x)


# ----------------------------------------------------------------------------------------------------------------- export


def export(net, x):
    sizes = {axis: Dim.AUTO for axis in (0, *range(2, x.ndim))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations
        return torch.export.export(net, (x,), dynamic_shapes={"x": sizes}).module()


@pytest.mark.compile
@pytest.mark.parametrize("boundary", ["zeros", "periodic", MIXED])
@pytest.mark.parametrize("build", BOTH)
@torch.no_grad()
def test_export_with_dynamic_batch_height_and_width(build, boundary):
    net = tiny(build, boundary)
    exported = export(net, torch.randn(2, 2, 17, 23))
    for size in [(3, 17, 23), (1, 16, 24), (4, 9, 32), (2, 30, 11), (1, 64, 64)]:
        x = torch.randn(size[0], 2, *size[1:])
        torch.testing.assert_close(exported(x), net(x), rtol=1e-4, atol=1e-5)


@pytest.mark.compile
@pytest.mark.parametrize(
    "options",
    [
        {"skip": "packet", "patch_levels": 2, "channels": (4, 4)},
        {"skip": "scattering", "sweeps": 2, "norm": "group"},
        {"merge": "strict", "patch_levels": 0, "skip": "approximation"},
        {"delta": True, "block": "attention"},
    ],
)
@torch.no_grad()
def test_options_export(options):
    net = tiny(MultiResNet, **options)
    exported = export(net, torch.randn(2, 2, 17, 23))
    for size in [(3, 17, 23), (2, 16, 24), (4, 21, 13)]:
        x = torch.randn(size[0], 2, *size[1:])
        torch.testing.assert_close(exported(x), net(x), rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------------------------------ trace


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated, and it tells what it records as constants
@pytest.mark.parametrize("boundary", ["zeros", "periodic", MIXED])
@pytest.mark.parametrize(
    ("build", "options"),
    [
        (ResidualUNet, {}),
        (MultiResNet, {"sweeps": 2, "delta": True}),
        (MultiResNet, {"skip": "packet", "block": "attention"}),
        (MultiResNet, {"skip": "scattering", "patch_levels": 2, "channels": (4, 4)}),
        (MultiResNet, {"merge": "strict", "patch_levels": 0}),
    ],
)
def test_one_trace_serves_odd_and_even_sizes(build, options, boundary, tmp_path):
    net = tiny(build, boundary, **options)
    torch.jit.trace(net, torch.randn(2, 2, 23, 29), check_trace=False).save(str(tmp_path / "net.pt"))
    traced = torch.jit.load(tmp_path / "net.pt")
    for size in [(2, 23, 29), (1, 16, 16), (3, 40, 17), (2, 33, 64)]:
        x = torch.randn(size[0], 2, *size[1:])
        torch.testing.assert_close(traced(x), net(x), rtol=1e-4, atol=1e-4)


# -------------------------------------------------------------------------------------------------------------- precision


@pytest.mark.parametrize("options", [{}, {"norm": "group", "block": "attention"}, {"sweeps": 2, "patch_levels": 0}])
@pytest.mark.parametrize("build", BOTH)
def test_autocast_forward_and_backward(build, options):
    net, x = tiny(build, "periodic", **options), torch.randn(2, 2, 15, 18)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = net(x)
    assert y.shape == (2, 1, 15, 18)
    exact = net(x)
    assert (y.float() - exact).abs().max() <= 0.05 * exact.abs().max()
    y.float().square().mean().backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all() and p.grad.dtype == torch.float32 for p in net.parameters()
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("build", BOTH)
def test_models_of_other_types(build, dtype, tolerance):
    net, x = tiny(build, "reflect", norm="group"), torch.randn(2, 2, 15, 18)
    exact = net.double()(x.double())
    y = net.to(dtype)(x.to(dtype))
    assert y.dtype == dtype
    allowed = 1e-6 if dtype == torch.float64 else 5 * tolerance(dtype)  # x itself is rounded
    assert (y.double() - exact).abs().max() <= allowed * exact.abs().max()
    y.float().sum().backward()
    assert all(p.grad.dtype == dtype and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("build", BOTH)
def test_channels_last_is_kept(build):
    net = tiny(build, "periodic", channels=(8, 8)).to(memory_format=torch.channels_last)
    x = torch.randn(2, 2, 16, 24)
    y = net(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(y, net(x), rtol=1e-4, atol=1e-5)


# -------------------------------------------------------------------------------------------------- building and copying


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"norm": "group", "sweeps": 2, "emb_channels": 3},
        {"block": "transformer"},
        {"merge": "strict", "patch_levels": 0},
    ],
)
@pytest.mark.parametrize("build", BOTH)
def test_construction_on_meta_loses_nothing(build, options):
    """No buffers: what a state dict does not hold does not exist."""
    net = tiny(build, **options)
    assert list(net.buffers()) == []
    with torch.device("meta"):
        empty = build(2, 1, space=net.space, **{"channels": (4, 6), "num_blocks": 1, **options})
    empty = empty.to_empty(device="cpu")
    empty.load_state_dict(net.state_dict())
    x, emb = torch.randn(2, 2, 13, 16), (torch.randn(2, 3),) if net.emb_channels else ()
    assert torch.equal(empty(x, *emb), net(x, *emb))


@pytest.mark.parametrize("build", BOTH)
def test_copies_are_independent(build):
    net, x = tiny(build), torch.randn(1, 2, 13, 16)
    twin, before = copy.deepcopy(net), net(x)
    assert torch.equal(twin(x), before)
    for p in twin.parameters():
        nn.init.zeros_(p)
    assert torch.equal(net(x), before)
    assert twin.config == net.config


@pytest.mark.parametrize("build", BOTH)
def test_backward_is_deterministic(build):
    """Also where torch's own padding is not."""
    net, x = tiny(build, ("periodic", ("reflect", "replicate"))), torch.randn(2, 2, 13, 17)
    gradients = []
    torch.use_deterministic_algorithms(True)
    try:
        for _ in range(2):
            net.zero_grad()
            net(x).square().sum().backward()
            gradients.append([p.grad.clone() for p in net.parameters()])
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
