from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage, optimize, stats

from bids_qsm.statistics.glm import Distribution, fit_voxels, upper_tail
from bids_qsm.statistics.glm import test_contrast as contrast_map
from bids_qsm.statistics.random_fields import (
    _share_of_measured_resels,
    cluster_p,
    cluster_resels,
    cluster_survival,
    ec_densities,
    expected_ec,
    grid_correction,
    peak_p,
    peak_threshold,
    primary_threshold,
)
from bids_qsm.statistics.smoothness import Smoothness, estimate_smoothness

T30, F1_30 = Distribution("t", 1, 30), Distribution("F", 1, 30)
T72 = Distribution("t", 1, 72)
SHAPE = (20, 18, 16)
SIGMA = np.sqrt(8 * np.log(2))


def body(resels: list[float], *, n_voxels: int = 10**9, df: int = 72) -> Smoothness:
    """Return the smoothness of a mask of given resels with voxels without number."""
    per_voxel = resels[3] / n_voxels
    return Smoothness(
        fwhm_voxels=np.full(3, 10.0),
        fwhm_mm=np.full(3, 10.0),
        resels=np.array(resels, float),
        local_resels=np.array(resels, float),
        resels_per_voxel=np.full(4, resels[3] / 4, np.float32),
        mean_resels_per_voxel=per_voxel,
        n_voxels=n_voxels,
        df=df,
    )


def box(volume: float) -> list[float]:
    side = volume ** (1 / 3)
    return [1, 3 * side, 3 * side**2, volume]


def height_of(p: float, law: Distribution, resels: list[float]) -> float:
    start = 3.0 if law.kind == "t" else 8.0
    return float(optimize.brentq(lambda h: expected_ec(h, law, resels) - p, start, 200))


# K. J. Worsley's fmristat, help text of stat_threshold.m (2003), "Examples": 1000 cm3, FWHM
# 20 mm, so 125 resels, 30 degrees of freedom, for p = .05 and .01.
RADIUS = (125 * 3 / (4 * np.pi)) ** (1 / 3)
SPHERE = [1, 4 * RADIUS, 2 * np.pi * RADIUS**2, 125]


@pytest.mark.parametrize(
    ("resels", "law", "sides", "published"),
    [
        (SPHERE, T30, 1, (5.0820, 5.7847)),
        (box(125), T30, 1, (5.0965, 5.7972)),
        (SPHERE, F1_30, 2, (25.8271, 33.4623)),
    ],
)
def test_peak_heights_published_with_fmristat(
    resels: list[float], law: Distribution, sides: int, published: tuple[float, float]
) -> None:
    for p, height in zip((0.05, 0.01), published, strict=True):
        assert height_of(sides * p, law, resels) == pytest.approx(height, rel=3e-5)


# The same help text: extents in mm3 of clusters above p = .001; F and doubled p for both sides.
@pytest.mark.parametrize(
    ("law", "sides", "published"),
    [(T30, 1, (3340.2, 6315.5)), (F1_30, 2, (3297.8, 6305.1))],
)
def test_cluster_extents_published_with_fmristat(
    law: Distribution, sides: int, published: tuple[float, float]
) -> None:
    threshold = primary_threshold(0.001 * sides, law, two_sided=False)
    smooth = body([0, 0, 0, 125])
    p = cluster_p(
        np.array(published) / 20**3, threshold, law, smooth, two_sided=False, stationary=True
    )
    np.testing.assert_allclose(p, [0.05 * sides, 0.01 * sides], rtol=2e-4)


def test_primary_threshold_published_with_fmristat() -> None:
    assert primary_threshold(0.001, T30, two_sided=False) == pytest.approx(3.3852, abs=5e-5)


