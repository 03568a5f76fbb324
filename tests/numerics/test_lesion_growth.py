from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from bids_qsm.numerics.lesion_growth import grow_from_points

VOXEL_MM = (1.0, 1.2, 1.5)
SHAPE = (48, 41, 33)
CENTRE = (24, 20, 16)


def radius_mm(centre=CENTRE, voxel_mm=VOXEL_MM) -> np.ndarray:
    axes = np.ogrid[tuple(slice(n) for n in SHAPE)]
    return np.sqrt(sum(((a - c) * v) ** 2 for a, c, v in zip(axes, centre, voxel_mm, strict=True)))


@pytest.fixture
def ball() -> np.ndarray:
    return radius_mm() <= 5.0


def blurred(image: np.ndarray, sigma_mm: float = 0.8) -> np.ndarray:
    smooth = ndimage.gaussian_filter(image, [sigma_mm / v for v in VOXEL_MM])
    return smooth.astype(np.float32)


def test_half_of_the_contrast_is_the_edge_whatever_blurs_it(ball):
    everywhere = np.ones(SHAPE, bool)
    for sigma_mm in (0.4, 0.8):
        image = blurred(80.0 + 50.0 * ball, sigma_mm)
        grown = grow_from_points(image, [(25, 21, 15)], everywhere, VOXEL_MM)
        region = grown.labels == 1
        assert abs(region.sum() / ball.sum() - 1) < 0.1
        assert 2 * (region & ball).sum() / (region.sum() + ball.sum()) > 0.95
        assert grown.fractions == (0.5,) and grown.warnings == ()


def test_scale_and_offset_of_the_image_do_not_matter(ball, rng):
    image = blurred(80.0 + 50.0 * ball) + rng.normal(0, 2, SHAPE).astype(np.float32)
    everywhere = np.ones(SHAPE, bool)
    points = np.array([(24.2, 20.4, 16.3)])
    region = grow_from_points(image, points, everywhere, VOXEL_MM).labels
    scaled = grow_from_points(4 * image, points, everywhere, VOXEL_MM).labels
    np.testing.assert_array_equal(region, scaled)
    turned = [a.transpose(2, 0, 1)[::-1].copy() for a in (image, everywhere)]
    flipped = np.array([(SHAPE[2] - 1 - 16.3, 24.2, 20.4)])
    other = grow_from_points(turned[0], flipped, turned[1], (1.5, 1.0, 1.2)).labels
    np.testing.assert_array_equal(other, region.transpose(2, 0, 1)[::-1])


def test_two_lesions_stay_apart_and_the_first_point_wins(ball):
    second = radius_mm((24, 35, 16)) <= 4.0
    image = blurred(80.0 + 50.0 * ball + 30.0 * second)
    points = [(24, 20, 16), (24, 35, 16), (25, 20, 16)]
    labels = grow_from_points(image, points, np.ones(SHAPE, bool), VOXEL_MM).labels
    assert labels.dtype == np.int16
    assert labels[24, 20, 16] == 1 and labels[24, 35, 16] == 2
    assert not (labels == 3).any()  # all of it belongs to the first point


def test_a_leak_into_a_bright_sheet_is_stopped_and_said(ball):
    sheet = np.abs(np.arange(SHAPE[1])[None, :, None] - 24) <= 1
    image = blurred(80.0 + 50.0 * ball + 30.0 * (sheet & ~ball))
    grown = grow_from_points(
        image, [CENTRE], np.ones(SHAPE, bool), VOXEL_MM, white=~sheet & ~ball, reach_mm=8.0
    )
    assert "point 1" in grown.warnings[0] and grown.fractions[0] > 0.55
    region = grown.labels == 1
    assert 2 * (region & ball).sum() / (region.sum() + ball.sum()) > 0.8
    assert radius_mm()[region].max() < 8.0


def test_a_point_on_plain_tissue_grows_nothing_and_is_said(ball):
    image = blurred(80.0 + 50.0 * ball)
    grown = grow_from_points(image, [(4, 4, 4), CENTRE], np.ones(SHAPE, bool), VOXEL_MM)
    assert set(np.unique(grown.labels)) == {0, 2}
    assert np.isnan(grown.fractions[0]) and "Point 1" in grown.warnings[0]
    outside = ~(radius_mm() < 12)
    none = grow_from_points(image, [CENTRE], outside, VOXEL_MM)
    assert not none.labels.any()


@pytest.mark.parametrize(
    ("points", "message"),
    [(np.empty((0, 3)), "1 to"), ([(0, 0, 33)], "point 1"), ([CENTRE, (-1, 0, 0)], "point 2")],
)
def test_points_must_lie_in_the_image(ball, points, message):
    with pytest.raises(ValueError, match=message):
        grow_from_points(ball.astype(np.float32), points, np.ones(SHAPE, bool), VOXEL_MM)
