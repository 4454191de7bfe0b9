"""Image and mask move together, by every symmetry of the box equally often, and by nothing else."""

from itertools import permutations, product

import numpy as np
import pytest

from multiresnet.data.images.augment import Augment, random_crop


def coordinates(*space: int) -> tuple[np.ndarray, np.ndarray]:
    """An image whose channels are the coordinates of each pixel, and a mask that numbers the pixels."""
    return np.stack(np.indices(space)), np.arange(np.prod(space)).reshape(space)


def agree(image: np.ndarray, mask: np.ndarray, space: tuple[int, ...]) -> bool:
    """Whether each pixel of the mask still has the number of the coordinates that the image has there."""
    return np.array_equal(np.ravel_multi_index(tuple(image), space), mask)


def outcomes(augment: Augment, *space: int, draws: int = 3000) -> dict[bytes, int]:
    """How often each result occurs."""
    image, mask = coordinates(*space)
    rng, found = np.random.default_rng(0), dict[bytes, int]()
    for _ in range(draws):
        moved, moved_mask = augment.move(rng, image, mask)
        assert agree(moved, moved_mask, space)
        found[moved_mask.tobytes()] = found.get(moved_mask.tobytes(), 0) + 1
    return found


def symmetries(mask: np.ndarray, *, proper: bool) -> set[bytes]:
    """By enumeration: all permutations of axes with all reflections; or those with determinant 1."""
    found = set()
    for order in permutations(range(mask.ndim)):
        for signs in product((1, -1), repeat=mask.ndim):
            if not proper or round(np.linalg.det(np.eye(mask.ndim)[list(order)] * signs)) == 1:
                found.add(mask.transpose(order)[tuple(slice(None, None, s) for s in signs)].tobytes())
    return found


@pytest.mark.parametrize(
    ("space", "flips", "size"), [((4, 4), True, 8), ((4, 4), False, 4), ((3, 3, 3), True, 48), ((3, 3, 3), False, 24)]
)
def test_all_symmetries_equally_often(space: tuple[int, ...], flips: bool, size: int) -> None:
    found = outcomes(Augment(flips=flips), *space)
    wanted = symmetries(coordinates(*space)[1], proper=not flips)
    assert set(found) == wanted and len(wanted) == size
    expected = 3000 / size
    assert max(abs(count - expected) for count in found.values()) < 5 * expected**0.5


def test_quarter_turns_are_those_of_numpy() -> None:
    mask = coordinates(5, 5)[1]
    assert set(outcomes(Augment(flips=False), 5, 5)) == {np.rot90(mask, k).tobytes() for k in range(4)}
    oblong = coordinates(4, 6)[1]
    assert set(outcomes(Augment(flips=False), 4, 6)) == {oblong.tobytes(), np.rot90(oblong, 2).tobytes()}


def test_chosen_axes_only() -> None:
    mask = coordinates(4, 4)[1]
    found = outcomes(Augment(flips=(False, True), quarter_turns=False), 4, 4)
    assert set(found) == {mask.tobytes(), mask[:, ::-1].tobytes()}
    slices = coordinates(3, 4, 4)[1]
    found = outcomes(Augment(flips=False, quarter_turns=(False, True, True)), 3, 4, 4)
    assert set(found) == {np.rot90(slices, k, axes=(1, 2)).tobytes() for k in range(4)}
    assert set(outcomes(Augment(flips=False, quarter_turns=False), 4, 4, draws=50)) == {mask.tobytes()}
    with pytest.raises(ValueError, match=r"flips=\(True,\) must be one value, or one for each of 2 axes"):
        outcomes(Augment(flips=(True,)), 4, 4)


def test_bands_of_a_mask_move_alike() -> None:
    image, mask = coordinates(4, 4)
    for seed in range(20):
        moved, bands = Augment().move(np.random.default_rng(seed), image, np.stack([mask, mask + 100]))
        assert agree(moved, bands[0], (4, 4)) and agree(moved, bands[1] - 100, (4, 4))


def test_crops_are_windows_and_every_window_occurs() -> None:
    image, mask = coordinates(5, 7)
    corners = set()
    for seed in range(300):
        window, part = random_crop(np.random.default_rng(seed), image, mask, (3, 4), fill=None)
        top, left = window[:, 0, 0]
        np.testing.assert_array_equal(part, mask[top : top + 3, left : left + 4])
        assert agree(window, part, (5, 7))
        corners.add((top, left))
    assert corners == set(product(range(3), range(4)))


def test_crops_of_volumes_per_axis() -> None:
    image, mask = coordinates(5, 6, 7)
    window, part = random_crop(np.random.default_rng(0), image, mask, (5, 2, 9), fill=None)
    assert window.shape == (3, 5, 2, 9) and agree(window, part, (5, 6, 7))


def test_small_images_are_padded_by_reflection_and_masks_by_the_fill() -> None:
    image, mask = coordinates(3, 9)
    tops = set()
    for seed in range(50):
        window, part = random_crop(np.random.default_rng(seed), image, mask, (8, 9), fill=-1)
        top = int(np.flatnonzero((part >= 0).all(1))[0])
        reflected = np.pad(image, [(0, 0), (top, 5 - top), (0, 0)], mode="reflect")
        np.testing.assert_array_equal(window, reflected)
        np.testing.assert_array_equal(part[top : top + 3], mask)
        assert (np.delete(part, range(top, top + 3), axis=0) == -1).all()
        tops.add(top)
        window, part = random_crop(np.random.default_rng(seed), image, mask, (8, 9), fill=None)
        assert agree(window, part, (3, 9))
    assert tops == set(range(6))


def test_a_single_pixel_can_be_padded() -> None:
    window, part = random_crop(np.random.default_rng(0), np.full((2, 1, 1), 7), np.ones((1, 1), int), (3, 4), fill=None)
    assert (window == 7).all() and (part == 1).all() and part.shape == (3, 4)


def test_brightness_contrast_and_noise_have_their_sizes() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, 50, 60)).astype(np.float32)
    mean, std = np.array([1.0, -2.0]), np.array([0.5, 4.0])

    shifts = [
        (Augment(brightness=0.3).recolour(rng, image, mean, std) - image) / std[:, None, None] for _ in range(200)
    ]
    amounts = np.array([shift.mean() for shift in shifts])
    assert max(shift.std() for shift in shifts) < 1e-6
    assert 0.25 < np.abs(amounts).max() <= 0.3 + 1e-6 and amounts.min() < -0.25

    factors = []
    for _ in range(200):
        stretched = Augment(contrast=0.5).recolour(rng, image, mean, std)
        ratio = (stretched - mean[:, None, None]) / (image - mean[:, None, None])
        factors.append(np.median(ratio))
        np.testing.assert_allclose(
            stretched - mean[:, None, None], factors[-1] * (image - mean[:, None, None]), atol=1e-4
        )
    assert 1 / 1.5 - 1e-5 <= min(factors) < 0.72 and 1.4 < max(factors) <= 1.5 + 1e-5

    noise = Augment(noise=0.1).recolour(rng, image, mean, std) - image
    np.testing.assert_allclose(noise.std((1, 2)), 0.1 * std, rtol=0.05)
    assert Augment().recolour(rng, image, mean, std) is image


@pytest.mark.parametrize("name", ["brightness", "contrast", "noise"])
def test_negative_amounts_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be >= 0, got -1"):
        Augment(**{name: -1})
