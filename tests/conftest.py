"""What every test gets: fixed seeds, one thread, one tolerance per dtype, and the folder of real data."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

os.environ.setdefault("MPLBACKEND", "Agg")  # pictures are drawn without a screen
# The tensors are small, and threads that wait for each other on a busy machine cost far more than they bring.
torch.set_num_threads(1)

# Examples are the same in every run, and no test fails because the machine was busy.
hypothesis.settings.register_profile("repository", deadline=None, derandomize=True, max_examples=30)
hypothesis.settings.load_profile("repository")

REPOSITORY = Path(__file__).resolve().parents[1]

# Largest allowed error relative to values of order one, after a few hundred roundings.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Every test starts from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tolerance() -> Callable[[torch.dtype], float]:
    """`tolerance(x.dtype)` is the error to allow for results of that dtype."""
    return TOLERANCE.__getitem__


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data: $MULTIRESNET_DATA, or ../shared/data next to the checkout."""
    folder = Path(os.environ.get("MULTIRESNET_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no folder of real data: set MULTIRESNET_DATA to one")
    return folder
