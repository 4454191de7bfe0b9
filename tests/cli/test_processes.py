"""The command as a process: help, interrupts, kills, output to a file, two processes."""

import os
import signal
import subprocess
import sys
import time

import pytest

OPTIONS = ["--model.model.options", "{channels: [16, 16], num_blocks: 1, patch_levels: 0}", "--data.num_workers", "0"]


def start(arguments, folder, log):
    with open(folder / log, "w") as file:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, "-m", "multiresnet.cli", *arguments],
            cwd=folder,
            env=environment,
            stdout=file,
            stderr=file,
            preexec_fn=listen,
        )


def listen():
    """What a shell runs in the background inherits deaf ears."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(pattern, folder, process):
    while not list(folder.glob(pattern)):
        assert process.poll() is None, "ended too early"
        time.sleep(0.05)


def fit(data, steps):
    saved = ["--trainer.max_steps", str(steps), "--trainer.check_val_every_n_epoch", "50", "--save_every", "2"]
    return ["fit", "--config", "segmentation.yaml", "--data.root", f"{data}/cells", *OPTIONS, *saved]


def test_killed_and_interrupted_it_goes_on(data, tmp_path):
    saved = "runs/segmentation/checkpoints/step={}.ckpt"
    killed = start(fit(data, 1000), tmp_path, "1.log")
    wait_for(saved.format("[2-9]"), tmp_path, killed)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before = {path.name for path in (tmp_path / "runs/segmentation/checkpoints").glob("step=*")}
    stopped = start(fit(data, 1000), tmp_path, "2.log")
    while {path.name for path in (tmp_path / "runs/segmentation/checkpoints").glob("step=*.ckpt")} <= before:
        assert stopped.poll() is None, (tmp_path / "2.log").read_text()
        time.sleep(0.05)
    stopped.send_signal(signal.SIGINT)
    assert stopped.wait() == 130
    said = (tmp_path / "2.log").read_text()
    assert "going on from runs/segmentation/checkpoints/step=" in said and "Traceback" not in said
    assert said.splitlines()[-1].startswith("stopped; start it again with the same command")


@pytest.mark.slow
def test_terminated(data, tmp_path):
    process = start(fit(data, 1000), tmp_path, "log")
    wait_for("runs/segmentation/checkpoints/step=*.ckpt", tmp_path, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
    assert (tmp_path / "log").read_text().splitlines()[-1].startswith("stopped; start it again")


@pytest.mark.slow
def test_two_processes(data, tmp_path):
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu"]
    one = fit(data, 3)
    one[one.index("50")] = "1"
    assert start([*one, *two], tmp_path, "log").wait() == 0
    said = (tmp_path / "log").read_text()
    assert "on 2 x cpu" in said and said.count("data: ") == said.count("next: multiresnet test") == 1
    assert start(["test", "runs/segmentation", "--trainer.devices", "1"], tmp_path, "log").wait() == 0
