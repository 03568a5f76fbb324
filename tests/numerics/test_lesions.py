from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from bids_qsm.numerics.lesions import t2_lesions, tissue_probabilities

VOXEL_MM = (1.2, 1.0, 1.1)
SHAPE = (54, 62, 56)
CENTRE = (27, 31, 28)
LESIONS = (((19, 25, 28), 3.0), ((36, 34, 33), 2.4))


def ball(centre, radius_mm: float) -> np.ndarray:
    axes = np.ogrid[tuple(slice(n) for n in SHAPE)]
    squared = sum(((a - c) * v) ** 2 for a, c, v in zip(axes, centre, VOXEL_MM, strict=True))
    return squared <= radius_mm**2


def head(rng, with_lesions: bool) -> dict[str, np.ndarray]:
    """Return fluid around cortex around white matter around a ventricle, with a bright lining."""
    brain, grey, white = (ball(CENTRE, r) for r in (27.0, 25.0, 21.0))
    ventricle, lining = ball(CENTRE, 5.0), ball(CENTRE, 6.0)
    truth = np.zeros(SHAPE, bool)
    if with_lesions:
        truth = ball(*LESIONS[0]) | ball(*LESIONS[1])
    t1w = np.select([ventricle, truth, white, grey], [20.0, 70.0, 100.0, 68.0], 20.0)
    flair = np.select([ventricle, truth, white, grey], [20.0, 150.0, 80.0, 100.0], 20.0)
    prior = [ndimage.gaussian_filter(1.0 * m, 1.0) for m in (white & ~ventricle, grey & ~white)]
    images = {}
    flair = np.where(lining & ~ventricle, 105.0, flair)
    for name, image in (("flair", flair), ("t1w", t1w)):
        smooth = ndimage.gaussian_filter(image, [0.6 / v for v in VOXEL_MM])
        images[name] = ((smooth + rng.normal(0, 3, SHAPE)) * brain).astype(np.float32)
    priors = {
        f"{name}_prior": p.astype(np.float32)
        for name, p in zip(("white", "grey"), prior, strict=True)
    }
    return {**images, "brain": brain, **priors, "truth": truth, "white": white & ~lining}


def find(scene: dict[str, np.ndarray], voxel_mm=VOXEL_MM, **options):
    keys = ("flair", "t1w", "brain", "white_prior", "grey_prior")
    return t2_lesions(*(scene[key] for key in keys), voxel_mm, **options)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_lesions_are_found_with_their_volume_and_their_levels(rng):
    scene = head(rng, with_lesions=True)
    found = find(scene)
    assert dice(found.mask, scene["truth"]) > 0.85
    assert abs(found.mask.sum() / scene["truth"].sum() - 1) < 0.3
    assert ndimage.label(found.mask)[1] == 2
    assert found.levels.means[0] == pytest.approx(100, abs=4)
    assert found.levels.means[1] == pytest.approx(80, abs=2)
    assert found.levels.bright_grey_sd == pytest.approx(1.3, abs=0.3)  # the noise that is left
    white = scene["white"] & ~ndimage.binary_dilation(scene["truth"], iterations=2)
    assert not (found.white & found.mask).any()
    assert (found.white & white).sum() > 0.6 * white.sum()
    assert not found.belief[~scene["brain"]].any()


def test_a_head_without_lesions_has_none(rng):
    """Neither cortex nor the bright lining of the ventricle nor noise is a lesion."""
    assert not find(head(rng, with_lesions=False)).mask.any()


def test_growth_stops_at_grey_matter_unless_there_is_none(rng):
    """A template that takes half of a lesion for grey matter hides that half, till corrected."""
    scene = head(rng, with_lesions=True)
    centre = LESIONS[0][0]
    half = ball(centre, 3.5)
    half[: centre[0]] = False
    scene["grey_prior"] = np.where(half, 0.97, scene["grey_prior"]).astype(np.float32)
    scene["white_prior"] = np.where(half, 0.0, scene["white_prior"]).astype(np.float32)
    hidden = half & scene["truth"]
    core_sd = float(find(scene).belief[half].max()) + 0.1  # no start in the hidden half
    blocked = find(scene, core_sd=core_sd, core_fraction=0).mask
    known = find(scene, core_sd=core_sd, core_fraction=0, free_of_grey=half).mask
    assert blocked[hidden].mean() < 0.3 < 0.75 < known[hidden].mean()
    assert known[blocked].all()


