"""Writing pictures whole or not at all, without a screen, and not too often."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from multiresnet.atomic import write_atomically

__all__ = ["Sparingly", "save_figure", "save_image"]


class Sparingly:
    """Draws so seldom that it takes a tenth of the time at most: where epochs last a second, not after each of them."""

    def __init__(self) -> None:
        self._draw: Callable[[], None] | None = None
        self._next = 0.0

    def __call__(self, draw: Callable[[], None]) -> None:
        """Draw now if the last time is long enough ago; else keep it for `finish`."""
        self._draw = draw
        if time.monotonic() >= self._next:
            self.finish()

    def finish(self) -> None:
        """Draw what was put off."""
        if self._draw is not None:
            began, draw, self._draw = time.monotonic(), self._draw, None
            draw()
            now = time.monotonic()
            self._next = now + 9 * (now - began)


def save_figure(figure: Figure, path: Path, *, dpi: int = 100) -> None:
    """Write a figure as PNG."""
    write_atomically(path, lambda temporary: FigureCanvasAgg(figure).print_figure(str(temporary), dpi=dpi))


def save_image(path: Path, pixels: NDArray[Any], *, palette: list[int] | None = None) -> None:
    """Write 8-bit pixels (H, W) or (H, W, 3) as PNG; `palette` gives the colours of 256 indices."""
    from PIL import Image

    image = Image.fromarray(pixels)
    if palette is not None:
        image.putpalette(palette)
    write_atomically(path, lambda temporary: image.save(temporary))
