"""The command line: `multiresnet fit|validate|test|predict|sample|data|demo`."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from multiresnet import __version__
from multiresnet.checks import closest

__all__ = ["main"]

_COMMANDS = {  # name: (module with a function `run(argv)`, what it does)
    "fit": ("training", "train a network on your data; again with the same arguments, to go on after a stop"),
    "validate": ("training", "measure a run on its validation data"),
    "test": ("training", "measure a run on its test data"),
    "predict": ("training", "write masks, fields or images for new inputs"),
    "sample": ("sample", "draw images from a trained diffusion model or hierarchical VAE"),
    "data": ("data", "generate PDE data, describe a data file, or the spectrum of images"),
    "demo": ("demo", "train a Multi-ResNet and a residual U-Net for equal time and compare them"),
}

_HELP = """usage: multiresnet COMMAND ...

{commands}

  multiresnet fit --config segmentation.yaml --data.root my_folder
  multiresnet predict runs/segmentation --data.root new_images
  multiresnet COMMAND --help

configurations that are shipped: {configs}"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    Args:
        argv: arguments without the program's name; None takes those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments[0] if arguments else ""
    if command in ("", "-h", "--help"):
        from .configs import SHIPPED

        lines = "\n".join(f"  {name:<10}{text}" for name, (_, text) in _COMMANDS.items())
        print(_HELP.format(commands=lines, configs=", ".join(SHIPPED)), file=sys.stdout if command else sys.stderr)
        return 0 if command else 2
    if command == "--version":
        print(__version__)
        return 0
    if command not in _COMMANDS:
        print(
            f"multiresnet: no command {command!r}{closest(command, _COMMANDS)}; see multiresnet --help", file=sys.stderr
        )
        return 2
    try:
        module = importlib.import_module(f"{__name__}.{_COMMANDS[command][0]}")  # only what the command needs is loaded
        module.run(arguments if _COMMANDS[command][0] == "training" else arguments[1:])
    except (ValueError, TypeError, OSError, ImportError) as error:
        if os.environ.get("MULTIRESNET_TRACEBACK"):
            raise
        print(f"multiresnet {command}: {_sentence(error)}", file=sys.stderr)
        print("(MULTIRESNET_TRACEBACK=1 shows where)", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print("stopped; start it again with the same command: what is finished is kept", file=sys.stderr)
        return 143 if "SIGTERM" in stop.args else 130
    return 0


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)
