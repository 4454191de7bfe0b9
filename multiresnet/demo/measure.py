"""What a training step of a network costs: time, and memory kept for the backward pass."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["saved_bytes", "step_times"]


def saved_bytes(model: nn.Module, x: Tensor) -> int:
    """Bytes that autograd keeps for the backward pass: distinct storages, those of the parameters excluded.

    Examples:
        >>> saved_bytes(nn.Sequential(nn.Linear(4, 8), nn.Tanh()), torch.zeros(2, 4))  # x: 32, tanh(...): 64
        96
    """
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(x)  # alive until the count is done, so no address is used twice
    del output
    return sum(seen.values())


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
