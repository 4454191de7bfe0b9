"""The networks of the benchmarks by name, and any other by import path, at a budget of parameters or of work."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

import multiresnet as mrn
from multiresnet.checks import check_positive, closest
from multiresnet.models import TWO_SWEEPS
from multiresnet.spaces import Haar
from multiresnet_bench.peers import PEERS, Ports
from multiresnet_bench.peers import MissingPackage as MissingPackage
from multiresnet_bench.peers import Unsuitable as Unsuitable
from multiresnet_bench.peers import package as package

LEARNING_RATES: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
"""What a benchmark of accuracy tries for every network, ours and peers alike."""

Builder = Callable[[Ports, "Budget | None"], nn.Module]

FAST = mrn.PRESETS["compact"]  # few blocks where they are dear: for step time and memory at equal parameters
LEAN: dict[str, Any] = {"channels": (16, 32, 64, 176), "num_blocks": (1, 1, 2, 4), "patch_levels": 0}  # no patches
# The best division of its blocks that was found on Navier-Stokes: few in the encoder, none at its finest level.
TUNED: dict[str, Any] = {"channels": (32, 48, 64, 80), "num_blocks": 2, "encoder_blocks": (0, 1, 1, 1)}
# The best that was found on membranes, with the patches and the scale of details of PRESETS["segmentation"].
TUNED_FOR_TEXTURE: dict[str, Any] = {
    "channels": (32, 64, 96, 128),
    "num_blocks": 1,
    "patch_levels": 2,
    "detail_scale": 8,
}
ATTENTION = ("residual", "residual", "attention", "attention")
TRANSFORMER = ("residual", "residual", "transformer", "transformer")


@dataclass(frozen=True)
class Budget:
    """What a network may cost: parameters, or multiply-accumulates of one sample.

    Args:
        params: number of parameters.
        macs: number of multiply-accumulates, see `multiresnet.count_macs`; give this or `params`. Fourier neural operators have
            more than are counted: no FFT is, and a product of complex numbers counts as one.
        at: spatial size at which `macs` counts.

    Raises:
        ValueError: none or both of them, or `macs` without `at`.
    """

    params: int | None = None
    macs: int | None = None
    at: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if (self.params is None) == (self.macs is None):
            raise ValueError(f"give one budget, params or macs; got params={self.params}, macs={self.macs}")
        if self.macs is not None and self.at is None:
            raise ValueError("a budget of macs needs the spatial size at which it counts: at=(height, width)")
        check_positive(**{"params": self.params} if self.macs is None else {"macs": self.macs})

    @property
    def wanted(self) -> int:
        """The number to come near to."""
        return cast(int, self.params if self.macs is None else self.macs)

    def cost(self, model: nn.Module) -> int:
        """What the model has of it."""
        if self.macs is None:
            return mrn.count_parameters(model)
        return mrn.count_macs(model.eval(), cast("tuple[int, ...]", self.at))


def build(
    name: str,
    in_channels: int,
    out_channels: int,
    *,
    space: Haar | None = None,
    budget: Budget | None = None,
    emb_channels: int = 0,
    classes: int = 0,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A network that maps (N, in_channels, *spatial) to (N, out_channels, *spatial), any size, with fresh weights.

    The weights depend on torch's seed alone, not on what was built before.

    Args:
        name: a key of `BUILDERS`, or `"package.module:function"`; the function is called with
            `(in_channels, out_channels)` and with those of the keywords `space`, `params`, `macs`, `at`, `emb_channels` and
            `classes` that it takes.
        in_channels: channels of the input.
        out_channels: channels of the output.
        space: of the fields; None is `Haar(2, "zeros")`. Its boundary holds for the peers too, see `borders.follow`.
        budget: scale the widths to it; None takes them as they are. The networks of smp have fixed widths.
        emb_channels: for diffusion, length of the conditioning vector; diffusers' network takes the time step instead.
        classes: for diffusion, number of classes; ours learn them through the conditioning vector.
        options: more keywords for a function.

    Raises:
        ValueError: unknown name, no such function, or a budget that cannot be met.
        Unsuitable: the network is not for this number of dimensions, or knows no noise level.
        MissingPackage: the peer is not installed.
    """
    ports = Ports(in_channels, out_channels, space if space is not None else Haar(2), emb_channels, classes)
    if budget is not None and budget.at is not None and len(budget.at) != ports.dims:
        raise ValueError(f"the budget counts at {budget.at}, the network has {ports.dims} spatial dimensions")
    if ":" in name:
        model = _import(name, options or {})(ports, budget)
    elif name in BUILDERS:
        model = BUILDERS[name](ports, budget)
    else:
        known = ", ".join(BUILDERS)
        raise ValueError(
            f"unknown model {name!r}{closest(name, BUILDERS)}; known: {known}; "
            "your own by import path: package.module:function"
        )
    if not isinstance(model, nn.Module):
        raise ValueError(f"{name!r} returned {type(model).__name__}, expected a torch.nn.Module")
    return _countable(model, ports)


