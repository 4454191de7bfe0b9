"""The commands from end to end, at tiny sizes."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from multiresnet_bench import haar, results
from multiresnet_bench.cli import main
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


def fake(rows):
    def add_arguments(parser):
        parser.add_argument("--seconds", type=float)

    def run(options):
        assert options.out.suffix == ".json"
        return {"rows": rows, "columns": [["a", "A", ".1f"]], "seconds": options.seconds}

    def table(result):
        view = Table("A")
        view.add_row("the table")
        return view

    return SimpleNamespace(add_arguments=add_arguments, run=run, table=table)


def test_any_module_of_the_contract(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "multiresnet_bench.pde", fake([{"a": 1.0}]))
    monkeypatch.chdir(tmp_path)
    assert main(["pde", "--seconds", "3"]) == 0
    assert json.loads((tmp_path / "benchmarks/results/pde.json").read_text())["seconds"] == 3
    assert "the table" in capsys.readouterr().out


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
