"""Which image goes with which mask, and into which split: from folders, a CSV file, or one .npz file."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from multiresnet.data.stores import list_arrays, open_store

from .reading import ENDINGS, Source, Stacked, stem

__all__ = ["SPLITS", "Pair", "check_folder", "find_images", "find_pairs", "image_files", "some", "split_pairs"]

SPLITS = ("train", "val", "test")
_ALIASES = {"training": "train", "valid": "val", "validation": "val", "testing": "test"} | {s: s for s in SPLITS}


class Pair(NamedTuple):
    """An image, its mask (`None` if there is none) and the image's name: its path below the folder of images."""

    name: str
    image: Source
    mask: Source | None


def find_pairs(root: Path | None, images: str, masks: str, table: Path | None) -> dict[str, list[Pair]]:
    """Pairs by split, or all under "" where the files do not say.

    Layouts: `root/images/*` and `root/masks/*` with equal names up to the ending, at any depth, with `root/train.txt`,
    `root/val.txt`, `root/test.txt` or first folders `train`, `val`, `test` to say the splits; `root/train/images`,
    `root/train/masks`, `root/val/images`, ...; one .npz file with the arrays `images` and `masks`, one entry per image, and
    perhaps `split` and `names`; a CSV file with the columns `image`, `mask` and perhaps `split`.

    Args:
        root: the folder or .npz file; for a table, what its paths are relative to (its own folder if `None`).
        images: name of the folder or array of images.
        masks: name of the folder or array of masks.
        table: the CSV file.

    Raises:
        FileNotFoundError: no such folder or file.
        ValueError: an image without a mask or a mask without an image, two files of one name, nothing at all.
    """
    if table is not None:
        return _from_table(table, root, with_masks=True)
    if root is None:
        raise ValueError("pass root=... (a folder or an .npz file) or table=... (a CSV file)")
    if root.is_file():
        return _from_stack(root, images, masks)
    check_folder(root, "root")
    folders = {_ALIASES[f.name]: f for f in sorted(root.iterdir()) if f.name in _ALIASES and (f / images).is_dir()}
    if folders:
        return {split: _matched(folder / images, folder / masks) for split, folder in folders.items()}
    pairs = _matched(root / images, root / masks)
    lists = {split: root / f"{split}.txt" for split in SPLITS if (root / f"{split}.txt").is_file()}
    if lists:
        return {split: _listed(pairs, file) for split, file in lists.items()}
    first = [pair.name.partition("/")[0] for pair in pairs]
    return _grouped(pairs, first) if set(first) <= set(_ALIASES) else {"": pairs}


def find_images(root: Path | None, images: str, masks: str, table: Path | None) -> list[Pair]:
    """Images to predict: of the table, of the .npz file, `root` itself if it is an image, below `root/images`, or below `root`."""
    if table is not None:
        return [pair for pairs in _from_table(table, root, with_masks=False).values() for pair in pairs]
    if root is None:
        raise ValueError("pass root=... (a folder or a file) or table=... (a CSV file)")
    if root.is_file():
        if root.suffix.lower() == ".npz" and images in _shapes(root):
            return [pair for pairs in _from_stack(root, images, None).values() for pair in pairs]
        return [Pair(root.name, root, None)]
    check_folder(root, "root")
    folder = root / images if (root / images).is_dir() else root
    found = [path for path in image_files(folder) if masks not in path.relative_to(folder).parts[:-1]]
    if not found:
        raise ValueError(f"no image below {str(folder)!r} (looked for {' '.join(ENDINGS)})")
    return [Pair(path.relative_to(folder).as_posix(), path, None) for path in found]


def split_pairs(found: Mapping[str, list[Pair]], fractions: Sequence[float], *, seed: int = 0) -> dict[str, list[Pair]]:
    """Train, val and test: as found, else at random by `fractions`; a missing val is cut from train.

    A split with a positive fraction gets one image at least; with two images, test gets none.

    Examples:
        >>> pairs = [Pair(f"{i}.png", Path(f"{i}.png"), None) for i in range(10)]
        >>> {split: len(part) for split, part in split_pairs({"": pairs}, (0.7, 0.2, 0.1)).items()}
        {'train': 7, 'val': 2, 'test': 1}
    """
    if len(fractions) != 3 or min(fractions) < 0 or fractions[0] == 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"fractions (train, val, test) must be three numbers that sum to 1, got {tuple(fractions)}")
    parts = {split: list(found.get(split, [])) for split in SPLITS}
    if "" in found:
        parts["train"], share = list(found[""]), list(fractions[1:])
    elif not parts["val"] and parts["train"]:
        share = [fractions[1] / (fractions[0] + fractions[1]), 0.0]
    else:
        return parts
    pairs = parts["train"]
    if len(pairs) == 1 and any(share):
        raise ValueError(
            f"one image, {pairs[0].name}, cannot be split: cut it into several, or name the splits (train/, val/)"
        )
    val, test = (max(1, round(len(pairs) * part)) if part else 0 for part in share)
    while val + test >= len(pairs):
        val, test = (val - 1, test) if val > test else (val, test - 1)
    order = [pairs[i] for i in np.random.default_rng(seed).permutation(len(pairs))]
    cuts = {"val": order[:val], "test": order[val : val + test], "train": order[val + test :]}
    return {**parts, **{split: sorted(cuts[split], key=lambda pair: pair.name) for split in SPLITS if cuts[split]}}


# ---- folders ------------------------------------------------------------------------------------------------


