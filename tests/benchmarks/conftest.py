"""The benchmarks are a package of their own: from the checkout, whether or not it is installed."""

import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = str(Path(__file__).resolve().parents[2] / "benchmarks")
if FOLDER not in sys.path:
    sys.path.append(FOLDER)


@pytest.fixture
def result() -> dict[str, Any]:
    """A small valid result; each test gets its own."""
    return {
        "schema": 1,
        "name": "small",
        "command": "multiresnet-bench small",
        "config": {"device": "cpu"},
        "date": "2025-01-31T12:00:00+00:00",
        "commit": {"id": "0123456789ab", "dirty": False},
        "versions": {"python": "3.12.0", "torch": "2.8.0"},
        "hardware": {"cpu": "A CPU", "cores": 2, "threads": 1, "gpu": None, "system": "Linux x86_64"},
        "rows": [
            {"model": "a|b", "params": 1234567, "macs": 8.06e8, "error": 0.03651, "error_sd": 0.00042, "seeds": 3},
            {"model": "c", "params": 1300000, "macs": 4.8e8, "error": None, "error_sd": None, "seeds": 1},
        ],
        "columns": [
            ["model", "model", "s"],
            ["params", "parameters", ",d"],
            ["macs", "MACs", ".3g"],
            ["error", "error", ".4f"],
        ],
    }