def _countable(model: nn.Module, ports: Ports) -> nn.Module:
    if not hasattr(model, "in_channels"):
        model.in_channels = ports.in_channels  # type: ignore[assignment]  # for multiresnet.count_macs
    return model


def _own(kind: type[mrn.UNet], **layout: Any) -> Builder:
    make = cast(Callable[..., mrn.UNet], kind)

    def arguments(ports: Ports) -> dict[str, Any]:
        names = ("in_channels", "out_channels", "space", "emb_channels")
        return {name: getattr(ports, name) for name in names} | layout

    @functools.cache
    def widths(ports: Ports, budget: Budget) -> tuple[int, ...]:
        with torch.device("meta"):
            found = mrn.match_budget(make, params=budget.params, macs=budget.macs, at=budget.at, **arguments(ports))
        return cast("tuple[int, ...]", found.config["channels"])

    def builder(ports: Ports, budget: Budget | None) -> nn.Module:
        scaled = {} if budget is None else {"channels": widths(ports, budget)}
        return make(**{**arguments(ports), **scaled})

    return builder


def scaled(make: Callable[[Ports, int], nn.Module], default: int, step: int) -> Builder:
    """`make` with the last argument, a width, as it is by default, or the multiple of `step` that comes nearest to the budget."""

    @functools.cache
    def search(ports: Ports, budget: Budget) -> int:
        @functools.cache
        def cost(width: int) -> int:
            try:
                with torch.device("meta"):
                    return budget.cost(_countable(make(ports, width), ports))
            except RuntimeError:  # an operation that needs numbers
                return budget.cost(_countable(make(ports, width), ports))

        low = high = max(step, 4)
        while cost(high) < budget.wanted:
            low, high = high, 2 * high
        while high - low > step:
            middle = (low + high) // (2 * step) * step
            low, high = (middle, high) if cost(middle) < budget.wanted else (low, middle)
        return min((low, high), key=lambda width: abs(cost(width) - budget.wanted))

    def builder(ports: Ports, budget: Budget | None) -> nn.Module:
        if budget is None or default == 0:
            return make(ports, default)
        with torch.random.fork_rng(devices=[]):  # what is built in the search draws weights too
            width = search(ports, budget)
        return make(ports, width)

    return builder


def _paper(kind: type[mrn.MultiResNet] | type[mrn.ResidualUNet], extra_blocks: int) -> Builder:
    def make(ports: Ports, width: int) -> nn.Module:
        if ports.emb_channels:
            raise Unsuitable("this network takes no noise level")
        ends = ports.in_channels, ports.out_channels
        return kind.paper(*ends, hidden_channels=width, extra_blocks=extra_blocks, space=ports.space)

    return scaled(make, 16, 1)


BUILDERS: dict[str, Builder] = {
    "multiresnet": _own(mrn.MultiResNet),
    "multiresnet-surrogate": _own(mrn.MultiResNet, norm=None),  # PRESETS["surrogate"], whose `delta` is up to the task
    "multiresnet-segmentation": _own(mrn.MultiResNet, **mrn.PRESETS["segmentation"]),
    "multiresnet-two-sweeps": _own(mrn.MultiResNet, **TWO_SWEEPS),
    "multiresnet-patched": _own(mrn.MultiResNet, patch_levels=2),
    "multiresnet-attention": _own(mrn.MultiResNet, block=ATTENTION),
    "multiresnet-transformer": _own(mrn.MultiResNet, block=TRANSFORMER),
    "multiresnet-fast": _own(mrn.MultiResNet, **FAST),
    "multiresnet-lean": _own(mrn.MultiResNet, **LEAN),
    "multiresnet-paper": _paper(mrn.MultiResNet, 3),
    "residual-unet": _own(mrn.ResidualUNet),
    "residual-unet-tuned": _own(mrn.ResidualUNet, **TUNED),
    "residual-unet-segmentation": _own(mrn.ResidualUNet, **TUNED_FOR_TEXTURE),
    "residual-unet-two-sweeps": _own(mrn.ResidualUNet, **TWO_SWEEPS),
    "residual-unet-attention": _own(mrn.ResidualUNet, block=ATTENTION),
    "residual-unet-transformer": _own(mrn.ResidualUNet, block=TRANSFORMER),
    "residual-unet-fast": _own(mrn.ResidualUNet, **FAST),
    "residual-unet-paper": _paper(mrn.ResidualUNet, 0),
    **{name: scaled(peer.build, peer.width, peer.step) for name, peer in PEERS.items()},
}


def _import(path: str, options: Mapping[str, Any]) -> Callable[[Ports, Budget | None], object]:
    module, _, name = path.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
        accepted = inspect.signature(function).parameters
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ValueError(f"found no model at {path!r}: {error}; expected package.module:function") from None

    def builder(ports: Ports, budget: Budget | None) -> object:
        keywords = {name: getattr(ports, name) for name in ("space", "emb_channels", "classes")}
        keywords |= {name: getattr(budget, name, None) for name in ("params", "macs", "at")}
        chosen = {name: value for name, value in keywords.items() if name in accepted}
        return function(ports.in_channels, ports.out_channels, **chosen, **options)

    return builder
