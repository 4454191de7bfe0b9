"""Writing pictures whole or not at all, without a screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from multiresnet.atomic import write_atomically

__all__ = ["save_figure", "save_image"]


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
