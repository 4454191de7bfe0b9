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


def test_over_depth(tmp_path):
    """Networks of several depths on one number of samples; the depth is that of the network that was built."""
    options = ["--over", "depth", "--models", "multiresnet", "convnet", "--reference", "multiresnet"]
    assert main(["bayes-gap", "--quick", *options, "--seeds", "1", "--out", str(tmp_path / "gap.json")]) == 0
    rows = results.read(tmp_path / "gap.json")["rows"]
    layers = {name: [row["layers"] for row in rows if row["model"] == name] for name in ("multiresnet", "convnet")}
    assert layers["convnet"] == list(bayes_gap.LAYERS)
    assert len(layers["multiresnet"]) == len(bayes_gap.HALVINGS)
    assert layers["multiresnet"] == sorted(set(layers["multiresnet"]))
    assert "convolutions in a row" in (tmp_path / "gap.svg").read_text()


def test_networks_of_one_depth_only(capsys):
    assert main(["bayes-gap", "--quick", "--over", "depth", "--models", "smp-haar", "--reference", "smp-haar"]) == 2
    assert "none of smp-haar can be built at several depths" in capsys.readouterr().err


def test_longest_chain():
    x = torch.ones(1, 2, 4, 4, requires_grad=True)
    conv = [torch.nn.Conv2d(2, 2, 3, padding=1) for _ in range(3)]
    assert bayes_gap.longest_chain(conv[0](x) + conv[2](conv[1](x))) == 2
    assert bayes_gap.longest_chain(x.relu()) == 0


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


def test_labels_are_worth_learning():
    part = bayes_gap.Samples("classify", 1).test
    best = part["best"].exp()
    ignorant = float((best * (part["best"] + torch.tensor(8.0).log())).sum(1).mean())
    assert ignorant > 3 * bayes_gap.least_risk(part, "classify")