def test_hundred_resels_of_a_cube_as_surfstat() -> None:
    """Heights and extents by BrainStat 0.7.0, the Python version of SurfStat's stat_threshold.

    It interpolates p in a table of heights, so that its last digits are its own.
    """
    found = [height_of(p, T72, box(100)) for p in (0.05, 0.025, 0.01)]
    np.testing.assert_allclose(found, [4.4411856, 4.66618309, 4.9533723], rtol=2e-4)
    smooth = body([0, 0, 0, 100])
    threshold = primary_threshold(0.001, T72, two_sided=False)
    p = cluster_p([0.3994047, 0.78892879], threshold, T72, smooth, two_sided=False, stationary=True)
    np.testing.assert_allclose(p, [0.05, 0.01], rtol=5e-4)
    f = Distribution("F", 3, 72)
    found = [height_of(p, f, box(100)) for p in (0.05, 0.01)]
    np.testing.assert_allclose(found, [10.24110553, 12.13400438], rtol=1e-3)
    threshold = primary_threshold(0.001, f)
    p = cluster_p([0.31624361, 0.57905783], threshold, f, smooth, stationary=True)
    np.testing.assert_allclose(p, [0.05, 0.01], rtol=2e-3)


def test_extents_by_estimated_resels_as_surfstat() -> None:
    """As above, with the resels' own degrees of freedom; above a cluster's mean size."""
    threshold = primary_threshold(0.001, T72, two_sided=False)
    clusters = float(expected_ec(threshold, T72, [0, 0, 0, 100]))
    size = np.array([0.40343654, 0.83283074]) / (0.1 / clusters)
    p = -np.expm1(-clusters * cluster_survival(size, T72, df_smoothness=72))
    np.testing.assert_allclose(p, [0.05, 0.01], rtol=3e-4)


def test_f_of_one_is_both_sides_of_t() -> None:
    t = np.array([1.5, 3.0, 6.0])
    np.testing.assert_allclose(
        ec_densities(t**2, Distribution("F", 1, 20)),
        2 * ec_densities(t, Distribution("t", 1, 20)),
        rtol=1e-9,
    )


@pytest.mark.parametrize(("kind", "k"), [("t", 1.0), ("F", 3.0)])
def test_many_degrees_of_freedom_are_the_gaussian_limit(kind: str, k: float) -> None:
    values = np.array([2.0, 4.0])
    many, limit = Distribution(kind, k, 1e6), Distribution(kind, k, np.inf)  # type: ignore[arg-type]
    np.testing.assert_allclose(ec_densities(values, many), ec_densities(values, limit), rtol=2e-4)
    size = np.array([0.5, 3.0])
    np.testing.assert_allclose(
        cluster_survival(size, many), cluster_survival(size, limit), rtol=1e-3
    )


def test_gaussian_densities_are_adlers() -> None:
    z, lam = 3.0, 4 * np.log(2)
    fall = np.exp(-(z**2) / 2) / (2 * np.pi)
    np.testing.assert_allclose(
        ec_densities(z, Distribution("t", 1, np.inf)),
        [
            stats.norm.sf(z),
            lam**0.5 * fall,
            lam * fall * z / (2 * np.pi) ** 0.5,
            lam**1.5 * fall * (z**2 - 1) / (2 * np.pi),
        ],
        rtol=1e-12,
    )


@pytest.mark.parametrize("df_smoothness", [None, 20])
def test_cluster_sizes_are_those_of_drawn_variables(df_smoothness: int | None) -> None:
    random = np.random.default_rng(3)
    n, df, k = 400_000, 20, 2
    chi2 = random.chisquare
    size = (random.beta(1, (df - 3) / 2, n) * chi2(df + k - 3, n)) ** 1.5
    size /= np.sqrt(chi2(df + 1, n) * chi2(df, n) * chi2(df - 1, n))
    if df_smoothness is not None:
        m = df_smoothness
        size *= np.sqrt(chi2(m - 1, n) * chi2(m - 2, n) * chi2(m - 3, n)) / chi2(m, n) ** 1.5
    size /= size.mean()
    law = Distribution("F", k, df)
    for q in (0.1, 1.0, 4.0):
        expected = (size > q).mean()
        found = cluster_survival(q, law, df_smoothness=df_smoothness)
        assert found == pytest.approx(expected, abs=5 * np.sqrt(expected / n), rel=0.01)


def test_cluster_of_no_size_is_sure_and_sizes_are_ordered() -> None:
    survival = cluster_survival([0, 0.01, 1, 10, 100, 1e4], T30)
    assert survival[0] == pytest.approx(1, abs=1e-9)
    assert (np.diff(survival) <= 0).all()
    assert survival[-1] < 1e-9


