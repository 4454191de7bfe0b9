import copy
import warnings

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from multiresnet.data import TrajectoryDataModule
from multiresnet.data.fields.splits import Segment, split_segments
from multiresnet.data.fields.windows import as_batch


def numbered(trajectories=10, frames=8, channels=1, *space):
    """Values say which trajectory (hundreds) and frame (units) they are of; channels differ by a factor."""
    values = 100.0 * np.arange(trajectories)[:, None] + np.arange(frames)
    array = values[:, :, None] * (1 + np.arange(channels))
    return np.broadcast_to(array.reshape(*array.shape, *[1] * len(space)), (*array.shape, *space)).copy()


def frames_of(loader):
    parts = (batch[name] for batch in loader for name in ("input", "target"))
    return {int(v) for part in parts for v in part[:, :, 0].flatten(2)[..., 0].flatten()}


def module(source, **options):
    data = TrajectoryDataModule(source, **options)
    data.setup()
    return data


@pytest.mark.parametrize("space", [(6,), (5, 7), (3, 4, 5)])
@pytest.mark.parametrize("memory", [2**31, 0])
def test_batches_are_consecutive_frames(space, memory):
    data = module(numbered(10, 8, 2, *space), input_steps=2, output_steps=1, batch_size=4, memory=memory)
    batches = list(data.train_dataloader())
    assert sum(len(batch["input"]) for batch in batches) == 8 * 6  # 8 trajectories, 6 windows of 3 of 8 frames
    for batch in batches:
        assert set(batch) == {"input", "target"}
        x, y = batch["input"], batch["target"]
        assert x.dtype == y.dtype == torch.float32
        assert x.shape[1:] == (2, 2, *space) and y.shape[1:] == (1, 2, *space)
        x, y = x.flatten(3)[..., 0], y.flatten(3)[..., 0]
        torch.testing.assert_close(x[:, 1, 0] - x[:, 0, 0], torch.ones(len(x)))
        torch.testing.assert_close(y[:, 0, 0] - x[:, 1, 0], torch.ones(len(x)))
        torch.testing.assert_close(x[:, :, 1], 2 * x[:, :, 0])


