import numpy as np
import pytest
from scipy import ndimage

from bids_qsm.numerics.pieces import filled, largest_piece


def masks(kind, rng):
    shapes = {"thin": (1, 30, 40), "flat": (30, 40, 1), "line": (1, 1, 50), "odd": (21, 33, 17)}
    noise = rng.random(shapes.get(kind, (30, 26, 22)))
    if kind == "smooth":
        noise = ndimage.gaussian_filter(noise, 1.5) * 4 - 1.5
    return [noise > share for share in (-9.0, 0.2, 0.4, 0.5, 0.6, 0.8, 9.0)]


@pytest.mark.parametrize("kind", ["noise", "smooth", "thin", "flat", "line", "odd"])
def test_the_largest_piece_is_that_of_all_labels(kind, rng):
    for mask in masks(kind, rng):
        labels, _ = ndimage.label(mask)
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        expected = (labels == sizes.argmax()) & mask
        np.testing.assert_array_equal(largest_piece(mask), expected)
        np.testing.assert_array_equal(
            largest_piece(mask[::-1, :, ::2]), largest_piece(mask[::-1, :, ::2].copy())
        )


@pytest.mark.parametrize("kind", ["noise", "smooth", "thin", "flat", "line", "odd"])
def test_holes_are_those_that_scipy_fills(kind, rng):
    for mask in masks(kind, rng):
        np.testing.assert_array_equal(filled(mask), ndimage.binary_fill_holes(mask))


def test_of_equal_pieces_the_first_is_taken():
    mask = np.zeros((5, 5, 9), np.bool_)
    mask[1, 1, 5:8] = mask[3, 1:4, 2] = True
    expected = np.zeros_like(mask)
    expected[1, 1, 5:8] = True
    np.testing.assert_array_equal(largest_piece(mask), expected)
