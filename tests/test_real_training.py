"""Real sets through the command line, a few minutes each: what a practitioner gets from the shipped configurations."""

import json
from pathlib import Path

import pytest
from multiresnet_bench import packed

from multiresnet.cli import main

SETS = {  # set: (configuration, options, seconds, metric, least value)
    "nuclei": ("segmentation.yaml", [], 300, "dice", 0.85),
    "membranes": ("segmentation.yaml", ["--data.crops=8"], 360, "dice", 0.75),
    "camvid": (
        "segmentation.yaml",
        ["--data.classes=11", "--data.ignore_index=11", '--data.augment={"flips":[false,true],"quarter_turns":false}'],
        540,
        "iou",
        0.2,  # everything road, the largest class: 0.027
    ),
    "hippocampus": ("volumes.yaml", ["--data.classes=3"], 360, "dice", 0.65),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
@pytest.mark.filterwarnings("default")
def test_a_few_minutes_of_fit(name: str, shared_data: Path, tmp_path: Path) -> None:
    root = getattr(packed, name)(shared_data, tmp_path / name)
    config, options, seconds, metric, least = SETS[name]
    out = tmp_path / "run"
    time = f"00:00:{seconds // 60:02d}:{seconds % 60:02d}"
    arguments = [
        f"--data.root={root}",
        "--trainer.max_epochs=-1",
        f"--trainer.max_time={time}",
        f"--out={out}",
        *options,
    ]
    assert main(["fit", "--config", config, *arguments]) == 0
    assert main(["validate", str(out)]) == 0
    figures = json.loads((out / "validate.json").read_text())
    print(name, figures)
    assert figures[f"val/{metric}"] >= least
