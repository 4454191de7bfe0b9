"""`multiresnet-bench adaptive` from end to end."""

import pytest
from multiresnet_bench import adaptive, results
from multiresnet_bench.cli import main

from multiresnet.tasks import DiffusionTask


@pytest.mark.filterwarnings("ignore:spatial size .* is smaller than")  # digits have 8 x 8 pixels
def test_images(tmp_path):
    options = ["--seeds", "1", "--keep", str(tmp_path), "--out", str(tmp_path / "adaptive.json")]
    assert main(["adaptive", "--quick", *options]) == 0
    rows = results.read(tmp_path / "adaptive.json")["rows"]
    trainings = list(dict.fromkeys(row["model"] for row in rows))
    assert trainings == ["all resolutions", "staged, 0.7 of the time"]
    for training in trainings:
        costs = {row["sampling"]: row["cost"] for row in rows if row["model"] == training}
        assert costs["whole, ODE, 20 steps"] == 1.0 and costs["whole, SDE, 10 steps"] == 0.5
        assert costs["SNR 0.25, SDE, 20 steps"] < costs["SNR 0.05, SDE, 20 steps"] < 1.0
    assert rows[-1]["train_steps"] == 7
    assert "staged" in (tmp_path / "adaptive.svg").read_text()


def test_fields(tmp_path):
    options = ["--set", "gaussian", "--seeds", "1", "--out", str(tmp_path / "fields.json")]
    assert main(["adaptive", "--quick", *options]) == 0
    bias = {row["sampling"]: row["bias"] for row in results.read(tmp_path / "fields.json")["rows"]}
    assert bias["whole"] == 0.0
    assert bias["adaptive, SNR 0.25"] < 0.05 < bias["details one by one, SNR 0.25"]


def test_where_the_sampler_asks():
    sigmas = adaptive.asked(5, DiffusionTask())
    assert len(sigmas) == 5 and sigmas == sorted(sigmas, reverse=True)
