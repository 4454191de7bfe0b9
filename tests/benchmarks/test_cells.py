"""`multiresnet-bench cells` from end to end, at its smallest."""

import sys

import pytest
from multiresnet_bench import cells, results
from multiresnet_bench.cli import main


def test_cells(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "astropy_healpix", None)
    assert main(["cells", "--quick", "--out", str(tmp_path / "cells.json")]) == 0
    result = results.read(tmp_path / "cells.json")
    sides, corners, sphere, icosphere = result["rows"]
    assert sphere["space"].startswith("sphere (HEALPix): astropy-healpix does not import")
    assert (sides["cells"], sides["square"], icosphere["cells"]) == (4**6, "64 × 64", 20 * 4**4)
    for row in (sides, corners, icosphere):
        assert all(row[operation] > 0 and row[f"{operation}_ms"] > 0 for operation in cells.OPERATIONS)
    assert len(result["repetitions"]["triangle, sides"]["step"]["square"]) == 2
    assert "icosphere" in capsys.readouterr().out
    assert "icosphere" in (tmp_path / "cells.svg").read_text()


@pytest.mark.parametrize("name", cells.SPACES)
def test_squares_have_as_many_cells(name):
    build, shape = cells.SPACES[name]
    space = build(1)
    assert space.cells(0) == 4 * shape[0] * shape[1]
