"""What the networks computed when they were first checked: a change of the code must not change the function by accident.

Weights and inputs are formulas of the parameters' names and positions, so neither random numbers nor initialisation
matter, and a renamed parameter, which old weights would not find, shows as well.
"""

import math

import pytest
import torch

from multiresnet import MultiResNet, ResidualUNet
from multiresnet.spaces import Haar

PLAIN = {"norm": None, "channels": (4, 6, 8), "num_blocks": (1, 2, 1)}
NETS = {
    "lean": lambda: MultiResNet(2, 1, space=Haar(2, "periodic"), skip="detail", patch_levels=1, **PLAIN),
    "full resolution": lambda: MultiResNet(
        2, 2, space=Haar(2), skip="approximation", patch_levels=0, delta=True, **PLAIN
    ),
    "two sweeps": lambda: MultiResNet(
        2, 1, space=Haar(2, "reflect"), skip="scattering", sweeps=2, **PLAIN | {"norm": "group"}
    ),
    "packets": lambda: MultiResNet(2, 1, space=Haar(2, "replicate"), skip="packet", merge="concat", **PLAIN),
    "strict": lambda: MultiResNet(2, 1, space=Haar(2), merge="strict", patch_levels=0, skip="detail", **PLAIN),
    "transformer": lambda: MultiResNet(2, 1, space=Haar(2), block="transformer", emb_channels=3, **PLAIN),
    "learned": lambda: ResidualUNet(2, 1, space=Haar(2, "periodic"), patch_levels=1, **PLAIN | {"norm": "group"}),
    "paper": lambda: MultiResNet.paper(2, 1, hidden_channels=4, extra_blocks=1),
    "paper, learned": lambda: ResidualUNet.paper(2, 1, hidden_channels=4, extra_blocks=0),
}
# Mean, root mean square and the value at [0, 0, 3, 5] of the output.
REFERENCE = {
    "lean": (0.9571353448, 7.706493608, 4.055124368),
    "full resolution": (0.349050344, 1.83791181, -0.03303459992),
    "two sweeps": (1.923454752, 2.920803943, 4.002838553),
    "packets": (0.5304995937, 1.121693834, 0.6874928438),
    "strict": (0.1198414527, 2.423275147, -4.835028508),
    "transformer": (0.467168185, 2.821897115, -0.7370254656),
    "learned": (2.086058227, 3.141250868, 8.275533427),
    "paper": (0.2344461121, 0.4835189752, 0.6171007365),
    "paper, learned": (0.2629207748, 0.3360608655, 0.4744273416),
}


def signature(net):
    net = net.double().eval()
    with torch.no_grad():
        for name, p in net.named_parameters():
            phase = sum(i * ord(letter) for i, letter in enumerate(name, start=1)) % 101
            wave = torch.sin(phase + 1.7 * torch.arange(p.numel(), dtype=torch.float64)).view_as(p)
            p.copy_(wave * (0.3 if p.ndim == 1 else 1.5 / math.sqrt(p[0].numel())))
        x = torch.sin(0.37 * torch.arange(2 * 2 * 17 * 22, dtype=torch.float64).square() % 6.28).view(2, 2, 17, 22)
        emb = (torch.tensor([[0.5, -1.0, 2.0], [1.0, 0.0, -0.5]], dtype=torch.float64),) if net.emb_channels else ()
        y = net(x, *emb)
    return y.mean().item(), y.square().mean().sqrt().item(), y[0, 0, 3, 5].item()


@pytest.mark.parametrize("name", NETS)
def test_output_is_the_stored_one(name):
    assert signature(NETS[name]()) == pytest.approx(REFERENCE[name], rel=1e-8, abs=1e-10)
