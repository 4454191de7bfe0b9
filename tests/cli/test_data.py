import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from multiresnet.cli import main

BURGERS = "data generate burgers --out burgers.h5 --n 3 --size 32 --frames 3"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_generate_goes_on_and_keeps_what_is_there(capsys):
    assert main(BURGERS.split()) == 0
    assert "burgers.h5: 3 of burgers, 3 of them made now" in capsys.readouterr().out
    assert main(BURGERS.split()) == 0
    assert "3 of burgers, 0 of them made now" in capsys.readouterr().out
    assert main([*BURGERS.split(), "--seed", "1"]) == 2
    assert "seed is 0 there, 1 here" in capsys.readouterr().err
    assert main([*BURGERS.split(), "--seed", "1", "--overwrite", "--physics", "viscosity=0.02"]) == 0
    with h5py.File("burgers.h5") as file:
        assert file.attrs["seed"] == 1 and '"viscosity": 0.02' in file.attrs["physics"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("burgres --out a.h5", "(did you mean 'burgers'?)"),
        ("burgers --out a.txt", "must end in .h5"),
        ("burgers --out a.h5 --n 0", "must be an integer >= 1"),
        ("burgers --out a.h5 --physics viscosit=3", "(did you mean 'viscosity'?)"),
        ("burgers --out a.h5 --physics viscosity", "NAME=VALUE"),
        ("burgers --out a.h5 --boundary reflect", "has no option 'boundary'"),
    ],
)
def test_wrong_options(options, said, capsys):
    assert main(["data", "generate", *options.split()]) == 2
    assert said in capsys.readouterr().err and list(Path.cwd().iterdir()) == []


def test_info(capsys):
    main(BURGERS.split())
    main("data generate darcy --out darcy.h5 --n 3 --size 8".split())
    Path("several").mkdir()
    shutil.copy("burgers.h5", "several/train.h5")
    np.savez("flow.npz", data=np.zeros((2, 3, 1, 8, 9)))
    capsys.readouterr()
    for path, parts in (
        ("burgers.h5", ("3 x 3", "1: u", "32", "periodic")),
        ("several", ("3 x 3", "1: u")),
        ("flow.npz", ("2 x 3", "8 x 9", "replicate is taken")),
        ("darcy.h5", ("1 train, 1 val, 1 test samples", "8 x 8", "zeros")),
    ):
        assert main(["data", "info", path]) == 0
        said = capsys.readouterr().out
        assert all(part in said for part in parts), said
    assert main(["data", "info", "nowhere.h5"]) == 2
    assert "no data file 'nowhere.h5'" in capsys.readouterr().err