def null_data(n: int, seed: int, fwhm: float = 3.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.stack(
        [
            ndimage.gaussian_filter(random.standard_normal(SHAPE), fwhm / SIGMA, mode="wrap")
            for _ in range(n)
        ]
    ).astype(np.float32)


@pytest.fixture(scope="module")
def smooth() -> Smoothness:
    values = null_data(30, 1).reshape(30, -1)
    fit = fit_voxels(values, np.ones((30, 1)))
    return estimate_smoothness(values, fit, np.ones(SHAPE, np.bool_), (1.0, 1.0, 1.0))


def test_threshold_inverts_p_and_both_sides_cost_twice(smooth: Smoothness) -> None:
    for law in (Distribution("t", 1, 29), Distribution("F", 2, 28)):
        for two_sided in (True, False):
            height = peak_threshold(0.05, law, smooth, two_sided=two_sided)
            p = peak_p(height, law, smooth, two_sided=two_sided)
            assert p == pytest.approx(0.05, rel=1e-4)
    law = Distribution("t", 1, 29)
    both = peak_p([-6.0, 6.0], law, smooth)
    assert both[0] == both[1] == 2 * peak_p(6.0, law, smooth, two_sided=False)
    assert peak_p(-6.0, law, smooth, two_sided=False) == 1


def test_peak_p_is_the_lesser_of_the_bounds(smooth: Smoothness) -> None:
    law = Distribution("t", 1, 29)
    heights = np.linspace(0, 12, 60)
    p = peak_p(heights, law, smooth, two_sided=False)
    assert (np.diff(p) <= 0).all()
    assert p[0] == 1
    assert (p <= np.minimum(1, smooth.n_voxels * upper_tail(heights, law)) + 1e-12).all()
    assert (p[30:] <= expected_ec(heights[30:], law, smooth.local_resels)).all()


def test_grid_correction_of_smooth_and_of_rough_noise() -> None:
    """Smooth noise needs none; of rough noise the parts are voxels, each with its own p."""
    law = Distribution("t", 1, np.inf)
    np.testing.assert_allclose(grid_correction(4.0, law, [400.0] * 3), 1, rtol=1e-3)
    heights = np.array([5.0, 7.0, 30.0])
    densities = ec_densities(heights, law)[3] / 0.8**3
    found = densities * grid_correction(heights, law, [0.8] * 3)[3]
    np.testing.assert_allclose(found[:2], stats.norm.sf(heights[:2]), rtol=0.15)
    assert np.isfinite(found).all()
    t = grid_correction(4.0, T30, [3.0] * 3)
    np.testing.assert_allclose(grid_correction(16.0, F1_30, [3.0] * 3), t)


def test_rises_along_a_line_are_those_of_two_normal_variables() -> None:
    fwhm, u = 3.0, 2.0
    r = np.exp(-2 * np.log(2) / fwhm**2)
    both = stats.multivariate_normal([0, 0], [[1, r], [r, 1]]).cdf([u, u])
    law = Distribution("t", 1, np.inf)
    per_voxel = ec_densities(u, law)[1] / fwhm * grid_correction(u, law, [fwhm] * 3)[1]
    assert per_voxel == pytest.approx(stats.norm.cdf(u) - both, rel=1e-4)


@pytest.mark.parametrize(("fwhm", "rel"), [(3.0, 0.2), (5.0, 0.1)])
def test_parts_on_the_grid_are_as_many_as_in_drawn_t_fields(fwhm: float, rel: float) -> None:
    """Of noise that repeats without a border, the mean Euler characteristic by voxels."""
    df, height, found = 19, 3.5, []
    for seed in range(12):
        squares = null_data(df + 1, 500 + seed, fwhm).astype(float) ** 2
        for numerator in squares:
            t = np.sqrt(numerator / ((squares.sum(axis=0) - numerator) / df))
            found.append(euler(np.pad(t > height, ((0, 1),) * 3, mode="wrap"), open_end=True) / 2)
    law = Distribution("t", 1, df)
    smooth = expected_ec(height, law, [0, 0, 0, np.prod(SHAPE) / fwhm**3])
    expected = smooth * grid_correction(height, law, [fwhm] * 3)[3]
    assert expected < 0.85 * smooth
    assert np.mean(found) == pytest.approx(expected, rel=rel)


def test_euler_characteristic_is_that_of_drawn_t_fields() -> None:
    """The mean of points - edges + squares - cubes above a height, on a grid of smooth noise."""
    df, height, repeats = 12, 2.0, 24
    law = Distribution("t", 1, df)
    total = 0
    for seed in range(repeats):
        images = null_data(df + 1, 900 + seed, fwhm=6.0)
        t = images[0] / np.sqrt((images[1:].astype(float) ** 2).mean(axis=0))
        total += sum(euler(side * t > height) for side in (1, -1))
    resels = [1.0, 0, 0, 0]
    lengths = (np.array(SHAPE) - 1) / 6.0
    resels[1:] = [
        lengths.sum(),
        lengths[0] * lengths[1] + lengths[0] * lengths[2] + lengths[1] * lengths[2],
        lengths.prod(),
    ]
    expected = float(expected_ec(height, law, resels))
    assert total / (2 * repeats) == pytest.approx(expected, rel=0.15)


def euler(inside: np.ndarray, *, open_end: bool = False) -> int:
    """Return points - edges + squares - cubes, without those in the last planes if open."""
    total = 0
    for steps in np.ndindex(2, 2, 2):
        shape = tuple(n - (s or open_end) for n, s in zip(inside.shape, steps, strict=True))
        whole = np.ones(shape, np.bool_)
        for corner in np.ndindex(*(s + 1 for s in steps)):
            whole &= inside[tuple(slice(c, c + n) for c, n in zip(corner, shape, strict=True))]
        total += (-1) ** sum(steps) * int(whole.sum())
    return total


@pytest.mark.parametrize("fwhm", [3.0, 7.0])
def test_measured_resels_above_a_height_are_as_many_as_said(fwhm: float) -> None:
    """Where t is high residuals are small, and the resels measured by voxel are more."""
    df, height = 19, 2.5
    mask = np.ones(SHAPE, np.bool_)
    voxels, resels, mean = 0, 0.0, []
    for seed in range(40):
        values = null_data(df + 1, 300 + seed, fwhm).reshape(df + 1, -1)
        fit = fit_voxels(values, np.ones((df + 1, 1)))
        above = np.abs(contrast_map(fit, [1]).statistic) > height
        found = estimate_smoothness(values, fit, mask, (1.0, 1.0, 1.0))
        voxels += int(above.sum())
        resels += float(found.resels_per_voxel[above].sum())
        mean.append(found.resels_per_voxel.mean())
    said = _share_of_measured_resels(height, Distribution("t", 1, df), np.full(3, fwhm))
    said /= stats.t.sf(height, df)
    assert said > 1.25
    assert resels / voxels / np.mean(mean) == pytest.approx(said, rel=0.08)


def test_cluster_sizes_are_sums_of_voxels(smooth: Smoothness) -> None:
    labels = np.zeros(smooth.resels_per_voxel.size, np.int64)
    labels[3:9], labels[20:22] = 1, 2
    np.testing.assert_allclose(
        cluster_resels(labels, smooth),
        [smooth.resels_per_voxel[3:9].sum(), smooth.resels_per_voxel[20:22].sum()],
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        cluster_resels(labels, smooth, stationary=True),
        np.array([6, 2]) * smooth.mean_resels_per_voxel,
    )
    assert cluster_resels(np.zeros_like(labels), smooth).size == 0


@pytest.mark.parametrize("stationary", [True, False])
def test_larger_clusters_are_less_likely(smooth: Smoothness, stationary: bool) -> None:
    law = Distribution("t", 1, 29)
    u = primary_threshold(0.001, law)
    sizes = np.array([0.02, 0.2, 1.0, 3.0, 30.0])
    p = cluster_p(sizes, u, law, smooth, stationary=stationary)
    assert (np.diff(p) < 0).all()
    assert 0 <= p[-1] < 1e-4
    one = cluster_p(sizes, u, law, smooth, two_sided=False, stationary=stationary)
    np.testing.assert_allclose(1 - p, (1 - one) ** 2, rtol=1e-9)


def test_what_cannot_be_asked(smooth: Smoothness) -> None:
    with pytest.raises(ValueError, match=r"threshold 1.2 is too low"):
        cluster_p([1.0], 1.2, T30, smooth)
    with pytest.raises(ValueError, match="between 0 and 1, not 5"):
        peak_threshold(5, T30, smooth)
    with pytest.raises(ValueError, match="between 0 and 1, not 0"):
        primary_threshold(0, T30)
