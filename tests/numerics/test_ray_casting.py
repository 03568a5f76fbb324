from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.numerics.ray_casting import first_hits

CENTRE = np.array([15.0, 14.0, 13.0])


def ball(radius: float) -> np.ndarray:
    """Return a volume that falls by one for each voxel from the centre, 0.5 at the radius."""
    place = np.moveaxis(np.indices((31, 29, 27)), 0, -1)
    return np.clip(radius + 0.5 - np.linalg.norm(place - CENTRE, axis=-1), 0, 1).astype(np.float32)


@pytest.mark.parametrize("leap", [1, 3])
@pytest.mark.parametrize("forward", [(1.0, 0.0, 0.0), (0.0, 0.6, -0.8), (-0.48, 0.64, 0.6)])
def test_rays_meet_a_ball_where_they_should(forward: tuple[float, ...], leap: int) -> None:
    radius, step = 9.0, 0.4
    ahead = np.array(forward)
    right = np.cross(ahead, [0.36, 0.48, 0.8] if ahead[0] else [1.0, 0.0, 0.0])
    right /= np.linalg.norm(right)
    moves = np.stack([np.cross(ahead, right), right, step * ahead], axis=1)
    origin = CENTRE - moves @ [12, 12, 20 / step]
    hits = first_hits(ball(radius), 0.5, origin, moves, (25, 25, 110), leap)
    rows, columns = np.indices(hits.shape) - 12
    squared = radius**2 - rows**2 - columns**2
    assert np.isnan(hits[squared < -12]).all()
    sure = squared > 12  # at the rim the voxels of the ball are coarse
    expected = (20 - np.sqrt(squared[sure])) / step
    np.testing.assert_allclose(step * hits[sure], step * expected, atol=0.3)


def test_the_nearest_surface_counts_and_rays_end_with_their_steps() -> None:
    field = np.zeros((40, 5, 5), np.float32)
    field[10:13], field[30:33] = 1.0, 1.0
    field[:, [0, -1]] = field[:, :, [0, -1]] = 0.0
    moves = np.eye(3)[:, [1, 2, 0]]
    hits = first_hits(field, 0.5, np.array([-3.0, 0, 0]), moves, (5, 5, 50))
    np.testing.assert_allclose(hits[1:4, 1:4], 12.5)
    assert np.isnan(hits[0]).all()
    assert np.isnan(hits[:, 4]).all()
    assert np.isnan(first_hits(field, 0.5, np.array([-3.0, 0, 0]), moves, (5, 5, 13))).all()
    behind = first_hits(field, 0.5, np.array([20.0, 0, 0]), moves, (5, 5, 50))
    np.testing.assert_allclose(behind[1:4, 1:4], 9.5)
