import warnings

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from multiresnet.callbacks import ContactSheet, LearningCurves, PredictionWriter, Progress
from multiresnet.callbacks.contact_sheet import Example, draw_contact_sheet, examples
from multiresnet.callbacks.figures import Sparingly
from multiresnet.callbacks.predictions import write_mask


def pixels(path, mode=None):
    with Image.open(path) as image:
        return np.asarray(image if mode is None else image.convert(mode))


class Toy(LightningModule):
    """Logs the step as its loss; predicts masks."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        self.log("train/loss", float(self.global_step + 1))
        return self.layer(batch["image"].mean().view(1, 1)).mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", 10.0 * (self.global_step + 1), batch_size=2)

    def predict_step(self, batch, batch_idx):
        return {"name": batch["name"], "mask": (batch["image"][:, 0] > 0).long()}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def batches(count=4):
    rows = [
        {"image": torch.randn(3, 9, 7), "mask": torch.ones(9, 7).long(), "name": f"sub/a{i}.png"} for i in range(count)
    ]
    return DataLoader(rows, batch_size=2)


def trainer(callbacks, folder, **options):
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    return Trainer(accelerator="cpu", default_root_dir=folder, callbacks=callbacks, **(quiet | options))


def test_curves_hold_every_validation_and_go_on_after_a_restart(tmp_path):
    curves = LearningCurves(tmp_path)
    first = trainer([curves], tmp_path, max_epochs=2)
    first.fit(Toy(), batches(), batches())
    first.save_checkpoint(tmp_path / "a.ckpt")
    assert curves.curves["val/loss"] == [(2, 30.0), (4, 50.0)]
    again = LearningCurves(tmp_path)
    second = trainer([again], tmp_path, max_epochs=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's, on the end of an epoch
        second.fit(Toy(), batches(), batches(), ckpt_path=tmp_path / "a.ckpt")
    assert again.curves["val/loss"] == [(2, 30.0), (4, 50.0), (6, 70.0)]
    assert again.curves["train/loss"] == [(2, 1.5), (4, 3.5), (6, 5.5)]  # means over the epochs
    assert pixels(tmp_path / "curves.png").std() > 5


def test_contact_sheet_during_training(tmp_path):
    trainer([ContactSheet(tmp_path, count=3)], tmp_path, max_epochs=1).fit(Toy(), batches(), batches())
    picture = pixels(tmp_path / "examples.png")
    assert picture.shape[0] > picture.shape[1] * 0.8 and len(np.unique(picture.reshape(-1, 4), axis=0)) > 10


def test_every_kind_of_example_can_be_drawn(tmp_path):
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 3, (5, 6, 7))
    kinds = [
        Example("volume", rng.normal(size=(1, 5, 6, 7)), mask, np.where(mask == 2, 255, mask)),
        Example("line", rng.normal(size=(2, 30)), rng.normal(size=(2, 30)), rng.normal(size=(2, 30))),
        Example("field", rng.normal(size=(1, 8, 9)), rng.random((1, 8, 9)), rng.random((1, 8, 9))),
        Example("colour", rng.random((3, 8, 9)), rng.integers(0, 30, (8, 9))),
        Example("block", rng.normal(size=(1, 4, 8, 9)), rng.normal(size=(1, 4, 8, 9)), None),
    ]
    for row in kinds:
        draw_contact_sheet(tmp_path / f"{row.name}.png", [row, row])
        assert pixels(tmp_path / f"{row.name}.png", "L").std() > 5


def test_ignored_places_are_grey_and_classes_have_their_colours(tmp_path):
    mask = np.array([[0, 255], [1, 0]])
    draw_contact_sheet(tmp_path / "a.png", [Example("", np.zeros((1, 2, 2)), mask)])
    colours = {tuple(c) for c in pixels(tmp_path / "a.png", "RGB").reshape(-1, 3)}
    assert {(0, 0, 0), (153, 153, 153), (31, 119, 180)} <= colours


def test_examples_of_fields_and_of_several_labels():
    batch = {"input": torch.zeros(2, 3, 1, 4, 4), "target": torch.ones(2, 5, 1, 4, 4)}
    rows = examples(batch, {"prediction": torch.full((2, 5, 1, 4, 4), 2.0)})
    assert [row.name for row in rows] == ["step 5"] * 2 and rows[0].prediction.shape == (1, 4, 4)
    labels = torch.tensor([[[1, 0, 1]], [[0, 0, 1]]])  # (K, 1, 3)
    batch = {"image": torch.zeros(1, 3, 1, 3), "mask": labels[None], "name": ["a"]}
    (row,) = examples(batch, {"name": ["a"], "mask": labels[None]})
    assert row.prediction.tolist() == [[1, 0, 2]]
    assert examples(batch, torch.zeros(3)) == []


def test_masks_are_written_under_the_names_of_the_inputs(tmp_path, capsys):
    writer = PredictionWriter(tmp_path / "out", count=3)
    trainer([writer], tmp_path).predict(Toy(), batches(), return_predictions=False)
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.png")) == [
        "contact_sheet.png",
        *(f"sub/a{i}.png" for i in range(4)),
    ]
    mask = pixels(tmp_path / "out/sub/a0.png")  # indices, whatever the palette shows
    assert mask.shape == (9, 7) and set(np.unique(mask)) <= {0, 1}
    assert "4 predictions" in capsys.readouterr().out


def test_values_of_a_mask_survive_the_palette(tmp_path):
    mask = np.arange(256).reshape(16, 16)
    path = write_mask(tmp_path, "scan.v2.tif", mask, tmp_path / "none")
    assert path.name == "scan.v2.png" and np.array_equal(pixels(path), mask)
    assert pixels(path, "RGB")[0, 1].tolist() == [31, 119, 180]


def test_volumes_keep_their_geometry(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5)), affine), tmp_path / "a.nii.gz")
    mask = np.random.default_rng(0).integers(0, 3, (3, 4, 5))
    path = write_mask(tmp_path / "out", "a.nii.gz", mask, tmp_path / "a.nii.gz")
    read = nibabel.load(path)
    assert path.name == "a.nii.gz" and np.array_equal(read.affine, affine)
    assert np.array_equal(np.asarray(read.dataobj), mask)
    assert np.array_equal(np.load(write_mask(tmp_path, "b.npy", mask, tmp_path / "b.npy")), mask)


def test_fields_and_images_are_written(tmp_path):
    writer = PredictionWriter(tmp_path)
    frames = torch.randn(2, 3, 1, 8, 8)
    batch = {"input": torch.zeros(2, 1, 1, 8, 8), "target": torch.zeros(2, 3, 1, 8, 8)}
    for i in range(2):
        writer.write_on_batch_end(None, None, {"prediction": frames + i}, None, batch, i, 0)
    assert np.array_equal(np.load(tmp_path / "window_00003.npy"), (frames[1] + 1).numpy())
    writer = PredictionWriter(tmp_path)
    writer.write_on_batch_end(None, None, torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 4, 5), None, {}, 0, 0)
    assert pixels(tmp_path / "00001.png").tolist() == np.full((4, 5, 3), 255).tolist()
    assert pixels(tmp_path / "00000.png").max() == 0


def test_progress_off_a_terminal_is_a_line_for_each_validation(tmp_path, capsys):
    trainer([Progress()], tmp_path, max_epochs=2, enable_progress_bar=True).fit(Toy(), batches(), batches())
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert len(lines) == 2 and "step 4" in lines[1]


def test_pictures_are_drawn_sparingly_and_the_last_one_always(monkeypatch):
    now, drawn = [0.0], []
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    drawing = Sparingly()

    def draw(number):
        def work():
            now[0] += 1.0
            drawn.append(number)

        return work

    for number, moment in enumerate((0.0, 2.0, 9.5, 10.5, 11.6)):
        now[0] = moment
        drawing(draw(number))
    assert drawn == [0, 3]
    drawing.finish()
    drawing.finish()
    assert drawn == [0, 3, 4]
