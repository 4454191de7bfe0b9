"""`multiresnet-bench crf` from end to end, and its report against torchmetrics and by hand."""

from types import SimpleNamespace

import pytest
import torch
from multiresnet_bench import crf, results
from multiresnet_bench.cli import main
from torch import nn

from multiresnet.tasks.segmentation.labels import Labels


def test_crf(tmp_path):
    options = ["--seeds", "2", "--keep", str(tmp_path), "--out", str(tmp_path / "crf.json")]
    assert main(["crf", "--quick", *options]) == 0
    result = results.read(tmp_path / "crf.json")
    assert [row["layer"] for row in result["rows"]] == ["nothing", "scale and bias", "quadtree"]
    assert all(0 <= row["ece"] <= 1 and 0 <= row["dice"] <= 1 and row["seeds"] == 2 for row in result["rows"])
    assert "quadtree" in (tmp_path / "crf.svg").read_text()


def test_report_by_hand():
    logits = torch.tensor([-2.0, -2.0, 2.0, 2.0]).view(1, 1, 2, 2)
    mask = torch.tensor([0, 1, 1, 1]).view(1, 2, 2)
    row = crf.report(nn.Identity(), [(logits, mask)], Labels("binary"))
    chance = 1 / (1 + torch.tensor(2.0).exp())
    assert row["dice"] == pytest.approx(2 * 2 / (2 * 2 + 0 + 1))
    assert row["ece"] == pytest.approx(float(0.5 * (0.5 - chance) + 0.5 * chance), abs=1e-6)
    assert [count for *_, count in row["reliability"]] == [2, 2]
    said, right, _ = row["reliability"][0]
    assert (said, right) == pytest.approx((float(chance), 0.5), abs=1e-6)


def test_a_scale_and_a_bias_are_found():
    """Logits that are twice too large and shifted: the fit undoes both."""
    torch.manual_seed(0)
    true = torch.randn(1, 1, 200, 200) - 0.5
    mask = (torch.rand_like(true) < true.sigmoid())[:, 0].long()
    layer = crf.ScaleAndBias()
    crf.fit(layer, [(2 * true + 1, mask)], steps=100)
    assert float(layer.scale.detach()) == pytest.approx(0.5, abs=0.05)
    assert float(layer.bias.detach()) == pytest.approx(-0.5, abs=0.05)


def test_more_classes_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(crf.segmentation, "prepare", lambda options: None)
    monkeypatch.setattr(crf.segmentation, "load", lambda *_: SimpleNamespace(mode="multiclass", classes=11))
    assert main(["crf", "--set", "camvid", "--out", str(tmp_path / "crf.json")]) == 2
    assert "binary sets, and camvid has 11 classes" in capsys.readouterr().err
