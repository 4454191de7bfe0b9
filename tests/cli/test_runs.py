"""Training, going on, testing and predicting, as typed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from multiresnet.cli import main
from multiresnet.cli.configs import SHIPPED


def files(folder):
    return {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()}


def copied(run, to="run"):
    """A run to change, in the current folder."""
    return Path(shutil.copytree(run, to))


# ---- the shipped configurations -----------------------------------------------------------------------------------


def test_segmentation(trained):
    logs = {name for name in files(trained) if name.startswith("logs")}
    assert files(trained) - logs == {
        "config.yaml",
        "curves.png",
        "examples.png",
        "checkpoints/best.ckpt",
        "checkpoints/step=2.ckpt",
    }
    assert any("events" in name for name in logs)
    logged = (trained / "logs/version_0/metrics.csv").read_text()
    assert "train/loss" in logged and "val/dice" in logged  # an epoch has fewer steps than Lightning logs at


def test_volumes(fit, data, capsys):
    assert fit("volumes.yaml", "--data.root", f"{data}/volumes", "--data.classes", "3", "--data.crop", "8") == 0
    said = capsys.readouterr()
    assert said.err == "" and "8 x 9 x 10, crops of 8 x 8 x 8" in said.out
    assert main(["predict", "runs/volumes", "--data.root", f"{data}/volumes/images"]) == 0
    assert np.load("runs/volumes/predictions/0.npy").shape == (8, 9, 10)
    assert Path("runs/volumes/predictions/contact_sheet.png").exists()


def test_surrogate(fit, capsys):
    assert fit("surrogate.yaml") == 0
    said = capsys.readouterr()
    assert said.err == "" and "1 channel (0) on 8 x 8, boundary replicate" in said.out and "32-true" in said.out
    assert main(["test", "runs/surrogate"]) == 0
    assert "test/rollout_rel_l2" in json.loads(Path("runs/surrogate/test.json").read_text())
    assert main(["predict", "runs/surrogate", "--data.rollout_steps", "3"]) == 0
    assert np.load("runs/surrogate/predictions/window_00000.npy").shape == (3, 1, 8, 8)


def test_surrogate_of_generated_data(fit, capsys):
    assert main("data generate burgers --out burgers.h5 --n 4 --size 32 --frames 4".split()) == 0
    assert fit("surrogate.yaml", "--data.source", "burgers.h5") == 0
    assert "boundary periodic" in capsys.readouterr().out


def test_surrogate_of_a_steady_problem(fit, capsys):
    assert main("data generate darcy --out darcy.h5 --n 4 --size 8".split()) == 0
    assert fit("surrogate.yaml", "--data", "multiresnet.data.PairDataModule", "--data.source", "darcy.h5") == 0
    assert "1 channel to 1 on 8 x 8, boundary zeros" in capsys.readouterr().out
    assert main(["test", "runs/surrogate"]) == 0


def test_diffusion(fit, capsys):
    assert fit("diffusion.yaml", "--trainer.check_val_every_n_epoch", "1", "--trainer.limit_train_batches", "2") == 0
    said = capsys.readouterr()
    assert said.err == "" and "10 classes" in said.out and "next: multiresnet sample runs/diffusion" in said.out
    assert Path("runs/diffusion/samples/step-00000002.png").exists()
    assert main("sample runs/diffusion --n 4 --sampler ddim --steps 5 --out drawn".split()) == 0
    assert files("drawn") == {"grid.png", *(f"0000{i}.png" for i in range(4))}
    assert main(["test", "runs/diffusion"]) == 2
    assert "`multiresnet sample RUN` draws images" in capsys.readouterr().err


def test_hvae(fit, capsys):
    small = [
        *("--trainer.check_val_every_n_epoch", "1", "--trainer.limit_train_batches", "2", "--data.batch_size", "32"),
        *(
            "--model.model.options",
            "{share: per_resolution}",
            "--model.model.resolutions",
            "[{level: 0, channels: 8}, {level: 2, channels: 8}]",
        ),
    ]
    assert fit("hvae.yaml", *small) == 0
    said = capsys.readouterr()
    assert said.err == "" and "network: HVAE" in said.out and "next: multiresnet sample runs/hvae" in said.out
    assert Path("runs/hvae/samples/step-00000002.png").exists() and Path("runs/hvae/chain.png").exists()
    assert main("sample runs/hvae --n 4 --temperature 0.7 --refine 0.5 --out drawn".split()) == 0
    assert files("drawn") == {"grid.png", *(f"0000{i}.png" for i in range(4))}
    assert main("sample runs/hvae --refine 0".split()) == 2
    assert "must be a positive number" in capsys.readouterr().err
    assert main("sample runs/hvae --steps 5".split()) == 2
    assert "HVAETask has no --steps; its options: --temperature" in capsys.readouterr().err


# ---- starting, and going on ---------------------------------------------------------------------------------------


def test_what_is_said(fit, capsys):
    assert fit("segmentation.yaml") == 0
    said = capsys.readouterr()
    assert said.err == ""
    for part in (
        "data: 6 train, 1 val, 1 test images, 3 channels, 24 x 30 to 31 x 23",
        "network: MultiResNet,",
        "training: 100 epochs of 1 batch, or 2 steps,",
        "epoch 1  step 2",
        ": runs/segmentation/checkpoints/best.ckpt",
        "pictures: runs/segmentation/curves.png, runs/segmentation/examples.png",
        "next: multiresnet test runs/segmentation",
    ):
        assert part in said.out


def test_the_same_command_goes_on(fit, capsys):
    assert fit("segmentation.yaml") == fit("segmentation.yaml") == 0
    assert "nothing left to do at step 2" in capsys.readouterr().out
    assert fit("segmentation.yaml", "--trainer.max_steps", "4", "--data.num_workers", "1", "--save_every", "1") == 0
    assert "going on from runs/segmentation/checkpoints/step=2.ckpt" in capsys.readouterr().out
    assert main(["fit", "runs/segmentation", "--trainer.max_steps", "5"]) == 0  # a run folder says all the rest
    assert files("runs/segmentation/checkpoints") == {"best.ckpt", "step=4.ckpt", "step=5.ckpt"}


def test_other_settings_are_refused_by_name(fit, capsys):
    assert fit("segmentation.yaml") == 0
    assert fit("segmentation.yaml", "--model.lr", "1", "--data.crop", "16", "--trainer.max_steps", "3") == 2
    error = capsys.readouterr().err
    assert "'runs/segmentation' holds a run with other settings" in error
    assert "model.init_args.lr: 0.002 / 1.0" in error and "data.init_args.crop: auto / 16" in error
    assert "max_steps" not in error and error.count(" / ") == 3  # the third explains the notation


@pytest.mark.filterwarnings("default:the checkpoint", "default:The dirpath has changed")
def test_a_damaged_checkpoint_is_passed_over(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = copied(trained)
    newest = run / "checkpoints/step=9.ckpt"
    newest.write_bytes((run / "checkpoints/step=2.ckpt").read_bytes()[:-200])
    assert main(["fit", str(run), "--trainer.max_steps", "3"]) == 0
    said = capsys.readouterr()
    assert "warning: the checkpoint run/checkpoints/step=9.ckpt is damaged" in said.err
    assert "going on from run/checkpoints/step=2.ckpt" in said.out


def test_a_configuration_of_ones_own_and_one_on_top(fit, capsys):
    shutil.copy(SHIPPED["segmentation.yaml"], "mine.yaml")
    Path("other.yaml").write_text("model: {init_args: {lr: 0.5}}")
    assert fit("segmentation.yaml", "--config", "mine.yaml", "--config=other.yaml") == 0
    assert yaml.safe_load(Path("runs/other/config.yaml").read_text())["model"]["init_args"]["lr"] == 0.5


def test_another_network_by_its_class(fit, data, capsys):
    network = {
        "class_path": "segmentation_models_pytorch.Unet",
        "init_args": {"encoder_name": "resnet18", "encoder_weights": None, "encoder_depth": 3, "classes": 1}
        | {"decoder_channels": [16, 16, 16]},
    }
    Path("unet.yaml").write_text(yaml.safe_dump({"model": {"init_args": {"model": network}}}))
    few = ["--data.root", f"{data}/cells", "--data.num_workers", "0", "--trainer.max_steps"]
    assert main(["fit", "--config", "segmentation.yaml", "--config", "unet.yaml", *few, "1"]) == 0
    assert main(["fit", "--config", "segmentation.yaml", "--config", "unet.yaml", *few, "2"]) == 0
    assert "network: Unet, 11," in (said := capsys.readouterr().out) and "going on" in said
    assert main(["predict", "runs/unet", "--data.root", f"{data}/new/a.png"]) == 0
    assert files("runs/unet/predictions") == {"a.png", "contact_sheet.png"}


@pytest.mark.parametrize(
    "options",
    [
        "--trainer.callbacks+=multiresnet.tasks.StagedTraining --trainer.callbacks.fractions [0.5,0.5] "
        "--trainer.callbacks+ multiresnet.tasks.Compute --trainer.callbacks.channels_last true",
        "--trainer.callbacks+=lightning.pytorch.callbacks.EMAWeightAveraging --trainer.accumulate_grad_batches 2 "
        "--data.batch_size 2 --trainer.max_time 00:00:10:00 --trainer.max_epochs -1",
        "--trainer.enable_progress_bar false --trainer.enable_checkpointing false --trainer.logger false "
        "--trainer.precision 32-true --trainer.limit_val_batches 0 --trainer.log_every_n_steps 1",
        "--model.deep_supervision true --model.class_weights balanced --model.tile 16 --model.augment_at_test true",
    ],
)
def test_options(fit, options, capsys):
    assert fit("segmentation.yaml", *options.split()) == 0
    assert capsys.readouterr().err == ""


def test_values_of_masks_as_the_error_proposes(fit, data, tmp_path, capsys):
    shutil.copytree(data / "cells", tmp_path / "cells")
    for path in (tmp_path / "cells/masks").iterdir():
        Image.fromarray(255 * np.asarray(Image.open(path))).save(path)
    assert fit("segmentation.yaml", "--data.root", "cells") == 2
    assert "holds the values 0, 255" in capsys.readouterr().err
    assert not Path("runs").exists()  # data are looked at before there is a run
    assert fit("segmentation.yaml", "--data.root", "cells", "--data.mask_values", "{255: 1}") == 0


# ---- using a run --------------------------------------------------------------------------------------------------


def test_test_and_validate(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = copied(trained)
    assert main(["test", str(run)]) == main(["validate", str(run)]) == 0
    said = capsys.readouterr()
    assert said.err == "" and "weights: run/checkpoints/best.ckpt" in said.out and "figures: run/test.json" in said.out
    assert {"test/dice", "test/iou", "test/loss"} <= json.loads((run / "test.json").read_text()).keys()
    best = json.loads((run / "validate.json").read_text())["val/dice"]
    assert main(["test", str(run), "--ckpt_path", str(run / "checkpoints/step=2.ckpt"), "--out", "elsewhere"]) == 0
    assert files("elsewhere") == {"test.json"} and 0 <= best <= 1


def test_predict_a_folder(trained, data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = copied(trained)
    assert main(["predict", str(run), "--data.root", f"{data}/new"]) == 0
    said = capsys.readouterr()
    assert said.err == "" and "3 predictions in run/predictions" in said.out
    assert files(run / "predictions") == {"a.png", "b.png", "deep/c.png", "contact_sheet.png"}
    for name in ("a", "b", "deep/c"):
        with Image.open(data / f"new/{name}.png") as image, Image.open(run / f"predictions/{name}.png") as mask:
            assert mask.size == image.size and set(np.unique(np.asarray(mask))) <= {0, 1}


def test_predict_one_image_that_is_grey(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((11, 12), np.uint8)).save("grey.png")
    assert main(["predict", str(trained), "--data.root", "grey.png", "--out", "masks"]) == 0
    assert files("masks") == {"grey.png", "contact_sheet.png"} and "1 prediction in masks" in capsys.readouterr().out


def test_print_config_is_a_configuration(fit, capsys):
    with pytest.raises(SystemExit, match="0"):
        fit("segmentation.yaml", "--print_config")
    Path("mine.yaml").write_text(capsys.readouterr().out)
    assert main(["fit", "--config", "mine.yaml", "--trainer.max_steps", "1"]) == 0
    assert "step=1.ckpt" in files("runs/mine/checkpoints")
