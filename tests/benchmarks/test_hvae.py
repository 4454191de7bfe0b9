"""`multiresnet-bench hvae` from end to end."""

import pytest
from multiresnet_bench import results
from multiresnet_bench.cli import main


@pytest.mark.parametrize("likelihood", ["bernoulli", "logistic"])
def test_digits(tmp_path, likelihood):
    options = ["--seeds", "1", "--likelihood", likelihood, "--out", str(tmp_path / "hvae.json")]
    assert main(["hvae", "--quick", *options]) == 0
    rows = {row["model"]: row for row in results.read(tmp_path / "hvae.json")["rows"]}
    assert len(rows) == 5
    assert rows["per resolution"]["params"] < 0.5 * rows["none"]["params"]
    assert rows["per resolution"]["cells"] == rows["none"]["cells"] == 13
    for row in rows.values():
        assert row["train_steps"] == 3 and row["nats"] == pytest.approx(row["bits"] * 64 * 0.693147, rel=1e-5)
        assert 0 < row["deeper"] < 20
    picture = (tmp_path / "hvae.svg").read_text()
    assert "spread between samples" in picture and picture.count("<image") == 5
