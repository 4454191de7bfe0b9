import h5py
import lightning
import numpy as np
import pytest
import torch

from multiresnet.data.fields.steady import PairDataModule
from multiresnet.data.solvers.arena import write_steady
from multiresnet.tasks import SurrogateTask
from multiresnet.tasks.network import Network

N, X, Y = 12, 5, 6


def numbered(channels, space=(X, Y), samples=N):
    """Values say which sample (tens) and channel (units) they are of, and vary in space a little."""
    values = 10.0 * np.arange(samples)[:, None] + np.arange(channels)
    ramp = np.linspace(0, 0.5, int(np.prod(space))).reshape(space)
    return values.reshape(samples, channels, *[1] * len(space)) + ramp


def module(*args, **options):
    data = PairDataModule(*args, **options)
    data.setup()
    return data


@pytest.mark.parametrize("space", [(9,), (X, Y), (2, 3, 4)])
@pytest.mark.parametrize("ending", ["npz", "h5", "zarr", None])
@pytest.mark.parametrize("memory", [0, 2**31])
def test_input_and_target_stay_together(tmp_path, space, ending, memory):
    x, y = numbered(2, space), -numbered(1, space)
    path = tmp_path / f"pairs.{ending}"
    if ending == "npz":
        np.savez(path, target=y, input=x)
    elif ending == "h5":
        with h5py.File(path, "w") as file:
            file["input"], file["target"] = x, y
    elif ending == "zarr":
        group = pytest.importorskip("zarr").open_group(str(path), mode="w")
        group["input"], group["target"] = x, y
    data = module(path if ending else (x, y), memory=memory, batch_size=4)
    assert (data.spatial_dims, data.channels, data.target_channels, data.boundary) == (len(space), 2, 1, "zeros")
    seen = []
    for loader in (data.train_dataloader(), data.val_dataloader(), *data.test_dataloader()):
        for batch in loader:
            assert batch["input"].shape[1:] == (1, 2, *space) and batch["target"].shape[1:] == (1, 1, *space)
            assert batch["input"].dtype == batch["target"].dtype == torch.float32
            torch.testing.assert_close(batch["input"][:, :, :1], -batch["target"])
            torch.testing.assert_close(batch["input"][:, :, 1:], 1 - batch["target"])
            seen += (batch["input"][:, 0, 0].flatten(1)[:, 0] / 10).round().int().tolist()
    assert sorted(seen) == list(range(N))
    samples = [segment.trajectory for segment in data.segments["train"]]
    for values, (mean, std) in ((x, (data.mean, data.std)), (y, (data.target_mean, data.target_std))):
        axes = (0, *range(2, values.ndim))
        np.testing.assert_allclose(mean, values[samples].mean(axes), rtol=1e-5)
        np.testing.assert_allclose(std, values[samples].std(axes), rtol=1e-5)


def test_pdebench_darcy(tmp_path):
    path = tmp_path / "2D_DarcyFlow_beta1.0_Train.hdf5"
    with h5py.File(path, "w") as file:
        file["nu"], file["tensor"], file["x-coordinate"] = numbered(1)[:, 0], numbered(1) ** 2, np.arange(X)
    data = module(path)
    batch = next(iter(data.val_dataloader()))
    assert batch["input"].shape == batch["target"].shape == (1, 1, 1, X, Y)
    torch.testing.assert_close(batch["input"] ** 2, batch["target"])


