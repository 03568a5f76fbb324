from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.numerics.enhancement import enhancing_lesions

VOXEL_MM = (1.0, 1.1, 1.3)
SHAPE = (50, 44, 36)


def ball(centre: tuple[int, int, int], radius_mm: float) -> np.ndarray:
    axes = np.ogrid[tuple(slice(n) for n in SHAPE)]
    squared = sum(((a - c) * v) ** 2 for a, c, v in zip(axes, centre, VOXEL_MM, strict=True))
    return squared <= radius_mm**2


@pytest.fixture
def scene(rng) -> dict[str, np.ndarray]:
    """Return white matter with two dark lesions, one of which enhances, and a vessel."""
    brain = ball((25, 22, 18), 18.0)
    grey = brain & ~ball((25, 22, 18), 14.0)
    active, old = ball((20, 20, 16), 3.5), ball((31, 25, 20), 3.0)
    vessel = ball((25, 34, 18), 2.5)
    before = np.where(grey, 65.0, 100.0) - 25.0 * (active | old)
    after = before * np.where(grey, 1.02, 1.0) + 40.0 * active + 60.0 * vessel
    x = np.linspace(-1, 1, SHAPE[0])[:, None, None]
    after = 1.7 * after * (1 + 0.05 * x)
    noise = rng.normal(0, 2.5, (2, *SHAPE))
    return {
        "before": ((before + noise[0]) * brain).astype(np.float32),
        "after": ((after + 1.7 * noise[1]) * brain).astype(np.float32),
        "brain": brain,
        "white": brain & ~grey,
        "lesions": active | old,
        "active": active,
    }


def find(scene, **options):
    keys = ("before", "after", "brain", "white", "lesions")
    return enhancing_lesions(*(scene[key] for key in keys), VOXEL_MM, **options)


def test_the_lesion_that_enhances_is_found_and_the_vessel_is_not(scene):
    found = find(scene)
    assert found.n_lesions == 1
    region, truth = found.labels == 1, scene["active"]
    assert 2 * (region & truth).sum() / (region.sum() + truth.sum()) > 0.9
    assert found.volume_ml == pytest.approx(region.sum() * np.prod(VOXEL_MM) / 1000)
    assert abs(found.increase[20, 20, 16] - 0.4) < 0.05  # the smoothing does not reach there
    plain = scene["white"] & ~scene["lesions"]
    assert abs(np.median(found.increase[plain])) < 0.01
    assert 0.5 * np.std(found.increase[plain]) < found.noise < 1.2 * np.std(found.increase[plain])


def test_the_scales_of_the_images_do_not_matter(scene):
    expected = find(scene).labels
    scene["after"] = scene["after"] * 0.01
    scene["before"] = scene["before"] * 7
    np.testing.assert_array_equal(find(scene).labels, expected)


def test_without_enhancement_nothing_is_found(scene):
    scene["after"] = np.where(scene["active"], scene["after"] - 68, scene["after"])
    assert find(scene).n_lesions == 0
    assert find(scene).volume_ml == 0


def test_each_threshold_counts(scene):
    assert find(scene, least_increase=0.6).n_lesions == 0
    assert find(scene, least_noise_multiple=1000.0).n_lesions == 0
    assert find(scene, minimum_mm3=1000.0).n_lesions == 0


def test_without_lesions_there_is_nothing_and_without_white_matter_no_match(scene):
    scene["lesions"] = np.zeros(SHAPE, bool)
    assert find(scene).n_lesions == 0
    scene["white"] = np.zeros(SHAPE, bool)
    with pytest.raises(ValueError, match="white matter"):
        find(scene)
