"""The commands from end to end, at tiny sizes."""

import importlib
import json
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from multiresnet_bench import haar, results
from multiresnet_bench.cli import COMMANDS, TRAINING, main
from rich.table import Table

import multiresnet as mrn


def test_haar(tmp_path, capfd):
    assert main(["haar", "--quick", "--out", str(tmp_path / "haar.json")]) == 0
    rows = results.read(tmp_path / "haar.json")["rows"]
    assert {row["shape"] for row in rows} == {"2 × 3 × 8 × 8", "2 × 3 × 16", "1 × 2 × 4 × 4 × 4"}
    ours = [row for row in rows if row["implementation"] == "multiresnet"]
    assert len(ours) == 5  # channels_last for 2-D and 3-D
    assert all(row[operation] > 0 for row in ours for operation in haar.OPERATIONS)
    numpys = [row for row in rows if row["implementation"] == "PyWavelets"]
    assert len(numpys) == 3 and all(row["fwd_bwd"] is None and row["analysis"] > 0 for row in numpys)
    assert "multiresnet" in capfd.readouterr().out
    assert "2 × 3 × 16" in (tmp_path / "haar.svg").read_text()


def test_speed(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    names = ["multiresnet-fast", "smp-resnet18"]
    assert main(["speed", "--quick", "--models", *names, "--out", str(tmp_path / "speed.json")]) == 0
    result = results.read(tmp_path / "speed.json")
    reference, ours, missing = result["rows"]
    assert reference["model"] == "residual-unet-paper" and ours["model"] == "multiresnet-fast"
    assert reference["step_ratio"] == reference["saved_ratio"] == reference["macs_ratio"] == 1
    assert ours["params"] == pytest.approx(reference["params"], rel=0.02)
    assert ours["saved_ratio"] < 0.5  # exact: bytes, not times
    assert "smp-resnet18: segmentation-models-pytorch does not import" in missing["model"]
    assert len(result["repetitions"]["32"]["step"]["multiresnet-fast"]) == 2
    assert "smp-resnet18" in capsys.readouterr().out
    picture = (tmp_path / "speed.svg").read_text()
    assert "multiresnet-fast" in picture and "smp-resnet18" not in picture


def test_speed_in_3d(tmp_path):
    names, out = ["multiresnet-fast", "diffusers-unet"], tmp_path / "speed.json"
    options = ["--spatial-dims", "3", "--sizes", "16", "--reference", "multiresnet-fast", "--params", "50000"]
    assert main(["speed", "--quick", "--models", *names, *options, "--out", str(out)]) == 0
    reference, unsuitable = results.read(out)["rows"]
    assert reference["size"] == "16³" and reference["params"] == pytest.approx(50_000, rel=0.05)
    assert unsuitable["model"] == "diffusers-unet: this network is for 2 spatial dimensions, got 3"


def test_a_reference_that_cannot_be_built_is_an_error(capsys):
    options = ["--spatial-dims", "3", "--reference", "diffusers-unet", "--params", "50000"]
    assert main(["speed", "--quick", "--models", "multiresnet-fast", *options]) == 2
    assert "this network is for 2 spatial dimensions, got 3" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.compile
def test_speed_compiled(tmp_path):
    options = ["--mode", "compiled", "--reference", "multiresnet-fast", "--params", "50000", "--sizes", "32"]
    assert main(["speed", "--quick", "--models", "multiresnet-fast", *options, "--out", str(tmp_path / "c.json")]) == 0
    (row,) = results.read(tmp_path / "c.json")["rows"]
    assert row["step"] > 0 and row["peak"] is None and row["saved"] > 0


def test_unknown_model(capsys):
    assert main(["speed", "--quick", "--models", "multiresnt"]) == 2
    assert "unknown model 'multiresnt' (did you mean 'multiresnet'?)" in capsys.readouterr().err


def test_unknown_command(capsys):
    with pytest.raises(SystemExit):
        main(["sped"])
    assert "choose from" in capsys.readouterr().err


def fake(rows, **more):
    """A module of the contract that needs no time."""

    def add_arguments(parser):
        parser.add_argument("--seconds", type=float)

    def run(options):
        assert options.out.suffix == ".json"
        return {"rows": rows, "columns": [["a", "A", ".1f"]], "seconds": options.seconds}

    def plot(result):
        figure = Figure()
        figure.text(0, 0, f"the picture of {result['rows'][0]['a']}")
        return figure

    return SimpleNamespace(**{"add_arguments": add_arguments, "run": run, "plot": plot, **more})


def test_any_module_of_the_contract(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "multiresnet_bench.pde", fake([{"a": 1.0}]))
    monkeypatch.chdir(tmp_path)
    assert main(["pde", "--seconds", "3"]) == 0
    assert json.loads((tmp_path / "benchmarks/results/pde.json").read_text())["seconds"] == 3
    assert "the picture of 1.0" in (tmp_path / "benchmarks/results/pde.svg").read_text()
    printed = capsys.readouterr().out
    assert re.search("A.*1.0.*wrote .*pde.svg", printed, re.DOTALL)


def test_a_module_may_have_a_table_of_its_own(monkeypatch, tmp_path, capsys):
    def table(result):
        view = Table("A")
        view.add_row("the table")
        return view

    monkeypatch.setitem(sys.modules, "multiresnet_bench.pde", fake([{"a": 1.0}], table=table))
    assert main(["pde", "--quick"]) == 0
    assert "the table" in capsys.readouterr().out


@pytest.mark.parametrize("error", [KeyError("lost"), ValueError("nothing to draw"), RuntimeError("no font")])
def test_a_picture_that_fails_leaves_the_numbers(error, monkeypatch, tmp_path, capsys):
    def plot(result):
        raise error

    monkeypatch.setitem(sys.modules, "multiresnet_bench.pde", fake([{"a": 1.0}], plot=plot))
    assert main(["pde", "--out", str(tmp_path / "a.json")]) == 0
    assert results.read(tmp_path / "a.json")["rows"] == [{"a": 1.0}]
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert f"no picture: {error!r}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "more", "said"),
    [
        ("allocate", [], "finished runs are kept, the same command goes on from there"),
        ("allocate", ["--quick"], "no result was written"),
        ("haar", [], "no result was written"),
    ],
)
def test_an_interrupted_run_says_what_is_left(command, more, said, monkeypatch, tmp_path, capsys):
    def run(options):
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, f"multiresnet_bench.{command}", fake([], run=run))
    monkeypatch.chdir(tmp_path)
    assert main([command, *more]) == 130
    assert capsys.readouterr().err == f"stopped; {said}\n"


