import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

import multiresnet as mrn
from multiresnet.budget import count_saved_bytes
from multiresnet.data import TrajectoryDataModule
from multiresnet.demo import DemoConfig, run_demo
from multiresnet.demo.builders import build_models
from multiresnet.demo.measure import step_times
from multiresnet.demo.race import race
from multiresnet.demo.source import generated_flow
from multiresnet.tasks import SurrogateTask


@pytest.fixture
def console(tmp_path):
    with (tmp_path / "console.txt").open("w") as file:
        yield Console(file=file, width=110)


def flow(trajectories, frames, channels, *space):
    """Smooth random fields that drift along the last axis."""
    rng = np.random.default_rng(0)
    field = np.cumsum(rng.normal(size=(trajectories, channels, *space)), axis=-1).astype(np.float32)
    return np.stack([np.roll(field, t, axis=-1) for t in range(frames)], axis=1)


@pytest.mark.parametrize(
    "shape, boundary",
    [
        ((6, 8, 1, 16), "periodic"),
        ((1, 20, 2, 9, 13), None),
        ((4, 5, 1, 6, 7, 8), ("zeros", "reflect", "periodic")),
    ],
)
@pytest.mark.filterwarnings("ignore:.*one point:UserWarning", "ignore:.*has collapsed:UserWarning")
def test_runs_on_a_file_of_any_rank(tmp_path, console, shape, boundary):
    np.savez(tmp_path / "flow.npz", flow=flow(*shape))
    config = DemoConfig(
        out=tmp_path / "out", data=tmp_path / "flow.npz", boundary=boundary, seconds=0.3, quick=True, seed=1
    )
    report = run_demo(config, console=console)
    assert json.loads(json.dumps(report)) == json.loads((tmp_path / "out" / "results.json").read_text())
    assert report["data"]["shape"] == list(shape) and report["config"]["seed"] == 1
    for name, result in report["models"].items():
        assert math.isfinite(result["one_step"]) and result["steps"] >= 1
        assert len(result["rollout"]) == report["data"]["rollout_steps"] >= 1
        assert len(result["validation_curve"]) == 13
        net = getattr(mrn, name).from_pretrained(str(tmp_path / "out" / name))
        assert net(torch.zeros(1, *shape[2:])).shape == (1, *shape[2:])
    for picture in ("fields", "rollout", "training"):
        content = (tmp_path / "out" / f"{picture}.png").read_bytes()
        assert content.startswith(b"\x89PNG") and len(content) > 10_000
    console.file.flush()
    shown = (tmp_path / "console.txt").read_text()
    for words in ("parameters", "step memory", "error, one step", "MultiResNet", "from_pretrained"):
        assert words in shown
    assert ("split along time" in shown) == (shape[0] < 3)


def test_the_two_networks_match_in_parameters():
    for size, tolerance in (
        ((64, 64), 0.02),
        ((417, 419), 0.02),
        ((100,), 0.02),
        ((16,), 0.1),
        ((8, 12, 5), 0.1),
    ):
        counts = [mrn.count_parameters(m) for m in build_models(2, 2, size=size, boundary="replicate").values()]
        assert abs(counts[1] / counts[0] - 1) <= tolerance


def test_generated_data_are_kept_and_never_half_written(tmp_path, console, monkeypatch):
    config = DemoConfig(out=tmp_path, quick=True)
    made = []
    monkeypatch.setattr(
        "multiresnet.demo.source.navier_stokes",
        lambda **options: made.append(options) or np.ones((3, 2, 1, 8, 8)),
    )
    path = generated_flow(config, console)
    assert generated_flow(config, console) == path and len(made) == 1
    assert generated_flow(DemoConfig(out=tmp_path, quick=True, seed=1), console) != path
    assert TrajectoryDataModule(path).boundary == "periodic"

    def killed(*_):
        raise KeyboardInterrupt

    path.unlink()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("os.replace", killed)
        generated_flow(config, console)
    assert not path.exists()
    assert generated_flow(config, console) == path and TrajectoryDataModule(path).boundary == "periodic"
    assert not list(tmp_path.glob("*.unfinished*"))


def data_module():
    data = TrajectoryDataModule(flow(8, 6, 1, 16), boundary="periodic", batch_size=4)
    data.setup()
    return data


@pytest.mark.filterwarnings("ignore:.*has collapsed:UserWarning")
def test_a_race_gives_equal_time_and_keeps_the_optimiser():
    data = data_module()
    tasks = {
        name: SurrogateTask(nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular"), mean=data.mean, std=data.std)
        for name in ("a", "b")
    }
    reports = []
    results = race(tasks, data, seconds=0.6, turns=3, report=lambda *report: reports.append(report))
    names = [name for name, _, _ in reports]
    assert [a for a, b in pairwise([*names, None]) if a != b][:3] == ["a", "b", "a"]
    for name, (curve, steps) in results.items():
        elapsed = [seconds for _name, seconds, _ in reports if _name == name]
        assert elapsed == sorted(elapsed) and steps == len(elapsed)
        assert len(curve) == 4 and curve[-1][0] >= 0.6 > elapsed[-2]
        assert curve[-1][1] != curve[0][1]
        state = tasks[name].trainer.optimizers[0].state_dict()["state"][0]
        assert int(state["step"]) == steps  # one AdamW over all turns
        assert tasks[name].progress() == 1.0


def test_an_interrupt_ends_the_race():
    def interrupt(*_):
        raise KeyboardInterrupt

    data = data_module()
    with pytest.raises(KeyboardInterrupt):
        race({"a": SurrogateTask(nn.Conv1d(1, 1, 1), mean=data.mean, std=data.std)}, data, seconds=1, report=interrupt)


def test_saved_bytes_counts_each_storage_once_and_no_parameter():
    class Square(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1000))

        def forward(self, x):
            return (x * self.weight).exp() * x.view(10, 100).flatten()  # x twice, exp(...) once

    assert count_saved_bytes(Square(), torch.ones(1000)) == 2 * 4000


def test_step_times_leave_the_models_alone():
    model = nn.Conv1d(1, 1, 3, padding=1)
    before = model.weight.clone()
    times = step_times({"a": model, "b": nn.Conv1d(1, 1, 1)}, torch.ones(2, 1, 8), seconds=0.1)
    assert set(times) == {"a", "b"} and min(times.values()) > 0
    assert torch.equal(model.weight, before) and model.weight.grad is None


@pytest.mark.parametrize("options", [{"seconds": 0.0}, {"seconds": math.inf}, {"seed": -1}])
def test_bad_options_are_explained(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        DemoConfig(**options)


@pytest.mark.slow
def test_runs_on_real_rain(tmp_path, console, shared_data):
    path = shared_data / "knmi_radar_20100826.npz"
    if not path.exists():
        pytest.skip(f"no {path.name}")
    with np.load(path) as file:
        np.savez(tmp_path / "rain.npz", rain=file["rain_mm_x100"][None, :, None])
    report = run_demo(DemoConfig(out=tmp_path / "out", data=tmp_path / "rain.npz", quick=True), console=console)
    assert report["data"]["shape"] == [1, 92, 1, 417, 419]
    assert report["data"]["boundary"] == "replicate"
