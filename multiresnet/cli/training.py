"""`multiresnet fit|validate|test|predict`: Lightning's command line, with run folders that resume by themselves."""

from __future__ import annotations

import json
from argparse import ArgumentError
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning import LightningDataModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from multiresnet.callbacks import ContactSheet, LearningCurves, PredictionWriter, Progress
from multiresnet.tasks.base import Task
from multiresnet.tasks.checkpoints import AtomicCheckpointIO, checkpoints, newest_whole_checkpoint
from multiresnet.tasks.compute import default_precision

from .configs import CONFIG, expand
from .messages import clear_console, readable
from .runs import CHECKPOINTS, checkpoint_to_use

__all__ = ["TrainingCLI", "run"]

# What may change between a run and its continuation.
_FREE = (
    "trainer.max_",
    "trainer.enable_",
    "trainer.log_every",
    "trainer.profiler",
    "trainer.num_nodes",
    "trainer.devices",
    "trainer.strategy",
    "trainer.accelerator",
    "data.init_args.num_workers",
    "ckpt_path",
    "save_every",
    "out",
    "config",
)


_HELP = """The options are those of the configuration: --data.root, --model.lr, --trainer.max_time, ...
Those of a class are shown by e.g. --data.help multiresnet.data.ImageMaskDataModule."""


class TrainingCLI(LightningCLI):
    """Lightning's command line for `multiresnet.tasks`; a run has a folder, `--out`, and is resumed from it."""

    def __init__(self, argv: Sequence[str], *, run: bool = True) -> None:
        super().__init__(
            Task,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=_SaveConfig,
            save_config_kwargs={"save_to_log_dir": False},
            seed_everything_default=0,
            trainer_defaults={"gradient_clip_val": 1.0, "precision": default_precision()},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=expand(argv) if run else list(argv),
            run=run,
            parser_kwargs=_parsers(),
        )

    def parse_arguments(self, parser: Any, args: Any) -> None:
        """Without Lightning's warning that the arguments come from a function."""
        self.config = parser.parse_args(args)

    def add_arguments_to_parser(self, parser: Any) -> None:
        """The run folder, and how often it is saved."""
        parser.add_argument("--out", type=str, default=None, help="run folder; default: runs/NAME of the configuration")
        parser.add_argument(
            "--save_every", type=int, default=200, help="optimiser steps from one checkpoint to the next"
        )

    @property
    def out(self) -> Path:
        """The run folder."""
        config = self._get(self.config, "out")
        if config:
            return Path(config)
        files = self._get(self.config, "config") or ["run.yaml"]
        return Path("runs") / Path(str(files[-1])).stem

    def instantiate_trainer(self, **settings: Any) -> Trainer:
        """A trainer that logs, saves and draws into the run folder."""
        self.trainer_defaults["callbacks"] = self._callbacks()
        if self.subcommand == "fit" and self._get(self.config, "trainer.logger") is None:
            csv = CSVLogger(self.out, name="logs")
            settings["logger"] = [csv, TensorBoardLogger(self.out, name="logs", version=csv.version)]
        elif self.subcommand != "fit":
            settings["logger"] = False
        plugins = self._get(self.config_init, "trainer.plugins") or []
        settings["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), AtomicCheckpointIO()]
        return super().instantiate_trainer(default_root_dir=self.out, **settings)

    def _callbacks(self) -> list[Callback]:
        if self.subcommand == "predict":
            return [PredictionWriter(self.out / "predictions"), Progress()]
        if self.subcommand != "fit":
            return [Progress()]
        metric, mode = self.model.monitor
        every = self._get(self.config, "save_every")
        saved = checkpoints(self.out / CHECKPOINTS, every_n_steps=every, monitor=metric, mode=mode)
        return [*saved, LearningCurves(self.out), ContactSheet(self.out), Progress()]

    # ---- what happens before each command --------------------------------------------------------------

    def before_fit(self) -> None:
        """Go on from the newest whole checkpoint of the run folder, if the settings are those of the run."""
        checkpoint = newest_whole_checkpoint(self.out / CHECKPOINTS)
        if self.config_init["fit"].get("ckpt_path") is not None or checkpoint is None:
            return
        now = yaml.safe_load(self._parser("fit").dump(self.config["fit"], skip_none=False))
        changed = _differences(yaml.safe_load((self.out / CONFIG).read_text()), now)
        if changed:
            raise ValueError(
                f"{str(self.out)!r} holds a run with other settings; choose another folder with --out, or remove it. "
                f"Differences (there / here): {'; '.join(changed)}"
            )
        self.config_init["fit"]["ckpt_path"] = str(checkpoint)
        print(f"going on from {checkpoint}")

    def before_validate(self) -> None:
        """Take weights and facts from the best checkpoint, or the one given."""
        self._restore("validate", verbose=False)

    def before_test(self) -> None:
        """Take weights and facts from the best checkpoint, or the one given."""
        self._restore("test", verbose=False)

    def before_predict(self) -> None:
        """Take weights and facts from the best checkpoint, or the one given."""
        self._restore("predict", return_predictions=False)

    def _restore(self, command: str, **settings: Any) -> None:
        given = self.config_init[command].get("ckpt_path")
        path = checkpoint_to_use(Path(given) if given else self.out)
        # the facts come first: the data at hand may lack what the training data had (masks, statistics)
        self.model.on_load_checkpoint(torch.load(path, map_location="cpu", weights_only=True))
        for name, value in {"ckpt_path": str(path), **settings}.items():
            self.config_init[command][name] = value
        print(f"weights: {path}")

    def after_validate(self) -> None:
        """Show the figures."""
        self._report("validate")

    def after_test(self) -> None:
        """Show the figures and keep them beside the run."""
        self._report("test")

    def _report(self, command: str) -> None:
        figures = {name: float(value) for name, value in sorted(self.trainer.callback_metrics.items())}
        if self.trainer.is_global_zero:
            for name, value in figures.items():
                print(f"{name:<40}{value:.5g}")
            (self.out / f"{command}.json").write_text(json.dumps(figures, indent=2) + "\n")


class _SaveConfig(SaveConfigCallback):
    """Write the whole configuration into the run folder when training starts."""

    def save_config(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        if stage == "fit":
            path = Path(trainer.default_root_dir) / CONFIG
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".tmp")
            temporary.write_text(self.parser.dump(self.config, skip_none=False))
            temporary.replace(path)


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(config, dict) and config:
        return {k: v for key, value in config.items() for k, v in _flat(value, f"{prefix}.{key}".lstrip(".")).items()}
    return {prefix: config}


def _differences(there: Any, here: Any) -> list[str]:
    old, new = _flat(there), _flat(here)
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key) and not key.startswith(_FREE)]
    return [f"{key}: {old.get(key)} / {new.get(key)}" for key in keys]


def _parsers() -> dict[str, Any]:
    common: dict[str, Any] = {"exit_on_error": False, "prog": "multiresnet"}
    usage = "multiresnet {} [RUN | --config FILE] [--data.OPTION X] [--model.OPTION X] [--trainer.OPTION X] [--out FOLDER]"
    return common | {name: common | {"usage": usage.format(name), "description": _HELP} for name in TrainingCLI.subcommands()}


def run(argv: Sequence[str]) -> None:
    """Run `fit`, `validate`, `test` or `predict`."""
    with clear_console():
        try:
            TrainingCLI(argv)
        except (ArgumentError, MisconfigurationException) as error:
            raise ValueError(readable(str(error))) from error
