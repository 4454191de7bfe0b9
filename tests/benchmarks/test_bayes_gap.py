"""`multiresnet-bench bayes-gap` from end to end, and its excess risk against the risk itself."""

import pytest
import torch
from multiresnet_bench import bayes_gap, results
from multiresnet_bench.cli import main

from multiresnet.graphical import BeliefPropagationUNet


@pytest.mark.parametrize("what", bayes_gap.TASKS)
def test_bayes_gap(what, tmp_path):
    names = ["convnet", "resnet", "belief-propagation"]
    options = [
        "--set",
        what,
        "--models",
        *names,
        "--seeds",
        "1",
        "--samples",
        "16",
        "--out",
        str(tmp_path / "gap.json"),
    ]
    assert main(["bayes-gap", "--quick", *options]) == 0
    rows = results.read(tmp_path / "gap.json")["rows"]
    assert [row["model"] for row in rows] == ["residual-unet", *names]
    assert all(row["excess"] > 0 and row["samples"] == 16 for row in rows)
    reference, convnet, resnet, exact = (row["params"] for row in rows)
    assert all(count == pytest.approx(reference, rel=0.15) for count in (convnet, resnet))
    assert exact == 5 * 4 * 8 * 8 + 8
    assert "convnet" in (tmp_path / "gap.svg").read_text()


@pytest.mark.parametrize("what", bayes_gap.TASKS)
def test_the_optimum_has_no_excess_and_others_have_what_they_lack(what):
    data = bayes_gap.Samples(what, 32)
    part = data.test
    exact = bayes_gap.Regression(BeliefPropagationUNet(data.tree, task=what, noise=bayes_gap.NOISE), what=what, lr=1.0)
    assert abs(exact.excess(part)) < 1e-6
    other = bayes_gap.Regression(
        bayes_gap.belief_propagation(1, 1 if what == "denoise" else 8, space=None), what=what, lr=1.0
    )
    with torch.no_grad():
        said = other(part["x"])
        risk = (
            torch.nn.functional.mse_loss(said, part["truth"])
            if what == "denoise"
            else torch.nn.functional.nll_loss(said, part["truth"])
        )
    excess = float(risk) - bayes_gap.least_risk(part, what)
    assert other.excess(part) == pytest.approx(excess, rel=0.1) and excess > 0
