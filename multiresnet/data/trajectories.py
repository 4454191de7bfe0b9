"""Windows of trajectories for training, validation and rollout; no window is in two splits."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from multiresnet.spaces.boundary import Boundary, parse_boundary

from .files import TrajectoryFile, check_layout
from .splits import split_segments

__all__ = ["TrajectoryDataModule"]

Batch = tuple[Tensor, Tensor]


@dataclass
class _Windows(Dataset[Batch]):
    """Windows of `steps` frames that start at `starts`, cut into input and target after `input_steps`."""

    frames: Tensor | NDArray[Any] | TrajectoryFile  # (trajectory, time, C, *space); a Tensor when it is in memory
    starts: NDArray[np.int64]  # (windows, 2): trajectory, time
    steps: int
    input_steps: int

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> Batch:
        inputs, targets = self.__getitems__([index])
        return inputs[0], targets[0]

    def __getitems__(self, indices: list[int]) -> Batch:
        chosen = self.starts[indices]
        if isinstance(self.frames, Tensor):  # one gather for the whole batch
            rows = torch.from_numpy(chosen[:, 0] * self.frames.shape[1] + chosen[:, 1])
            flat = self.frames.flatten(0, 1)
            batch = flat[rows[:, None] + torch.arange(self.steps)]
        else:
            batch = torch.stack([_read(self.frames, i, slice(t, t + self.steps)) for i, t in chosen.tolist()])
        return batch[:, : self.input_steps], batch[:, self.input_steps :]


def _as_batch(batch: Any) -> Any:
    """What `__getitems__` returns is a batch already."""
    return batch


def _read(source: NDArray[Any] | TrajectoryFile, trajectory: int, times: slice) -> Tensor:
    """Frames of one trajectory as float32, refused with their place when not finite."""
    raw = np.asarray(source[trajectory, times])
    frames = np.array(raw, dtype=np.float32)
    if not np.isfinite(frames).all():
        place = np.argwhere(~np.isfinite(frames))[0]
        where = (trajectory, int(place[0]) + (times.start or 0), *place[1:].tolist())
        raise ValueError(
            f"data hold {raw[tuple(place)]} at (trajectory, time, channel, *space) = {where}; "
            "fill or remove such values (beyond float32 counts too)"
        )
    return torch.from_numpy(frames)


class TrajectoryDataModule(LightningDataModule):
    """Batches (input, target), float32, (B, input_steps, C, *space) and (B, output_steps, C, *space).

    Trajectories are split into train, val and test; fewer than three are split along time instead, with a
    warning. Values are served as they are; `mean` and `std`, per channel, are fitted on the training split
    for the task to use. Integer data become float32 without scaling, with a warning.

    Args:
        source: array (trajectory, time, channel, *space) with 1, 2 or 3 space axes, or the path of a .npz,
            .npy, .h5 or .hdf5 file that holds one.
        key: name of the array in the file, when it holds several.
        boundary: "periodic", "reflect", "replicate", "zeros", or one per space axis (and per side); None
            takes what the file states, else "replicate".
        input_steps: frames the model sees.
        output_steps: frames it predicts at once.
        rollout_steps: frames of a rollout window; less when the test trajectories are shorter.
        fractions: of train, val and test.
        batch_size: windows per batch.
        num_workers: data-loading processes; data in memory need none.
        seed: of the split and of the shuffling.
        memory: bytes of float32 up to which the data are kept in memory; above, windows are read from the
            source.

    Attributes:
        mean, std: per channel, lists of float, after `setup`.
        boundary: what was settled.
        segments: {"train": [...], "val": [...], "test": [...]}, after `setup`.

    Raises:
        ValueError, TypeError: on a wrong layout, NaN or Inf (with its place), too few frames, a constant
            channel.

    Examples:
        >>> import numpy as np
        >>> flow = np.random.default_rng(0).normal(size=(10, 5, 1, 8, 8))
        >>> data = TrajectoryDataModule(flow, boundary="periodic", batch_size=4)
        >>> data.setup()
        >>> inputs, targets = next(iter(data.train_dataloader()))
        >>> inputs.shape, targets.shape
        (torch.Size([4, 1, 1, 8, 8]), torch.Size([4, 1, 1, 8, 8]))
    """

    def __init__(
        self,
        source: NDArray[Any] | str | Path,
        *,
        key: str | None = None,
        boundary: Boundary | None = None,
        input_steps: int = 1,
        output_steps: int = 1,
        rollout_steps: int = 10,
        fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
        memory: int = 2**31,
    ) -> None:
        super().__init__()
        for name, value in (
            ("input_steps", input_steps),
            ("output_steps", output_steps),
            ("batch_size", batch_size),
        ):
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        self.source: NDArray[Any] | TrajectoryFile
        if isinstance(source, (str, Path)):
            self.source = TrajectoryFile(source, key=key)
            boundary = boundary if boundary is not None else self.source.boundary
        elif isinstance(source, np.ndarray):
            self.source = source
        else:
            raise TypeError(f"source must be a numpy array or a path, got {type(source).__name__}")
        check_layout(self.source)
        self.spatial_dims = len(self.source.shape) - 3
        self.channels = int(self.source.shape[2])
        self.boundary: Boundary = boundary if boundary is not None else "replicate"
        parse_boundary(self.boundary, self.spatial_dims)
        self.input_steps, self.output_steps, self.rollout_steps = input_steps, output_steps, rollout_steps
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self._in_memory = 4 * int(np.prod(self.source.shape, dtype=np.int64)) <= memory
        self._frames: Tensor | None = None
        self._ready = False
        self.segments = split_segments(
            self.source.shape[0],
            self.source.shape[1],
            fractions,
            window=input_steps + output_steps,
            seed=seed,
        )
        shortest = min(segment.stop - segment.start for segment in self.segments["test"])
        self.rollout_steps = max(1, min(rollout_steps, shortest - input_steps))
        if self.source.shape[0] < 3:
            cuts = {name: segments[0][1:] for name, segments in self.segments.items()}
            warnings.warn(
                f"{self.source.shape[0]} trajectory only: split along time instead, frames {cuts}",
                stacklevel=2,
            )
        if np.dtype(self.source.dtype).kind in "iub":
            warnings.warn(
                f"{self.source.dtype} data become float32, values unscaled "
                "(each channel is standardised with its training mean and deviation)",
                stacklevel=2,
            )

    def setup(self, stage: str | None = None) -> None:
        """Read the data (once) and fit `mean` and `std` on the training split."""
        if self._ready:
            return
        if self._in_memory:
            every = slice(0, self.source.shape[1])
            self._frames = torch.stack([_read(self.source, i, every) for i in range(self.source.shape[0])])
        self.mean, self.std = self._fit()
        self._ready = True

    def _fit(self) -> tuple[list[float], list[float]]:
        count, total, square = 0, torch.zeros(self.channels).double(), torch.zeros(self.channels).double()
        first = self.segments["train"][0]
        # shifted by the first frame's mean, so that the variance does not cancel
        shift = self._frame(first.trajectory, first.start).double().flatten(1).mean(1)
        for trajectory, start, stop in self.segments["train"]:
            for time in range(start, stop):
                frame = self._frame(trajectory, time).double().flatten(1) - shift[:, None]  # (C, points)
                count += frame.shape[1]
                total += frame.sum(1)
                square += frame.square().sum(1)
        variance = (square / count - (total / count) ** 2).clamp_min(0)
        mean, std = shift + total / count, variance.sqrt()
        flat = [i for i in range(self.channels) if not std[i] > 1e-6 * mean[i].abs().clamp_min(1e-30)]
        if flat:
            raise ValueError(
                f"channel {flat[0]} is constant ({mean[flat[0]]:g}) over the training data: "
                "there is nothing to learn from it, remove it"
            )
        return mean.tolist(), std.tolist()

    def _frame(self, trajectory: int, time: int) -> Tensor:
        if isinstance(self._frames, Tensor):
            return self._frames[trajectory, time]
        return _read(self.source, trajectory, slice(time, time + 1))[0]

    def windows(self, split: str, *, steps: int, stride: int = 1) -> _Windows:
        """The windows of a split with `steps` target frames, one starting every `stride` frames."""
        self.setup()
        length = self.input_steps + steps
        starts = [(i, t) for i, start, stop in self.segments[split] for t in range(start, stop - length + 1, stride)]
        if not starts:
            raise ValueError(f"no window of {length} frames fits into the {split} split: {self.segments[split][0]}")
        frames = self.source if self._frames is None else self._frames
        return _Windows(frames, np.array(starts, dtype=np.int64), length, self.input_steps)

    def _loader(self, windows: _Windows, *, shuffle: bool = False) -> DataLoader[Batch]:
        generator = torch.Generator().manual_seed(self.seed)
        return DataLoader(
            windows,
            batch_size=self.batch_size,
            shuffle=shuffle,
            num_workers=self.num_workers,
            collate_fn=_as_batch,
            generator=generator,
            persistent_workers=self.num_workers > 0,
        )

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled one-prediction windows."""
        return self._loader(self.windows("train", steps=self.output_steps), shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """One-prediction windows, in order."""
        return self._loader(self.windows("val", steps=self.output_steps))

    def test_dataloader(self) -> list[DataLoader[Batch]]:
        """One-prediction windows, then rollout windows."""
        return [self._loader(self.windows("test", steps=self.output_steps)), self.rollout_dataloader()]

    def predict_dataloader(self) -> DataLoader[Batch]:
        """The rollout windows of the test split."""
        return self.rollout_dataloader()

    def rollout_dataloader(self, split: str = "test") -> DataLoader[Batch]:
        """Windows with `rollout_steps` target frames that do not overlap in their targets."""
        return self._loader(self.windows(split, steps=self.rollout_steps, stride=self.rollout_steps))
