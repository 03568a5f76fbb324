from __future__ import annotations

import numpy as np
import pytest
from nilearn.mass_univariate._utils import calculate_tfce
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, generate_binary_structure, label

from bids_qsm.statistics.tfce import tfce

STRUCTURES = {6: 1, 18: 2, 26: 3}


def smooth(shape: tuple[int, int, int], seed: int = 1) -> NDArray[np.float32]:
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.0)
    return (2 * noise / noise.std()).astype(np.float32)


def ragged(shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    mask = gaussian_filter(np.random.default_rng(9).standard_normal(shape), 1.5) > -0.1
    mask[0] = mask[-1] = True  # touches the border
    return mask


def naive(
    volume: NDArray, mask: NDArray, connectivity: int, extent_power: float, height_power: float
) -> NDArray[np.float64]:
    """The definition: extents do not change between the heights that occur."""
    structure = generate_binary_structure(3, STRUCTURES[connectivity])
    enhanced = np.zeros(volume.shape)
    for sign in (1, -1):
        heights = np.where(mask, sign * volume.astype(np.float64), 0)
        bottom = 0.0
        for top in np.unique(heights[heights > 0]):
            clusters, _ = label(heights >= top, structure)
            extents = np.bincount(clusters.ravel())[clusters].astype(float)
            power = height_power + 1
            piece = extents**extent_power * (top**power - bottom**power) / power
            enhanced += sign * np.where(clusters > 0, piece, 0)
            bottom = top
    return enhanced[mask]


@pytest.mark.parametrize("connectivity", [6, 18, 26])
@pytest.mark.parametrize(("extent_power", "height_power"), [(0.5, 2.0), (0.6, 1.0)])
def test_is_the_integral_of_its_definition(
    connectivity: int, extent_power: float, height_power: float
) -> None:
    volume, mask = smooth((9, 11, 7)), ragged((9, 11, 7))
    found = tfce(
        volume[mask],
        mask,
        extent_power=extent_power,
        height_power=height_power,
        connectivity=connectivity,
    )
    expected = naive(volume, mask, connectivity, extent_power, height_power)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_block_has_the_analytic_value() -> None:
    mask = np.ones((6, 6, 6), np.bool_)
    volume = np.zeros((6, 6, 6), np.float32)
    volume[1:4, 1:5, 2:4] = -3.0
    found = tfce(volume[mask], mask).reshape(mask.shape)
    assert found[2, 2, 2] == pytest.approx(-np.sqrt(24) * 3**3 / 3, rel=1e-6)
    assert not found[volume == 0].any()


def test_equal_heights_are_one_plateau() -> None:
    volume = np.round(smooth((10, 9, 8)))  # many ties
    mask = np.ones(volume.shape, np.bool_)
    found = tfce(volume[mask], mask)
    np.testing.assert_allclose(found, naive(volume, mask, 6, 0.5, 2.0), rtol=1e-5)


@pytest.mark.parametrize("connectivity", [6, 26])
@pytest.mark.parametrize("n_steps", [40, 100])
def test_steps_give_what_nilearn_gives(connectivity: int, n_steps: int) -> None:
    volume, mask = smooth((14, 12, 10)), ragged((14, 12, 10))
    volume = np.where(mask, volume, np.float32(0)).astype(np.float64)
    step = np.abs(volume).max() / n_steps
    structure = generate_binary_structure(3, STRUCTURES[connectivity])
    theirs = calculate_tfce(volume[..., None], structure, dh=step)[..., 0][mask]
    ours = tfce(volume[mask], mask, connectivity=connectivity, step=step)
    np.testing.assert_allclose(ours / step, theirs, rtol=2e-5, atol=1e-4)


def test_steps_approach_the_integral_at_the_stated_rate() -> None:
    volume = smooth((16, 16, 16))
    mask = np.ones(volume.shape, np.bool_)
    exact = tfce(volume[mask], mask)
    top = np.argsort(-np.abs(exact))[:20]
    high = float(np.abs(volume).max())
    errors = [
        np.abs(tfce(volume[mask], mask, step=high / n)[top] / exact[top] - 1).max()
        for n in (100, 1000)
    ]
    assert errors[0] < 0.03
    assert errors[1] < 0.003


def test_turning_and_scaling_the_volume_turns_and_scales_the_result() -> None:
    volume, mask = smooth((8, 9, 10)), ragged((8, 9, 10))
    found = np.zeros(mask.shape)
    found[mask] = tfce(volume[mask], mask)
    turned_volume, turned_mask = volume[::-1].transpose(2, 0, 1), mask[::-1].transpose(2, 0, 1)
    turned = tfce(turned_volume[turned_mask], turned_mask)
    np.testing.assert_allclose(turned, found[::-1].transpose(2, 0, 1)[turned_mask], rtol=1e-5)
    np.testing.assert_allclose(tfce(-2 * volume[mask], mask), -8 * found[mask], rtol=1e-5)


def test_what_is_not_finite_counts_as_nothing() -> None:
    volume = smooth((6, 6, 6))
    mask = np.ones(volume.shape, np.bool_)
    holed, zeroed = volume.copy(), volume.copy()
    holed[2, 3, 1], holed[4, 4, 4] = np.nan, np.inf
    zeroed[2, 3, 1] = zeroed[4, 4, 4] = 0
    np.testing.assert_array_equal(tfce(holed[mask], mask), tfce(zeroed[mask], mask))


def test_bad_input_is_refused_in_a_sentence() -> None:
    mask = np.ones((3, 3, 3), np.bool_)
    with pytest.raises(ValueError, match="27 voxels"):
        tfce(np.zeros(5), mask)
    with pytest.raises(ValueError, match="6, 18 or 26, and is 8"):
        tfce(np.zeros(27), mask, connectivity=8)
    with pytest.raises(ValueError, match="must be 3D"):
        tfce(np.zeros(9), np.ones((3, 3), np.bool_))
    with pytest.raises(ValueError, match="height power and a step above 0"):
        tfce(np.zeros(27), mask, step=0)
