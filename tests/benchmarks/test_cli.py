"""The commands from end to end, at tiny sizes."""

import importlib
import json
import re
import sys
from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure
from multiresnet_bench import results
from multiresnet_bench.cli import COMMANDS, TRAINING, main, module_of
from rich.table import Table


def test_unknown_command(capsys):
    with pytest.raises(SystemExit):
        main(["sped"])
    assert "choose from" in capsys.readouterr().err


def fake(rows, **more):
    """A module of the contract that needs no time."""

    def add_arguments(parser):
        parser.add_argument("--seconds", type=float)

    def run(options):
        assert options.out.suffix == ".json"
        return {"rows": rows, "columns": [["a", "A", ".1f"]], "seconds": options.seconds}

    def plot(result):
        figure = Figure()
        figure.text(0, 0, f"the picture of {result['rows'][0]['a']}")
        return figure

    return SimpleNamespace(**{"add_arguments": add_arguments, "run": run, "plot": plot, **more})


def test_any_module_of_the_contract(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "multiresnet_bench.pde", fake([{"a": 1.0}]))
    monkeypatch.chdir(tmp_path)
    assert main(["pde", "--seconds", "3"]) == 0
    assert json.loads((tmp_path / "benchmarks/results/pde.json").read_text())["seconds"] == 3
    assert "the picture of 1.0" in (tmp_path / "benchmarks/results/pde.svg").read_text()
    printed = capsys.readouterr().out
    assert re.search("A.*1.0.*wrote .*pde.svg", printed, re.DOTALL)


def test_a_module_may_have_a_table_of_its_own(monkeypatch, tmp_path, capsys):
    def table(result):
        view = Table("A")
        view.add_row("the table")
        return view

    monkeypatch.setitem(sys.modules, "multiresnet_bench.pde", fake([{"a": 1.0}], table=table))
    assert main(["pde", "--quick"]) == 0
    assert "the table" in capsys.readouterr().out


@pytest.mark.parametrize("error", [KeyError("lost"), ValueError("nothing to draw"), RuntimeError("no font")])
def test_a_picture_that_fails_leaves_the_numbers(error, monkeypatch, tmp_path, capsys):
    def plot(result):
        raise error

    monkeypatch.setitem(sys.modules, "multiresnet_bench.pde", fake([{"a": 1.0}], plot=plot))
    assert main(["pde", "--out", str(tmp_path / "a.json")]) == 0
    assert results.read(tmp_path / "a.json")["rows"] == [{"a": 1.0}]
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert f"no picture: {error!r}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "more", "said"),
    [
        ("allocate", [], "finished runs are kept, the same command goes on from there"),
        ("allocate", ["--quick"], "no result was written"),
        ("haar", [], "no result was written"),
    ],
)
def test_an_interrupted_run_says_what_is_left(command, more, said, monkeypatch, tmp_path, capsys):
    def run(options):
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, module_of(command), fake([], run=run))
    monkeypatch.chdir(tmp_path)
    assert main([command, *more]) == 130
    assert capsys.readouterr().err == f"stopped; {said}\n"


def test_help_names_every_command_once_in_its_group(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    printed = capsys.readouterr().out
    assert stop.value.code == 0
    lines = [line.split()[0] for line in printed.splitlines() if re.match(r"  [a-z-]+  +\S", line)]
    assert lines == list(COMMANDS) == ["haar", "speed", "cells", *TRAINING, "report"]
    assert "accuracy at equal training time:\n  pde " in printed
    assert max(map(len, printed.splitlines())) <= 100
    example = printed[printed.index("example:") :]
    assert {line.split()[1] for line in example.splitlines() if "  multiresnet-bench" in line} <= {*COMMANDS}


def test_every_command_has_the_functions_of_the_contract():
    for command in COMMANDS:
        module = importlib.import_module(module_of(command))
        wanted = ["main"] if command == "report" else ["add_arguments", "run", "plot"]
        assert all(callable(getattr(module, name, None)) for name in wanted), command


def test_a_quick_run_leaves_the_results_alone(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "multiresnet_bench.pde", fake([{"a": 1.0}]))
    monkeypatch.chdir(tmp_path)
    assert main(["pde", "--quick"]) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_missing_module_says_so(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "multiresnet_bench.pde", None)
    assert main(["pde", "--quick"]) == 2
    assert "no module multiresnet_bench.pde" in capsys.readouterr().err
