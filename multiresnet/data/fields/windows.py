"""Windows of consecutive frames as a dataset that hands out whole batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from multiresnet.data.loading import Draw

from .files import Trajectories

__all__ = ["Batch", "Windows", "as_batch", "read_frames"]

Batch = dict[str, Tensor]


@dataclass
class Windows(Dataset[Batch]):
    """Windows of `steps` frames that start at `starts`, cut into input and target after `input_steps`."""

    frames: Tensor | Trajectories  # a Tensor, all frames in a row, when they are in memory
    offsets: NDArray[np.int64]  # row of each trajectory's first frame in it
    starts: NDArray[np.int64]  # (windows, 2): trajectory, time
    steps: int
    input_steps: int
    parameters: Tensor  # (trajectory, P)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int | Draw) -> Batch:
        return {name: part[0] for name, part in self.__getitems__([index]).items()}

    def __getitems__(self, indices: list[int | Draw]) -> Batch:
        chosen = self.starts[[item.index if isinstance(item, Draw) else item for item in indices]]
        if isinstance(self.frames, Tensor):  # one gather for the whole batch
            rows = torch.from_numpy(self.offsets[chosen[:, 0]] + chosen[:, 1])
            window = self.frames[rows[:, None] + torch.arange(self.steps)]
        else:
            window = torch.stack([read_frames(self.frames, i, slice(t, t + self.steps)) for i, t in chosen.tolist()])
        batch = {"input": window[:, : self.input_steps], "target": window[:, self.input_steps :]}
        if self.parameters.shape[1]:
            batch["parameters"] = self.parameters[chosen[:, 0]]
        return batch


def as_batch(batch: Any) -> Any:
    """What `__getitems__` returns is a batch already."""
    return batch


def read_frames(source: Trajectories, trajectory: int, times: slice) -> Tensor:
    """Frames of one trajectory as float32, refused with their place when not finite."""
    raw = np.asarray(source[trajectory, times])
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused
        frames = np.array(raw, dtype=np.float32)
    if not np.isfinite(frames).all():
        place = np.argwhere(~np.isfinite(frames))[0]
        where = (trajectory, int(times.start) + int(place[0]) * (times.step or 1), *place[1:].tolist())
        raise ValueError(
            f"data hold {raw[tuple(place)]} at (trajectory, time, channel, *space) = {where} in {source.where(trajectory)}; "
            "fill or remove such values (beyond float32 counts too)"
        )
    return torch.from_numpy(frames)
