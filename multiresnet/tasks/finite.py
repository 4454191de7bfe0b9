"""Finding where a forward pass stops being finite."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["first_non_finite"]


@torch.no_grad()
def first_non_finite(model: nn.Module, *inputs: Tensor | None) -> str | None:
    """Run `model` once and name the first module, in order of completion, whose output holds NaN or Inf.

    Returns:
        e.g. "blocks.2.conv (Conv2d)", or None if every output is finite. The hooks are gone afterwards.

    Examples:
        >>> import torch
        >>> class Log(nn.Module):
        ...     def forward(self, x): return x.log()
        >>> first_non_finite(nn.Sequential(nn.Identity(), Log()), torch.tensor([0.0]))
        '1 (Log)'
    """
    found: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, _: object, output: object) -> None:
            outputs = output if isinstance(output, (list, tuple)) else [output]
            if not found and any(isinstance(o, Tensor) and not bool(o.isfinite().all()) for o in outputs):
                found.append(f"{name or 'the model'} ({type(module).__name__})")

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in model.named_modules()]
    try:
        model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None
