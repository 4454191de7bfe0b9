"""Windows of trajectories for training, validation and rollout; no window is in two splits."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from multiresnet.checks import check_positive
from multiresnet.data.loading import make_loader
from multiresnet.spaces.boundary import Boundary, parse_boundary

from .files import Trajectories, TrajectoryArray, check_layout
from .folders import open_trajectories
from .splits import split_segments
from .statistics import channel_statistics
from .windows import Batch, Windows, as_batch, read_frames

__all__ = ["TrajectoryDataModule"]

_STATISTICS_FRAMES = 2000  # of data beyond the memory, evenly spaced
_PIECE = 2**22  # values that statistics take in at once


class TrajectoryDataModule(LightningDataModule):
    """Batches {"input": (B, input_steps, C, *space), "target": (B, output_steps, C, *space)}, float32.

    Physical parameters (viscosity, buoyancy, ...) that differ between trajectories add "parameters": (B, P).

    The data set's own splits are used if it has some: folders or files named train, valid, test, as in The Well and
    PDEArena. Else trajectories are split by `fractions`; fewer than three are split along time, with a warning. Values
    are served as they are; `mean` and `std`, per channel, are fitted on the training split for the task to use (on 2000
    of its frames when the data do not fit into `memory`). Integer data become float32 without scaling, with a warning.

    Args:
        source: array (trajectory, time, channel, *space) with 1, 2 or 3 space axes; or the path of a file, see
            `TrajectoryFile`, or of a folder of files, see `TrajectoryFolder`.
        key: name of the array in a plain file that holds several; of The Well, PDEBench and PDEArena the fields or
            channels to take, in order, None for all.
        boundary: "periodic", "reflect", "replicate", "zeros", or one per space axis (and per side); None
            takes what the file states, else "replicate".
        input_steps: frames the model sees.
        output_steps: frames it predicts at once.
        unroll_steps: predictions in a row in training, whose targets have output_steps * unroll_steps frames.
        rollout_steps: frames of a rollout window; less when the test trajectories are shorter.
        fractions: of train, val and test, where the data set does not say.
        batch_size: windows per batch.
        num_workers: data-loading processes; data in memory need none.
        seed: of the split and of the shuffling.
        memory: bytes of float32 up to which the data are kept in memory; above, windows are read from the
            source.

    Attributes:
        mean, std: per channel, lists of float, after `setup`.
        boundary: what was settled.
        segments: {"train": [...], "val": [...], "test": [...]}.
        channel_names: one for each channel.
        parameters: how many physical parameters a trajectory has; those that never change do not count.
        parameter_names, parameter_mean, parameter_std: of them, the statistics over the training trajectories.

    Raises:
        ValueError, TypeError: on a wrong layout, NaN or Inf (with file and place), too few frames, a constant
            channel.

    Examples:
        >>> import numpy as np
        >>> flow = np.random.default_rng(0).normal(size=(10, 5, 1, 8, 8))
        >>> data = TrajectoryDataModule(flow, boundary="periodic", batch_size=4)
        >>> data.setup()
        >>> batch = next(iter(data.train_dataloader()))
        >>> batch["input"].shape, batch["target"].shape
        (torch.Size([4, 1, 1, 8, 8]), torch.Size([4, 1, 1, 8, 8]))
    """

    def __init__(
        self,
        source: NDArray[Any] | str | Path,
        *,
        key: str | list[str] | None = None,
        boundary: Boundary | None = None,
        input_steps: int = 1,
        output_steps: int = 1,
        unroll_steps: int = 1,
        rollout_steps: int = 10,
        fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
        memory: int = 2**31,
    ) -> None:
        super().__init__()
        check_positive(input_steps=input_steps, output_steps=output_steps, unroll_steps=unroll_steps)
        check_positive(rollout_steps=rollout_steps, batch_size=batch_size)
        opened = open_trajectories(source, key=key) if isinstance(source, (str, Path)) else source
        if not isinstance(opened, (np.ndarray, Trajectories)):
            raise TypeError(f"source must be a numpy array or a path, got {type(source).__name__}")
        check_layout(opened)
        self.source = TrajectoryArray(opened) if isinstance(opened, np.ndarray) else opened
        boundary = boundary if boundary is not None else self.source.boundary
        self.spatial_dims = len(self.source.shape) - 3
        self.channels = int(self.source.shape[2])
        self.boundary: Boundary = boundary if boundary is not None else "replicate"
        parse_boundary(self.boundary, self.spatial_dims)
        self.input_steps, self.output_steps, self.unroll_steps = input_steps, output_steps, unroll_steps
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self._split(fractions, rollout_steps)
        self._describe()
        self._offsets = np.cumsum([0, *self._lengths[:-1]])
        self._in_memory = 4 * sum(self._lengths) * int(np.prod(self.source.shape[2:], dtype=np.int64)) <= memory
        self._frames: Tensor | None = None
        self._ready = False
        if np.dtype(self.source.dtype).kind in "iub":
            warnings.warn(
                f"{self.source.dtype} data become float32, values unscaled "
                "(each channel is standardised with its training mean and deviation)",
                stacklevel=2,
            )

    def _split(self, fractions: tuple[float, float, float], rollout_steps: int) -> None:
        self._lengths = self.source.lengths
        self.segments = split_segments(
            self._lengths,
            fractions,
            window=self.input_steps + self.output_steps,
            seed=self.seed,
            given=self.source.splits,
        )
        shortest = min(segment.stop - segment.start for segment in self.segments["test"])
        self.rollout_steps = max(1, min(rollout_steps, shortest - self.input_steps))
        longest = max(segment.stop - segment.start for segment in self.segments["train"])
        if longest < (need := self.input_steps + self.output_steps * self.unroll_steps):
            raise ValueError(
                f"too few frames: unroll_steps={self.unroll_steps} needs {need} in a row, training has {longest}"
            )
        first = self.segments["train"][0]
        if first[1:] != (0, self._lengths[first.trajectory]):
            cuts = {name: parts[0][1:] for name, parts in self.segments.items()}
            warnings.warn(f"{len(self.source)} trajectory only: split along time instead, frames {cuts}", stacklevel=3)

    def _describe(self) -> None:
        """Names of the channels; the parameters that differ between trajectories, and their statistics."""
        source, values = self.source, self.source.parameters
        for i, p in np.argwhere(~np.isfinite(values)).tolist()[:1]:
            raise ValueError(
                f"parameter {source.parameter_names[p]} of trajectory {i} is {values[i, p]} in {source.where(i)}"
            )
        differ = np.ptp(values, axis=0) > 0
        values = values[:, differ]
        self.channel_names = source.channel_names
        self.parameter_names = tuple(name for name, keep in zip(source.parameter_names, differ) if keep)
        self.parameters = len(self.parameter_names)
        self._parameter_values = torch.from_numpy(values).float()
        trained = values[[segment.trajectory for segment in self.segments["train"]]]
        self.parameter_mean: list[float] = trained.mean(0).tolist()
        self.parameter_std: list[float] = np.where(np.ptp(trained, axis=0) > 0, trained.std(0), 1.0).tolist()

    def setup(self, stage: str | None = None) -> None:
        """Read the data (once) and fit `mean` and `std` on the training split."""
        if self._ready:
            return
        if self._in_memory:
            self._frames = torch.empty(sum(self._lengths), *self.source.shape[2:])
            for i, row in enumerate(self._offsets.tolist()):
                self._frames[row : row + self._lengths[i]] = read_frames(self.source, i, slice(0, self._lengths[i]))
        self.mean, self.std = channel_statistics(
            self._training_pieces(),
            self.channel_names,
            hint="remove it, or name the other fields with key=[...]" if self.channels > 1 else "remove it",
        )
        self._ready = True

    def _training_pieces(self) -> Iterator[Tensor]:
        """The frames (time, C, *space) of the training split, or some of them, in pieces."""
        segments = self.segments["train"]
        count = sum(segment.stop - segment.start for segment in segments)
        every = 1 if self._frames is not None else -(-count // _STATISTICS_FRAMES)
        piece = max(1, _PIECE // int(np.prod(self.source.shape[2:], dtype=np.int64)))
        for trajectory, start, stop in segments:
            times = range(start + trajectory % every, stop, every)
            for at in range(0, len(times), piece):
                some = times[at : at + piece]
                yield self._read(trajectory, slice(some[0], some[-1] + 1, every))

    def _read(self, trajectory: int, times: slice) -> Tensor:
        if self._frames is None:
            return read_frames(self.source, trajectory, times)
        row = int(self._offsets[trajectory])
        return self._frames[row + times.start : row + times.stop : times.step]

    def windows(self, split: str, *, steps: int, stride: int = 1) -> Windows:
        """The windows of a split with `steps` target frames, one starting every `stride` frames."""
        self.setup()
        length = self.input_steps + steps
        starts = [(i, t) for i, start, stop in self.segments[split] for t in range(start, stop - length + 1, stride)]
        if not starts:
            raise ValueError(f"no window of {length} frames fits into the {split} split: {self.segments[split][0]}")
        frames = self.source if self._frames is None else self._frames
        places = np.array(starts, dtype=np.int64)
        return Windows(frames, self._offsets, places, length, self.input_steps, self._parameter_values)

    def _loader(self, windows: Windows, *, shuffle: bool = False) -> DataLoader[Batch]:
        self.source.close()  # no open file crosses the fork of the workers
        return make_loader(
            windows,
            batch_size=self.batch_size,
            shuffle=shuffle,
            num_workers=self.num_workers,
            seed=self.seed,
            collate_fn=as_batch,
        )

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled windows with the targets of `unroll_steps` predictions."""
        return self._loader(self.windows("train", steps=self.output_steps * self.unroll_steps), shuffle=True)

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
