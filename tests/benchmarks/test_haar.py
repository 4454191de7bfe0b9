"""`multiresnet-bench haar` from end to end, at tiny sizes, and the check before it."""

import numpy as np
import pytest
import torch
from multiresnet_bench import haar, results
from multiresnet_bench.cli import main

import multiresnet as mrn


def test_haar(tmp_path, capfd):
    assert main(["haar", "--quick", "--out", str(tmp_path / "haar.json")]) == 0
    result = results.read(tmp_path / "haar.json")
    rows = result["rows"]
    assert {row["shape"] for row in rows} == {"2 × 3 × 8 × 8", "2 × 3 × 16", "1 × 2 × 4 × 4 × 4"}
    ours = [row for row in rows if row["implementation"] == "multiresnet"]
    assert len(ours) == 5  # channels_last for 2-D and 3-D
    assert all(row[operation] > 0 for row in ours for operation in haar.OPERATIONS)
    numpys = [row for row in rows if row["implementation"] == "PyWavelets"]
    assert len(numpys) == 3 and all(row["fwd_bwd"] is None and row["analysis"] > 0 for row in numpys)
    assert result["config"]["device"] == "cpu"
    assert "multiresnet" in capfd.readouterr().out
    assert "2 × 3 × 16" in (tmp_path / "haar.svg").read_text()


def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["haar", "--quick", "--device", "cuda"]) == 2
    assert "torch sees no GPU here" in capsys.readouterr().err


def test_on_a_gpu_pywavelets_is_not_timed():
    found, missing = haar.implementations(3, peers=True, compiled=False, device="cuda")
    assert "multiresnet" in found and "PyWavelets" not in found
    assert missing["PyWavelets"] == "runs on the CPU only"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_haar_on_a_gpu(tmp_path):
    assert main(["haar", "--quick", "--device", "cuda", "--out", str(tmp_path / "haar.json")]) == 0
    result = results.read(tmp_path / "haar.json")
    assert result["config"]["device"] == "cuda" and result["config"]["clock"] == "GPU events"
    names = [row["implementation"] for row in result["rows"]]
    assert names.count("multiresnet") == 5 and names.count("PyWavelets: runs on the CPU only") == 3


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
    with pytest.raises(ValueError, match=f"wrong: the {what}"):
        haar.check("wrong", wrong, x, x, wrong.analysis(x))


def test_flat_walks_what_the_libraries_return():
    a, b, c = (np.full(1, n) for n in range(3))
    assert [int(array[0]) for array in haar.flat((a, {"d": b}, [[c]]))] == [0, 1, 2]
