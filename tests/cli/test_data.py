import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from multiresnet.cli import main
from multiresnet.diffusion import Spectrum

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


def test_spectrum(capsys, monkeypatch):
    rng = np.random.default_rng(0)
    np.savez("images.npz", x=rng.integers(0, 256, (20, 16, 16), dtype=np.uint8), y=np.arange(20) % 2)
    assert main("data spectrum images.npz --schedule linear --levels 2 --out report".split()) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "18 images of 16 x 16" and said[2].split()[:3] == ["0", "2", "192"] and "of 1000" in said[2]
    spectrum = Spectrum.from_json(Path("report/spectrum.json").read_text())
    assert spectrum.images == 18 and spectrum.energy == pytest.approx([1 / 3] * 3, rel=0.15)  # uniform on [-1, 1]
    assert sorted(path.name for path in Path("report").iterdir()) == ["spectrum.json", "spectrum.png"]
    assert Path("report/spectrum.png").read_bytes().startswith(b"\x89PNG")

    Path("folder").mkdir()
    for n in range(4):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(f"folder/{n}.png")
    assert main("data spectrum folder --size 8".split()) == 0
    assert "3 images of 8 x 8" in capsys.readouterr().out

    for options, error in (
        ("images.npz --schedule linaer", "(did you mean 'linear'?)"),
        ("images.npz --levels 5", "halved 4 times at most"),
        ("nowhere", "nowhere"),
        ("folder", "size=..."),
    ):
        assert main(["data", "spectrum", *options.split()]) == 2
        assert error in capsys.readouterr().err

    monkeypatch.setitem(sys.modules, "diffusers", None)  # as if it were not installed
    assert main("data spectrum images.npz".split()) == 0
    assert "of 1000" not in capsys.readouterr().out
    assert main("data spectrum images.npz --schedule cosine".split()) == 2
    assert "pip install 'multiresnet[diffusion]'" in capsys.readouterr().err
