"""`multiresnet-bench speed` from end to end, at tiny sizes."""

import sys

import pytest
import torch
from multiresnet_bench import models, results
from multiresnet_bench.cli import main


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
    assert result["config"]["matched"] == {"params": reference["params"], "macs": None, "at": None}
    assert result["note"].startswith(f"Matched: {reference['params']:,} parameters.")
    assert "smp-resnet18" in capsys.readouterr().out
    picture = (tmp_path / "speed.svg").read_text()
    assert "multiresnet-fast" in picture and "smp-resnet18" not in picture


def test_speed_at_equal_macs(tmp_path):
    out = tmp_path / "speed.json"
    options = ["--macs", "6000000", "--sizes", "32", "--models", "multiresnet-paper"]
    assert main(["speed", "--quick", *options, "--out", str(out)]) == 0
    result = results.read(out)
    reference, ours = result["rows"]
    assert ours["macs"] == pytest.approx(6e6, rel=0.35) and reference["macs"] == pytest.approx(6e6, rel=0.35)
    assert ours["params"] < 0.8 * reference["params"]
    assert result["config"]["matched"] == {"params": None, "macs": 6_000_000, "at": [32, 32]}
    assert result["note"].startswith("Matched: 6e+06 MACs at 32².")


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


def test_unknown_model(capsys):
    assert main(["speed", "--quick", "--models", "multiresnt"]) == 2
    assert "unknown model 'multiresnt' (did you mean 'multiresnet'?)" in capsys.readouterr().err


def test_one_budget_only(capsys):
    with pytest.raises(SystemExit):
        main(["speed", "--quick", "--params", "1", "--macs", "1"])
    assert "not allowed with argument --params" in capsys.readouterr().err


def test_without_a_gpu_nothing_is_built(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(models, "build", None)
    assert main(["speed", "--quick", "--device", "cuda"]) == 2
    assert "torch sees no GPU here" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.compile
def test_speed_compiled(tmp_path):
    options = ["--mode", "compiled", "--reference", "multiresnet-fast", "--params", "50000", "--sizes", "32"]
    assert main(["speed", "--quick", "--models", "multiresnet-fast", *options, "--out", str(tmp_path / "c.json")]) == 0
    (row,) = results.read(tmp_path / "c.json")["rows"]
    assert row["step"] > 0 and row["peak"] is None and row["saved"] > 0
