"""The training benchmarks, run for a few steps."""

import argparse
import json
import math

import lightning
import numpy as np
import pytest
import torch
from multiresnet_bench import allocate, cli, contest, models, pde, race, results, schemes, spaces
from torch.utils.data import DataLoader

from multiresnet.tasks import SurrogateTask

pytestmark = pytest.mark.filterwarnings("ignore:spatial size .8, 8. is smaller:UserWarning")  # the digits of --quick

COMMANDS = {  # command: (models, first figure)
    "pde": (["multiresnet", "neuralop-fno"], "rollout"),
    "segmentation": (["multiresnet-segmentation", "smp-resnet18"], "dice"),
    "diffusion": (["multiresnet", "diffusers-unet"], "kid"),
    "allocate": (["one block at each level, wider", "two patch levels"], "rollout"),
}


@pytest.fixture(autouse=True)
def no_seed_is_left(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # the runs set it, in this process; it is put back afterwards


def quick(command, tmp_path, *more):
    out = tmp_path / f"{command}.json"
    arguments = [command, "--quick", "--seeds", "1", "--keep", str(tmp_path / "sets"), "--out", str(out), *more]
    assert cli.main(arguments) == 0
    return results.read(out)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_quick_run_gives_a_row_for_each_network(command, tmp_path, capsys):
    networks, key = COMMANDS[command]
    result = quick(command, tmp_path, "--models", *networks)
    assert [row["model"] for row in result["rows"]][1:] == networks
    assert {row["steps"] for row in result["rows"]} == {3}
    assert all(math.isfinite(float(row[key])) and row["macs"] > 0 and row["saved"] > 0 for row in result["rows"])
    assert [len(run["curve"]) for run in result["raw"]] == [3] * 3 and result["measure"]["key"] == key
    assert networks[0] in capsys.readouterr().out
    assert (tmp_path / f"{command}.svg").stat().st_size > 1000
    assert not (tmp_path / f"{command}.jsonl").exists()


@pytest.mark.parametrize("name", spaces.CONTESTANTS)
def test_spaces(name, tmp_path):
    if name == "sphere":
        pytest.importorskip("astropy_healpix", reason="needs astropy-healpix")
    reference, *others = spaces.CONTESTANTS[name]
    rows = quick("spaces", tmp_path, "--set", name, "--models", *others)["rows"]
    assert [row["model"] for row in rows] == [reference, *others]
    assert all(0 < row["error"] < 2 and row["macs"] > 0 and row["saved"] > 0 for row in rows)
    if name == "poisson":
        assert [row["violation"] > 0 for row in rows] == [True, False, False, False]
    else:
        assert all(0 < row["rollout"] < 10 for row in rows)
    if name == "sphere":
        assert all(0 < row["poles"] < 2 for row in rows)


def test_the_square_holds_siblings_in_blocks():
    cells = np.arange(64).reshape(1, 1, 1, 64)
    square = spaces.in_square(cells)[0, 0, 0]
    assert square.shape == (8, 8)
    blocks = square.reshape(4, 2, 4, 2).transpose(0, 2, 1, 3).reshape(-1, 4)
    assert (blocks // 4 == blocks[:, :1] // 4).all()
    pooled = square.reshape(4, 2, 4, 2).mean((1, 3))
    assert (pooled == spaces.in_square(np.arange(16).reshape(1, 1, 1, 16))[0, 0, 0] * 4 + 1.5).all()


def test_schemes(tmp_path):
    chosen = ["one step, then unrolled 4", "staged, frozen"]
    result = quick("schemes", tmp_path, "--schemes", *chosen)
    assert [row["model"] for row in result["rows"]] == chosen
    assert all(0 < row["rollout"] < 10 for row in result["rows"])


def test_two_runs_of_one_seed_agree_to_the_bit(tmp_path):
    figures = [
        [(row["model"], row["one_step"], row["rollout"], row["val"]) for row in quick("pde", tmp_path / str(i))["raw"]]
        for i in range(2)
    ]
    assert figures[0] == figures[1] and len({one for _, one, _, _ in figures[0]}) == 2


def test_an_interrupted_benchmark_goes_on_where_it_was(tmp_path, monkeypatch):
    fit, trained = race.fit, []

    def interrupted(task, data, row, score, **more):
        trained.append(row["model"])
        if len(trained) == 2:
            raise KeyboardInterrupt
        return fit(task, data, row, score, **more)

    monkeypatch.setattr(race, "fit", interrupted)
    out = tmp_path / "pde.json"
    arguments = ["pde", "--quick", "--seeds", "1", "--keep", str(tmp_path), "--out", str(out)]
    assert cli.main(arguments) == 130 and not out.exists() and out.with_suffix(".jsonl").exists()
    assert cli.main(arguments) == 0
    assert trained == ["residual-unet-tuned", "multiresnet-surrogate", "multiresnet-surrogate"]
    first = [(row["rollout"], row["curve"]) for row in results.read(out)["raw"]]
    assert cli.main(arguments) == 0 and len(trained) == 5  # a finished one starts anew
    assert [row[0] for row in first] == [row["rollout"] for row in results.read(out)["raw"]]


def test_each_network_takes_its_best_learning_rate(tmp_path):
    result = quick("pde", tmp_path, "--learning-rates", "1e-9", "1e-2", "--steps", "8")
    # --quick keeps the last of the grid, so the tuning is called by hand
    assert {row["learning_rate"] for row in result["rows"]} == {1e-2}
    tuning = [{"model": "a", "learning_rate": r, "val": v} for r, v in ((1e-4, 0.3), (1e-3, 0.2), (1e-2, float("nan")))]
    error, gain = contest.Measure("k", "", ""), contest.Measure("k", "", "", lower_is_better=False)
    assert contest.best_rate("a", tuning, error) == 1e-3
    assert contest.best_rate("a", tuning, gain) == 1e-4
    with pytest.raises(ValueError, match="a diverged at all learning rates, .0.01.: add smaller"):
        contest.best_rate("a", tuning[2:], error)


def test_the_budget_is_that_of_the_reference_or_a_number(tmp_path):
    result = quick("pde", tmp_path, "--macs", "3000000", "--models", "multiresnet-paper")
    assert [row["macs"] for row in result["rows"]] == [pytest.approx(3e6, rel=0.1)] * 2
    options = argparse.Namespace(reference="residual-unet", params=None, macs=None, match="params")
    problem = race.Problem(1, 1, (16, 16), "periodic")
    networks = {"residual-unet": "residual-unet"}
    own = sum(p.numel() for p in models.build("residual-unet", 1, 1).parameters())
    assert contest.find_budget(options, networks, problem) == models.Budget(params=own)
    options.match = "nothing"
    assert contest.find_budget(options, networks, problem) is None


def test_a_network_that_cannot_be_had_gets_a_row_that_says_why(tmp_path):
    result = quick("diffusion", tmp_path, "--models", "multiresnet", "monai-unet")
    assert [row["model"].partition(":")[0] for row in result["rows"]] == ["residual-unet", "multiresnet", "monai-unet"]
    assert "noise level" in result["rows"][2]["model"] and result["rows"][2].get("kid") is None


def test_wrong_names(tmp_path, capsys):
    assert cli.main(["pde", "--quick", "--keep", str(tmp_path), "--models", "multiresnt"]) == 2
    assert "did you mean 'multiresnet'" in capsys.readouterr().err
    assert cli.main(["allocate", "--quick", "--keep", str(tmp_path), "--models", "everywhere"]) == 2
    assert "unknown allocations ['everywhere']" in capsys.readouterr().err
    missing = ["--data", str(tmp_path / "none"), "--keep", str(tmp_path / "keep")]
    assert cli.main(["segmentation", *missing]) == 2
    assert "pass the folder that holds it, --data FOLDER" in capsys.readouterr().err


def test_time_to_a_target_counts_from_when_the_error_stays_below():
    curve = [(1.0, 3.0), (2.0, 1.0), (3.0, 2.5), (4.0, 1.5), (5.0, 0.5)]
    assert contest.time_to(curve, 2.0) == 3.5
    assert contest.time_to(curve, 0.75) == 4.75
    assert contest.time_to(curve, 0.1) is None
    assert contest.time_to(curve, 4.0) == 1.0
    assert contest.time_to([(1.0, math.nan), (2.0, 1.0)], 2.0) == 2.0
    assert contest.time_to([(1.0, 1.0), (2.0, math.nan)], 2.0) is None


def test_time_ratios_are_to_the_end_of_the_reference():
    measure = contest.Measure("dice", "", "", lower_is_better=False)
    raw = [
        {"model": "r", "limit": "4 s", "seconds": 4.0, "curve": [[2.0, 0.2], [4.0, 0.6]]},
        {"model": "r", "limit": "4 s", "seconds": 4.0, "curve": [[2.0, 0.2], [4.0, 0.4]]},
        {"model": "a", "limit": "4 s", "seconds": 4.0, "curve": [[1.0, 0.4], [3.0, 0.6], [4.0, 0.8]]},
        {"model": "b", "limit": "4 s", "seconds": 4.0, "curve": [[4.0, 0.1]]},
    ]
    contest.add_time_ratios(raw, "r", measure)  # the reference ends at 0.5
    assert [row["time_ratio"] for row in raw] == [pytest.approx(3.5 / 4), None, pytest.approx(0.5), None]


class Data(lightning.LightningDataModule):
    channels, spatial_dims, boundary, mean, std = 1, 2, "periodic", [0.0], [1.0]

    def val_dataloader(self):
        return []

    def train_dataloader(self):
        x = torch.randn(64, 1, 1, 4, 4)
        return DataLoader([{"input": a, "target": 2 * a} for a in x], batch_size=8)


def test_the_clock_stops_to_validate_and_the_schedule_follows_it(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(race.Clock, "now", lambda self: now[0])

    class Ticking(torch.nn.Conv2d):
        def forward(self, x):
            now[0] += 1.0 if self.training else 100.0
            return super().forward(x)

    def score(task):
        return float(task.rollout_error(torch.ones(1, 1, 1, 4, 4), 2 * torch.ones(1, 1, 1, 4, 4)))

    task = SurrogateTask(Ticking(1, 1, 1), lr=0.3)
    row = {"model": "m", "seed": 0, "learning_rate": 0.3, "seconds": 40.0, "steps": None, "device": "cpu"}
    found = race.fit(task, Data(), row, score)
    assert found["steps"] == 40 and found["seconds"] == 40.0 and found["step_ms"] == 1000
    assert len(found["curve"]) == race.POINTS and [t for t, _ in found["curve"]] == pytest.approx(
        [math.ceil(40 * (i + 1) / race.POINTS) for i in range(race.POINTS)]
    )
    assert found["val"] < 0.05 < found["curve"][0][1]
    assert task.optimizers().param_groups[0]["lr"] < 0.3 * 0.01  # the cosine has ended


def test_every_allocation_meets_a_budget():
    problem = race.Problem(1, 1, (64, 64), "periodic")
    for name, group in allocate.NAMES.items():
        network = {"build": "MultiResNet", **allocate.ALLOCATIONS[group][name]}
        with torch.device("meta"):
            model = race.build(network, problem, models.Budget(700_000))
        assert sum(p.numel() for p in model.parameters()) == pytest.approx(700_000, rel=0.02), name


def test_help_of_every_command(capsys):
    for command in cli.COMMANDS:
        with pytest.raises(SystemExit) as done:
            cli.main([command, "--help"])
        assert done.value.code == 0 and f"multiresnet-bench {command}" in capsys.readouterr().out


def test_sets_of_the_training_benchmarks_are_whole_or_absent(tmp_path, monkeypatch):
    def killed():
        raise KeyboardInterrupt

    monkeypatch.setitem(pde.SETS, "navier-stokes", killed)
    assert cli.main(["pde", "--keep", str(tmp_path)]) == 130
    assert list(tmp_path.iterdir()) == []
    assert json.dumps(list(schemes.SCHEMES))


def test_a_run_that_diverges_has_no_score_and_stops_nothing(tmp_path, monkeypatch):
    class Exploding(torch.nn.Conv2d):
        def forward(self, x):
            return super().forward(x) * float("inf")

    monkeypatch.setattr(models, "BUILDERS", {**models.BUILDERS, "monai-unet": lambda ports, _: Exploding(1, 1, 1)})
    result = quick("pde", tmp_path, "--models", "monai-unet", "multiresnet")
    _, exploded, ours = result["rows"]
    assert exploded["val"] == "nan" and exploded["rollout"] is None and 0 < ours["rollout"] < 10


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--seconds", "0"),
        ("--tuning", "2"),
        ("--learning-rates", "-1"),
        ("--steps", "0"),
        ("--jobs", "0"),
        ("--params", "x"),
    ],
)
def test_impossible_options(option, value, capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(["pde", "--quick", option, value])
    assert done.value.code == 2 and option in capsys.readouterr().err


def test_a_gpu_that_is_not_there(tmp_path, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert cli.main(["pde", "--quick", "--device", "cuda", "--keep", str(tmp_path)]) == 2
    assert "cuda" in capsys.readouterr().err
