"""Steady problems: pairs of an input field and the field that solves the equation for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from multiresnet.checks import check_positive
from multiresnet.data.loading import Draw, make_loader
from multiresnet.data.stores import close, list_arrays, open_store
from multiresnet.spaces.boundary import Boundary, parse_boundary

from .files import Trajectories, TrajectoryArray, TrajectoryFile, check_layout
from .layout import SPACE, Field, Group, Layout
from .readers import listing, said
from .splits import split_segments
from .statistics import channel_statistics
from .windows import Batch, as_batch, read_frames

__all__ = ["PairDataModule"]

_NAMES = (("input", "target"), ("nu", "tensor"), ("x", "y"))  # ours, PDEBench's, neuraloperator's
_ONLY = slice(0, 1)  # a sample is a trajectory of one frame

Sources = tuple[Trajectories, Trajectories]


@dataclass
class _Pairs(Dataset[Batch]):
    """Samples of two sources, or of two tensors (sample, 1, C, *space) in memory."""

    inputs: Trajectories | Tensor
    targets: Trajectories | Tensor
    samples: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int | Draw) -> Batch:
        return {name: part[0] for name, part in self.__getitems__([index]).items()}

    def __getitems__(self, indices: list[int | Draw]) -> Batch:
        chosen = self.samples[[item.index if isinstance(item, Draw) else item for item in indices]]
        return {"input": _take(self.inputs, chosen), "target": _take(self.targets, chosen)}


def _take(source: Trajectories | Tensor, samples: NDArray[np.int64]) -> Tensor:
    if isinstance(source, Tensor):
        return source[torch.from_numpy(samples)]
    return torch.stack([read_frames(source, i, _ONLY) for i in samples.tolist()])


class PairDataModule(LightningDataModule):
    """Batches {"input": (B, 1, C, *space), "target": (B, 1, C', *space)}, float32, for `SurrogateTask`.

    The data are two arrays, input (sample, C, *space) and target (sample, C', *space), in a .npz, HDF5 or Zarr file or in
    memory; an array with one channel may lack that axis. PDEBench's Darcy flow, `nu` and `tensor`, is one such file.

    Args:
        source: path of the file, or the two arrays.
        keys: names of input and target in the file; None takes "input" and "target", "nu" and "tensor", or "x" and "y".
            Where they contain "train" and the file has the same names with "test", those are the test split.
        spatial_dims: 1, 2 or 3; needed where neither array tells whether it has an axis of channels.
        boundary: as for `TrajectoryDataModule`; None takes what the file states, else "zeros": steady problems mostly
            have their solution given on the boundary.
        fractions: of train, val and test.
        batch_size: pairs per batch.
        num_workers: data-loading processes; data in memory need none.
        seed: of the split and of the shuffling.
        memory: bytes of float32 up to which the data are kept in memory.

    Attributes:
        channels, target_channels: of input and target.
        mean, std, target_mean, target_std: per channel, on the training split, after `setup`.

    Raises:
        ValueError, TypeError: arrays that are missing or do not go together, fewer than three samples, NaN or Inf (with
            file and place), a constant channel.

    Examples:
        >>> x = np.random.default_rng(0).normal(size=(10, 1, 8, 8))
        >>> data = PairDataModule((x, 2 * x), batch_size=4)
        >>> data.setup()
        >>> next(iter(data.train_dataloader()))["target"].shape
        torch.Size([4, 1, 1, 8, 8])
    """

    input_steps = output_steps = rollout_steps = 1
    parameters = 0

    def __init__(
        self,
        source: str | Path | tuple[NDArray[Any], NDArray[Any]],
        *,
        keys: tuple[str, str] | None = None,
        spatial_dims: int | None = None,
        boundary: Boundary | None = None,
        fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
        memory: int = 2**31,
    ) -> None:
        super().__init__()
        check_positive(batch_size=batch_size)
        if isinstance(source, (str, Path)):
            self.sources = _open_file(Path(source), keys, spatial_dims)
        else:
            self.sources = _open_arrays(source, spatial_dims)
        inputs, targets = self.sources
        for part in self.sources:
            check_layout(part)
        if len(inputs) != len(targets) or inputs.shape[3:] != targets.shape[3:]:
            raise ValueError(
                f"input and target must agree in samples and space, got (sample, time, channel, *space) = "
                f"{inputs.shape} and {targets.shape}"
            )
        if len(inputs) < 3:
            raise ValueError(f"too few samples: got {len(inputs)}, need at least 3 (train, val and test)")
        self.channels, self.target_channels = inputs.shape[2], targets.shape[2]
        self.spatial_dims = inputs.ndim - 3
        self.boundary: Boundary = boundary or inputs.boundary or "zeros"
        parse_boundary(self.boundary, self.spatial_dims)
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.segments = split_segments(inputs.lengths, fractions, window=1, seed=seed, given=inputs.splits)
        self._in_memory = 4 * sum(int(np.prod(part.shape, dtype=np.int64)) for part in self.sources) <= memory
        self._data: tuple[Trajectories | Tensor, Trajectories | Tensor] = self.sources
        self._ready = False

    def setup(self, stage: str | None = None) -> None:
        """Read the data (once) and fit the statistics on the training split."""
        if self._ready:
            return
        if self._in_memory:
            every = np.arange(len(self.sources[0]))
            self._data = _take(self.sources[0], every), _take(self.sources[1], every)
        trained = np.array([segment.trajectory for segment in self.segments["train"]])
        trained = trained[:: -(-len(trained) // 2000) if not self._in_memory else 1]
        statistics = [
            channel_statistics((_take(data, i[None])[0] for i in trained), part.channel_names, hint="remove it")
            for data, part in zip(self._data, self.sources)
        ]
        (self.mean, self.std), (self.target_mean, self.target_std) = statistics
        self._ready = True

    def _loader(self, split: str) -> DataLoader[Batch]:
        self.setup()
        for part in self.sources:
            part.close()  # no open file crosses the fork of the workers
        return make_loader(
            _Pairs(*self._data, np.array([segment.trajectory for segment in self.segments[split]])),
            batch_size=self.batch_size,
            shuffle=split == "train",
            num_workers=self.num_workers,
            seed=self.seed,
            collate_fn=as_batch,
        )

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled pairs."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Batch]:
        """Pairs in order."""
        return self._loader("val")

    def test_dataloader(self) -> list[DataLoader[Batch]]:
        """Pairs in order; a list, as `TrajectoryDataModule` has it."""
        return [self._loader("test")]

    def predict_dataloader(self) -> DataLoader[Batch]:
        """The pairs of the test split."""
        return self._loader("test")


def _open_arrays(arrays: Any, spatial_dims: int | None) -> Sources:
    if not (isinstance(arrays, tuple) and len(arrays) == 2 and all(isinstance(a, np.ndarray) for a in arrays)):
        raise TypeError("source must be a path, or a tuple of two numpy arrays, input and target")
    dims = _spatial_dims([a.shape for a in arrays], spatial_dims)
    inputs, targets = (a[:, None] if a.ndim > dims + 1 else a[:, None, None] for a in arrays)
    return TrajectoryArray(inputs), TrajectoryArray(targets)


def _open_file(path: Path, keys: tuple[str, str] | None, spatial_dims: int | None) -> Sources:
    store = open_store(path)
    try:
        arrays = list_arrays(store)
        keys = next((pair for pair in _NAMES if all(key in arrays for key in pair)), None) if keys is None else keys
        missing = [key for key in keys or () if key not in arrays]
        if keys is None or missing:
            what = f"no array {missing[0]!r}" if missing else "no arrays input and target (nor nu and tensor, x and y)"
            raise ValueError(f"{path.name} has {what}; it holds {listing(arrays)}: name them, keys=(...)")
        dims = _spatial_dims([arrays[key].shape for key in keys], spatial_dims)
        known = said(store, arrays, keys[0])
    finally:
        close(store)
    others = [key.replace("train", "test") for key in keys]
    fits = all(o != k and o in arrays and arrays[o].shape[1:] == arrays[k].shape[1:] for k, o in zip(keys, others))
    parts: list[TrajectoryFile] = []
    for key, other in zip(keys, others):
        shape = arrays[key].shape
        has_channels = len(shape) > dims + 1
        groups = [Group(key, shape[0], 1, "train" if fits else None)]
        groups += [Group(other, arrays[other].shape[0], 1, "test")] if fits else []
        names = tuple(f"{key} {i}" for i in range(shape[1])) if has_channels else (key,)
        item = Field("", "n" + "c" * has_channels + SPACE[:dims], names)
        space = tuple(shape[len(shape) - dims :])
        parts.append(TrajectoryFile(path, layout=Layout((item,), tuple(groups), space, known.get("boundary"))))
    return parts[0], parts[1]


def _spatial_dims(shapes: list[tuple[int, ...]], given: int | None) -> int:
    ranks = sorted(len(shape) for shape in shapes)
    if given is None and ranks == [3, 3] and shapes[0][1] == shapes[1][1] > 4:
        raise ValueError(
            f"arrays {shapes[0]} and {shapes[1]}: planes of one channel, or several channels on a line? "
            "Say so by spatial_dims=2 or 1"
        )
    dims = given if given is not None else ranks[1] - 2
    if dims not in (1, 2, 3) or not all(rank - dims in (1, 2) for rank in ranks):
        raise ValueError(
            f"input and target must be (sample, channel, *space) with 1, 2 or 3 space axes, got shapes {shapes[0]} and "
            f"{shapes[1]}" + (f" for spatial_dims={given}" if given is not None else "")
        )
    return dims
