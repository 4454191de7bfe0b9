"""A trained model without shared weights as the beginning of one with them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from multiresnet.hvae.cells import Bottleneck, TwoStepCell
from multiresnet.hvae.encoders import LearnedEncoder
from multiresnet.hvae.layout import Share
from multiresnet.hvae.model import HVAE

__all__ = ["share_weights"]


@torch.no_grad()
def share_weights(model: HVAE, share: Share) -> HVAE:
    """A model whose shared cells are the means of those of `model`, to be fine-tuned.

    r cells in a row become one that is repeated r times with steps of length 1/r, so its drifts are multiplied by r and its
    standard deviations by sqrt(r). Where the cells were equal already, the new model generates the same from the same random
    numbers. (Its posterior's variance is the same only where it is that of the prior; see `TwoStepCell`.)

    Args:
        model: with `share="none"`.
        share: as in `HVAE`.

    Raises:
        ValueError: the model shares weights already, or was made by `refined`.
    """
    if model.config.get("share") != "none":
        raise ValueError("share_weights wants a model that was built with share='none'")
    parameter = next(model.parameters())
    shared = HVAE(**{**{k: v for k, v in model.config.items() if k != "build"}, "share": share})
    shared.to(parameter.device, parameter.dtype)
    groups = list(zip(model.decoder.cells, shared.decoder.cells, shared.decoder.runs))
    rest = dict(model.state_dict())
    if isinstance(model.encoder, LearnedEncoder) and isinstance(shared.encoder, LearnedEncoder):
        groups += list(zip(model.encoder.blocks, shared.encoder.blocks, shared.encoder.runs))
    shared.load_state_dict({name: rest[name] for name in shared.state_dict()}, strict=False)
    for old, new, lengths in groups:
        first = 0
        for module, repeats in zip(cast(Sequence[nn.Module], new), lengths):
            _mean(module, list(cast(nn.ModuleList, old))[first : first + repeats])
            first += repeats
            if isinstance(module, TwoStepCell):
                _slow_down(module, repeats)
            else:
                _scale(cast(Bottleneck, module).conv4, repeats)
    return shared


def _mean(module: nn.Module, others: Sequence[nn.Module]) -> None:
    states = [other.state_dict() for other in others]
    module.load_state_dict({name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]})


def _slow_down(cell: TwoStepCell, repeats: int) -> None:
    """Means and drifts times r, standard deviations times sqrt(r): in r steps of length 1/r what was done in r of length 1."""
    z = cell.latent_channels
    for block in (cast(Bottleneck, cell.prior), cast(Bottleneck, cell.posterior)):
        for name, values in block.conv4.named_parameters():
            values[:z] *= repeats
            values[2 * z :] *= repeats  # the prior's drift
            if name.endswith("bias"):
                values[z : 2 * z] += math.log(repeats) / 2
    _scale(cast(Bottleneck, cell.residual).conv4, repeats)


def _scale(module: nn.Module, factor: float) -> None:
    for values in module.parameters():
        cast(Tensor, values).mul_(factor)
