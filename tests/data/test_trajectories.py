import copy
import warnings

import h5py
import numpy as np
import pytest
import torch

from multiresnet.data import TrajectoryDataModule
from multiresnet.data.splits import split_segments


def numbered(trajectories=10, frames=8, channels=1, *space):
    """Values say which trajectory (hundreds) and frame (units) they are of; channels differ by a factor."""
    values = 100.0 * np.arange(trajectories)[:, None] + np.arange(frames)
    array = values[:, :, None] * (1 + np.arange(channels))
    return np.broadcast_to(array.reshape(*array.shape, *[1] * len(space)), (*array.shape, *space)).copy()


def frames_of(loader):
    return {int(v) for batch in loader for part in batch for v in part[:, :, 0].flatten(2)[..., 0].flatten()}


def module(source, **options):
    data = TrajectoryDataModule(source, **options)
    data.setup()
    return data


@pytest.mark.parametrize("space", [(6,), (5, 7), (3, 4, 5)])
@pytest.mark.parametrize("memory", [2**31, 0])
def test_batches_are_consecutive_frames(space, memory):
    data = module(numbered(10, 8, 2, *space), input_steps=2, output_steps=1, batch_size=4, memory=memory)
    batches = list(data.train_dataloader())
    assert sum(len(x) for x, _ in batches) == 8 * 6  # 8 trajectories, 6 windows of 3 of 8 frames
    for x, y in batches:
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


def test_workers_read_hdf5(tmp_path):
    flow = numbered(10, 4, 1, 4)
    with h5py.File(tmp_path / "flow.h5", "w") as file:
        file["flow"] = flow
    data = module(tmp_path / "flow.h5", memory=0, num_workers=2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork")
        assert frames_of(data.train_dataloader()) == frames_of(module(flow).train_dataloader())


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
    segments = split_segments(trajectories, frames, (0.8, 0.1, 0.1), window=2)
    assert all(part and all(stop - start >= 2 for _, start, stop in part) for part in segments.values())
    assert sum(stop - start for part in segments.values() for _, start, stop in part) == trajectories * frames


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
    first, second = (torch.cat([x for x, _ in loader]) for _ in range(2))
    assert not torch.equal(first, second)
    torch.testing.assert_close(torch.cat([x for x, _ in data.train_dataloader()]), first)


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