def test_help_names_every_command_once_in_its_group(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    printed = capsys.readouterr().out
    assert stop.value.code == 0
    lines = [line.split()[0] for line in printed.splitlines() if re.match(r"  [a-z]+  +\S", line)]
    assert lines == list(COMMANDS) == ["haar", "speed", *TRAINING, "report"]
    assert "accuracy at equal training time:\n  pde " in printed
    assert max(map(len, printed.splitlines())) <= 100
    example = printed[printed.index("example:") :]
    assert {line.split()[1] for line in example.splitlines() if "  multiresnet-bench" in line} <= {*COMMANDS}


def test_every_command_has_the_functions_of_the_contract():
    for command in COMMANDS:
        module = importlib.import_module(f"multiresnet_bench.{command}")
        wanted = ["main"] if command == "report" else ["add_arguments", "run", "plot"]
        assert all(callable(getattr(module, name, None)) for name in wanted), command


def test_a_quick_run_leaves_the_results_alone(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "multiresnet_bench.pde", fake([{"a": 1.0}]))
    monkeypatch.chdir(tmp_path)
    assert main(["pde", "--quick"]) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_missing_module_says_so(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "multiresnet_bench.pde", None)
    assert main(["pde", "--quick"]) == 2
    assert "no module multiresnet_bench.pde" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["approximation", "details", "inverse", "gradient"])
def test_a_wrong_transform_is_not_timed(what):
    """`haar.check` sees an error in any single part."""
    right = haar.implementations(2, peers=False, compiled=False)[0]["multiresnet"]

    def analysis(x):
        approximation, detail = right.analysis(x)
        if what == "gradient":  # the value is right
            return approximation.detach() + 0 * x.sum(), detail
        return {"approximation": (approximation + 1e-2, detail), "details": (approximation, 2 * detail)}.get(
            what, (approximation, detail)
        )

    def synthesis(bands):
        return mrn.haar_synthesis(*bands, (8, 8)).flip(-1) if what == "inverse" else right.synthesis(bands)

    x = torch.randn(2, 3, 8, 8)
    haar.check("right", right, x, x, right.analysis(x))
    wrong = haar.Transform(analysis, synthesis, 1.0)
    with pytest.raises(ValueError, match=f"wrong: the {'approximation' if what == 'approximation' else what}"):
        haar.check("wrong", wrong, x, x, wrong.analysis(x))


def test_flat_walks_what_the_libraries_return():
    a, b, c = (np.full(1, n) for n in range(3))
    assert [int(array[0]) for array in haar.flat((a, {"d": b}, [[c]]))] == [0, 1, 2]
