import subprocess
import sys
from pathlib import Path

import pytest

import multiresnet.demo
from multiresnet.cli import main


@pytest.fixture
def configs(monkeypatch):
    """The configurations that the demo would have run with."""
    seen = []
    monkeypatch.setattr(multiresnet.demo, "run_demo", seen.append)
    return seen


def test_defaults(configs):
    assert main(["demo"]) == 0
    assert configs == [multiresnet.demo.DemoConfig()]


def test_every_option_arrives(configs):
    arguments = "--data a.h5 --key w --boundary periodic,reflect --seconds 7 --seed 3 --out folder --quick"
    assert main(["demo", *arguments.split()]) == 0
    assert configs == [
        multiresnet.demo.DemoConfig(
            out=Path("folder"),
            data=Path("a.h5"),
            key="w",
            boundary=("periodic", "reflect"),
            seconds=7.0,
            seed=3,
            quick=True,
        )
    ]
    main(["demo", "--boundary", "zeros"])
    assert configs[-1].boundary == "zeros"


def test_mistakes_end_with_a_sentence_and_status_2(tmp_path, capsys):
    assert main(["demo", "--data", str(tmp_path / "no.npz"), "--out", str(tmp_path)]) == 2
    assert main(["demo", "--seconds", "-1"]) == 2
    errors = capsys.readouterr().err
    assert "no data file" in errors and "seconds must be > 0" in errors and "Traceback" not in errors
    with pytest.raises(SystemExit, match="2"):
        main(["demo", "--secnds", "3"])
    with pytest.raises(SystemExit, match="2"):
        main([])


def test_an_interrupt_is_no_crash(monkeypatch, capsys):
    def interrupted(config):
        raise KeyboardInterrupt

    monkeypatch.setattr(multiresnet.demo, "run_demo", interrupted)
    assert main(["demo"]) == 130
    assert "start it again" in capsys.readouterr().err


def test_help_is_quick_and_complete():
    out = subprocess.run(
        [sys.executable, "-m", "multiresnet.cli", "demo", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for option in ("--data", "--key", "--boundary", "--seconds", "--seed", "--out", "--quick"):
        assert option in out
