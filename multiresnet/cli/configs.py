"""The shipped YAML configurations, found by name, and run folders, found by path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from multiresnet.checks import closest

__all__ = ["CONFIG", "SHIPPED", "expand"]

CONFIG = "config.yaml"
SHIPPED = {path.name: path for path in sorted((Path(__file__).parent / "configs").glob("*.yaml"))}


def expand(argv: Sequence[str]) -> list[str]:
    """Spell the arguments out for Lightning's command line, configurations first.

    A shipped configuration is given by its name (`--config segmentation.yaml`) where no such file exists. A run folder in
    the first place (`test runs/segmentation`) stands for the configuration in it, its checkpoint and `--out` of it.
    `--data.help` shows the options of the class that the configuration names.

    Raises:
        FileNotFoundError: no such configuration.
        ValueError: a folder without a configuration.

    Examples:
        >>> expand(["fit", "--data.source", "a.h5", "--config", "surrogate.yaml"])[1:2] == [f"--config={SHIPPED['surrogate.yaml']}"]
        True
    """
    command, *rest = argv
    files: list[Path] = []
    given: list[str] = []
    if rest and not rest[0].startswith("-"):
        run = Path(rest.pop(0))
        files = [run / CONFIG]
        if not files[0].is_file():
            raise ValueError(f"{str(run)!r} is no run folder: it has no {CONFIG}; give one that `fit` has written")
        given = ["--out", str(run / "predictions" if command == "predict" else run)]
        given += ["--ckpt_path", str(run)] if command != "fit" else []
    words = iter(rest)
    for word in words:
        flag, equals, name = word.partition("=")
        if flag not in ("--config", "-c"):
            given.append(word)
        elif name := name if equals else next(words, ""):
            files.append(_found(name))
        else:
            raise ValueError(f"--config needs a file: {', '.join(SHIPPED)}, or your own")
    return [command, *(f"--config={file}" for file in files), *_helped(given, files)]


def _found(name: str) -> Path:
    path = Path(name) if Path(name).is_file() else SHIPPED.get(name)
    if path is None:
        known = ", ".join(SHIPPED)
        raise FileNotFoundError(f"no configuration {name!r}{closest(name, SHIPPED)}; shipped ones: {known}")
    return path


def _helped(words: Sequence[str], files: Sequence[Path]) -> list[str]:
    """`--data.help` with the class that the last of the files names, unless there is one."""
    if not files or words[-1:] not in (["--data.help"], ["--model.help"]):
        return list(words)
    section = (yaml.safe_load(files[-1].read_text()) or {}).get(words[-1][2:-5]) or {}
    return [*words, *([section["class_path"]] if "class_path" in section else [])]
