"""Which files belong together, in every layout, and what is said where they do not."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from multiresnet.data.images.pairs import Pair, Stacked, find_images, find_pairs, split_pairs


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def find(root: Path | None, table: Path | None = None) -> dict[str, list[Pair]]:
    return find_pairs(root, "images", "masks", table)


def names(found: dict[str, list[Pair]]) -> dict[str, list[str]]:
    return {split: [pair.name for pair in pairs] for split, pairs in found.items()}


def test_folders_with_equal_stems_at_any_depth(tmp_path: Path) -> None:
    touch(tmp_path / "images" / "b.jpg", tmp_path / "masks" / "b.png")
    touch(tmp_path / "images" / "x" / "a.c.nii.gz", tmp_path / "masks" / "x" / "a.c.npy")
    touch(tmp_path / "images" / "notes.txt", tmp_path / "images" / ".hidden.png", tmp_path / "masks" / ".x" / "a.png")
    found = find(tmp_path)
    assert names(found) == {"": ["b.jpg", "x/a.c.nii.gz"]}
    assert [pair.mask for pair in found[""]] == [tmp_path / "masks" / "b.png", tmp_path / "masks" / "x" / "a.c.npy"]


@pytest.mark.parametrize("inside", [False, True])
def test_folders_of_splits(tmp_path: Path, inside: bool) -> None:
    for split in ("train", "validation", "test"):
        for kind in ("images", "masks"):
            touch(tmp_path / (f"{kind}/{split}" if inside else f"{split}/{kind}") / f"{split[0]}.png")
    found = names(find(tmp_path))
    prefix = "{}/" if inside else ""
    assert found == {
        "train": [prefix.format("train") + "t.png"],
        "val": [prefix.format("validation") + "v.png"],
        "test": [prefix.format("test") + "t.png"],
    }


def test_lists_of_files(tmp_path: Path) -> None:
    for name in "abcd":
        touch(tmp_path / "images" / f"{name}.png", tmp_path / "masks" / f"{name}.tif")
    (tmp_path / "train.txt").write_text("c\na.png\n\n")
    (tmp_path / "val.txt").write_text("b")
    assert names(find(tmp_path)) == {"train": ["c.png", "a.png"], "val": ["b.png"]}
    (tmp_path / "val.txt").write_text("b\ne\n")
    with pytest.raises(ValueError, match=r"val\.txt lists e, of which there is no image"):
        find(tmp_path)


def test_table(tmp_path: Path) -> None:
    touch(tmp_path / "a.png", tmp_path / "sub" / "b.png", tmp_path / "m.png", tmp_path / "n.png")
    table = tmp_path / "list.csv"
    table.write_text("image, mask, split\na.png, m.png, train\nsub/b.png, n.png, Valid\n")
    found = find(None, table)
    assert names(found) == {"train": ["a.png"], "val": ["sub/b.png"]}
    assert found["val"][0] == Pair("sub/b.png", tmp_path / "sub" / "b.png", tmp_path / "n.png")
    table.write_text("mask,image\nm.png,a.png\n")
    assert names(find(tmp_path, table)) == {"": ["a.png"]}
    assert find_images(None, "images", "masks", table)[0].mask is None


def test_names_stay_below_the_folder_they_are_written_to(tmp_path: Path) -> None:
    touch(tmp_path / "a.png", tmp_path / "lists" / "b.png")
    table = tmp_path / "lists" / "list.csv"
    table.write_text(f"image\n./../a.png\n{tmp_path / 'lists' / 'b.png'}\n")
    first, second = find_images(None, "images", "masks", table)
    assert first.name == "a.png" and isinstance(first.image, Path) and first.image.samefile(tmp_path / "a.png")
    assert not Path(second.name).is_absolute() and second.name.endswith("lists/b.png")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png,m.png\n", "has the columns a.png, m.png and 0 rows; wanted a first line with image, mask"),
        ("image,mask\n", "0 rows"),
        ("", "the columns nothing"),
        ("image,mask\na.png,none.png\n", "line 2: no mask file 'none.png'"),
        ("image,mask\na.png,\n", "line 2: no mask file ''"),
        ("image,mask\na.png,m.png\nb.png,m.png\n", "line 3: no image file 'b.png'"),
        ("image,mask\na.png,m.png\na.png,m.png\n", "line 3: a.png is listed twice"),
        ("image,mask,split\na.png,m.png,dev\n", "a.png is in split 'dev'; wanted one of train, val, test"),
    ],
)
def test_wrong_tables(tmp_path: Path, text: str, message: str) -> None:
    touch(tmp_path / "a.png", tmp_path / "m.png")
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        find(None, tmp_path / "list.csv")


def test_npz_of_all_images(tmp_path: Path) -> None:
    path = tmp_path / "all.npz"
    images, masks = np.zeros((3, 4, 5), np.uint8), np.zeros((3, 4, 5), bool)
    np.savez(path, images=images, masks=masks)
    found = find(path)
    assert found[""][2] == Pair("00002", Stacked(path, "images", 2), Stacked(path, "masks", 2))
    np.savez(path, images=images, masks=masks, names=["a", "b", "c"], split=["train", "test", "train"])
    assert names(find(path)) == {"train": ["a", "c"], "test": ["b"]}
    assert [pair.name for pair in find_images(path, "images", "masks", None)] == ["a", "c", "b"]
    np.savez(path, images=images, masks=masks[:2])
    with pytest.raises(ValueError, match=r"images has 3 entries, masks 2"):
        find(path)
    with pytest.raises(ValueError, match=r"no array 'x'; it holds images \(3, 4, 5\), masks"):
        find_pairs(path, "x", "y", None)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"all\.npz"):
        find(path)


def add(*names: str) -> Callable[[Path], None]:
    return lambda root: touch(*(root / name for name in names))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (add("image/a.png"), FileNotFoundError, r"images' \(images\); .* holds image$"),
        (add("images/a.png"), FileNotFoundError, r"masks' \(masks\)"),
        (add("images/a.txt", "masks/a.png"), ValueError, r"no file in .*images' is an image \(looked for \.png"),
        (
            add("images/a.png", "images/b.png", "masks/b.png"),
            ValueError,
            r"images.a\.png: no mask in .*\(1 of 2 files\)",
        ),
        (add("images/a.png", "masks/a.png", "masks/b.png"), ValueError, r"masks.b\.png: no image in .*image,mask"),
        (
            add("images/a.png", "images/a.jpg", "masks/a.png"),
            ValueError,
            r"a\.jpg and .*a\.png differ in the ending only",
        ),
    ],
)
def test_wrong_folders(tmp_path: Path, make: Callable[[Path], None], error: type[Exception], message: str) -> None:
    make(tmp_path)
    with pytest.raises(error, match=message):
        find(tmp_path)


def test_no_such_root(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere' \(root\)"):
        find(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"pass root=.*or table="):
        find(None)
    touch(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"must be a folder or an \.npz file"):
        find(tmp_path / "a.png")


def test_images_to_predict(tmp_path: Path) -> None:
    touch(tmp_path / "b.png", tmp_path / "deep" / "er" / "a.tif", tmp_path / "masks" / "b.png", tmp_path / "x.txt")

    def found(root: Path) -> list[str]:
        return [pair.name for pair in find_images(root, "images", "masks", None)]

    assert found(tmp_path) == ["b.png", "deep/er/a.tif"]
    assert found(tmp_path / "b.png") == ["b.png"]
    touch(tmp_path / "images" / "only.png", tmp_path / "images" / "only.jpg")
    assert found(tmp_path) == ["only.jpg", "only.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no image below .*empty'"):
        found(tmp_path / "empty")


def pairs(count: int) -> list[Pair]:
    return [Pair(f"{i:02d}.png", Path(f"{i:02d}.png"), None) for i in range(count)]


@pytest.mark.parametrize(
    ("count", "fractions", "sizes"),
    [
        (10, (0.8, 0.1, 0.1), (8, 1, 1)),
        (100, (0.7, 0.2, 0.1), (70, 20, 10)),
        (3, (0.8, 0.1, 0.1), (1, 1, 1)),
        (2, (0.8, 0.1, 0.1), (1, 1, 0)),
        (5, (0.9, 0.1, 0.0), (4, 1, 0)),
        (1, (1.0, 0.0, 0.0), (1, 0, 0)),
    ],
)
def test_random_split(count: int, fractions: tuple[float, float, float], sizes: tuple[int, int, int]) -> None:
    split = split_pairs({"": pairs(count)}, fractions, seed=1)
    assert tuple(len(split[name]) for name in ("train", "val", "test")) == sizes
    assert sorted(split["train"] + split["val"] + split["test"]) == pairs(count)
    assert split == split_pairs({"": pairs(count)}, fractions, seed=1)
    assert count < 10 or split != split_pairs({"": pairs(count)}, fractions, seed=2)


def test_given_splits_stay_and_a_missing_validation_is_cut_from_training() -> None:
    given = {"train": pairs(6)[:3], "val": pairs(6)[3:4], "test": pairs(6)[4:]}
    assert split_pairs(given, (0.8, 0.1, 0.1)) == given
    cut = split_pairs({"train": pairs(10), "test": pairs(12)[10:]}, (0.6, 0.2, 0.2))
    assert {name: len(part) for name, part in cut.items()} == {"train": 8, "val": 2, "test": 2}
    assert sorted(cut["train"] + cut["val"]) == pairs(10)
    assert split_pairs({"test": pairs(2)}, (0.8, 0.1, 0.1)) == {"train": [], "val": [], "test": pairs(2)}


def test_impossible_splits() -> None:
    with pytest.raises(ValueError, match=r"one image, 00\.png, cannot be split"):
        split_pairs({"": pairs(1)}, (0.8, 0.1, 0.1))
    for fractions in [(0.5, 0.5), (0.5, 0.5, 0.5), (0.0, 0.5, 0.5), (1.2, -0.1, -0.1)]:
        with pytest.raises(ValueError, match="must be three numbers that sum to 1"):
            split_pairs({"": pairs(9)}, fractions)
