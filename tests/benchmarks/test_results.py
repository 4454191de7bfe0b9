import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from multiresnet_bench import results

MEASURE = {"key": "error", "label": "the error", "lower_is_better": True}


def test_what_is_written_is_what_is_read(result, tmp_path):
    path = tmp_path / "folder" / "small.json"
    result |= {"measure": MEASURE, "raw": [{"model": "a|b", "curve": [[0.5, 1.0], [1.0, None], [1.5, "nan"]]}]}
    results.write(result, path)
    assert results.read(path) == result
    assert list(path.parent.iterdir()) == [path]


def test_not_a_number_and_infinity_survive(result, tmp_path):
    result["rows"][0]["error"], result["rows"][1]["error"] = float("nan"), float("-inf")
    results.write(result, tmp_path / "small.json")
    rows = results.read(tmp_path / "small.json")["rows"]
    assert [row["error"] for row in rows] == ["nan", "-inf"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("commit"), '"commit" is missing'),
        (lambda r: r.update(rows=[]), "no rows"),
        (lambda r: r.update(rows={"a": 1}), '"rows" is .*expected list'),
        (lambda r: r["rows"].append(7), r"rows\[2\] is 7"),
        (lambda r: r["rows"][1].update(error=[1.0]), r'rows\[1\]\["error"\]'),
        (lambda r: r["rows"][0].update(error=torch.ones(())), r"rows\[0\].error is Tensor.*\.item\(\)"),
        (lambda r: r.update(columns=[["model", "model"]]), r"columns\[0\].*\[key, heading, format\]"),
        (lambda r: r.update(columns=[["eror", "error", ""]]), '"eror", which no row has'),
        (lambda r: r.update(columns=[["error", "error", ".4q"]]), "format '.4q'"),
        (lambda r: r.update(schema=99), "schema 99"),
        (
            lambda r: r.update(measure={**MEASURE, "lower_is_better": 1}),
            r'measure\["lower_is_better"\] is 1, expected bool',
        ),
        (lambda r: r.update(measure={"key": "error"}), r'measure\["label"\] is None, expected str'),
        (lambda r: r.update(measure={**MEASURE, "key": "eror"}), 'the measure is "eror", which no row has'),
        (lambda r: r.update(raw=[{"model": "a", "curve": [[1.0, 2.0], [2.0]]}]), r"raw\[0\].*pairs \[seconds, value\]"),
        (lambda r: r.update(raw=[{}, {"model": "a", "curve": [[1.0, "low"]]}]), r"raw\[1\].*pairs \[seconds, value\]"),
    ],
)
def test_a_wrong_result_is_refused_and_leaves_the_old_file(result, tmp_path, change, message):
    path = tmp_path / "small.json"
    results.write(result, path)
    before = path.read_bytes()
    change(result)
    with pytest.raises(ValueError, match=message):
        results.write(result, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_reading_what_another_program_wrote(tmp_path):
    (tmp_path / "a.json").write_text('{"rows": [')
    with pytest.raises(ValueError, match="a.json is no JSON file"):
        results.read(tmp_path / "a.json")
    (tmp_path / "b.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match="b.json: expected an object with the fields schema, name"):
        results.read(tmp_path / "b.json")


def test_a_write_that_is_killed_leaves_the_old_file(result, tmp_path):
    path = tmp_path / "small.json"
    results.write(result, path)
    before = path.read_bytes()
    result["rows"][0]["model"] = "new"
    program = (
        "import json, os, signal, sys; from pathlib import Path; from multiresnet_bench import results\n"
        "os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)  # all bytes are out, the name is not\n"
        "results.write(json.loads(sys.argv[1]), Path(sys.argv[2]))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    killed = subprocess.run([sys.executable, "-c", program, json.dumps(result), str(path)], env=environment)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_bytes() == before
    results.write(result, path)  # over what the killed process left behind
    assert results.read(path) == result and list(tmp_path.iterdir()) == [path]


def test_complete_says_how_it_was_made_without_the_paths_of_this_machine(tmp_path):
    options = argparse.Namespace(out=tmp_path / "x.json", data=tmp_path / "d.npz", sizes=[1, 2], mode="fp32")
    arguments = ["speed", "--out", str(tmp_path / "x.json"), f"--data={tmp_path}/d.npz", "--mode", "fp32"]
    inside = str(results.REPOSITORY / "docs" / "index.md")
    made = results.complete(
        {"rows": [{"a": 1}], "config": {"mode": "bf16"}}, name="x", arguments=[*arguments, inside], options=options
    )
    results.check(made, Path("x.json"))
    assert made["command"] == (
        f"multiresnet-bench speed --out x.json --data=d.npz --mode fp32 {os.path.join('docs', 'index.md')}"
    )
    assert made["config"] == {"data": "d.npz", "sizes": [1, 2], "mode": "bf16"}
    assert str(tmp_path) not in json.dumps(made)
    assert made["versions"]["torch"] == torch.__version__.split("+")[0]
    assert made["hardware"]["threads"] == torch.get_num_threads()


def test_commit_and_whether_sources_changed(tmp_path):
    def git(*arguments):
        author = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *author, *arguments], cwd=tmp_path, check=True, capture_output=True)

    assert results.commit(tmp_path) is None
    git("init")
    (tmp_path / "a.py").write_text("1")
    git("add", ".")
    git("commit", "-m", "first")
    clean = results.commit(tmp_path)
    assert clean is not None and not clean["dirty"] and len(clean["id"]) == 12
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "benchmarks" / "results" / "x.json").write_text("{}")
    (tmp_path / "docs" / "images" / "benchmarks").mkdir(parents=True)
    (tmp_path / "docs" / "images" / "benchmarks" / "x.svg").write_text("<svg/>")
    assert results.commit(tmp_path) == clean  # the results themselves and their pictures don't count
    (tmp_path / "a.py").write_text("2")
    assert results.commit(tmp_path) == {"id": clean["id"], "dirty": True}
