"""Properties that a network of ours must have, as assertions for your own tests."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def randomise(model: nn.Module, scale: float = 0.05) -> nn.Module:
    """A copy whose parameters all differ from zero: adds uniform noise in ±`scale`, so that zero-initialised branches act."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.empty_like(parameter).uniform_(-scale, scale))
    return model


def assert_shift_equivariant(
    model: nn.Module,
    x: Tensor,
    shift: int | Sequence[int],
    *,
    emb: Tensor | None = None,
    tolerance: float | None = None,
) -> None:
    """Raise unless shifting the input around the periodic box shifts the output along.

    A U-Net of depth J on a periodic box of sizes divisible by 2**J can have this property for shifts by 2**J; one zero-padded
    convolution destroys it.

    Args:
        model: maps (N, C, *spatial) to (N, C', *spatial). A copy with randomised parameters is tested as well.
        x: the input.
        shift: in samples, one for all axes or one for each.
        emb: conditioning, if the model takes it.
        tolerance: largest error relative to the largest output; `None` is 100 times the rounding unit of `x.dtype`.

    Raises:
        AssertionError: with the size of the error.

    Examples:
        >>> from multiresnet import MultiResNet, spaces
        >>> net = MultiResNet(1, 1, space=spaces.Haar(2, "periodic"), channels=(16, 16), num_blocks=1)
        >>> assert_shift_equivariant(net, torch.randn(1, 1, 16, 16), shift=4)
    """
    axes = tuple(range(2, x.ndim))
    shifts = (shift,) * len(axes) if isinstance(shift, int) else tuple(shift)
    arguments = () if emb is None else (emb,)
    limit = tolerance if tolerance is not None else 100 * torch.finfo(x.dtype).eps
    for candidate in (model, randomise(model)):
        with torch.no_grad():
            expected = torch.roll(candidate(x, *arguments), shifts, axes)
            error = (candidate(torch.roll(x, shifts, axes), *arguments) - expected).abs().max().item()
        scale = max(expected.abs().max().item(), 1e-30)
        if not error <= limit * scale:
            raise AssertionError(
                f"shift by {shifts}: the output differs by {error / scale:.1e} of its maximum, allowed {limit:.1e}"
            )


def assert_every_parameter_has_gradient(model: nn.Module, x: Tensor, *, emb: Tensor | None = None) -> None:
    """Raise unless every parameter receives a finite gradient that is not zero.

    A parameter without one is dead weight, and DistributedDataParallel refuses it. The test runs on a copy with randomised
    parameters: behind a zero-initialised layer all gradients are zero before the first step.

    Args:
        model: maps (N, C, *spatial) to any tensor.
        x: the input.
        emb: conditioning, if the model takes it.

    Raises:
        AssertionError: with the names of the parameters.

    Examples:
        >>> from multiresnet import MultiResNet
        >>> net = MultiResNet(1, 1, channels=(16, 16), num_blocks=1)
        >>> assert_every_parameter_has_gradient(net, torch.randn(1, 1, 8, 8))
    """
    model = randomise(model)
    y = model(x) if emb is None else model(x, emb)
    (y * torch.randn_like(y)).sum().backward()
    dead = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all() or not parameter.grad.any()
    ]
    if dead:
        raise AssertionError(f"{len(dead)} parameters have no finite, nonzero gradient: {', '.join(dead)}")
