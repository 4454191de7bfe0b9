"""What goes wrong ends with a sentence and status 2."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from multiresnet.cli import main
from multiresnet.cli.messages import readable


def error_of(arguments, capsys):
    assert main(arguments) == 2
    first, *rest = capsys.readouterr().err.strip().splitlines()
    assert rest == ["(MULTIRESNET_TRACEBACK=1 shows where)"]
    return first


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", "--config diffusion.yaml or hvae.yaml or segmentation.yaml or"),
        ("--config", "--config needs a file: diffusion.yaml"),
        ("--config segmentatoin.yaml", "no configuration 'segmentatoin.yaml' (did you mean 'segmentation.yaml'?)"),
        ("--config segmentation.yaml --data.root nowhere", "no folder 'nowhere' (root)"),
        (
            "--config segmentation.yaml --data.rooot x",
            "ImageMaskDataModule has no option 'rooot' (did you mean 'root'?)",
        ),
        ("--config segmentation.yaml --model.lrr 1", "SegmentationTask has no option 'lrr' (did you mean 'lr'?)"),
        ("--config segmentation.yaml --model.model.preset segmentatio", "(did you mean 'segmentation'?)"),
        ("--config segmentation.yaml --model.loss dce", "loss='dce' is unknown (did you mean 'dice'?)"),
        ("--config segmentation.yaml --data.batch_size many", "data.batch_size: Expected a int. Got value: many"),
        ("--config segmentation.yaml --data.batch_size 0", "batch_size must be an integer >= 1, got 0"),
        ("--config segmentation.yaml --traner.max_steps 3", "--traner.max_steps 3 (did you mean 'trainer'?)"),
        ("--config segmentation.yaml --trainer.max_time ten", "not a valid duration"),
        ("--config segmentation.yaml --trainer.accelerator gpuu", "accelerator='gpuu'"),
        ("--config segmentation.yaml --model.model.class_path smp.Unet", "model.model: No module named 'smp'"),
        ("--config segmentation.yaml --trainer.callbacks+=multiresnet.tasks.Stagd", "has no attribute 'Stagd'"),
        ("--config surrogate.yaml --data.source nowhere.h5", "no data file 'nowhere.h5'"),
        ("--config diffusion.yaml --data.source nowhere", "no folder 'nowhere' (source)"),
        ("nowhere", "'nowhere' is no run folder: it has no config.yaml"),
    ],
)
def test_options_of_fit(options, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert said in error_of(["fit", *options.split()], capsys)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda root: shutil.rmtree(root / "masks"), "no folder 'cells/masks' (masks); 'cells' holds images"),
        (lambda root: (root / "masks/3.png").unlink(), "cells/images/3.png: no mask in cells/masks"),
        (lambda root: (root / "images/3.png").write_bytes(b"?"), "cannot read cells/images/3.png"),
    ],
)
def test_data(damage, said, fit, data, capsys):
    damage(Path(shutil.copytree(data / "cells", "cells")))
    assert fit("segmentation.yaml", "--data.root", "cells", "--data.num_workers", "1") == 2
    assert said in capsys.readouterr().err


def test_an_error_in_a_worker_is_still_a_sentence(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("bands.npy", np.zeros((5, 20, 30), np.float32))
    error = error_of(f"predict {trained} --data.root bands.npy --data.num_workers 1 --out out".split(), capsys)
    assert error == "multiresnet predict: bands.npy has 5 channels, wanted 3; only 1 and 3 are turned into each other"


def test_data_of_another_kind_than_those_of_the_run(fit, capsys):
    assert fit("surrogate.yaml", "--trainer.limit_val_batches", "0") == 0
    np.savez("line.npz", data=np.random.default_rng(0).normal(size=(4, 12, 1, 16)))
    capsys.readouterr()
    error = error_of("predict runs/surrogate --data.source line.npz".split(), capsys)
    assert error.endswith("trained on data with spatial_dims=2, these have spatial_dims=1")


def test_run_folders(trained, data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = Path(shutil.copytree(trained, "run"))
    error = error_of(["sample", "run"], capsys)
    assert "'run' holds a SegmentationTask; images are drawn from a DiffusionTask or an HVAETask" in error
    best = run / "checkpoints/best.ckpt"
    best.write_bytes(best.read_bytes()[:-200])
    assert "is no checkpoint, or a damaged one" in error_of(["test", "run"], capsys)
    shutil.rmtree(run / "checkpoints")
    predict = ["predict", "run", "--data.root", f"{data}/new"]
    assert "no checkpoint in 'run'" in error_of(predict, capsys)
    assert "no checkpoint in 'nowhere'" in error_of([*predict, "--ckpt_path", "nowhere"], capsys)


def test_an_output_that_cannot_be_written(fit, capsys):
    Path("file").write_text("here already")
    assert fit("segmentation.yaml", "--out", "file") == 2
    assert "Not a directory" in capsys.readouterr().err and Path("file").read_text() == "here already"


def test_the_traceback_is_to_be_had(monkeypatch):
    monkeypatch.setenv("MULTIRESNET_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError):
        main(["fit", "--config", "nowhere.yaml"])


def test_messages_that_are_not_of_the_parser_stay_as_they_are():
    assert readable("a line\n  and another") == "a line\n  and another"


@pytest.mark.filterwarnings("default:.*floating values")
def test_genuine_warnings_are_a_line(fit, capsys):
    rng = np.random.default_rng(0)
    np.savez("cells.npz", images=rng.normal(0, 9, (6, 20, 20)), masks=rng.random((6, 20, 20)) > 0.5)
    assert fit("segmentation.yaml", "--data.root", "cells.npz", "--trainer.limit_val_batches", "0") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ") and "floating values" in line