def test_reading_lazily_gives_the_same_batches(tmp_path):
    flow = np.random.default_rng(0).normal(size=(6, 5, 2, 4, 4))
    with h5py.File(tmp_path / "flow.h5", "w") as file:
        file["flow"] = flow
    a, b = module(flow), module(tmp_path / "flow.h5", memory=0)
    assert a.mean == b.mean and a.std == b.std
    for left, right in zip(a.train_dataloader(), b.train_dataloader(), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore:This DataLoader will create:UserWarning")
@pytest.mark.parametrize("ending", ["h5", "zarr"])
def test_four_workers_read_what_one_process_reads(tmp_path, ending):
    flow = numbered(10, 4, 1, 4)
    path = tmp_path / f"flow.{ending}"
    if ending == "h5":
        with h5py.File(path, "w") as file:
            file["flow"] = flow
    else:
        pytest.importorskip("zarr").open_group(str(path), mode="w")["flow"] = flow
    data = module(path, memory=0, num_workers=4, batch_size=3)
    data.source[0]  # a file that is open when the workers start
    for ours, theirs in zip(data.train_dataloader(), module(flow, batch_size=3).train_dataloader(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.slow  # a new interpreter imports torch
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_workers_that_are_spawned_read_hdf5(tmp_path):
    flow = numbered(10, 4, 1, 4)
    with h5py.File(tmp_path / "flow.h5", "w") as file:
        file["flow"] = flow
    windows = module(tmp_path / "flow.h5", memory=0).windows("train", steps=1)
    windows[0]
    loader = DataLoader(windows, batch_size=6, num_workers=1, multiprocessing_context="spawn", collate_fn=as_batch)
    assert frames_of(loader) == frames_of(module(flow).train_dataloader())


def test_splits_share_no_frame():
    data = module(numbered(10, 8, 1, 4), fractions=(0.6, 0.2, 0.2), rollout_steps=3)
    train, val = frames_of(data.train_dataloader()), frames_of(data.val_dataloader())
    test = set().union(*map(frames_of, data.test_dataloader()))
    assert len(train) == 48 and len(val) == len(test) == 16 and len(train | val | test) == 80
    again = module(numbered(10, 8, 1, 4), fractions=(0.6, 0.2, 0.2))
    assert again.segments == data.segments
    assert module(numbered(10, 8, 1, 4), fractions=(0.6, 0.2, 0.2), seed=1).segments != data.segments


def test_one_trajectory_is_split_along_time():
    with pytest.warns(UserWarning, match="split along time"):
        data = module(numbered(1, 20, 1, 4), fractions=(0.6, 0.2, 0.2))
    train, val = frames_of(data.train_dataloader()), frames_of(data.val_dataloader())
    test = set().union(*map(frames_of, data.test_dataloader()))
    assert (train, val, test) == (set(range(12)), set(range(12, 16)), set(range(16, 20)))
    assert data.rollout_steps == 3  # what 4 test frames allow


@pytest.mark.parametrize("trajectories, frames", [(1, 6), (2, 6), (1, 7), (3, 2), (4, 2)])
def test_the_smallest_sets_have_all_three_parts(trajectories, frames):
    segments = split_segments([frames] * trajectories, (0.8, 0.1, 0.1), window=2)
    assert all(part and all(stop - start >= 2 for _, start, stop in part) for part in segments.values())
    assert sum(stop - start for part in segments.values() for _, start, stop in part) == trajectories * frames


def test_the_splits_of_the_data_set_are_kept():
    lengths = [9, 9, 7, 9, 8]
    given = {"train": [0, 2, 3], "test": [1], "val": [4]}
    segments = split_segments(lengths, (0.8, 0.1, 0.1), window=2, given=given)
    assert segments["val"] == [Segment(4, 0, 8)] and segments["test"] == [Segment(1, 0, 9)]
    assert segments["train"] == [Segment(0, 0, 9), Segment(2, 0, 7), Segment(3, 0, 9)]


def test_a_split_that_the_data_set_lacks_comes_from_the_training_split():
    segments = split_segments([9] * 12, (0.6, 0.3, 0.1), window=2, given={"train": range(10), "test": [10, 11]})
    assert [i for i, _, _ in segments["test"]] == [10, 11]
    assert len(segments["val"]) == 3 and len(segments["train"]) == 7  # 0.3 / 0.9 of ten
    assert sorted(i for name in ("train", "val") for i, _, _ in segments[name]) == list(range(10))
    only = split_segments([9] * 12, (0.6, 0.3, 0.1), window=2, given={"test": range(12)})
    assert only == split_segments([9] * 12, (0.6, 0.3, 0.1), window=2)  # a set without training data is split as any


def test_unrolled_training_has_longer_targets():
    data = module(numbered(10, 8, 1, 4), input_steps=2, output_steps=1, unroll_steps=3)
    assert next(iter(data.train_dataloader()))["target"].shape[1] == 3
    assert next(iter(data.val_dataloader()))["target"].shape[1] == 1
    with pytest.raises(ValueError, match="unroll_steps=7 needs 9 in a row, training has 8"):
        TrajectoryDataModule(numbered(10, 8, 1, 4), input_steps=2, unroll_steps=7)


def test_a_large_set_has_its_statistics_from_some_of_its_frames(monkeypatch):
    monkeypatch.setattr("multiresnet.data.fields.trajectories._STATISTICS_FRAMES", 40)
    flow = np.random.default_rng(0).normal(3, 2, size=(20, 50, 1, 16))
    data = TrajectoryDataModule(flow, memory=0)
    pieces = [len(piece) for piece in data._training_pieces()]
    assert 32 <= sum(pieces) <= 40
    data.setup()
    assert data.mean[0] == pytest.approx(3, abs=0.4) and data.std[0] == pytest.approx(2, rel=0.1)


def test_statistics_are_those_of_the_training_split():
    flow = np.random.default_rng(0).normal(size=(10, 6, 3, 8, 8)) * [[[1]], [[50]], [[1e-3]]] + [
        [[0]],
        [[1e3]],
        [[1]],
    ]
    data = module(flow)
    train = flow[[segment.trajectory for segment in data.segments["train"]]]
    np.testing.assert_allclose(data.mean, train.mean((0, 1, 3, 4)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(data.std, train.std((0, 1, 3, 4)), rtol=1e-4)


def test_shuffling_follows_the_seed_and_changes_with_the_epoch():
    data = module(numbered(10, 8, 1, 4))
    loader = data.train_dataloader()
    first = torch.cat([batch["input"] for batch in loader])
    torch.testing.assert_close(torch.cat([batch["input"] for batch in data.train_dataloader()]), first)
    loader.sampler.set_epoch(1)
    second = torch.cat([batch["input"] for batch in loader])
    assert not torch.equal(first, second)
    torch.testing.assert_close(first.flatten().sort()[0], second.flatten().sort()[0])


def test_boundary_comes_from_the_argument_then_the_file(tmp_path):
    flow = numbered(10, 4, 1, 4, 4)
    np.savez(tmp_path / "a.npz", flow=flow, boundary="periodic")
    assert TrajectoryDataModule(tmp_path / "a.npz").boundary == "periodic"
    assert TrajectoryDataModule(tmp_path / "a.npz", boundary=("zeros", "reflect")).boundary == (
        "zeros",
        "reflect",
    )
    assert TrajectoryDataModule(flow).boundary == "replicate"
    for wrong in ("circular", ("zeros",), ("zeros", "reflect", "reflect")):
        with pytest.raises(ValueError, match="boundary"):
            TrajectoryDataModule(flow, boundary=wrong)


def test_integers_are_converted_and_said_so():
    flow = numbered(10, 4, 1, 4).astype(np.int16)
    with pytest.warns(UserWarning, match="int16 data become float32"):
        data = module(flow)
    assert frames_of(data.train_dataloader()) <= set(flow.flatten().tolist())


def test_a_copy_shares_the_arrays():
    data = module(numbered(10, 4, 1, 4))
    assert copy.copy(data)._frames is data._frames


def broken(value, place=(7, 3, 0, 1, 2)):
    flow = numbered(10, 8, 1, 4, 4)
    flow[place] = value
    return flow


@pytest.mark.parametrize(
    "source, error, words",
    [
        (np.zeros((20, 64, 64)), ValueError, r"got 3, shape \(20, 64, 64\): one trajectory\?"),
        (np.zeros((1,) * 7), ValueError, "4 to 6 axes; got 7"),
        (np.zeros((4, 0, 1, 8)), ValueError, "empty axis"),
        (np.zeros((4, 5, 1, 8), dtype=complex), TypeError, "two channels"),
        (np.full((4, 5, 1, 8), "a"), TypeError, "dtype <U1"),
        ([[1.0]], TypeError, "list"),
        (broken(np.nan), ValueError, r"nan at .* = \(7, 3, 0, 1, 2\)"),
        (broken(-np.inf), ValueError, r"-inf at .* = \(7, 3, 0, 1, 2\)"),
        (broken(1e300), ValueError, r"1e\+300 at .*float32"),
        (numbered(10, 1, 1, 4), ValueError, "too few frames: got 1 per trajectory, need at least 2"),
        (numbered(1, 5, 1, 4), ValueError, "too few frames: got 5 .* at least 6"),
        (np.ones((10, 4, 1, 8)), ValueError, r"channel 0 is constant \(1\)"),
    ],
)
def test_bad_data_are_explained(source, error, words):
    with pytest.raises(error, match=words), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module(source)


def test_not_a_number_is_found_when_reading_lazily():
    data = TrajectoryDataModule(broken(np.nan), memory=0)
    with pytest.raises(ValueError, match=r"\(7, 3, 0, 1, 2\)"):
        data.setup()
        for split in ("train", "val", "test"):
            list(data._loader(data.windows(split, steps=1)))


def test_not_a_number_is_named_with_its_file(tmp_path):
    np.save(tmp_path / "flow.npy", broken(np.nan))
    with pytest.raises(ValueError, match=r"nan at .* = \(7, 3, 0, 1, 2\) in .*flow\.npy"):
        module(tmp_path / "flow.npy")


@pytest.mark.parametrize(
    "shape, words", [((10, 4, 64, 64, 3), "channels-last"), ((10, 4, 64, 64), "add the channel axis")]
)
def test_a_likely_mistake_in_the_layout_is_mentioned(shape, words):
    with pytest.warns(UserWarning, match=words):
        TrajectoryDataModule(np.zeros(shape))


@pytest.mark.parametrize("options", [{"fractions": (0.5, 0.5, 0.5)}, {"batch_size": 0}, {"input_steps": 0}])
def test_bad_options_are_explained(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        TrajectoryDataModule(numbered(10, 4, 1, 4), **options)
