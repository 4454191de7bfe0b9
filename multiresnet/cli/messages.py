"""What the console shows: errors in a sentence, warnings that a user can act on, and nothing else."""

from __future__ import annotations

import importlib
import inspect
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from multiresnet.checks import closest

from .configs import SHIPPED

__all__ = ["clear_console", "readable"]

# Lightning's notes on what is meant so, or on itself; the beginnings of their texts.
_NOTES = (
    "Be aware that when using `ckpt_path`",  # callbacks of `fit` are not there in `test`, nor have to be
    "Checkpoint directory .* exists and is not empty",
    "Experiment logs directory .* exists and is not empty",
    "You have turned on `Trainer.log_model",
    "The `srun` command is available",
    "The number of training batches .* is smaller than the logging interval",  # the interval follows the number
    "The '.*' does not have many workers",
    "GPU available but not used",
    "Precision bf16-mixed is not supported by the model summary",
    "You're using the WeightAveraging callback with a model that overrides",  # ours does not shard
    "You're using the WeightAveraging callback, but loading a checkpoint outside",  # the weights there are the averages
    "`isinstance.treespec, LeafSpec.` is deprecated",
    "By default only one JsonargparseDeprecationWarning",
    "(``instantiate_classes``|skip_none parameter) was deprecated",  # Lightning itself calls them
)

# Lines of the parser's errors that say what it tried and not what is wrong.
_TRIED = re.compile(
    r"$|Parser key|Problem with given class_path|Does not validate against|Subtypes:|Errors:|Given value|"
    r"Expected a <class 'NoneType'>|Expected a path but|Import path .* does not correspond"
)


@contextmanager
def clear_console() -> Iterator[None]:
    """Leave out Lightning's notes and advertisements; show other warnings as one line, `warning: ...`."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for text in _NOTES:
            warnings.filterwarnings("ignore", message=rf"\s*{text}")
        warnings.showwarning = _show  # type: ignore[assignment]
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels):
                logger.setLevel(level)


def _show(message: Warning | str, *_: Any) -> None:
    print(f"warning: {message}", file=sys.stderr, flush=True)


def readable(text: str) -> str:
    r"""The reason in an error of the configuration parser, which lists all that it tried.

    Examples:
        >>> text = "Problem with given class_path 'multiresnet.tasks.SegmentationTask':\n  Option 'lrr' is not accepted"
        >>> readable(text)
        "SegmentationTask has no option 'lrr' (did you mean 'lr'?)"
        >>> readable('Parser key "data":\n  Parser key "crop":\n  - Expected a <class \'int\'>. Got value: big')
        'data.crop: Expected a int. Got value: big'
    """
    if re.search("arguments are required|is required but not provided|^Unexpected config", text):
        return f"say what to train on what: --config {' or '.join(SHIPPED)}, or a file of your own"
    unknown = re.search(r"given class_path '([\w.]+)':\s+Option '([\w.]+)' is not accepted", text)
    if unknown:
        path, _, name = unknown[1].rpartition(".")
        known = inspect.signature(getattr(importlib.import_module(path), name)).parameters
        return f"{name} has no option {unknown[2]!r}{closest(unknown[2], known)}"
    if "in DataLoader worker process" in text:  # the message is the end of a traceback
        return re.split(r"^\w+(?:Error|Exception): ", text, flags=re.MULTILINE)[-1].strip()
    if top := re.match(r"[Uu]nrecognized arguments: --(\w+)\.", text):
        return f"{text}{closest(top[1], ('data', 'model', 'trainer'))}"
    if not _TRIED.match(text) and not text.startswith("Problems parsing"):
        return text
    lines = [line.strip().removeprefix("- ") for line in text.splitlines()]
    reasons = dict.fromkeys(
        re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", line) for line in lines if not _TRIED.match(line)
    )
    keys = ".".join(re.findall(r'Parser key "([\w.]+)"', text))
    return f"{keys}: {'; '.join(reasons)}" if keys else " ".join(reasons)
