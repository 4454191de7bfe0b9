"""Small files in each layout, written as its specification says, against the arrays they were made of."""

import pickle

import h5py
import numpy as np
import pytest
import torch

from multiresnet.data import TrajectoryDataModule, TrajectoryFile
from multiresnet.data.fields.folders import TrajectoryFolder, open_trajectories
from multiresnet.data.solvers.arena import write_arena

N, T, X, Y = 3, 4, 5, 6


def random(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def frames(source):
    return np.stack([source[i] for i in range(len(source))])


# ----------------------------------------------------------------------------------------------------------- The Well


def field(group, name, values, *, sample=True, time=True, dims=(True, True)):
    data = group.create_dataset(name, data=values)
    data.attrs["sample_varying"], data.attrs["time_varying"], data.attrs["dim_varying"] = sample, time, list(dims)
    group.attrs["field_names"] = [*group.attrs.get("field_names", []), name]


def condition(file, kind, dims, mask):
    group = file.require_group("boundary_conditions").create_group("_".join([*dims, kind]))
    group.attrs["bc_type"], group.attrs["associated_dims"] = kind, dims
    group.attrs["sample_varying"] = group.attrs["time_varying"] = False
    group["mask"] = mask


def scalar(file, name, values, *, sample, time=False):
    group = file.require_group("scalars")
    group[name] = values
    group[name].attrs["sample_varying"], group[name].attrs["time_varying"] = sample, time
    group.attrs["field_names"] = [*group.attrs.get("field_names", []), name]


def ends(size, low=True, high=True):
    mask = np.zeros(size, bool)
    mask[0], mask[-1] = low, high
    return mask


def well(path, *, count=N, steps=T, viscosity=0.5):
    """x periodic; a wall at the lower y, the upper one open."""
    values = {
        "pressure": random(count, steps, X, Y),
        "density": random(count, X, Y),
        "profile": random(steps, Y),
        "velocity": random(count, steps, X, Y, 2),
        "D": random(count, steps, X, Y, 2, 2),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs.update(n_spatial_dims=2, n_trajectories=count, grid_type="cartesian", dataset_name="made_up")
        file.attrs["simulation_parameters"] = ["viscosity"]
        dimensions = file.create_group("dimensions")
        dimensions.attrs["spatial_dims"] = ["x", "y"]
        for name, size in (("time", steps), ("x", X), ("y", Y)):
            dimensions[name] = np.linspace(0, 1, size, dtype=np.float32)
            dimensions[name].attrs["sample_varying"] = False
        condition(file, "PERIODIC", ["x"], ends(X))
        condition(file, "wall", ["y"], ends(Y, high=False))
        scalar(file, "viscosity", np.array(viscosity), sample=False)
        scalar(file, "drive", np.arange(count) + 1.0, sample=True)
        scalar(file, "clock", np.arange(float(steps)), sample=False, time=True)
        orders = [file.create_group(f"t{order}_fields") for order in range(3)]
        field(orders[0], "pressure", values["pressure"])
        field(orders[0], "density", values["density"], time=False)
        field(orders[0], "profile", values["profile"], sample=False, dims=(False, True))
        field(orders[1], "velocity", values["velocity"])
        field(orders[2], "D", values["D"])
    return values


CHANNELS = ("pressure", "density", "profile", "velocity_x", "velocity_y", "D_xx", "D_xy", "D_yx", "D_yy")


def test_the_well(tmp_path):
    values = well(tmp_path / "a.hdf5")
    source = TrajectoryFile(tmp_path / "a.hdf5")
    assert source.shape == (N, T, 9, X, Y) and source.dtype == np.float32
    assert source.channel_names == CHANNELS
    wanted = np.stack(
        [
            values["pressure"],
            np.broadcast_to(values["density"][:, None], (N, T, X, Y)),  # constant in time
            np.broadcast_to(values["profile"][None, :, None], (N, T, X, Y)),  # constant along x, for all trajectories
            *np.moveaxis(values["velocity"], -1, 0),
            *np.moveaxis(values["D"].reshape(N, T, X, Y, 4), -1, 0),
        ],
        axis=2,
    )
    np.testing.assert_array_equal(frames(source), wanted)
    np.testing.assert_array_equal(source[1, 1:3], wanted[1, 1:3])
    np.testing.assert_array_equal(source[2, -1, 4], wanted[2, -1, 4])
    assert source.boundary == (("periodic", "periodic"), ("reflect", "replicate"))
    assert source.parameter_names == ("viscosity", "drive")
    np.testing.assert_array_equal(source.parameters, [[0.5, 1], [0.5, 2], [0.5, 3]])


def test_the_well_with_single_entries_and_flat_tensors(tmp_path):
    """What its reader expects of constant axes, and what its documentation says of tensors."""
    values = well(tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        for path, new in (
            ("t0_fields/profile", values["profile"][:, None]),
            ("t2_fields/D", values["D"].reshape(N, T, X, Y, 4)),
        ):
            attributes = dict(file[path].attrs)
            del file[path]
            file[path] = new
            file[path].attrs.update(attributes)
    well(tmp_path / "b.hdf5")
    a, b = TrajectoryFile(tmp_path / "a.hdf5"), TrajectoryFile(tmp_path / "b.hdf5")
    assert a.channel_names == b.channel_names
    np.testing.assert_array_equal(frames(a), frames(b))


def test_an_obstacle_is_no_wall_of_the_box(tmp_path):
    well(tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        del file["boundary_conditions"]
        mask = np.zeros((X, Y), bool)
        mask[0], mask[2:4, 2:4], mask[-1, 1:] = True, True, True  # all of the lower x, not all of the upper
        condition(file, "WALL", ["x", "y"], mask)
    assert TrajectoryFile(tmp_path / "a.hdf5").boundary == (("reflect", "replicate"), ("replicate", "replicate"))


def test_a_folder_of_the_well_has_its_splits(tmp_path):
    made = {}
    for name, steps, viscosity in (("train/a", 4, 0.1), ("train/b", 6, 0.2), ("valid/a", 4, 0.3), ("test/a", 4, 0.4)):
        made[name] = well(tmp_path / f"data/{name}.hdf5", steps=steps, viscosity=viscosity)
    (tmp_path / "stats.yaml").write_text("mean: 0")
    source = TrajectoryFolder(tmp_path)
    assert source.shape == (12, 6, 9, X, Y)
    order = ["test/a", "train/a", "train/b", "valid/a"]  # by name
    assert source.lengths == tuple(np.repeat([made[name]["pressure"].shape[1] for name in order], N))
    for i in range(12):
        np.testing.assert_array_equal(source[i, 1:4, 0], made[order[i // N]]["pressure"][i % N, 1:4])
    assert source.splits == {"test": [0, 1, 2], "train": [3, 4, 5, 6, 7, 8], "val": [9, 10, 11]}
    np.testing.assert_array_equal(source.parameters[:, 0], np.repeat([0.4, 0.1, 0.2, 0.3], N))
    assert source.where(7).endswith("train/b.hdf5")

    data = {
        memory: TrajectoryDataModule(tmp_path, memory=memory, batch_size=4, unroll_steps=2) for memory in (0, 2**31)
    }
    for module in data.values():
        module.setup()
        assert [s.trajectory for s in module.segments["val"]] == [9, 10, 11]
        assert module.parameters == 2 and module.parameter_names == ("viscosity", "drive")
        assert module.parameter_mean == pytest.approx([0.15, 2]) and module.parameter_std[0] == pytest.approx(0.05)
    for a, b in zip(data[0].train_dataloader(), data[2**31].train_dataloader(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
        assert a["parameters"].shape == (len(a["input"]), 2) and a["target"].shape[1] == 2
        for x, p in zip(a["input"][:, 0, 0], a["parameters"]):  # each with the parameters of its own trajectory
            name, i = {0.1: "train/a", 0.2: "train/b"}[round(float(p[0]), 1)], round(float(p[1])) - 1
            assert (x == torch.from_numpy(made[name]["pressure"][i])).flatten(1).all(1).any()


# ---------------------------------------------------------------------------------------------------------- PDEArena


def arena(path, mode, *, count=N, **fields):
    with h5py.File(path, "a") as file:
        group = file.create_group(mode)
        for name, values in fields.items():
            group[name] = values
        for name, size in (("t", T), ("x", X), ("y", Y)):
            group[name] = np.tile(np.linspace(0, 1, size), (count, 1))
            group[f"d{name}"] = np.full(count, 0.25)
    return fields


def smoke(count=N):
    return {name: random(count, T, X, Y).astype(float) * (i + 1) for i, name in enumerate(("u", "vx", "vy"))}


def test_pdearena_smoke(tmp_path):
    for mode, buoyancy in (("train", [0.2, 0.3, 0.4]), ("valid", [0.5] * 3), ("test", [0.6] * 3)):
        arena(tmp_path / f"NavierStokes2D_{mode}_42_0.5.h5", mode, **smoke(), buo_y=np.array(buoyancy))
    source = open_trajectories(tmp_path)
    assert source.shape == (9, T, 3, X, Y) and source.dtype == np.float64
    assert source.channel_names == ("u", "vx", "vy") and source.boundary == "reflect"
    np.testing.assert_array_equal(frames(source)[3:6], np.stack(list(smoke().values()), axis=2))
    assert source.splits == {"test": [0, 1, 2], "train": [3, 4, 5], "val": [6, 7, 8]}
    assert set(source.parameter_names) == {"buo_y", "dt", "dx", "dy"}
    data = TrajectoryDataModule(tmp_path)
    assert data.parameter_names == ("buo_y",)  # the spacings are the same everywhere
    np.testing.assert_allclose(data.parameter_mean, 0.3)
    batch = next(iter(data.val_dataloader()))
    torch.testing.assert_close(batch["parameters"], torch.full((8, 1), 0.5))


def test_pdearena_with_all_splits_in_one_file(tmp_path):
    path = tmp_path / "all.h5"
    for mode, count in (("train", 3), ("valid", 2), ("test", 1)):
        arena(path, mode, count=count, **smoke(count))
    source = TrajectoryFile(path)
    assert source.splits == {"train": [0, 1, 2], "val": [3, 4], "test": [5]}
    np.testing.assert_array_equal(source[4, :, 1], smoke(2)["vx"][1])


def test_pdearena_in_one_and_three_dimensions(tmp_path):
    line, many = random(N, T, 16), random(N, T, 2, 16)
    with h5py.File(tmp_path / "KS_train_1.h5", "w") as file:
        file["train/pde_4-16"], file["train/dt"], file["train/dx"] = line, np.arange(3.0), np.ones(3)
    source = TrajectoryFile(tmp_path / "KS_train_1.h5")
    np.testing.assert_array_equal(frames(source), line[:, :, None])
    assert source.boundary == "periodic" and source.parameter_names == ("dt", "dx")
    with h5py.File(tmp_path / "KS_train_2.h5", "w") as file:
        file["train/pde_4-16"] = many
    np.testing.assert_array_equal(frames(TrajectoryFile(tmp_path / "KS_train_2.h5")), many)
    d, h = random(N, T, 2, 3, 4, 3), 2 * random(N, T, 2, 3, 4, 3)
    arena(tmp_path / "Maxwell3D_test_1.h5", "test", d_field=d, h_field=h)
    source = TrajectoryFile(tmp_path / "Maxwell3D_test_1.h5")
    np.testing.assert_array_equal(frames(source), np.moveaxis(np.concatenate([d, h], -1), -1, 2))
    assert source.channel_names == ("d_x", "d_y", "d_z", "h_x", "h_y", "h_z") and source.boundary == "replicate"


def test_a_file_may_state_its_boundary_in_any_layout(tmp_path):
    arena(tmp_path / "own_train.h5", "train", u=random(N, T, X, Y))
    with h5py.File(tmp_path / "own_train.h5", "a") as file:
        file.attrs["boundary"] = '["periodic", "zeros"]'
    source = TrajectoryFile(tmp_path / "own_train.h5")
    assert source.boundary == ("periodic", "zeros") and source.channel_names == ("u",)


def test_reads_what_our_generators_write(tmp_path):
    """Space is (y, x) in our arrays, x first in PDEArena's files."""
    flow, line = random(N, T, 3, Y, X), random(N, T, 1, X)
    for name, fields, values in (("a", ("u", "vx", "vy"), flow), ("b", ("pde",), line)):
        write_arena(
            tmp_path / f"{name}.h5",
            values,
            count=N,
            split="train",
            fields=fields,
            spacing=(0.1, 0.2),
            attributes={"boundary": "periodic"},
        )
    a, b = (TrajectoryFile(tmp_path / f"{name}.h5") for name in "ab")
    np.testing.assert_array_equal(frames(a), flow.swapaxes(-1, -2))
    np.testing.assert_array_equal(frames(b), line)
    assert a.boundary == b.boundary == "periodic" and a.splits == {"train": [0, 1, 2]}


def test_pdearena_on_the_sphere(tmp_path):
    zarr = pytest.importorskip("zarr")
    pressure, u, v = random(N, T, X, Y), random(N, T, 1, X, Y), -random(N, T, 1, X, Y)
    for name in ("train", "valid", "test"):
        group = zarr.open_group(str(tmp_path / f"{name}.zarr"), mode="w")
        group["pres"], group["u"], group["v"], group["lat"] = pressure, u, v, np.zeros(X)
    source = TrajectoryFolder(tmp_path)
    np.testing.assert_array_equal(frames(source)[:N], np.concatenate([pressure[:, :, None], u, v], axis=2))
    assert source.boundary == ("replicate", "periodic") and list(map(len, source.splits.values())) == [N, N, N]


# ---------------------------------------------------------------------------------------------------------- PDEBench


def test_pdebench_scalar(tmp_path):
    u = random(N, T, 16)
    for nu in (0.01, 0.1):
        with h5py.File(tmp_path / f"1D_Burgers_Sols_Nu{nu}.hdf5", "w") as file:
            file["tensor"], file["x-coordinate"], file["t-coordinate"] = u, np.arange(16.0), np.arange(T + 1.0)
            if nu == 0.1:
                file.attrs["Nu"] = 0.1
    source = TrajectoryFolder(tmp_path)
    np.testing.assert_array_equal(frames(source)[:N], u[:, :, None])
    assert source.boundary == "periodic" and source.parameter_names == ("nu",)
    np.testing.assert_array_equal(source.parameters[:, 0], [0.01] * N + [0.1] * N)  # one by name, one by attribute


@pytest.mark.parametrize("space", [(7,), (5, 6), (3, 4, 2)])
def test_pdebench_flow(tmp_path, space):
    names = ["Vx", "Vy", "Vz"][: len(space)] + ["density", "pressure"]
    values = {name: (i + 1) * random(N, T, *space) for i, name in enumerate(names)}
    path = tmp_path / "2D_CFD_Rand_M0.1_Eta1e-08_Zeta1e-08_periodic_128_Train.hdf5"
    with h5py.File(path, "w") as file:
        for name, array in values.items():
            file[name] = array
        file["x-coordinate"] = np.arange(float(space[0]))
    source = TrajectoryFile(path)
    assert source.channel_names == ("density", "pressure", *names[:-2])  # the order of PDEBench's own reader
    np.testing.assert_array_equal(frames(source), np.stack([values[name] for name in source.channel_names], axis=2))
    assert source.boundary == "periodic"
    assert dict(zip(source.parameter_names, source.parameters[0])) == {"m": 0.1, "eta": 1e-8, "zeta": 1e-8}
    some = TrajectoryFile(path, key=["Vx", "density"])
    np.testing.assert_array_equal(frames(some), np.stack([values["Vx"], values["density"]], axis=2))


@pytest.mark.parametrize(
    ("name", "shape"),
    [("2D_rdb_NA_NA.h5", (T, X, Y, 1)), ("2D_diff-react_NA_NA.h5", (T, X, Y, 2)), ("s.h5", (T, 7, 1))],
)
def test_pdebench_with_a_group_for_each_sample(tmp_path, name, shape):
    values = np.stack([(i + 1) * random(*shape) for i in range(12)])
    with h5py.File(tmp_path / name, "w") as file:
        for i, sample in enumerate(values):
            file[f"{i:04}/data"], file[f"{i:04}/grid/t"] = sample, np.arange(float(T))
    source = TrajectoryFile(tmp_path / name)
    np.testing.assert_array_equal(frames(source), np.moveaxis(values, -1, 2))
    assert source.boundary == (None if name == "s.h5" else "replicate")


def test_pdebench_incompressible(tmp_path):
    velocity, particles, force = random(N, T, X, Y, 2), random(N, T, X, Y, 1), random(N, X, Y, 2)
    path = tmp_path / "ns_incom_inhom_2d_512-0.h5"
    with h5py.File(path, "w") as file:
        file["velocity"], file["particles"], file["force"], file["t"] = velocity, particles, force, np.zeros((N, T))
        file.attrs["latestIndex"] = T
    source = TrajectoryFile(path)
    still = np.broadcast_to(force[:, None], velocity.shape)
    np.testing.assert_array_equal(frames(source), np.moveaxis(np.concatenate([velocity, particles, still], -1), -1, 2))
    assert source.channel_names == ("velocity_x", "velocity_y", "particles", "force_x", "force_y")
    assert source.boundary == "reflect" and source.parameter_names == ()
    part = TrajectoryFile(path, key=["force_y", "velocity"])
    np.testing.assert_array_equal(part[1, 2], np.stack([force[1, ..., 1], *np.moveaxis(velocity[1, 2], -1, 0)]))


# ----------------------------------------------------------------------------------------------------- plain, and all


def test_plain_zarr(tmp_path):
    zarr = pytest.importorskip("zarr")
    flow = random(N, T, 2, X, Y)
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    group["deep/flow"], group["parameters"] = flow, np.arange(N * 2.0).reshape(N, 2)
    group.attrs.update(boundary=["periodic", "zeros"], channel_names=["u", "v"], parameter_names=["nu", "g"])
    zarr.save_array(str(tmp_path / "b.zarr"), flow)
    a, b = TrajectoryFile(tmp_path / "a.zarr"), open_trajectories(tmp_path / "b.zarr")
    for source in (a, b, pickle.loads(pickle.dumps(a))):
        np.testing.assert_array_equal(frames(source), flow)
    assert a.boundary == ("periodic", "zeros") and a.channel_names == ("u", "v")
    assert a.parameter_names == ("nu", "g") and a.parameters.tolist() == [[0, 1], [2, 3], [4, 5]]


def test_sources_are_pickled_without_their_open_files(tmp_path):
    values = well(tmp_path / "train/a.hdf5")
    source = TrajectoryFolder(tmp_path)
    source[0]
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy[1, :, 0], values["pressure"][1])
    source.close()
    np.testing.assert_array_equal(source[1, :, 0], values["pressure"][1])  # opened again


def test_few_files_are_open_at_a_time(tmp_path):
    for i in range(70):
        np.save(tmp_path / f"{i:02}.npy", np.full((1, 2, 1, 3), i))
    source = TrajectoryFolder(tmp_path)
    assert [int(source[i].max()) for i in range(70)] == list(range(70))
    assert sum(file._open is not None for file in source.files) == 64


def truncated(path):
    with h5py.File(path, "w") as file:
        file["flow"] = random(20, 10, 1, 32)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def darcy(path):
    with h5py.File(path, "w") as file:
        file["tensor"], file["nu"] = random(N, 1, X, Y), random(N, X, Y)


def unknown(path):
    with h5py.File(path, "w") as file:
        for i in range(20):
            file[f"part{i:02}/a"] = random(2, 3)


def two_groups(path):
    arena(path, "train", u=random(N, T, X, Y))
    arena(path, "test", count=2, vx=random(2, T, X, Y))


def odd_field(path):
    well(path)
    with h5py.File(path, "a") as file:
        del file["t0_fields/density"]
        field(file["t0_fields"], "density", random(N, X, Y))  # says it varies in time


def uneven(path):
    arena(path, "train", u=random(N, T, X, Y), vx=random(N, T, X, Y + 1))


def strange_condition(path):
    well(path)
    with h5py.File(path, "a") as file:
        condition(file, "SLIP", ["y"], ends(Y))


def no_mask(path):
    well(path)
    with h5py.File(path, "a") as file:
        del file["boundary_conditions/y_wall/mask"]


def no_dims(path):
    well(path)
    with h5py.File(path, "a") as file:
        del file["dimensions"].attrs["spatial_dims"]


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (no_mask, r"a\.h5 is incomplete for its layout: .*mask"),
        (no_dims, r"a\.h5 is incomplete for its layout: .*spatial_dims"),
        (truncated, r"a\.h5' is not a readable \.h5 file.*truncated"),
        (darcy, r"a\.h5: a steady problem.*PairDataModule"),
        (unknown, r"part00/a \(2, 3\).* and 8 more: name the one.*The Well: .*PDEArena: .*PDEBench: "),
        (two_groups, "the groups train and test hold different fields"),
        (odd_field, r"a\.h5: t0_fields/density has shape \(3, 5, 6\), which does not fit its attributes"),
        (uneven, r"vx has shape \(3, 4, 5, 7\): 7 along y, where others have 6"),
        (strange_condition, "y_SLIP is of the type 'SLIP'; The Well has PERIODIC, WALL, OPEN"),
    ],
)
def test_bad_files_are_explained(tmp_path, write, words):
    write(tmp_path / "a.h5")
    with pytest.raises(ValueError, match=words):
        TrajectoryFile(tmp_path / "a.h5")


def test_unknown_fields_are_explained(tmp_path):
    well(tmp_path / "a.hdf5")
    with pytest.raises(
        ValueError, match=r"no field 'velocity_z' \(did you mean 'velocity_[xy]'\?\); the data hold t0_fields"
    ):
        TrajectoryFile(tmp_path / "a.hdf5", key="velocity_z")
    np.save(tmp_path / "a.npy", random(N, T, 1, X))
    with pytest.raises(ValueError, match="a file of plain arrays: name one of them"):
        TrajectoryFile(tmp_path / "a.npy", key=["a", "b"])


def test_a_file_that_is_not_ours_is_explained(tmp_path, monkeypatch):
    well(tmp_path / "a.hdf5")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(h5py, "File", refuse)
    with pytest.raises(PermissionError, match="no permission to read '.*a.hdf5'"):
        TrajectoryFile(tmp_path / "a.hdf5")


def test_a_file_damaged_after_it_was_opened_is_named(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("flow", data=random(8, 10, 1, 64), chunks=(1, 10, 1, 64), compression="gzip")
        place = file["flow"].id.get_chunk_info(5)
    with (tmp_path / "a.h5").open("r+b") as raw:
        raw.seek(place.byte_offset)
        raw.write(b"\0" * place.size)
    source = TrajectoryFile(tmp_path / "a.h5")
    source[0]
    with pytest.raises(ValueError, match=r"a\.h5' is not a readable"):
        source[5]


def test_bad_folders_are_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_trajectories(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no data file \(.npz, .*\) in the folder '.*empty' or below"):
        open_trajectories(tmp_path / "empty")
    for name, space in (("a.npy", (X, Y)), ("b.npy", (X, X))):
        np.save(tmp_path / name, random(N, T, 1, *space))
    with pytest.raises(ValueError, match=r"must agree in their shape: a.npy has \(3, 4, 1, 5, 6\), b.npy has"):
        open_trajectories(tmp_path)


def test_what_is_asked_for_must_exist(tmp_path):
    np.save(tmp_path / "a.npy", random(N, T, 1, X))
    source = TrajectoryFile(tmp_path / "a.npy")
    with pytest.raises(IndexError, match="trajectory 3 of 3"):
        source[3]
    with pytest.raises(IndexError):
        source[0, T]
    with pytest.raises(TypeError, match="one trajectory, an integer"):
        source[:2]


def test_a_parameter_that_is_no_number_is_named(tmp_path):
    np.savez(tmp_path / "a.npz", flow=random(N, T, 1, X), parameters=[[1.0], [np.nan], [2.0]], parameter_names=["nu"])
    with pytest.raises(ValueError, match="parameter nu of trajectory 1 is nan in .*a.npz"):
        TrajectoryDataModule(tmp_path / "a.npz")