def test_arrays_named_test_are_the_test_split(tmp_path):
    x, more = numbered(1)[:, 0], 7 + numbered(1, samples=4)[:, 0]
    np.savez(tmp_path / "a.npz", x_train=x, y_train=2 * x, x_test=more, y_test=2 * more, x_test99=more[:, :1])
    data = module(tmp_path / "a.npz", keys=("x_train", "y_train"), spatial_dims=2)
    (batch,) = data.test_dataloader()[0]
    torch.testing.assert_close(batch["input"][:, 0, 0], torch.from_numpy(more).float())
    torch.testing.assert_close(batch["target"], 2 * batch["input"])
    assert (
        sum(len(batch["input"]) for loader in (data.train_dataloader(), data.val_dataloader()) for batch in loader) == N
    )


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore:This DataLoader will create:UserWarning")
def test_workers_read_hdf5(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["input"], file["target"], file.attrs["boundary"] = numbered(1), -numbered(1), "reflect"
    data, same = (module(tmp_path / "a.h5", **options) for options in ({"memory": 0, "num_workers": 2}, {}))
    assert data.boundary == "reflect"
    for a, b in zip(data.train_dataloader(), same.train_dataloader(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_reads_what_our_generator_writes(tmp_path):
    pairs = np.stack([numbered(1, (X, X)), -numbered(1, (X, X))], axis=1).astype(np.float32)
    path = tmp_path / "darcy.h5"
    write_steady(path, pairs, count=N, fields=("input", "target"), attributes={"boundary": "zeros"})
    (batch,) = module(path, batch_size=N).predict_dataloader()
    torch.testing.assert_close(batch["input"], -batch["target"])


def broken(value):
    x = numbered(1)
    x[7, 0, 1, 2] = value
    return x


@pytest.mark.parametrize(
    ("source", "options", "error", "words"),
    [
        ((numbered(1), numbered(1)[:5]), {}, ValueError, r"agree in samples and space.*\(12, 1, 1, 5, 6\) and \(5,"),
        ((numbered(1), numbered(1, (X, X))), {}, ValueError, "agree in samples and space"),
        ((numbered(1)[:2], numbered(1)[:2]), {}, ValueError, "too few samples: got 2, need at least 3"),
        (
            (numbered(X, (Y,)), numbered(X, (Y,))),
            {},
            ValueError,
            "planes of one channel, or several channels on a line",
        ),
        ((numbered(1), numbered(1)), {"spatial_dims": 1}, ValueError, "for spatial_dims=1"),
        ((np.zeros(5), np.zeros(5)), {}, ValueError, "with 1, 2 or 3 space axes"),
        ((numbered(1), np.ones((N, 1, X, Y))), {}, ValueError, r"channel 0 is constant \(1\)"),
        ((numbered(1), numbered(1).astype(complex)), {}, TypeError, "two channels"),
        ((numbered(1), broken(np.nan)), {}, ValueError, r"nan at .* = \(7, 0, 0, 1, 2\)"),
        ((broken(np.inf), numbered(1)), {"memory": 0}, ValueError, r"inf at .* = \(7, 0, 0, 1, 2\)"),
        (numbered(1), {}, TypeError, "a path, or a tuple of two numpy arrays"),
    ],
)
def test_bad_data_are_explained(source, options, error, words):
    with pytest.raises(error, match=words):
        data = module(source, **options)
        list(data.train_dataloader()), list(data.val_dataloader()), list(data.predict_dataloader())


def test_missing_arrays_are_explained(tmp_path):
    np.savez(tmp_path / "a.npz", a=numbered(1), b=numbered(1))
    with pytest.raises(ValueError, match=r"no arrays input and target .* it holds a \(12, 1, 5, 6\), b .*keys="):
        PairDataModule(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="has no array 'c'"):
        PairDataModule(tmp_path / "a.npz", keys=("a", "c"))


def trainer(**options):
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return lightning.Trainer(accelerator="cpu", devices=1, **quiet, **options)


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*LeafSpec")
def test_a_surrogate_learns_darcy_flow(shared_data):
    path = shared_data / "darcy_neuralop.npz"
    if not path.exists():
        pytest.skip(f"no {path.name}")
    data = module(path, keys=("x_train16", "y_train16"), spatial_dims=2, batch_size=32)
    assert (len(data.segments["test"]), data.channels, data.target_channels) == (50, 1, 1)
    lightning.seed_everything(0)
    task = SurrogateTask(Network(options={"channels": (16, 32, 32), "norm": None}), lr=1e-2)
    trainer(max_steps=60).fit(task, data)
    errors = []
    for batch in data.test_dataloader()[0]:
        with torch.no_grad():
            errors.append((task(batch["input"]) - batch["target"]).square().flatten(1).sum(1))
    truth = torch.cat([batch["target"] for batch in data.test_dataloader()[0]])
    mean = torch.cat([batch["target"] for batch in data.train_dataloader()]).mean(0)
    still = (mean - truth).square().flatten(1).sum(1)  # the best guess that does not look at the input
    assert torch.cat(errors).sum() < 0.3 * still.sum()