def test_scale_and_orientation_do_not_matter(rng):
    scene = head(rng, with_lesions=True)
    expected = find(scene).mask
    scaled = {**scene, "flair": scene["flair"] * 8, "t1w": scene["t1w"] * 0.25}
    np.testing.assert_array_equal(find(scaled).mask, expected)
    turned = {key: a.transpose(1, 2, 0)[:, ::-1].copy() for key, a in scene.items()}
    other = find(turned, (1.0, 1.1, 1.2)).mask
    # the tissues are fitted to every so many voxels, which are others now
    assert dice(other, expected.transpose(1, 2, 0)[:, ::-1]) > 0.98


def test_each_threshold_counts(rng):
    scene = head(rng, with_lesions=True)
    volume = find(scene).mask.sum()
    assert not find(scene, core_sd=1000.0).mask.any()
    assert not find(scene, minimum_mm3=1e4).mask.any()
    assert not find(scene, core_fraction=1.01).mask.any()
    assert not find(scene, white_contact=1.01, bright_white_contact=1.01).mask.any()
    assert find(scene, edge_fraction=0.7).mask.sum() < volume


def test_a_bright_speck_does_not_grow_into_a_faint_halo(rng):
    """White matter that is somewhat bright far and wide has no border; the speck itself stays."""
    scene = head(rng, with_lesions=False)
    halo, speck = ball((19, 31, 28), 8.0) & ~ball(CENTRE, 7.5), ball((16, 31, 28), 1.8)
    scene["flair"] = scene["flair"] + 4.3 * halo.astype(np.float32) + 12 * speck.astype(np.float32)
    loose, found = (find(scene, core_fraction=share).mask for share in (0.0, 0.3))
    assert loose[speck].all() and found[speck].all()
    assert found.sum() < 0.7 * loose.sum()


@pytest.mark.parametrize(("level", "is_lesion"), [(102.0, False), (130.0, True)])
def test_what_is_too_bright_for_cortex_may_touch_it(rng, level, is_lesion):
    """Grey matter is 98 with a standard deviation of 1.3: 105 is brighter than any of it."""
    scene = head(rng, with_lesions=False)
    spot = ball((27, 50, 28), 3.0) & ball(CENTRE, 21.0)
    soft = ndimage.gaussian_filter(1.0 * spot, [0.6 / v for v in VOXEL_MM]).astype(np.float32)
    scene["flair"] = scene["flair"] + (level - 80) * soft
    scene["t1w"] = scene["t1w"] - 30 * soft
    assert find(scene, white_contact=0.5).mask[spot].sum() >= 50  # a core is there
    assert not find(scene, bright_white_contact=0.75).mask.any()
    found = find(scene).mask
    assert not found[~ndimage.binary_dilation(spot)].any()
    assert (found.sum() >= 50) if is_lesion else not found.any()


def test_a_bright_brain_stem_has_levels_of_its_own(rng):
    scene = head(rng, with_lesions=False)
    stem = ball((27, 44, 28), 5.0)
    scene["flair"] = scene["flair"] + 35 * stem.astype(np.float32)
    assert find(scene).mask[stem].any()
    own = find(scene, stem=stem)
    assert not own.mask[ndimage.binary_erosion(stem)].any()
    assert own.levels.means[3] == pytest.approx(115, abs=4)


def test_tissues_are_told_by_brightness_where_priors_are_blurred(rng):
    scene = head(rng, with_lesions=False)
    white, grey = scene["white_prior"], scene["grey_prior"]
    priors = np.stack([grey, white, np.clip(1 - white - grey, 0, 1)]) + np.float32(0.02)
    tissue = tissue_probabilities(scene["t1w"], scene["brain"], priors)
    np.testing.assert_allclose(tissue[:, scene["brain"]].sum(axis=0), 1, rtol=1e-5)
    assert not tissue[:, ~scene["brain"]].any()
    deep = ndimage.binary_erosion(scene["white"], iterations=2)
    assert np.median(tissue[1][deep]) > 0.99


def test_what_cannot_be_segmented_is_said(rng):
    scene = head(rng, with_lesions=False)
    with pytest.raises(ValueError, match="empty"):
        find({**scene, "brain": np.zeros(SHAPE, bool)})
    with pytest.raises(ValueError, match="registration"):
        find({**scene, "white_prior": np.zeros(SHAPE, np.float32)})
