"""Pictures of pixels as text that a result can hold: PNG in base 64."""

from __future__ import annotations

import base64
import io
from typing import Any

import matplotlib.image
import numpy as np
from numpy.typing import NDArray


def packed(image: NDArray[np.uint8]) -> str:
    """A picture (H, W, 3) as text."""
    file = io.BytesIO()
    matplotlib.image.imsave(file, image, format="png", metadata={"Software": None})
    return base64.b64encode(file.getvalue()).decode()


def unpacked(text: str) -> NDArray[Any]:
    """What `packed` was given, in 0 ... 1."""
    found: NDArray[Any] = matplotlib.image.imread(io.BytesIO(base64.b64decode(text)), format="png")
    return found
