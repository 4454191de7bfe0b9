"""The training benchmarks, run for seconds."""

import json

import pytest
import torch
from multiresnet_bench import cli, schemes, train


@pytest.mark.parametrize(
    ("command", "variant", "other", "key"),
    [
        ("pde", "multiresnet", "residual u-net", "one_step"),
        ("segmentation", "one sweep", "residual u-net", "bce"),
        ("schemes", "one step, then unrolled 2", "staged", "rollout"),
    ],
)
def test_a_quick_run_gives_a_row_for_each_variant(command, variant, other, key, tmp_path, capsys):
    out = tmp_path / f"{command}.json"
    arguments = [command, "--quick", "--seeds", "1", "--jobs", "1", "--variants", variant, other]
    assert cli.main([*arguments, "--out", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [row["variant"] for row in rows] == [variant, other]
    assert all(0 < row[key] < 10 and row["steps"] >= 1 for row in rows)
    assert variant in capsys.readouterr().out
    assert cli.main([command, "--quick", "--variants", "resnet"]) == 2
    assert "unknown variants ['resnet']" in capsys.readouterr().err


def double(task):
    return {"value": 2 * task["x"]}


def test_a_killed_run_resumes_without_repeating_a_task(tmp_path):
    log = tmp_path / "log.jsonl"
    first = train._key({"x": 1})
    log.write_text(json.dumps([first, {"value": "kept"}]) + '\n["half a li')
    rows = train.run_jobs(double, [{"x": 1}, {"x": 2}], log=log, jobs=1)
    assert rows == [{"value": "kept"}, {"value": 4}]
    assert not log.exists()


def test_the_schedule_follows_the_clock_and_the_loss_falls():
    torch.manual_seed(0)
    model, now = torch.nn.Linear(1, 1), iter(i / 20 for i in range(10_000))
    x = torch.linspace(-1, 1, 16)[:, None]

    def batches():
        while True:
            yield x, 3 * x

    before = (model(x) - 3 * x).square().mean().item()
    recipe = train.Recipe(seconds=10.0, learning_rate=0.1)
    info = train.train(model, batches(), torch.nn.functional.mse_loss, recipe, clock=lambda: next(now))
    assert 190 <= info["steps"] <= 200
    assert (model(x) - 3 * x).square().mean().item() < 1e-3 * before


def test_mean_and_standard_deviation_over_seeds():
    rows = [{"variant": "a", "seed": i, "error": e, "size": 7} for i, e in enumerate((1.0, 3.0))]
    (row,) = train.mean_and_sd(rows, "variant", ("error",))
    assert row == {"variant": "a", "size": 7, "seeds": 2, "error": 2.0, "error_sd": pytest.approx(2**0.5)}


def test_time_to_a_target_counts_from_when_the_error_stays_below():
    curve = [(1.0, 3.0), (2.0, 1.0), (3.0, 2.5), (4.0, 1.5), (5.0, 0.5)]
    assert schemes.time_to(curve, 2.0) == 3.5
    assert schemes.time_to(curve, 0.75) == 4.75
    assert schemes.time_to(curve, 0.1) is None
