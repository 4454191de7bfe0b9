"""From what a prediction is conditioned on (noise level, physical parameters, class) to one vector `emb`."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["Conditioning", "sinusoids"]


def sinusoids(t: Tensor, channels: int, *, max_period: float = 10_000.0) -> Tensor:
    """Cosine and sine of `t` at `channels / 2` frequencies from 1 down to 1 / max_period: (N,) -> (N, channels).

    The positional encoding of Vaswani et al. (arXiv 1706.03762), as used for diffusion times by Ho et al. (2006.11239).

    Examples:
        >>> sinusoids(torch.zeros(2), 4)
        tensor([[1., 1., 0., 0.],
                [1., 1., 0., 0.]])
    """
    half = channels // 2
    frequencies = torch.exp(-math.log(max_period) / max(half - 1, 1) * torch.arange(half, device=t.device))
    phase = t.float()[:, None] * frequencies
    return torch.cat([phase.cos(), phase.sin(), phase.new_zeros(len(t), channels - 2 * half)], dim=1)


class Conditioning(nn.Module):
    """`emb` (N, emb_channels) = MLP(sinusoids(noise) + linear(parameters) + table[label]).

    Args:
        emb_channels: length of `emb`.
        noise: whether there is a noise level or a time, one number for each sample.
        parameters: number of physical parameters, of order one (standardised).
        classes: number of classes; label `classes` is the extra one that means "no class", for classifier-free guidance.

    Raises:
        ValueError: in the constructor, when there is nothing to condition on; in `forward`, when something is missing,
            unexpected, of a wrong length, or a label is out of range.

    Examples:
        >>> Conditioning(16, noise=True, classes=10)(noise=torch.rand(3), label=torch.tensor([0, 9, 10])).shape
        torch.Size([3, 16])
    """

    def __init__(self, emb_channels: int, *, noise: bool = False, parameters: int = 0, classes: int = 0) -> None:
        super().__init__()
        if not (noise or parameters or classes):
            raise ValueError("nothing to condition on: give noise=True, parameters=... or classes=...")
        self.emb_channels, self.parameter_count, self.classes = emb_channels, parameters, classes
        self.noise = nn.Linear(emb_channels, emb_channels) if noise else None
        self.linear = nn.Linear(parameters, emb_channels) if parameters else None
        self.table = nn.Embedding(classes + 1, emb_channels) if classes else None
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, emb_channels), nn.SiLU())

    def forward(
        self, *, noise: Tensor | None = None, parameters: Tensor | None = None, label: Tensor | None = None
    ) -> Tensor:
        """(N,), (N, parameters), (N,) int64; what the module was built without is None."""
        terms: list[Tensor] = []
        for name, value, part in (
            ("noise", noise, self.noise),
            ("parameters", parameters, self.linear),
            ("label", label, self.table),
        ):
            if (value is None) != (part is None):
                word = "missing" if value is None else "unexpected: the model was built without it"
                raise ValueError(f"the conditioning {name!r} is {word}")
            if value is None or part is None:
                continue
            # a compiled graph has no branches on values
            checked = name == "label" and not torch.compiler.is_compiling()
            if checked and bool(((value < 0) | (value > self.classes)).any()):
                raise ValueError(
                    f"class labels must be 0 ... {self.classes - 1} ({self.classes} for none), "
                    f"got {int(value.min())} ... {int(value.max())}"
                )
            if name == "parameters" and (value.ndim != 2 or value.shape[1] != self.parameter_count):
                raise ValueError(f"parameters must be (N, {self.parameter_count}), got {tuple(value.shape)}")
            weight = part.weight
            x = sinusoids(value, self.emb_channels) if name == "noise" else value
            terms.append(part(x if name == "label" else x.to(weight.dtype)))
        emb: Tensor = self.mlp(torch.stack(terms).sum(0))
        return emb
