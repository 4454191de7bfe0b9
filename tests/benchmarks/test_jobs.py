import json

import pytest
from multiresnet_bench import jobs


def double(task):
    if task["x"] < 0:
        raise ValueError("negative")
    return {"value": 2 * task["x"]}


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_run_goes_on_without_repeating_a_task(processes, tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps([jobs._key({"x": 1}), {"value": "kept"}]) + '\n["half a li')
    assert jobs.run_jobs(double, [{"x": 1}, {"x": 2}], log=log, jobs=processes) == [{"value": "kept"}, {"value": 4}]
    assert jobs.run_jobs(double, [{"x": 2}], log=log, jobs=1) == [{"value": 4}]


def test_what_was_finished_before_an_error_is_kept(tmp_path):
    log = tmp_path / "log.jsonl"
    with pytest.raises(ValueError, match="negative"):
        jobs.run_jobs(double, [{"x": 3}, {"x": -1}], log=log, jobs=1)
    assert dict(jobs._read(log)) == {jobs._key({"x": 3}): {"value": 6}}


def test_another_option_is_another_task(tmp_path):
    assert jobs._key({"x": 1, "seed": 0}) == jobs._key({"seed": 0, "x": 1}) != jobs._key({"x": 1, "seed": 1})


def test_mean_and_standard_deviation_over_seeds():
    rows = [
        {"model": "a", "limit": "1 s", "seed": i, "error": e, "time": t, "size": 7, "curve": []}
        for i, (e, t) in enumerate(((1.0, 2.0), (3.0, None)))
    ]
    (row,) = jobs.mean_and_sd(rows, by=("model", "limit"), keys=("error", "time"))
    assert row == {
        **{"model": "a", "limit": "1 s", "size": 7, "seeds": 2, "error": 2.0, "error_sd": pytest.approx(2**0.5)},
        **{"time": None, "time_sd": None},
    }
    assert jobs.mean_and_sd(rows[:1], by=("model",), keys=("error",))[0]["error_sd"] == 0