def check_folder(folder: Path, role: str) -> None:
    """Raise `FileNotFoundError` unless there is such a folder; says what there is instead."""
    if not folder.is_dir():
        near = folder.parent
        inside = (
            ", ".join(sorted(p.name for p in near.iterdir())[:8]) if near.is_dir() else "nothing: it does not exist"
        )
        raise FileNotFoundError(f"no folder {str(folder)!r} ({role}); {str(near)!r} holds {inside}")


def image_files(folder: Path) -> list[Path]:
    """What looks like an image, at any depth, without hidden files."""
    known = (path for path in folder.rglob("*") if path.name.lower().endswith(ENDINGS) and path.is_file())
    return sorted(path for path in known if not any(p.startswith(".") for p in path.relative_to(folder).parts))


def _by_stem(folder: Path, role: str) -> dict[str, Path]:
    check_folder(folder, role)
    found: dict[str, Path] = {}
    for path in image_files(folder):
        key = stem(path.relative_to(folder).as_posix())
        if key in found:
            raise ValueError(f"{found[key]} and {path} differ in the ending only: keep one, or list pairs in a table")
        found[key] = path
    if not found:
        raise ValueError(f"no file in {str(folder)!r} is an image (looked for {' '.join(ENDINGS)})")
    return found


def _matched(images: Path, masks: Path) -> list[Pair]:
    left, right = _by_stem(images, "images"), _by_stem(masks, "masks")
    for have, lack, what in ((left, right, f"no mask in {masks}"), (right, left, f"no image in {images}")):
        alone = [str(path) for key, path in have.items() if key not in lack]
        if alone:
            raise ValueError(
                f"{some(alone)}: {what} of the same name up to the ending ({len(alone)} of {len(have)} files); "
                "other names go with table=..., a CSV file with the columns image,mask"
            )
    return [Pair(path.relative_to(images).as_posix(), path, right[key]) for key, path in left.items()]


def _listed(pairs: list[Pair], file: Path) -> list[Pair]:
    """The pairs whose names a text file lists, with or without ending."""
    known = {key: pair for pair in pairs for key in (pair.name, stem(pair.name))}
    names = [line.strip() for line in file.read_text().splitlines() if line.strip()]
    if missing := [name for name in names if name not in known]:
        raise ValueError(f"{file} lists {some(missing)}, of which there is no image")
    return [known[name] for name in names]


# ---- one file -----------------------------------------------------------------------------------------------


def _from_table(table: Path, root: Path | None, *, with_masks: bool) -> dict[str, list[Pair]]:
    if not table.is_file():
        raise FileNotFoundError(f"no table {str(table)!r}")
    base = root if root is not None else table.parent
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        columns, rows = list(reader.fieldnames or []), list(reader)
    wanted = ["image", "mask"] if with_masks else ["image"]
    if not set(wanted) <= set(columns) or not rows:
        raise ValueError(
            f"{table} has the columns {', '.join(columns) or 'nothing'} and {len(rows)} rows; "
            f"wanted a first line with {', '.join(wanted)} and perhaps split, then one row per image"
        )
    pairs: dict[str, Pair] = {}
    for line, row in enumerate(rows, 2):
        for column in wanted:
            if not row[column] or not (base / row[column]).is_file():
                raise ValueError(f"{table}, line {line}: no {column} file {row[column]!r} below {str(base)!r}")
        name = _below(row["image"])
        if name in pairs:
            raise ValueError(f"{table}, line {line}: {name} is listed twice")
        pairs[name] = Pair(name, base / row["image"], base / row["mask"] if with_masks else None)
    return _grouped(list(pairs.values()), [row["split"] or "" for row in rows] if "split" in columns else None)


def _from_stack(path: Path, images: str, masks: str | None) -> dict[str, list[Pair]]:
    if path.suffix.lower() != ".npz":
        raise ValueError(f"root={str(path)!r} must be a folder or an .npz file that holds {images!r} and {masks!r}")
    shapes = _shapes(path)
    keys = [images] if masks is None else [images, masks]
    if missing := [key for key in keys if key not in shapes]:
        held = ", ".join(f"{key} {shape}" for key, shape in shapes.items())
        raise ValueError(f"{path} has no array {missing[0]!r}; it holds {held}: name two with images=..., masks=...")
    count = shapes[images][0]
    for key in [*keys, *(k for k in ("split", "names") if k in shapes)]:
        if shapes[key][0] != count:
            raise ValueError(f"{path}: {images} has {count} entries, {key} {shapes[key][0]}")
    with np.load(path, allow_pickle=False) as file:
        names = [_below(str(n)) for n in file["names"]] if "names" in shapes else [f"{i:05d}" for i in range(count)]
        splits = [str(s) for s in file["split"]] if "split" in shapes else None
    pairs = [
        Pair(name, Stacked(path, images, i), None if masks is None else Stacked(path, masks, i))
        for i, name in enumerate(names)
    ]
    return _grouped(pairs, splits)


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    return {key: header.shape for key, header in list_arrays(open_store(path)).items()}


def _grouped(pairs: list[Pair], splits: Iterable[str] | None) -> dict[str, list[Pair]]:
    if splits is None:
        return {"": pairs}
    groups: dict[str, list[Pair]] = {}
    for pair, split in zip(pairs, splits):
        if split.lower() not in _ALIASES:
            raise ValueError(f"{pair.name} is in split {split!r}; wanted one of {', '.join(SPLITS)}")
        groups.setdefault(_ALIASES[split.lower()], []).append(pair)
    return groups


def _below(path: str) -> str:
    """The path without root and "..": what is written under this name stays below the folder that it is written to."""
    return "/".join(part for part in Path(path).parts if part not in ("..", Path(path).anchor))


def some(names: list[str]) -> str:
    """The first three, and how many more."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
