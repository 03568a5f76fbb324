"""Lines through synthetic nuclei: what is measured along them is known."""

from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.numerics import trajectories
from bids_qsm.numerics.trajectories import (
    Layers,
    crossings,
    follow,
    line_through,
    sample,
    sample_layers,
    scores,
)

AFFINE = np.array([[-0.8, 0.1, 0, 30], [0.1, 0.9, 0.1, -20], [0, -0.1, 1.2, -25], [0, 0, 0, 1.0]])
SHAPE = (40, 36, 32)


def positions() -> np.ndarray:
    """Return the world's coordinates of all voxels of the grid, shape (x, y, z, 3)."""
    at = np.moveaxis(np.indices(SHAPE), 0, -1)
    return np.einsum("ij,...j->...i", AFFINE[:3, :3], at) + AFFINE[:3, 3]


def balls(*centres_radii: tuple[tuple[float, float, float], float]) -> np.ndarray:
    """Return what falls from one to zero over 3 mm around the surface of a ball."""
    mm = positions()
    return np.stack(
        [
            np.clip(0.5 + (radius - np.linalg.norm(mm - centre, axis=-1)) / 3, 0, 1)
            for centre, radius in centres_radii
        ]
    ).astype(np.float32)


CENTRE = tuple(positions()[20, 18, 16])


def spans(line, layers, *, position_sd_mm=0.5, draws=20):
    return trajectories.spans(line, layers, position_sd_mm=position_sd_mm, draws=draws, seed=1)


def layer(values: np.ndarray) -> Layers:
    return Layers(np.arange(1, len(values) + 1), values, AFFINE)


def test_a_line_ends_on_the_target_and_its_depth_is_the_distance_to_it() -> None:
    line = line_through((1, 2, 30), (4, 6, 18), step_mm=0.25, beyond_mm=5)
    length = 13.0
    at_target = np.flatnonzero(line.depth_mm == 0)
    assert np.allclose(line.points_mm[at_target], (4, 6, 18), atol=1e-12)
    assert line.depth_mm[0] == length and line.depth_mm[-1] == -5
    assert np.allclose(line.points_mm[0], (1, 2, 30))
    away = np.linalg.norm(line.points_mm - (4, 6, 18), axis=1)
    assert np.allclose(away, np.abs(line.depth_mm))
    with pytest.raises(ValueError, match="gives no direction"):
        follow((1, 2, 3), (1, 2, 3), [], 1)
    for option in ({"step_mm": 0.0}, {"draws": 1}, {"position_sd_mm": -1.0}):
        with pytest.raises(ValueError, match="'step_mm' must be above zero"):
            follow((1, 2, 30), (1, 2, 3), [], 1, **option)
    with pytest.raises(ValueError, match="gives no direction"):
        line_through((1, 2, np.nan), (1, 2, 3))


def test_a_linear_ramp_is_sampled_exactly_and_outside_is_nan() -> None:
    ramp = np.einsum("...i,i->...", positions(), (0.3, -0.2, 0.7)).astype(np.float32)
    line = line_through(np.add(CENTRE, (4, 3, 9)), CENTRE, beyond_mm=6)
    found = sample(ramp, AFFINE, line.points_mm)
    expected = np.einsum("ni,i->n", line.points_mm, (0.3, -0.2, 0.7))
    assert np.allclose(found, expected, atol=2e-5)
    assert np.isnan(sample(ramp, AFFINE, np.array([[500.0, 0, 0]]))).all()


def test_voxels_that_are_not_valid_have_no_weight() -> None:
    values = np.full(SHAPE, 3.0, np.float32)
    valid = np.zeros(SHAPE, bool)
    valid[:20] = True
    values[20:] = 1000
    points = np.einsum("ij,nj->ni", AFFINE[:3, :3], [[19.4, 10, 10], [19.6, 10, 10]])
    found = sample(values, AFFINE, points + AFFINE[:3, 3], valid=valid)
    assert found[0] == pytest.approx(3) and np.isnan(found[1])


