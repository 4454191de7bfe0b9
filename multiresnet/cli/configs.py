"""The shipped YAML configurations, found by name, and run folders, found by path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from multiresnet.checks import closest

__all__ = ["CONFIG", "SHIPPED", "expand"]

CONFIG = "config.yaml"
SHIPPED = {path.name: path for path in sorted((Path(__file__).parent / "configs").glob("*.yaml"))}


def expand(argv: Sequence[str]) -> list[str]:
    """Spell the arguments out for Lightning's command line.

    A shipped configuration is given by its name (`--config segmentation.yaml`) where no such file exists. A run folder in
    the first place (`test runs/segmentation`) stands for the configuration in it and for `--out` of it.

    Raises:
        FileNotFoundError: no such configuration.
        ValueError: a folder without a configuration.

    Examples:
        >>> expand(["fit", "--config", "surrogate.yaml"])[2] == str(SHIPPED["surrogate.yaml"])
        True
    """
    argv = list(argv)
    if len(argv) > 1 and not argv[1].startswith("-"):
        run = Path(argv[1])
        if not (run / CONFIG).is_file():
            raise ValueError(
                f"{argv[1]!r} is no run folder: there is no {CONFIG} in it; give one that `fit` has written"
            )
        argv[1:2] = ["--config", str(run / CONFIG), "--out", str(run)]
    for i, word in enumerate(argv):
        flag, equals, name = word.partition("=")
        if flag not in ("--config", "-c"):
            continue
        place, name = (i, name) if equals else (i + 1, argv[i + 1] if i + 1 < len(argv) else "")
        if name and not Path(name).is_file():
            if name not in SHIPPED:
                known = ", ".join(SHIPPED)
                raise FileNotFoundError(f"no configuration {name!r}{closest(name, SHIPPED)}; shipped ones: {known}")
            argv[place] = f"{flag}={SHIPPED[name]}" if equals else str(SHIPPED[name])
    return argv
