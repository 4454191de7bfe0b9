import pickle

import h5py
import numpy as np
import pytest

from multiresnet.data import TrajectoryFile

FLOW = np.random.default_rng(0).normal(size=(4, 6, 2, 5, 7)).astype(np.float32)


def write(path, **arrays):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".npy":
        np.save(path, arrays["flow"])
    else:
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
    return path


@pytest.fixture(params=["flow.npz", "flow.npy", "flow.h5", "flow.hdf5"])
def path(request, tmp_path):
    return write(tmp_path / request.param, flow=FLOW)


def test_reads_what_is_indexed(path):
    file = TrajectoryFile(path)
    assert file.shape == FLOW.shape and file.dtype == np.float32 and file.boundary is None
    np.testing.assert_array_equal(file[2, 1:4], FLOW[2, 1:4])
    np.testing.assert_array_equal(file[3], FLOW[3])


def test_a_file_in_use_can_be_pickled(path):
    file = TrajectoryFile(path)
    file[0]
    copy = pickle.loads(pickle.dumps(file))
    assert len(pickle.dumps(file)) < 2000  # a path, not the data
    np.testing.assert_array_equal(copy[1], FLOW[1])


def test_constructing_opens_nothing_for_good(tmp_path):
    path = write(tmp_path / "flow.h5", flow=FLOW)
    TrajectoryFile(path)
    with h5py.File(path, "a") as file:  # HDF5 refuses this while a reader holds the file
        file["more"] = 1


@pytest.mark.parametrize("name", ["two.npz", "two.h5"])
def test_a_key_is_needed_among_several_arrays(tmp_path, name):
    path = write(tmp_path / name, a=FLOW, b=2 * FLOW, time=np.arange(6.0))
    with pytest.raises(ValueError, match=r"holds a \(4, 6, 2, 5, 7\).*--key"):
        TrajectoryFile(path)
    with pytest.raises(ValueError, match="no array 'c'"):
        TrajectoryFile(path, key="c")
    np.testing.assert_array_equal(TrajectoryFile(path, key="b")[1], 2 * FLOW[1])


def test_one_array_with_enough_axes_needs_no_key(tmp_path):
    path = write(tmp_path / "one.npz", time=np.arange(6.0), flow=FLOW)
    assert TrajectoryFile(path).key == "flow"


@pytest.mark.parametrize(
    "stated, wanted",
    [
        ("periodic", "periodic"),
        (["periodic", "reflect"], ("periodic", "reflect")),
        ('["periodic", ["zeros", "replicate"]]', ("periodic", ("zeros", "replicate"))),
    ],
)
def test_the_file_may_state_its_boundary(tmp_path, stated, wanted):
    assert TrajectoryFile(write(tmp_path / "a.npz", flow=FLOW, boundary=stated)).boundary == wanted
    path = write(tmp_path / "a.h5", flow=FLOW)
    with h5py.File(path, "a") as file:
        file["flow"].attrs["boundary"] = stated
    assert TrajectoryFile(path).boundary == wanted


def test_unreadable_files_are_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.npz"):
        TrajectoryFile(tmp_path / "nothing.npz")
    for name in ("half.npz", "half.h5", "half.npy"):
        (tmp_path / name).write_bytes(b"\x93NUM")
        with pytest.raises(ValueError, match=f"{name}.* is not a readable"):
            TrajectoryFile(tmp_path / name)
    (tmp_path / "flow.csv").write_text("1,2")
    with pytest.raises(ValueError, match=r"use \.npz"):
        TrajectoryFile(tmp_path / "flow.csv")