@pytest.mark.parametrize("direction", [(0, 0, 1), (1, 2, 4), (-2, 1, 3)])
@pytest.mark.parametrize("binary", [False, True])
def test_span_of_an_oblique_line_through_a_ball_is_its_chord(direction, binary) -> None:
    radius, aside = 5.0, 2.0
    unit = np.array(direction) / np.linalg.norm(direction)
    across = np.cross(unit, (1, 0, 0))
    target = np.add(CENTRE, aside * across / np.linalg.norm(across))
    values = balls((CENTRE, radius))
    if binary:
        values = values > 0.5
    line = line_through(target + 12 * unit, target, step_mm=0.25, beyond_mm=10)
    found = spans(line, [layer(values)])
    half = np.sqrt(radius**2 - aside**2)
    # a smooth border: less than half a sample off; a staircase: less than half a voxel
    tolerance = 0.5 if binary else 0.125
    assert found.entry[0] == pytest.approx(half, abs=tolerance)
    assert found.exit[0] == pytest.approx(-half, abs=tolerance)
    assert found.span[0] == pytest.approx(2 * half, abs=2 * tolerance if binary else tolerance)
    assert found.span[0] == pytest.approx(found.entry[0] - found.exit[0])
    assert found.n_pieces[0] == 1


def test_span_through_a_slab_of_whole_voxels_is_its_thickness_over_the_cosine() -> None:
    upright = np.diag([1.0, 1.0, 1.0, 1.0])
    slab = np.zeros((1, 30, 30, 30), bool)
    slab[0, :, :, 12:18] = True  # faces at 11.5 and 17.5
    direction = np.array([0.3, -0.2, 0.9])
    target = np.array([15, 15, 9.3])
    line = line_through(target + 11 * direction, target, step_mm=0.25, beyond_mm=1)
    found = spans(line, [Layers(np.array([7]), slab, upright)])
    cosine = 0.9 / np.linalg.norm(direction)
    # faces of whole voxels lie where the interpolated labels are one half: exact but for rounding
    assert found.indices.tolist() == [7]
    assert found.span[0] == pytest.approx(6 / cosine, abs=1e-4)
    assert found.entry[0] == pytest.approx((17.5 - 9.3) / cosine, abs=1e-4)


def test_neighbours_meet_at_the_border_of_the_labels() -> None:
    first, second = balls((CENTRE, 5.0), (np.add(CENTRE, (0, 0, -8)), 4.0))
    second = np.minimum(second, 1 - first)
    target = np.add(CENTRE, (0, 0, -12))
    line = line_through(np.add(CENTRE, (0, 0, 10)), target)
    found = spans(line, [layer(np.stack([first, second]))])
    probabilities = sample_layers([layer(np.stack([first, second]))], line.points_mm)
    score = scores(probabilities)
    none = 1 - probabilities.sum(axis=0)
    wins = probabilities > np.maximum(none, probabilities[::-1])
    assert ((score > 0.5) == wins).all()
    assert found.exit[0] == pytest.approx(found.entry[1], abs=0.02)
    assert found.entry[0] == pytest.approx(17, abs=0.125)
    assert found.exit[1] == pytest.approx(0, abs=0.125)


def test_a_line_that_misses_has_no_border_and_two_pieces_are_counted() -> None:
    depth = np.arange(4.0, -5, -1)
    score = np.array([[0, 0, 0, 0, 0, 0, 0, 0, 0], [0, 1, 1, 0, 0, 1, 0, 0, 0]], np.float32)
    entry, leave, length, pieces = crossings(depth, score)
    assert np.isnan(entry[0]) and np.isnan(leave[0]) and length[0] == 0 and pieces[0] == 0
    assert (entry[1], leave[1], length[1], pieces[1]) == (3.5, -1.5, 3.0, 2)
    whole = crossings(depth, np.ones((1, 9), np.float32))
    assert [float(x[0]) for x in whole] == [4.0, -4.0, 8.0, 1.0]


