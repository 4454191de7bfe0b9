"""Loaders whose order is a function of (seed, epoch), that shard by process and go on in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler

__all__ = ["Draw", "EpochSampler", "ResumableLoader", "make_loader"]


@dataclass(frozen=True)
class Draw:
    """What a training dataset is asked for: an example, and the seed of everything random about it."""

    index: int
    seed: int


class EpochSampler(DistributedSampler[Any]):
    """`Draw`s of one epoch, shuffled by (seed, epoch) and dealt to the processes of a distributed run in turns.

    Process r of R gets positions r, r + R, ...: R processes with batches of n see what one with batches of n R sees. What
    does not divide by R is filled up from the start of the epoch. As a `DistributedSampler` Lightning leaves it alone.
    """

    def __init__(self, length: int, *, seed: int = 0) -> None:
        # not super().__init__: it would ask for the number of processes now, before there are any
        Sampler.__init__(self)
        self.length, self.seed, self.epoch, self.start = length, seed, 0, 0

    def __iter__(self) -> Iterator[Any]:
        rank, processes = _rank_and_size()
        state = np.random.SeedSequence([self.seed, self.epoch])
        order = np.random.default_rng(state).permutation(self.length)
        seeds = state.generate_state(len(self) * processes, np.uint64)
        positions = np.arange(rank, len(self) * processes, processes)[self.start :]
        self.start = 0  # only the first epoch after a restart begins in the middle
        return (Draw(int(order[p % self.length]), int(seeds[p])) for p in positions)

    def __len__(self) -> int:
        return -(-self.length // _rank_and_size()[1])


class ResumableLoader(DataLoader[Any]):
    """A loader that Lightning saves in its checkpoints: after a restart it goes on with the batch that was next."""

    def __iter__(self) -> Any:
        sampler, batch = self.sampler, self.batch_size or 1
        self._done = sampler.start // batch if isinstance(sampler, EpochSampler) else 0
        for item in super().__iter__():
            self._done += 1
            yield item

    def state_dict(self) -> dict[str, int]:
        """Batches handed out in this epoch."""
        return {"batches": getattr(self, "_done", 0)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin the next epoch after that many batches; a whole epoch means a new one."""
        if isinstance(self.sampler, EpochSampler):
            self.sampler.start = (state["batches"] % len(self)) * (self.batch_size or 1)


def make_loader(
    dataset: Dataset[Any],
    *,
    batch_size: int,
    shuffle: bool,
    num_workers: int = 0,
    seed: int = 0,
    drop_last: bool = False,
    collate_fn: Callable[[list[Any]], Any] | None = None,
) -> DataLoader[Any]:
    """A loader for training (`shuffle=True`: the dataset is asked for `Draw`s) or evaluation (plain indices, in order).

    Examples:
        >>> class Echo(Dataset):
        ...     def __len__(self): return 5
        ...     def __getitem__(self, draw): return draw.index
        >>> loader = make_loader(Echo(), batch_size=2, shuffle=True, seed=1)
        >>> sorted(index for batch in loader for index in batch.tolist())
        [0, 1, 2, 3, 4]
    """
    length = len(dataset)  # type: ignore[arg-type]
    kind = ResumableLoader if shuffle else DataLoader
    return kind(
        dataset,
        batch_size=batch_size,
        sampler=EpochSampler(length, seed=seed) if shuffle else None,
        num_workers=num_workers,
        drop_last=drop_last and length >= batch_size,
        collate_fn=collate_fn,
        persistent_workers=num_workers > 0,
    )


def _rank_and_size() -> tuple[int, int]:
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1
