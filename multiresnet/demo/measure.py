"""How long a training step of a network takes."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["step_times"]


def step_times(models: Mapping[str, nn.Module], x: Tensor, *, seconds: float = 10.0) -> dict[str, float]:
    """Median seconds of a training step (forward, backward, AdamW) on copies of the models, in turns."""
    copies = {name: copy.deepcopy(model) for name, model in models.items()}
    optimizers = {name: torch.optim.AdamW(model.parameters(), lr=1e-4) for name, model in copies.items()}
    times: dict[str, list[float]] = {name: [] for name in models}
    began = time.perf_counter()
    for turn in range(52):
        if turn > 4 and time.perf_counter() - began > seconds:
            break
        for name, model in copies.items():
            start = time.perf_counter()
            model(x).square().mean().backward()
            optimizers[name].step()
            optimizers[name].zero_grad()
            if x.is_cuda:
                torch.cuda.synchronize()
            if turn >= 2:  # warm-up
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}
