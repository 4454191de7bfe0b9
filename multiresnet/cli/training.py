"""`multiresnet fit|validate|test|predict`: Lightning's command line, with run folders that resume by themselves."""

from __future__ import annotations

import json
import signal
from argparse import ArgumentError
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import set_parsing_settings
from lightning import LightningDataModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.model_helpers import is_overridden

from multiresnet.atomic import write_atomically
from multiresnet.callbacks import ContactSheet, LearningCurves, PredictionWriter, Progress
from multiresnet.tasks.base import Task
from multiresnet.tasks.checkpointing import AtomicCheckpointIO, checkpoints, newest_whole_checkpoint
from multiresnet.tasks.compute import default_precision
from multiresnet.tasks.hvae.network import HVAENetwork
from multiresnet.tasks.network import Network

from .configs import CONFIG, expand
from .messages import clear_console, readable
from .report import Report
from .runs import CHECKPOINTS, checkpoint_to_use, differences

__all__ = ["TrainingCLI", "run"]

_SWITCHES = ("enable_progress_bar", "enable_checkpointing", "log_every_n_steps")
rank_zero_print = rank_zero_only(print)

_USAGE = "multiresnet {} [RUN | --config FILE] [--data.X VALUE] [--model.X VALUE] [--trainer.X VALUE] [--out FOLDER]"
_HELP = """RUN is the folder of a run, FILE a configuration, shipped or your own. Options go by their place in it, and those of
the classes there are shown by, e.g., multiresnet fit --config segmentation.yaml --data.help (or --model.help)."""


class TrainingCLI(LightningCLI):
    """Lightning's command line for `multiresnet.tasks`; a run has a folder, `--out`, and is resumed from it."""

    def __init__(self, argv: Sequence[str]) -> None:
        # else the class_path of another network is lost
        set_parsing_settings(subclasses_enabled=[Network, HVAENetwork])
        super().__init__(
            Task,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=_SaveConfig,
            save_config_kwargs={"save_to_log_dir": False},
            seed_everything_default=0,
            trainer_defaults={
                "gradient_clip_val": 1.0,
                "precision": default_precision(),
                "enable_model_summary": False,
            },
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=expand(argv),
            parser_kwargs=_parsers(),
        )

    def parse_arguments(self, parser: Any, args: Any) -> None:
        """Without Lightning's warning that the arguments come from a function."""
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Leave out Lightning's merging of a checkpoint's arguments: the configuration of a run has them all."""

    def add_arguments_to_parser(self, parser: Any) -> None:
        """The run folder, and how often it is saved."""
        parser.add_argument(
            "--out", type=str, help="where everything is written; default: runs/NAME of the configuration, or RUN"
        )
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
        given = {name: self._get(self.config, f"trainer.{name}") for name in _SWITCHES}
        progress = [Progress()] if given["enable_progress_bar"] is not False else []
        if self.subcommand == "predict":
            return [PredictionWriter(self.out), *progress]
        if self.subcommand != "fit":
            return progress
        metric, mode = self.model.monitor
        every = self._get(self.config, "save_every")
        saved = checkpoints(self.out / CHECKPOINTS, every_n_steps=every, monitor=metric, mode=mode)
        saved = saved if given["enable_checkpointing"] is not False else []
        report = Report(self.out, adapt_logging=given["log_every_n_steps"] is None)
        return [*saved, LearningCurves(self.out), ContactSheet(self.out), *progress, report]

    def _run_subcommand(self, subcommand: str) -> None:
        """Let Ctrl-C and SIGTERM be what they are: Lightning exits with status 1 and 0, and hears no further Ctrl-C."""
        handler = signal.getsignal(signal.SIGINT)
        try:
            super()._run_subcommand(subcommand)
        except SystemExit as stop:
            if isinstance(stop, SIGTERMException):
                raise KeyboardInterrupt("SIGTERM") from stop
            if isinstance(stop.__context__, KeyboardInterrupt):
                signal.signal(signal.SIGINT, handler)
                raise KeyboardInterrupt from stop
            raise

    # ---- what happens before each command --------------------------------------------------------------

    def before_fit(self) -> None:
        """Go on from the newest whole checkpoint of the run folder, if the settings are those of the run."""
        checkpoint = newest_whole_checkpoint(self.out / CHECKPOINTS)
        if self.config_init["fit"].get("ckpt_path") is None and checkpoint is not None:
            now = yaml.safe_load(self._parser("fit").dump(self.config["fit"], skip_none=False))
            changed = differences(yaml.safe_load((self.out / CONFIG).read_text()), now)
            if changed:
                raise ValueError(
                    f"{str(self.out)!r} holds a run with other settings; choose another folder with --out, or remove it. "
                    f"Differences (there / here): {'; '.join(changed)}"
                )
            self.config_init["fit"]["ckpt_path"] = str(checkpoint)
            rank_zero_print(f"going on from {checkpoint}")
        if type(self.datamodule).__module__.startswith("multiresnet."):
            self.datamodule.setup("fit")  # ours does it once; what is wrong is found before there is a run folder

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
        if command != "validate":  # which a task cannot be without
            for part, method in ((self.model, f"{command}_step"), (self.datamodule, f"{command}_dataloader")):
                if not is_overridden(method, part):
                    hint = "; `multiresnet sample RUN` draws images" if hasattr(self.model, "sample") else ""
                    raise ValueError(f"{type(part).__name__} has no {method}: there is nothing to {command}{hint}")
        path = checkpoint_to_use(Path(self.config_init[command].get("ckpt_path") or self.out))
        # the facts come first: the data at hand may lack what the training data had (masks, statistics)
        self.model.on_load_checkpoint(torch.load(path, map_location="cpu", weights_only=True))
        for name in ("spatial_dims", "channels"):
            there, here = self.model.facts.get(name), getattr(self.datamodule, name, None)
            if there is not None and here is not None and there != here:
                raise ValueError(f"the run was trained on data with {name}={there}, these have {name}={here}")
        for name, value in {"ckpt_path": str(path), **settings}.items():
            self.config_init[command][name] = value
        rank_zero_print(f"weights: {path}")

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
            text = json.dumps(figures, indent=2) + "\n"
            write_atomically(path := self.out / f"{command}.json", lambda file: file.write_text(text))
            print(f"figures: {path}")


class _SaveConfig(SaveConfigCallback):
    """Write the whole configuration into the run folder when training starts."""

    def save_config(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        if stage == "fit":
            text = self.parser.dump(self.config, skip_none=False)
            write_atomically(Path(trainer.default_root_dir) / CONFIG, lambda file: file.write_text(text))


def _parsers() -> dict[str, Any]:
    """Keywords of the parsers: errors are raised; a usage of one line in place of all options of Lightning's trainer."""
    common: dict[str, Any] = {"exit_on_error": False, "prog": "multiresnet"}
    return common | {
        name: common | {"usage": _USAGE.format(name), "description": _HELP} for name in LightningCLI.subcommands()
    }


def run(argv: Sequence[str]) -> None:
    """Run `fit`, `validate`, `test` or `predict`."""
    with clear_console():
        try:
            TrainingCLI(argv)
        except (ArgumentError, MisconfigurationException, ValueError) as error:
            raise ValueError(readable(str(error))) from error
        except torch.cuda.OutOfMemoryError as error:
            raise ValueError(f"lower data.batch_size, data.crop or the channels of the network: {error}") from error
