"""What is read from a file is what another library wrote into it."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multiresnet.data.images.reading import check_finite, read_image, read_mask, scaled, with_channels

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 9), np.uint8)
RGB = RNG.integers(0, 256, (6, 9, 3), np.uint8)
ALPHA = RNG.integers(0, 256, (6, 9, 1), np.uint8)
DEEP = RNG.integers(0, 65536, (6, 9), np.uint16)
FLOAT = RNG.normal(size=(6, 9)).astype(np.float32)
BANDS = RNG.normal(size=(7, 6, 9)).astype(np.float32)
VOLUME = RNG.integers(0, 256, (5, 6, 9), np.uint8)


def channels_first(image: np.ndarray) -> np.ndarray:
    return np.moveaxis(image, -1, 0)


@pytest.mark.parametrize(
    ("name", "stored", "wanted"),
    [
        ("a.png", GREY, GREY[None]),
        ("a.PNG", RGB, channels_first(RGB)),
        ("a.png", np.concatenate([RGB, ALPHA], -1), channels_first(RGB)),
        ("a.png", np.concatenate([GREY[..., None], ALPHA], -1), GREY[None]),
        ("a.png", DEEP, DEEP[None]),
        ("a.png", GREY > 99, GREY[None] > 99),
        ("a.tif", GREY > 99, GREY[None] > 99),
        ("a.bmp", RGB, channels_first(RGB)),
        ("a.tif", GREY, GREY[None]),
        ("a.tiff", RGB, channels_first(RGB)),
        ("a.tif", DEEP, DEEP[None]),
        ("a.tif", FLOAT, FLOAT[None]),
    ],
)
def test_pictures_written_by_pillow(tmp_path: Path, name: str, stored: np.ndarray, wanted: np.ndarray) -> None:
    Image.fromarray(stored).save(tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.dtype == wanted.dtype
    np.testing.assert_array_equal(image, wanted)
    assert image.tobytes() == wanted.tobytes()  # truth values are bytes of 0 and 1


def test_webp_and_jpeg_as_pillow_decodes_them(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.webp", lossless=True)
    np.testing.assert_array_equal(read_image(tmp_path / "a.webp"), channels_first(RGB))
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "a.jpeg", quality=95)
    wanted = np.asarray(Image.open(tmp_path / "a.jpeg").convert("RGB"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpeg"), channels_first(wanted))


def test_palette_is_colours_in_an_image_and_indices_in_a_mask(tmp_path: Path) -> None:
    indices = RNG.integers(0, 3, (6, 9), np.uint8)
    picture = Image.fromarray(indices).convert("P")
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), indices)
    colours = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]], np.uint8)[indices]
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), channels_first(colours))


@pytest.mark.parametrize("read", [read_image, read_mask])
@pytest.mark.parametrize(
    ("orientation", "upright"), [(3, lambda a: np.rot90(a, 2)), (6, lambda a: np.rot90(a, -1)), (4, np.flipud)]
)
def test_orientation_tag_is_honoured(
    tmp_path: Path, orientation: int, upright: Callable[[np.ndarray], np.ndarray], read: Callable[..., np.ndarray]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(GREY).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read(tmp_path / "a.png").squeeze(), upright(GREY))


@pytest.mark.parametrize(
    ("stored", "options", "wanted"),
    [
        (RGB.astype(np.uint16) * 257, {"photometric": "rgb"}, channels_first(RGB).astype(np.uint16) * 257),
        (channels_first(RGB), {"photometric": "rgb", "planarconfig": "separate"}, channels_first(RGB)),
        (
            np.concatenate([RGB, ALPHA], -1),
            {"photometric": "rgb", "extrasamples": [0]},
            channels_first(np.concatenate([RGB, ALPHA], -1)),
        ),
        (channels_first(BANDS).transpose(1, 2, 0), {"planarconfig": "contig", "photometric": "minisblack"}, None),
        (BANDS, {"planarconfig": "separate", "photometric": "minisblack"}, BANDS),
        (FLOAT.astype(np.float64), {}, FLOAT[None].astype(np.float64)),
        (DEEP.astype(np.int16), {}, DEEP[None].astype(np.int16)),
        (DEEP, {"byteorder": ">"}, DEEP[None]),
    ],
)
def test_tiff_beyond_pillow(tmp_path: Path, stored: np.ndarray, options: dict, wanted: np.ndarray | None) -> None:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", stored, **options)
    image = read_image(tmp_path / "a.tif")
    wanted = channels_first(stored) if wanted is None else wanted
    assert image.dtype == wanted.dtype and image.dtype.isnative
    np.testing.assert_array_equal(image, wanted)


@pytest.mark.parametrize("imagej", [False, True])
def test_pages_of_a_tiff_are_slices_or_bands(tmp_path: Path, imagej: bool) -> None:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", VOLUME, imagej=imagej)
    for spatial_dims in (None, 3):
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif", spatial_dims=spatial_dims), VOLUME[None])
        np.testing.assert_array_equal(read_mask(tmp_path / "a.tif", spatial_dims=spatial_dims), VOLUME)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", spatial_dims=2), VOLUME)


@pytest.mark.parametrize(
    ("stored", "spatial_dims", "wanted"),
    [
        (GREY, None, GREY[None]),
        (RGB, None, channels_first(RGB)),
        (channels_first(RGB), None, channels_first(RGB)),
        (VOLUME, None, VOLUME[None]),
        (VOLUME, 2, VOLUME),
        (np.moveaxis(VOLUME, 0, -1), 2, VOLUME),
        (VOLUME[:2], 3, VOLUME[None, :2]),
        (VOLUME[None], None, VOLUME[None]),
        (VOLUME[..., None], 3, VOLUME[None]),
        (FLOAT.astype(">f4"), None, FLOAT[None]),
    ],
)
@pytest.mark.parametrize("ending", [".npy", ".npz"])
def test_bare_arrays(
    tmp_path: Path, stored: np.ndarray, spatial_dims: int | None, wanted: np.ndarray, ending: str
) -> None:
    np.save(tmp_path / "a.npy", stored)
    np.savez(tmp_path / "a.npz", stored)
    image = read_image(tmp_path / f"a{ending}", spatial_dims=spatial_dims)
    assert image.dtype.isnative
    np.testing.assert_array_equal(image, wanted)


def test_npz_with_image_and_mask(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=RGB, mask=GREY)
    np.testing.assert_array_equal(read_image(tmp_path / "a.npz"), channels_first(RGB))
    np.testing.assert_array_equal(read_mask(tmp_path / "a.npz"), GREY)
    np.savez(tmp_path / "b.npz", first=RGB, second=GREY)
    with pytest.raises(ValueError, match=r"b\.npz.*first, second.*'image'"):
        read_image(tmp_path / "b.npz")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_nifti(tmp_path: Path, ending: str) -> None:
    nibabel = pytest.importorskip("nibabel")
    spacing = np.diag([0.5, 1.0, 3.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(VOLUME, spacing), tmp_path / f"a{ending}")
    np.testing.assert_array_equal(read_image(tmp_path / f"a{ending}"), VOLUME[None])
    np.testing.assert_array_equal(read_mask(tmp_path / f"a{ending}"), VOLUME)
    several = np.stack([VOLUME, 255 - VOLUME], -1)
    nibabel.save(nibabel.Nifti1Image(several, spacing), tmp_path / f"b{ending}")
    np.testing.assert_array_equal(read_image(tmp_path / f"b{ending}"), channels_first(several))


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif", ".npy", ".npz", ".nii.gz", ".nii", ".bmp"])
def test_a_file_cut_short_is_named(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    large = RNG.integers(0, 256, (64, 64), np.uint8)
    if ending == ".npy":
        np.save(path, large)
    elif ending == ".npz":
        np.savez(path, large)
    elif ending.startswith(".nii"):
        nibabel = pytest.importorskip("nibabel")
        nibabel.save(nibabel.Nifti1Image(np.stack([large] * 9), np.eye(4)), path)
    else:
        Image.fromarray(large).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"cannot read .*a\{ending}"):
        read_image(path)


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        read_image(tmp_path / "none.png")
    (tmp_path / "a.txt").write_text("no image")
    with pytest.raises(ValueError, match=r"format of .*a\.txt.*\.png"):
        read_image(tmp_path / "a.txt")
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(ValueError, match=r"cannot read .*a\.png"):
        read_image(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", np.zeros((3, 4), complex))
    with pytest.raises(ValueError, match=r"a\.npy holds complex128"):
        read_image(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.zeros((2, 3, 4, 5, 6)))
    with pytest.raises(ValueError, match=r"b\.npy has shape \(2, 3, 4, 5, 6\)"):
        read_image(tmp_path / "b.npy")
    with pytest.raises(ValueError, match=r"shape \(6, 9\), wanted spatial_dims=3"):
        np.save(tmp_path / "c.npy", GREY)
        read_image(tmp_path / "c.npy", spatial_dims=3)
    np.save(tmp_path / "d.npy", np.zeros((0, 4)))
    with pytest.raises(ValueError, match=r"d\.npy is empty"):
        read_image(tmp_path / "d.npy")


@pytest.mark.parametrize(
    ("name", "module", "extra"), [("a.nii.gz", "nibabel", "medical"), ("a.tif", "tifffile", "segmentation")]
)
def test_missing_reader_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str, extra: str
) -> None:
    (tmp_path / name).write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"multiresnet\[{extra}\]"):
        read_image(tmp_path / name)


def test_scaling_is_by_the_range_of_the_type() -> None:
    assert scaled(np.array([0, 255], np.uint8)).tolist() == [0, 1]
    assert scaled(np.array([0, 65535], np.uint16)).tolist() == [0, 1]
    assert scaled(np.array([False, True])).tolist() == [0, 1]
    for kind in (np.int16, np.float64, np.float32):
        values = scaled(np.array([-7, 300], kind))
        assert values.dtype == np.float32 and values.tolist() == [-7, 300]


def test_grey_and_rgb_turn_into_each_other() -> None:
    rgb = channels_first(RGB).astype(np.float32)
    grey = with_channels(rgb, 1, "a.png")
    wanted = np.asarray(Image.fromarray(RGB).convert("L"), np.float32)  # ITU-R 601, rounded
    assert np.abs(grey[0] - wanted).max() <= 1
    np.testing.assert_array_equal(with_channels(grey, 3, "a.png"), np.concatenate([grey] * 3))
    assert with_channels(rgb, None, "a.png") is rgb
    with pytest.raises(ValueError, match=r"a\.npy has 7 channels, wanted 3"):
        with_channels(BANDS, 3, "a.npy")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_place_of_a_value_that_is_not_finite(value: float) -> None:
    image = BANDS.copy()
    image[2, 3, 4] = value
    with pytest.raises(ValueError, match=rf"a\.npy holds {value} at .*\(2, 3, 4\)"):
        check_finite(image, "a.npy")
    check_finite(BANDS, "a.npy")
