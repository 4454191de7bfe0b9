"""Networks of other libraries, and what is done to them at the border."""

import pytest
import torch
from multiresnet_bench.borders import Padded, follow
from multiresnet_bench.peers import PEERS, MissingPackage, Ports
from torch import nn

from multiresnet.spaces import Haar
from multiresnet.spaces.boundary import parse_boundary

SIZES = {1: (37,), 2: (37, 50), 3: (17, 20, 18)}
IN_ALL_DIMENSIONS = [(name, dims) for name, peer in PEERS.items() for dims in peer.dims]
FOURIER = ("neuralop-fno", "neuralop-uno")  # they know their coordinates


def build(name, dims, boundary="zeros"):
    try:
        return PEERS[name].build(Ports(1, 1, Haar(dims, boundary)), 8).requires_grad_(False)
    except MissingPackage as error:
        pytest.skip(str(error))


def with_biases(model):
    """Zeros at the start would hide what is beyond the border."""
    for weight in model.parameters():
        if weight.ndim < 2:
            nn.init.normal_(weight, 1.0, 0.1)
    return model


@pytest.mark.parametrize(("name", "dims"), IN_ALL_DIMENSIONS)
def test_a_peer_takes_every_size_in_training(name, dims):
    assert build(name, dims)(torch.randn(1, 1, *SIZES[dims])).shape == (1, 1, *SIZES[dims])


@pytest.mark.parametrize("name", [name for name, peer in PEERS.items() if peer.multiple > 1])
def test_no_network_is_wrapped_without_need(name):
    wrapped = build(name, 2)
    with pytest.raises((RuntimeError, ValueError)):
        wrapped.model(torch.zeros(1, 1, 17, 20), *([0] if PEERS[name].denoiser else []))


@pytest.mark.parametrize("name", [name for name, peer in PEERS.items() if name not in FOURIER and 2 in peer.dims])
def test_a_periodic_peer_commutes_with_shifts(name):
    stride = 32 if name.startswith("smp-") else PEERS[name].multiple
    x = torch.randn(1, 1, *(2 * max(stride, 16),) * 2, dtype=torch.float64)
    commutes = {}
    for boundary in ("zeros", "periodic", ("periodic", "zeros")):
        model = with_biases(build(name, 2, boundary)).double().eval()
        y = model(x)
        errors = [(model(x.roll(stride, axis)) - y.roll(stride, axis)).abs().max() / y.std() for axis in (2, 3)]
        commutes[boundary] = [bool(error < 1e-9) for error in errors]
    assert commutes == {"zeros": [False] * 2, "periodic": [True] * 2, ("periodic", "zeros"): [True, False]}


@pytest.mark.parametrize("name", ["monai-unet", "well-unet-convnext"])
def test_a_periodic_peer_commutes_with_shifts_in_3d(name):
    model = with_biases(build(name, 3, "periodic")).double().eval()
    x = torch.randn(1, 1, 16, 16, 32, dtype=torch.float64)
    torch.testing.assert_close(model(x.roll(16, 4)), model(x).roll(16, 4))


@pytest.mark.parametrize("boundary", ["reflect", "replicate"])
def test_other_boundaries_reach_a_peer(boundary):
    """A constant stays one where it goes on beyond the border. At this size, coarse levels are narrower than the padding."""
    x = torch.ones(1, 1, 32, 32)
    inside, beyond = (with_biases(build("smp-resnet18", 2, rule)).eval()(x).std() for rule in ("zeros", boundary))
    assert beyond < 1e-5 * inside


@pytest.mark.parametrize(
    ("rule", "mode"), [("periodic", "circular"), ("reflect", "reflect"), ("replicate", "replicate")]
)
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 1, 1), (7, 2, 1), (3, 1, 2)])
def test_a_convolution_is_that_of_torch(rule, mode, kernel, stride, dilation):
    options = {"stride": stride, "dilation": dilation, "padding": dilation * (kernel // 2)}
    ours, torchs = nn.Conv2d(2, 3, kernel, **options), nn.Conv2d(2, 3, kernel, **options, padding_mode=mode)
    torchs.load_state_dict(ours.state_dict())
    follow(ours, parse_boundary(rule, 2))
    x = torch.randn(1, 2, 8, 10)
    torch.testing.assert_close(ours(x), torchs(x))


@pytest.mark.parametrize(
    "layer",
    [
        nn.ConvTranspose2d(2, 3, 3, 2, 1, 1),
        nn.ConvTranspose2d(2, 3, 4, 2, 1),
        nn.ConvTranspose2d(2, 3, 2, 2),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(2, 3, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
    ],
    ids=str,
)
def test_a_periodic_layer_sees_its_input_repeated(layer):
    """On nine copies side by side, a layer that does not know the border gives in the middle what the periodic one gives on one."""
    x = torch.randn(1, 2, 4, 6)
    middle = layer(x.repeat(1, 1, 3, 3))
    follow(layer, parse_boundary("periodic", 2))
    y = layer(x)
    height, width = y.shape[2:]
    cut = middle if isinstance(layer, nn.AdaptiveAvgPool2d) else middle[..., height : 2 * height, width : 2 * width]
    torch.testing.assert_close(y, cut)


@pytest.mark.parametrize("layer", [nn.MaxPool1d(3, 2, 1), nn.Upsample(scale_factor=2, mode="linear")], ids=str)
@pytest.mark.parametrize("rule", ["replicate", ("zeros", "replicate")])
def test_pools_and_interpolation_have_no_zeros_outside(layer, rule):
    x = -1 - torch.rand(1, 2, 8)  # a zero would win
    expected = layer(x)
    follow(layer, parse_boundary((rule,), 1))
    torch.testing.assert_close(layer(x), expected)


def test_zeros_change_nothing():
    layer = nn.Conv2d(1, 1, 3, padding=1)
    follow(layer, parse_boundary("zeros", 2))
    assert layer.padding == (1, 1) and not layer._forward_pre_hooks


class Record(nn.Module):
    def forward(self, x):
        self.seen = x
        return x


def test_padding_wraps_or_repeats_and_is_cut_off_again():
    model = Padded(Record(), 4, parse_boundary(("periodic", ("zeros", "reflect")), 2))
    x = torch.arange(30.0).view(1, 1, 5, 6)
    assert torch.equal(model(x), x)
    grown = model.model.seen
    assert grown.shape == (1, 1, 8, 8)
    assert torch.equal(grown[..., 5:, :6], x[..., :3, :])
    assert torch.equal(grown[..., :5, 6:], x[..., 5:].expand(1, 1, 5, 2))
    fitting = torch.zeros(1, 1, 8, 4)
    assert torch.equal(model(fitting), fitting) and model.model.seen is fitting
