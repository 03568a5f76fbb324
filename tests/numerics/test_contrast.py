"""A nucleus in noise: its contrast-to-noise ratio and the best sum of two images are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from bids_qsm.numerics.contrast import (
    UNLABELLED,
    Moments,
    Nucleus,
    best_weight,
    contrast_table,
    contrast_to_noise,
    fixed,
    moments,
    optimal,
    surround,
)

SHAPE = (40, 36, 30)
VOXEL_MM = (1.0, 1.0, 1.2)
OPTIONS = {"gap_mm": 1.0, "shell_mm": 2.0}


def ball(centre, radius_mm) -> np.ndarray:
    away = [(i - c) * v for i, c, v in zip(np.indices(SHAPE), centre, VOXEL_MM, strict=True)]
    return np.sqrt(sum(a**2 for a in away)) < radius_mm


@pytest.fixture
def head(rng) -> tuple[np.ndarray, np.ndarray, list[Nucleus]]:
    """T1w and susceptibility with a nucleus on each side, whose noises go together."""
    left, right = ball((10, 18, 15), 5), ball((29, 18, 15), 5)
    shared = rng.standard_normal(SHAPE)
    noise = rng.standard_normal((2, *SHAPE))
    t1w = 500 + 25 * left + 35 * right + 20 * (noise[0] + shared)
    t1w[20:] += 100  # the receive field of one side
    chi = 0.12 * (left | right) - 0.02 + 0.03 * (noise[1] - 0.5 * shared)
    nuclei = [Nucleus(side, {UNLABELLED: ~(left | right)}) for side in (left, right)]
    return t1w.astype(np.float32), chi.astype(np.float32), nuclei


def of_sides(images, nuclei):
    shells = [surround(n, VOXEL_MM, **OPTIONS) for n in nuclei]
    return [moments(images, n.inside, s[UNLABELLED]) for n, s in zip(nuclei, shells, strict=True)]


def test_the_surround_is_a_shell_in_mm_without_what_is_not_allowed() -> None:
    inside = np.zeros(SHAPE, bool)
    inside[20, 18, 15] = True
    allowed = np.ones(SHAPE, bool)
    allowed[:20] = False
    shell = surround(Nucleus(inside, {"a": allowed, "b": ~allowed}), VOXEL_MM, **OPTIONS)
    away = [(i - c) * v for i, c, v in zip(np.indices(SHAPE), (20, 18, 15), VOXEL_MM, strict=True)]
    mm = np.sqrt(sum(a**2 for a in away))
    assert np.array_equal(shell["a"], (mm > 1) & (mm <= 3.0) & allowed)
    assert np.array_equal(shell["b"], (mm > 1) & (mm <= 3.0) & ~allowed)
    nothing = Nucleus(np.zeros(SHAPE, bool), {"a": allowed})
    assert not surround(nothing, VOXEL_MM, **OPTIONS)["a"].any()


def test_contrast_to_noise_is_that_of_its_definition(rng) -> None:
    inside, outside = np.zeros((2, 4000), bool)
    inside[:1500], outside[1500:] = True, True
    image = np.where(inside, 3 + 2 * rng.standard_normal(4000), rng.standard_normal(4000))
    found = moments((image.astype(np.float32),), inside, outside)
    assert contrast_to_noise([found], [1]) == pytest.approx(3 / np.sqrt(2.5), rel=0.1)
    assert (found.n, found.n_surround) == (1500, 2500)
    expected = abs(image[inside].mean() - image[outside].mean())
    expected /= np.sqrt((image[inside].var(ddof=1) + image[outside].var(ddof=1)) / 2)
    assert contrast_to_noise([found], [1]) == pytest.approx(expected, rel=1e-5)
    assert moments((image,), inside, np.arange(4000) < 9) is None


def test_no_other_weight_gives_a_higher_ratio(head) -> None:
    t1w, chi, nuclei = head
    found = of_sides((t1w, chi), nuclei)
    k = optimal(t1w, chi, nuclei, VOXEL_MM, 1.0, **OPTIONS)
    best = contrast_to_noise(found, [1, k])
    # brute force over all directions of the plane of weights
    angles = np.linspace(-np.pi / 2, np.pi / 2, 3001)[1:-1]
    tried = [contrast_to_noise(found, [1, 1000 * np.tan(a)]) for a in angles]
    assert best >= max(tried) and best == pytest.approx(max(tried), rel=1e-4)
    sought = minimize_scalar(
        lambda x: -contrast_to_noise(found, [1, x]), bounds=(0.5 * k, 2 * k), method="bounded"
    )
    assert k == pytest.approx(sought.x, rel=1e-3)
    assert best > max(contrast_to_noise(found, w) for w in ([1, 0], [0, 1]))
    # the sum itself has that ratio
    hybrid = (t1w + np.float32(k) * chi,)
    assert contrast_to_noise(of_sides(hybrid, nuclei), [1]) == pytest.approx(best, rel=1e-4)


def test_the_ratio_does_not_depend_on_scale_or_zero_and_k_goes_along(head) -> None:
    t1w, chi, nuclei = head
    k = optimal(t1w, chi, nuclei, VOXEL_MM, 1.0, **OPTIONS)
    best = contrast_to_noise(of_sides((t1w, chi), nuclei), [1, k])
    for scale, zero in ((7.5, 0.0), (0.01, 30.0)):
        other = (scale * t1w + zero).astype(np.float32)
        k_other = optimal(other, chi + np.float32(0.3), nuclei, VOXEL_MM, 1.0, **OPTIONS)
        assert k_other == pytest.approx(scale * k, rel=2e-3)
        again = contrast_to_noise(of_sides((other, chi), nuclei), [1, k_other])
        assert again == pytest.approx(best, rel=1e-3)


def test_what_differs_between_the_sides_is_no_noise(head) -> None:
    t1w, chi, nuclei = head
    apart = optimal(t1w, chi, nuclei, VOXEL_MM, 1.0, **OPTIONS)
    t1w[20:] += 400
    assert optimal(t1w, chi, nuclei, VOXEL_MM, 1.0, **OPTIONS) == pytest.approx(apart, rel=1e-3)


def test_what_cannot_be_weighted_is_said(head) -> None:
    t1w, chi, nuclei = head
    none = [Nucleus(np.zeros(SHAPE, bool), n.parts) for n in nuclei]
    with pytest.raises(ValueError, match="neither side has 10 voxels"):
        optimal(t1w, chi, none, VOXEL_MM, 1.0, **OPTIONS)
    flat = np.full(SHAPE, 500, np.float32)
    with pytest.raises(ValueError, match="is constant"):
        best_weight([of_sides((flat, chi), nuclei)])
    covariance = np.array([[1.0, 0.5], [0.5, 1.0]])  # what T1w tells is told by chi already
    useless = Moments(np.array([0.5, 1.0]), np.zeros(2), covariance, covariance, 100, 100)
    with pytest.raises(ValueError, match="adds nothing"):
        best_weight([[useless]])
    with pytest.raises(ValueError, match="'against' must be one of weakest"):
        optimal(t1w, chi, nuclei, VOXEL_MM, 1.0, against="all")


def test_a_fixed_weight_is_in_units_of_the_t1w(head) -> None:
    t1w, chi, nuclei = head
    assert fixed(t1w, chi, nuclei, VOXEL_MM, 250.0, k=2.0) == 500.0


@pytest.mark.parametrize("seed", range(6))
def test_against_two_tissues_the_weaker_ratio_is_the_highest(seed) -> None:
    """The least of two ratios, over all directions, by brute force."""
    random = np.random.default_rng(seed)
    parts = []
    for _ in range(2):
        root = random.standard_normal((2, 2)) * (30, 0.02)
        covariance = np.einsum("ki,kj->ij", root, root)
        mean = random.standard_normal(2) * (60, 0.1)
        parts.append([Moments(mean, np.zeros(2), covariance, covariance, 99, 99)])
    k = best_weight(parts)
    found = min(contrast_to_noise(part, [1, k]) for part in parts)
    w = np.stack([np.cos(a := np.linspace(0, np.pi, 4001)), 2000 * np.sin(a)])
    ratios = [
        np.abs(np.einsum("i,in->n", m.difference, w))
        / np.sqrt(np.einsum("in,ij,jn->n", w, m.pooled, w))
        for (m,) in parts
    ]
    brute = np.min(ratios, axis=0).max()
    assert found >= brute * (1 - 1e-9) and found == pytest.approx(brute, rel=2e-3)


def test_what_it_stands_out_from_is_chosen(head) -> None:
    """A neighbour with the same susceptibility: only T1w tells it, which one tissue hides."""
    t1w, chi, nuclei = head
    other = ball((10, 26, 15), 5) & ~nuclei[0].inside
    t1w, chi = t1w + 30 * other, chi + np.float32(0.12) * other
    parts = {UNLABELLED: nuclei[0].parts[UNLABELLED] & ~other, "beside": other}
    alone = [Nucleus(nuclei[0].inside, parts)]
    shells = surround(alone[0], VOXEL_MM, **OPTIONS)
    found = {n: [moments((t1w, chi), alone[0].inside, s)] for n, s in shells.items()}
    k = {
        against: optimal(t1w, chi, alone, VOXEL_MM, 1.0, against=against, **OPTIONS)
        for against in ("weakest", UNLABELLED, "neighbour")
    }
    for name, against in ((UNLABELLED, UNLABELLED), ("beside", "neighbour")):
        ratios = {a: contrast_to_noise(found[name], [1, weight]) for a, weight in k.items()}
        assert max(ratios, key=ratios.get) == against or ratios[against] == max(ratios.values())
    least = {a: min(contrast_to_noise(m, [1, w]) for m in found.values()) for a, w in k.items()}
    assert least["weakest"] == max(least.values())


def test_the_table_has_a_row_for_each_image_and_surround(head) -> None:
    t1w, chi, nuclei = head
    shell = surround(nuclei[0], VOXEL_MM, **OPTIONS)[UNLABELLED]
    outsides = {"all": shell, "other": nuclei[1].inside, "none": np.zeros(SHAPE, bool)}
    table = contrast_table({"T1w": t1w, "chi": chi}, nuclei[0].inside, outsides)
    assert table["surround"].tolist() == ["all", "all", "other", "other"]
    row = table.iloc[1]
    inside = chi[nuclei[0].inside].astype(float)
    assert (row["mean"], row["sd"]) == pytest.approx((inside.mean(), inside.std(ddof=1)))
    noise = np.sqrt((row["sd"] ** 2 + row["surround_sd"] ** 2) / 2)
    assert row["cnr"] == pytest.approx(abs(row["mean"] - row["surround_mean"]) / noise)
    assert row["surround_n_voxels"] == shell.sum()
