"""Loaders: order and seeds by (seed, epoch, position), shards that are the whole, and going on in the middle of an epoch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from multiresnet.data import loading
from multiresnet.data.loading import Draw, EpochSampler, ResumableLoader, make_loader


class Echo(Dataset[Any]):
    """What was asked for: (index, seed), or the index."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, at: Any) -> Any:
        return (at.index, at.seed) if isinstance(at, Draw) else at


def batches(loader: DataLoader[Any], epoch: int = 0) -> list[list[Any]]:
    if isinstance(loader.sampler, EpochSampler):
        loader.sampler.set_epoch(epoch)
    return list(loader)


def echo(length: int = 10, **options: Any) -> DataLoader[Any]:
    return make_loader(Echo(length), **{"batch_size": 3, "shuffle": True, "collate_fn": list, "seed": 1, **options})


@pytest.fixture
def as_rank(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    def pretend(rank: int, processes: int) -> None:
        monkeypatch.setattr(loading, "_rank_and_size", lambda: (rank, processes))

    return pretend


def test_every_example_once_in_an_order_by_seed_and_epoch() -> None:
    first = batches(echo())
    assert [len(batch) for batch in first] == [3, 3, 3, 1]
    assert sorted(index for batch in first for index, _ in batch) == list(range(10))
    assert len({seed for batch in first for _, seed in batch}) == 10
    assert batches(echo()) == first
    assert batches(echo(), epoch=1) != first and batches(echo(seed=2)) != first
    assert [len(batch) for batch in batches(echo(drop_last=True))] == [3, 3, 3]
    assert [len(batch) for batch in batches(echo(2, drop_last=True))] == [2]  # an epoch is never empty


def test_evaluation_is_in_order_and_gets_plain_indices() -> None:
    assert batches(echo(shuffle=False)) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]


def test_workers_change_nothing() -> None:
    loader = echo(num_workers=2)
    assert [batches(loader, epoch) for epoch in (0, 1, 0)] == [batches(echo(), epoch) for epoch in (0, 1, 0)]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_it_goes_on_in_the_middle_of_an_epoch(num_workers: int) -> None:
    whole = echo(num_workers=num_workers)
    wanted = [batches(whole, 3), batches(whole, 4)]
    before, after = echo(num_workers=num_workers), echo(num_workers=num_workers)
    before.sampler.set_epoch(3)
    iterator = iter(before)
    taken = [next(iterator), next(iterator)]  # workers have fetched more
    after.load_state_dict(before.state_dict())
    iterator = iter(after)  # Lightning asks for the iterator before it tells the epoch
    after.sampler.set_epoch(3)
    assert taken + list(iterator) == wanted[0]
    assert batches(after, 4) == wanted[1]


def test_a_state_at_the_end_of_an_epoch_begins_the_next() -> None:
    before, after = echo(), echo()
    batches(before)
    after.load_state_dict(before.state_dict())
    assert batches(after, 1) == batches(echo(), 1)


@pytest.mark.parametrize(("length", "processes"), [(12, 2), (10, 2), (12, 3)])
def test_processes_see_together_what_one_sees(length: int, processes: int, as_rank: Callable[[int, int], None]) -> None:
    whole = batches(echo(length, batch_size=2 * processes), epoch=2)
    parts = []
    for rank in range(processes):
        as_rank(rank, processes)
        loader = echo(length, batch_size=2)
        assert len(loader) == len(whole)
        parts.append(batches(loader, epoch=2))
    for batch, *shares in zip(whole, *parts):
        assert sorted(draw for share in shares for draw in share) == sorted(batch)


def test_what_does_not_divide_is_filled_up_with_other_seeds(as_rank: Callable[[int, int], None]) -> None:
    seen = []
    for rank in range(2):
        as_rank(rank, 2)
        seen += [draw for batch in batches(echo(5)) for draw in batch]
    indices = [index for index, _ in seen]
    assert sorted(set(indices)) == list(range(5)) and len(indices) == 6
    assert len({seed for _, seed in seen}) == 6


def test_a_shard_goes_on_in_the_middle_too(as_rank: Callable[[int, int], None]) -> None:
    as_rank(1, 2)
    wanted = batches(echo(20), 1)
    loader = echo(20)
    loader.load_state_dict({"batches": 2})
    assert batches(loader, 1) == wanted[2:]


def test_lightning_keeps_its_hands_off() -> None:
    assert isinstance(EpochSampler(5), DistributedSampler)
    from lightning.fabric.utilities.types import _Stateful

    assert isinstance(ResumableLoader(Echo(5)), _Stateful)


def test_seeds_are_the_same_on_every_machine() -> None:
    """Written down once: a change here changes every training that somebody has started."""
    assert [draw.index for draw in EpochSampler(6, seed=7)] == [5, 2, 0, 4, 1, 3]


def test_default_collation() -> None:
    (batch,) = make_loader(Echo(3), batch_size=3, shuffle=False)
    assert torch.equal(batch, torch.tensor([0, 1, 2]))