def test_without_a_shift_the_spread_is_that_of_the_smooth_border() -> None:
    """A slab with linear flanks of width w: mean span is the integral, its SD is known."""
    width, half = 4.0, 6.0
    z = np.arange(0, 32, 0.5)
    p = np.clip(0.5 + (half - np.abs(z - 16)) / width, 0, 1).astype(np.float32)
    p = np.broadcast_to(p, (1, 9, 9, z.size))
    line = line_through((4, 4, 30), (4, 4, 16), step_mm=0.1, beyond_mm=14)
    layers = [Layers(np.array([1]), p, np.diag([1, 1, 0.5, 1.0]))]
    found = spans(line, layers, position_sd_mm=0.0, draws=2000)
    # a level u moves a border by (0.5 - u) * w; u is uniform, and another one for each border
    assert found.span_mean[0] == pytest.approx(2 * half, abs=0.02)
    assert found.span_sd[0] == pytest.approx(np.sqrt(2) * width / np.sqrt(12), rel=0.03)
    assert found.entry_sd[0] == pytest.approx(width / np.sqrt(12), rel=0.02)
    assert found.exit_sd[0] == pytest.approx(width / np.sqrt(12), rel=0.02)
    # the sum of two uniform numbers has a triangular density
    low = width * (1 - np.sqrt(2 * 0.025))
    assert found.span_low[0] == pytest.approx(2 * half - low, abs=0.1)
    assert found.span_high[0] == pytest.approx(2 * half + low, abs=0.1)
    assert found.chance[0] == 1


def test_shifts_move_the_borders_of_a_sharp_slab_and_not_its_span() -> None:
    slab = np.zeros((1, *SHAPE), np.float32)
    slab[0, :, :, 12:20] = 1
    normal = AFFINE[:3, 2] / np.linalg.norm(AFFINE[:3, 2])
    line = line_through(np.add(CENTRE, 14 * normal), CENTRE, beyond_mm=12)
    still = spans(line, [layer(slab)], position_sd_mm=0.0, draws=400)
    shaken = spans(line, [layer(slab)], position_sd_mm=0.7, draws=400)
    assert shaken.span[0] == still.span[0]
    grown = np.sqrt(shaken.entry_sd[0] ** 2 - still.entry_sd[0] ** 2)
    # the slab's faces are not quite across the line on this skewed grid
    assert grown == pytest.approx(0.7, rel=0.2)
    assert shaken.span_sd[0] == pytest.approx(still.span_sd[0], rel=0.1)
    again = spans(line, [layer(slab)], position_sd_mm=0.7, draws=400)
    assert np.array_equal(again.span_sd, shaken.span_sd)


def test_chance_of_a_line_along_a_plane_face_is_a_half() -> None:
    p = (positions()[..., 0] < CENTRE[0]).astype(np.float32)
    line = line_through(np.add(CENTRE, (0.05, 0, 10)), np.add(CENTRE, (0.05, 0, 0)))
    found = spans(line, [layer(p[None])], position_sd_mm=2.0, draws=1000)
    assert found.chance[0] == pytest.approx(0.5, abs=0.12)


def test_later_layers_get_what_the_earlier_ones_leave() -> None:
    first = balls((CENTRE, 5.0))
    everywhere = np.ones((1, *SHAPE), bool)
    layers = [layer(first), Layers(np.array([9]), everywhere, AFFINE)]
    line = line_through(np.add(CENTRE, (0, 0, 10)), CENTRE)
    found = sample_layers(layers, line.points_mm)
    assert np.allclose(found.sum(axis=0), 1, atol=1e-6)
    assert found[1, -1] == 0 and found[1, 0] == 1
    stored = Layers(np.array([1]), (255 * first).astype(np.uint8), AFFINE, 255)
    assert np.abs(sample_layers([stored], line.points_mm) - found[:1]).max() < 1 / 255
