import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from multiresnet import __version__
from multiresnet.data import TrajectoryDataModule, navier_stokes
from multiresnet.data.fields.files import TrajectoryFile
from multiresnet.data.fields.steady import PairDataModule
from multiresnet.data.solvers.burgers import burgers
from multiresnet.data.solvers.generate import GENERATORS, generate
from multiresnet.data.solvers.shallow_water import ShallowWaterPhysics, shallow_water

QUICK = {
    "navier-stokes": {"size": 16, "frames": 3, "spin_up": 0.5},
    "navier-stokes-decaying": {"size": 16, "frames": 3, "spin_up": 0.0},
    "shallow-water": {"size": 8, "frames": 3},
    "burgers": {"size": 64, "frames": 3},
    "kuramoto-sivashinsky": {"size": 96, "frames": 3, "spin_up": 2.0},
    "darcy": {"size": 8},
}
SMALL = {"trajectories": 5, **QUICK["burgers"]}


def arrays(path):
    with h5py.File(path) as file:
        found = {}
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
        return found, dict(file.attrs)


def assert_same(path, other):
    (a, said), (b, said_too) = arrays(path), arrays(other)
    assert a.keys() == b.keys() and said == said_too
    for name in a:
        assert a[name].dtype == b[name].dtype and a[name].tobytes() == b[name].tobytes(), name


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a run without interruption makes."""
    path = tmp_path_factory.mktemp("whole") / "burgers.h5"
    assert generate("burgers", path, **SMALL).solved == 5
    return path


def test_two_dimensional_files_have_the_layout_of_pdearena(tmp_path):
    path = tmp_path / "new folder" / "water_train.h5"
    options = {"trajectories": 2, "size": 8, "frames": 3, "seed": 4, "interval": 0.1}
    generate("shallow-water", path, **options, boundary=("reflect", "periodic"), physics={"length": 2.0})
    found, said = arrays(path)
    shapes = {name: values.shape for name, values in found.items()}
    fields = {f"train/{name}": (2, 3, 8, 8) for name in ("u", "vx", "vy")}
    grid = {"train/t": (2, 3), "train/x": (2, 8), "train/y": (2, 8)}
    assert shapes == fields | grid | {f"train/{name}": (2,) for name in ("dt", "dx", "dy")}
    physics = ShallowWaterPhysics(length=2.0)
    direct = shallow_water(2, frames=3, size=8, seed=4, interval=0.1, boundary=("reflect", "periodic"), physics=physics)
    for channel, name in enumerate(("u", "vx", "vy")):  # x before y in the file
        np.testing.assert_array_equal(found[f"train/{name}"], direct[:, :, channel].swapaxes(2, 3))
    np.testing.assert_allclose(found["train/t"], [[0, 0.1, 0.2]] * 2)
    np.testing.assert_allclose(found["train/x"], [np.arange(0.125, 2, 0.25)] * 2)
    assert found["train/dx"].tolist() == found["train/dy"].tolist() == [0.25, 0.25]
    assert found["train/dt"].tolist() == [0.1, 0.1]
    assert json.loads(said["boundary"]) == ["periodic", "reflect"]  # of x and y, as the axes are
    assert (said["generator"], said["split"], said["seed"], said["trajectories"]) == ("shallow-water", "train", 4, 2)
    assert json.loads(said["physics"])["length"] == 2.0 and said["version"] == __version__
    assert os.listdir(path.parent) == ["water_train.h5"]


def test_one_dimensional_files_have_the_layout_of_pdearena(whole):
    found, said = arrays(whole)
    assert {name: values.shape for name, values in found.items()} == {
        "train/pde_3-64": (5, 3, 64),
        "train/t": (5, 3),
        "train/x": (5, 64),
        "train/dt": (5,),
        "train/dx": (5,),
    }
    np.testing.assert_array_equal(found["train/pde_3-64"], burgers(5, frames=3, size=64)[:, :, 0])
    np.testing.assert_allclose(found["train/x"][0], np.arange(64) * 2 * np.pi / 64)
    assert said["boundary"] == "periodic"


@pytest.mark.parametrize("name", GENERATORS)
def test_every_generator_fills_a_file_that_reads_back(name, tmp_path):
    path = tmp_path / "data.h5"
    calls = []
    generate(name, path, trajectories=3, progress=lambda *at: calls.append(at), **QUICK[name])
    assert calls == [(0, 3), (1, 3), (2, 3), (3, 3)]
    spec = GENERATORS[name]
    options = {**spec.options, **QUICK[name]}
    direct = spec.solve(trajectories=3, seed=0, first=0, physics=spec.physics, **options)
    if spec.steady:
        found, said = arrays(path)
        np.testing.assert_array_equal(found["input"], direct[:, 0])
        np.testing.assert_array_equal(found["target"], direct[:, 1])
        assert said["boundary"] == "zeros"
        pairs = PairDataModule(path, batch_size=1)
        pairs.setup()
        batch = next(iter(pairs.train_dataloader()))
        assert batch["input"].shape == batch["target"].shape == (1, 1, 1, 8, 8)
        return
    assert direct.shape[:2] == (3, 3)
    file = TrajectoryFile(path)
    read = np.stack([file[i] for i in range(3)])
    assert read.dtype == np.float32 and file.boundary == spec.boundary
    np.testing.assert_array_equal(read.swapaxes(3, -1), direct)
    data = TrajectoryDataModule(path, batch_size=1)
    data.setup()
    assert data.channels == len(spec.fields) and data.boundary == spec.boundary


def test_trajectories_do_not_depend_on_how_many_there_are_and_splits_share_none(tmp_path, whole):
    (more, _), found = arrays(whole), {}
    for split in ("train", "valid", "test"):
        generate("burgers", tmp_path / f"{split}.h5", **{**SMALL, "trajectories": 2}, split=split)
        found[split] = arrays(tmp_path / f"{split}.h5")[0][f"{split}/pde_3-64"]
    np.testing.assert_array_equal(found["train"], more["train/pde_3-64"][:2])
    different = [*found["valid"], *found["test"], *more["train/pde_3-64"]]
    assert min(np.abs(a - b).max() for i, a in enumerate(different) for b in different[:i]) > 0.1


def test_a_killed_run_goes_on_where_it_stopped(tmp_path, whole):
    path, slow = tmp_path / "burgers.h5", "lambda done, total: time.sleep(0.2)"
    code = (
        "import sys, time; from multiresnet.data.solvers.generate import generate; "
        f"generate('burgers', sys.argv[1], **{SMALL}, progress={slow})"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(path)])
    try:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("*.partial/00000?.npy"))) < 2:
            assert time.monotonic() < deadline and child.poll() is None
            time.sleep(0.01)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    kept = list(tmp_path.glob("*.partial/00000?.npy"))
    assert not path.exists() and 2 <= len(kept) < 5
    calls = []
    made = generate("burgers", path, **SMALL, progress=lambda *at: calls.append(at))
    assert made.solved == 5 - len(kept) and calls == [(done, 5) for done in range(len(kept), 6)]
    assert_same(path, whole)
    assert os.listdir(tmp_path) == ["burgers.h5"]


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


def test_a_run_killed_before_any_operation_on_files_goes_on(tmp_path, monkeypatch):
    operations = [(os, "replace"), (os, "fsync"), (Path, "unlink"), (Path, "mkdir"), (Path, "rmdir"), (np, "save")]
    operations += [(Path, "write_text"), (h5py.Group, "create_dataset")]

    def deadly(operation, state):
        def run(*arguments, **options):
            state["left"] -= 1
            if state["left"] < 0:
                raise Killed
            return operation(*arguments, **options)

        return run

    options = {**SMALL, "trajectories": 3}
    generate("burgers", tmp_path / "reference.h5", **options)
    for moment in range(1000):
        path = tmp_path / f"{moment}" / "burgers.h5"
        state = {"left": moment}
        with monkeypatch.context() as patch:
            for owner, name in operations:
                patch.setattr(owner, name, deadly(getattr(owner, name), state))
            try:
                generate("burgers", path, **options)
                break
            except Killed:
                pass
        there = 3 if path.exists() else len(list(path.parent.glob("*.partial/00000?.npy")))
        assert generate("burgers", path, **options).solved == 3 - there
        assert_same(path, tmp_path / "reference.h5")
        assert os.listdir(path.parent) == ["burgers.h5"]
    assert 30 < moment < 999


def test_a_half_written_trajectory_is_not_taken_for_a_whole_one(tmp_path, monkeypatch, whole):
    path = tmp_path / "burgers.h5"
    save = np.save

    def half(file, values):
        save(file, values)
        if "000002" in str(file):
            os.truncate(file, 200)
            raise Killed

    monkeypatch.setattr(np, "save", half)
    with pytest.raises(Killed):
        generate("burgers", path, **SMALL)
    monkeypatch.undo()
    assert generate("burgers", path, **SMALL).solved == 3
    assert_same(path, whole)


def interrupt(path, **options):
    """Leave an unfinished run of two trajectories."""

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate("burgers", path, **{**SMALL, **options}, progress=stop)


def test_an_unfinished_run_with_other_options_is_refused(tmp_path, whole):
    path = tmp_path / "burgers.h5"
    interrupt(path, seed=1, interval=0.2)
    words = (
        r"burgers.h5.partial' holds other data: seed is 1 there, 0 here; interval is 0.2 there, 0.1 here; .*overwrite"
    )
    with pytest.raises(ValueError, match=words):
        generate("burgers", path, **SMALL)
    with pytest.raises(ValueError, match="physics.viscosity is 0.05 there, 0.1 here"):
        generate("burgers", path, **SMALL, seed=1, interval=0.2, physics={"viscosity": 0.1})
    assert generate("burgers", path, **SMALL, overwrite=True).solved == 5
    assert_same(path, whole)


def test_a_finished_file_is_kept_or_refused_or_replaced(tmp_path, whole):
    path = tmp_path / "burgers.h5"
    path.write_bytes(whole.read_bytes())
    before, calls = path.stat(), []
    made = generate("burgers", path, **SMALL, progress=lambda *at: calls.append(at))
    assert (made.path, made.trajectories, made.solved) == (path, 5, 0) and calls == [(5, 5)]
    assert path.stat() == before
    with pytest.raises(ValueError, match="trajectories is 5 there, 4 here"):
        generate("burgers", path, **{**SMALL, "trajectories": 4})
    with pytest.raises(ValueError, match="generator is 'burgers' there, 'darcy' here"):
        generate("darcy", path, trajectories=1, size=8)
    interrupt(path, seed=1, overwrite=True)
    assert_same(path, whole)  # until the new one is complete
    assert generate("burgers", path, **SMALL, seed=1, overwrite=True).solved == 3
    assert arrays(path)[1]["seed"] == 1


def test_files_that_it_did_not_write_are_refused(tmp_path):
    for content in (b"", b"not HDF5"):
        path = tmp_path / "mine.h5"
        path.write_bytes(content)
        with pytest.raises(ValueError, match="it does not say which"):
            generate("burgers", path, **SMALL)
    with h5py.File(path, "w") as file:
        file["a"] = 1
    with pytest.raises(ValueError, match="it does not say which"):
        generate("burgers", path, **SMALL)
    other = tmp_path / "other.h5"
    (tmp_path / "other.h5.partial").mkdir()
    np.save(tmp_path / "other.h5.partial" / "000000.npy", np.zeros(3))
    with pytest.raises(ValueError, match="partial' holds other data: it does not say which"):
        generate("burgers", other, **SMALL)


def test_a_damaged_trajectory_is_named(tmp_path, whole):
    path = tmp_path / "burgers.h5"
    interrupt(path)
    damaged = tmp_path / "burgers.h5.partial" / "000001.npy"
    damaged.write_bytes(damaged.read_bytes()[:300])
    with pytest.raises(ValueError, match="000001.npy' is damaged, remove it"):
        generate("burgers", path, **SMALL)
    damaged.unlink()
    assert generate("burgers", path, **SMALL).solved == 1
    assert_same(path, whole)


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("navier_stokes", {}, "did you mean 'navier-stokes'"),
        ("burgers", {"split": "val"}, "choose from train, valid, test"),
        ("burgers", {"spin_up": 1.0}, "burgers has no option 'spin_up'; it takes size, frames, interval"),
        ("darcy", {"frames": 3}, "darcy has no option 'frames'"),
        ("burgers", {"physics": {"viscosty": 1.0}}, "BurgersPhysics has no 'viscosty' .did you mean 'viscosity'"),
        ("burgers", {"physics": {"viscosity": -1.0}}, "BurgersPhysics.viscosity must be"),
        ("burgers", {"size": 4}, "8 <= size"),
        ("burgers", {"frames": 2.5}, "frames must be an integer"),
        ("burgers", {"trajectories": 0}, "trajectories must be"),
        ("burgers", {"seed": -1}, "seed >= 0"),
        ("burgers", {"physics": {"viscosity": 1e-3}}, "do not resolve"),
        ("shallow-water", {"boundary": "zeros"}, 'must be "periodic" or "reflect"'),
        ("shallow-water", {"boundary": "walls"}, "takes one of periodic"),
    ],
)
def test_bad_options_are_explained_and_leave_nothing_behind(name, options, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        generate(name, tmp_path / "a.h5", **options)
    assert not list(tmp_path.iterdir())


def test_the_file_must_be_hdf5(tmp_path):
    with pytest.raises(ValueError, match="must end in .h5 or .hdf5"):
        generate("burgers", tmp_path / "a.npz", **SMALL)


def test_spellings_of_one_boundary_are_one_request(tmp_path):
    path = tmp_path / "water.hdf5"
    generate("shallow-water", path, trajectories=1, size=4, frames=1, boundary=("reflect", "reflect"))
    assert generate("shallow-water", path, trajectories=1, size=4, frames=1, boundary="reflect").solved == 0
    assert arrays(path)[1]["boundary"] == "reflect"


def test_forced_and_decaying_turbulence_differ_in_their_energy_budget(tmp_path):
    assert GENERATORS["navier-stokes-decaying"].physics.forcing == 0 < GENERATORS["navier-stokes"].physics.forcing
    physics = GENERATORS["navier-stokes-decaying"].physics
    frames = navier_stokes(2, frames=6, size=32, spin_up=0.0, physics=physics)
    enstrophy = (frames.astype(np.float64) ** 2).mean((2, 3, 4))
    assert (np.diff(enstrophy) < 0).all() and (enstrophy[:, -1] < 0.9 * enstrophy[:, 0]).all()
