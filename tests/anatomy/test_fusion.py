from __future__ import annotations

import numba
import numpy as np
import pytest
from scipy import ndimage

from bids_qsm.anatomy.fusion import fuse_labels

SHAPE = (22, 20, 21)


@pytest.fixture
def scene(rng) -> tuple[np.ndarray, np.ndarray]:
    """Two contrasts of a ball that the first one shows; their labels."""
    x, y, z = np.indices(SHAPE)
    labels = ((x - 11) ** 2 + (y - 10) ** 2 + (z - 10) ** 2 < 30).astype(np.uint8)
    texture = ndimage.gaussian_filter(rng.standard_normal((2, *SHAPE)), (0, 1, 1, 1))
    images = 0.2 * texture
    images[0] += labels
    return images.astype(np.float32), labels


def noisy(images: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(images.shape)
    return (images + 0.05 * noise).astype(np.float32)


def everywhere() -> np.ndarray:
    return np.ones(SHAPE, bool)


def inner(array: np.ndarray, margin: int = 4) -> np.ndarray:
    return array[..., margin:-margin, margin:-margin, margin:-margin]


def naive(target, members, labels, voxel, radius, search, alpha, beta, n_labels):
    """The paper's formulae, one voxel, in float64."""

    def patch(image, at):
        part = image[tuple(slice(i - radius, i + radius + 1) for i in at)].astype(np.float64)
        return (part - part.mean()).ravel() / part.std()

    own = np.stack([patch(c, voxel) for c in target])
    errors, votes = [], []
    for member, label in zip(members, labels, strict=True):
        best = None
        for offset in np.ndindex(*(2 * search + 1,) * 3):
            at = tuple(np.add(voxel, offset) - search)
            theirs = np.stack([patch(c, at) for c in member])
            off = ((own - theirs) ** 2).sum()
            if best is None or off < best[0]:
                best = (off, np.abs(own - theirs).ravel(), label[at])
        errors.append(best[1])
        votes.append(best[2])
    joint = np.array([[np.mean(a * b) for b in errors] for a in errors]) ** beta
    weights = np.linalg.solve(joint + alpha * np.eye(len(joint)), np.ones(len(joint)))
    weights /= weights.sum()
    found = np.zeros(n_labels)
    np.add.at(found, votes, weights)
    found = np.maximum(found, 0)
    return found / found.sum()


def test_like_the_formulae(scene):
    images, labels = scene
    members = np.stack([noisy(np.roll(images, k, axis=1), k + 2) for k in (0, 1, -2)])
    theirs = np.stack([np.roll(labels, k, axis=0) for k in (0, 1, -2)])
    found = fuse_labels(
        images, members, theirs, everywhere(), 2, patch_radius=1, search_radius=1, beta=1.5
    )
    edge = np.argwhere(
        ndimage.binary_dilation(labels, iterations=2) & ~ndimage.binary_erosion(labels)
    )
    for voxel in edge[::29]:
        expected = naive(images, members, theirs, tuple(voxel), 1, 1, 0.1, 1.5, 2)
        np.testing.assert_allclose(found[(slice(None), *voxel)], expected, atol=2e-4)


def test_two_that_err_together_do_not_outvote_one(scene):
    """Majority voting would follow the two; their images tell that they are wrong."""
    images, labels = scene
    wrong = np.roll(images, 5, axis=2)
    members = np.stack([noisy(images, 1), noisy(wrong, 2), noisy(wrong, 3)])
    theirs = np.stack([labels, np.roll(labels, 5, axis=1), np.roll(labels, 5, axis=1)])
    fused = fuse_labels(images, members, theirs, everywhere(), 2, search_radius=1)
    right = inner(fused.argmax(axis=0)) == inner(labels)
    majority = inner((theirs.sum(axis=0) > 1).astype(np.uint8)) == inner(labels)
    assert right.mean() > 0.995
    assert majority.mean() < 0.95


def test_the_search_makes_up_for_a_shift(scene):
    images, labels = scene
    members = np.stack([noisy(np.roll(images, k, axis=1), k + 9) for k in (2, 2)])
    theirs = np.stack([np.roll(labels, 2, axis=0)] * 2)
    for reach, least, most in ((0, 0.0, 0.95), (2, 0.97, 1.0)):
        fused = fuse_labels(
            images, members, theirs, everywhere(), 2, patch_radius=1, search_radius=reach
        )
        assert least <= (inner(fused.argmax(axis=0)) == inner(labels)).mean() <= most


def test_the_second_contrast_decides_where_the_first_is_blind(scene):
    images, labels = scene
    blind = np.zeros_like(images)
    blind[1] = images[0]
    shifted = np.roll(blind, 3, axis=1)
    members = np.stack([noisy(blind, 1), noisy(shifted, 2)])
    theirs = np.stack([labels, np.roll(labels, 3, axis=0)])
    both = fuse_labels(blind, members, theirs, everywhere(), 2, search_radius=1)
    first = fuse_labels(blind[:1], members[:, :1], theirs, everywhere(), 2, search_radius=1)
    assert (inner(both.argmax(axis=0)) == inner(labels)).mean() > 0.995
    assert (inner(first.argmax(axis=0)) == inner(labels)).mean() < 0.99


def test_probabilities_and_threads(scene):
    images, labels = scene
    members = np.stack([noisy(np.roll(images, k, axis=1), k) for k in (0, 1)])
    theirs = np.stack([labels, np.roll(2 * labels, 1, axis=0)])
    region = everywhere()
    region[:, :, :9] = False
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        one = fuse_labels(images, members, theirs, region, 3)
    finally:
        numba.set_num_threads(threads)
    np.testing.assert_array_equal(one, fuse_labels(images, members, theirs, region, 3))
    np.testing.assert_allclose(one.sum(axis=0), 1, atol=1e-6)
    assert (one >= 0).all()
    assert (one[0][~region] == 1).all()
    assert one[1].max() > 0.5 and one[2].max() > 0.5
