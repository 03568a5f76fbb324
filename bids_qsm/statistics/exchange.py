"""Which images may change places, or signs, if there is no effect."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Scheme = Literal["auto", "permute", "flip"]
Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]


def exchanges(
    n_images: int,
    n_permutations: int,
    scheme: Literal["permute", "flip"],
    seed: int,
    blocks: ArrayLike | None = None,
    *,
    as_wholes: bool = False,
) -> tuple[Int32, Int8]:
    """Draw the images' places and signs in each permutation.

    Parameters
    ----------
    n_images, n_permutations : int
    scheme : {"permute", "flip"}
    seed : int
    blocks : array_like, shape (n_images,), optional
        The block of each image.
    as_wholes : bool
        Whether blocks change as wholes: against others of their size with their images in the
        same order, or the sign of all their images; else images change within their block, or
        their own sign.

    Returns
    -------
    places : ndarray of int32, shape (n_permutations, n_images)
        The image that stands in each place.
    signs : ndarray of int8, shape (n_permutations, n_images)

    Raises
    ------
    ValueError
        If the blocks do not fit the images, or leave nothing to exchange.
    """
    groups = _images_of_blocks(n_images, blocks)
    rng = np.random.default_rng(seed)
    places = np.tile(np.arange(n_images, dtype=np.int32), (n_permutations, 1))
    signs = np.ones((n_permutations, n_images), np.int8)
    if scheme == "flip":
        for row in signs:
            if as_wholes:
                for images, sign in zip(groups, rng.integers(0, 2, len(groups)), strict=True):
                    row[images] = 2 * sign - 1
            else:
                row[:] = 2 * rng.integers(0, 2, n_images) - 1
        return places, signs
    units = _same_size(groups) if as_wholes else [images[:, np.newaxis] for images in groups]
    if all(len(unit) < 2 for unit in units):
        raise ValueError(
            "the blocks leave nothing to permute: "
            + ("no two are of one size" if as_wholes else "each holds one image")
            + "; permute them the other way, or leave them out."
        )
    for row in places:
        for unit in units:
            row[unit] = unit[rng.permutation(len(unit))]
    return places, signs


def _images_of_blocks(n_images: int, blocks: ArrayLike | None) -> list[NDArray[np.intp]]:
    if blocks is None:
        return [np.arange(n_images)]
    names = np.asarray(blocks)
    if names.shape != (n_images,):
        raise ValueError(
            f"the blocks have the shape {names.shape}, and there are {n_images} images: "
            "name the block of each image."
        )
    _, number = np.unique(names, return_inverse=True)
    return [np.flatnonzero(number == k) for k in range(number.max() + 1)]


def _same_size(groups: list[NDArray[np.intp]]) -> list[NDArray[np.intp]]:
    """Return the blocks of each size, one in each row."""
    sizes = sorted({len(images) for images in groups})
    return [np.stack([g for g in groups if len(g) == size]) for size in sizes]
