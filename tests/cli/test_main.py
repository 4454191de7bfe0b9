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


def test_without_a_command_there_is_help(capsys):
    assert main([]) == 2
    said = capsys.readouterr()
    assert said.out == "" and all(name in said.err for name in ("fit", "sample", "data", "segmentation.yaml"))
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == said.err
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == multiresnet.__version__
    assert main(["fti"]) == 2
    assert "no command 'fti' (did you mean 'fit'?)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ("fit", ("usage: multiresnet fit [RUN | --config FILE]", "--out OUT", "--save_every", "--trainer.max_time")),
        ("predict", ("usage: multiresnet predict [RUN | --config FILE]", "--ckpt_path")),
        ("sample", ("--sampler", "--steps", "--guidance")),
        ("data", ("generate|info",)),
        ("data generate", ("--physics", "navier-stokes", "shallow-water", "darcy")),
        ("fit --config segmentation.yaml --data.help", ("--data.mask_values", "--data.crop")),
        ("fit --config surrogate.yaml --model.help", ("--model.unroll_steps",)),
    ],
)
def test_help_of_each_command(command, parts, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([*command.split(), *(["--help"] if "help" not in command else [])])
    said = capsys.readouterr().out
    assert all(part in said for part in parts)


def test_help_does_not_wait_for_lightning():
    """What only training needs is not imported to show the help of a command that does not train."""
    code = "import sys; from multiresnet.cli import main; main(['--help']); print('lightning' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "False"
