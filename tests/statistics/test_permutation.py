from __future__ import annotations

import itertools
from collections.abc import Iterator

import nibabel as nib
import numba
import numpy as np
import pytest
from nilearn.maskers import NiftiMasker
from nilearn.mass_univariate import permuted_ols
from numpy.typing import NDArray
from scipy import stats
from scipy.linalg import null_space
from scipy.ndimage import gaussian_filter

from bids_qsm.statistics.exchange import exchanges
from bids_qsm.statistics.glm import fit_voxels
from bids_qsm.statistics.glm import test_contrast as contrast_of
from bids_qsm.statistics.permutation import PermutationTest, permutation_test
from bids_qsm.statistics.tfce import tfce

SHAPE = (9, 8, 7)
MASK = np.ones(SHAPE, np.bool_)
MASK[:2, :3] = False


def images(n: int, seed: int = 1) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    noise = [gaussian_filter(rng.standard_normal(SHAPE), 1.0)[MASK] for _ in range(n)]
    return (30 + 5 * np.array(noise) / np.std(noise)).astype(np.float32)


def study(n: int = 24, seed: int = 1) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Two groups that differ in a corner, and a covariate that matters."""
    rng = np.random.default_rng(seed)
    values = images(n, seed)
    group = np.arange(n) >= n // 2
    age = rng.normal(40, 10, n) + 4 * group
    corner = np.zeros(SHAPE)
    corner[4:, 4:, 3:] = 6
    values += group[:, None] * corner[MASK] + 0.1 * age[:, None]
    return values.astype(np.float32), np.column_stack([np.ones(n), group, age])


def nilearn_orders(seed: int, n_images: int, n_permutations: int) -> NDArray[np.int64]:
    """The permutations that ``permuted_ols`` makes with one job: each of the one before."""
    first = np.random.RandomState(seed).randint(1, np.iinfo(np.int32).max - 1, size=1)[0]
    rng, order, orders = np.random.RandomState(first), np.arange(n_images), []
    for _ in range(n_permutations):
        order = order[rng.permutation(n_images)]
        orders.append(order)
    return np.array(orders)


@pytest.fixture(scope="module")
def beside_nilearn() -> tuple[dict[str, NDArray], PermutationTest]:
    """Both programs on the same images and the same permutations."""
    values, design = study()
    n_permutations, seed = 99, 5
    ours = permutation_test(
        values,
        design,
        [0, 1, 0],
        MASK,
        primary_p=0.02,
        cluster_connectivity=6,
        orders=nilearn_orders(seed, len(design), n_permutations),
    )
    masker = NiftiMasker(mask_img=nib.Nifti1Image(MASK.astype(np.uint8), np.eye(4))).fit()
    theirs = permuted_ols(
        design[:, 1:2],
        values.astype(np.float64),
        confounding_vars=design[:, 2:],
        n_perm=n_permutations,
        random_state=seed,
        masker=masker,
        tfce=True,
        threshold=0.02,
    )
    return theirs, ours


def test_t_maps_are_those_of_nilearn(beside_nilearn) -> None:
    theirs, ours = beside_nilearn
    np.testing.assert_allclose(ours.statistic, theirs["t"][0], rtol=2e-6, atol=2e-6)
    assert ours.distribution.df_denominator == 21


def test_corrected_p_are_those_of_nilearn_on_the_same_permutations(beside_nilearn) -> None:
    theirs, ours = beside_nilearn
    np.testing.assert_allclose(
        np.sort(ours.maxima[:, 0]), np.sort(theirs["h0_max_t"][0]), rtol=1e-5
    )
    np.testing.assert_allclose(ours.p_voxel, 10 ** -theirs["logp_max_t"][0], rtol=1e-9)
    assert 0.01 <= ours.p_voxel.min() < 0.05 < ours.p_voxel.max()


def test_clusters_are_those_of_nilearn_on_the_same_permutations(beside_nilearn) -> None:
    theirs, ours = beside_nilearn
    np.testing.assert_array_equal(np.sort(ours.maxima[:, 2]), np.sort(theirs["h0_max_size"][0]))
    np.testing.assert_allclose(
        np.sort(ours.maxima[:, 3]), np.sort(theirs["h0_max_mass"][0]), rtol=1e-4, atol=1e-5
    )
    inside = ours.clusters > 0
    assert inside.sum() > 20
    for ours_p, key in ((ours.p_mass, "logp_max_mass"), (ours.p_size, "logp_max_size")):
        # nilearn's p of clusters leave out the images as they are, but are at least 1 / n
        without = np.maximum(100 * ours_p - 1, 1) / 99
        found = without[ours.clusters[inside] - 1]
        np.testing.assert_allclose(found, 10 ** -theirs[key][0][inside], rtol=1e-9)


def test_enhanced_maps_are_near_those_of_nilearn_which_takes_100_steps(beside_nilearn) -> None:
    theirs, ours = beside_nilearn
    step = np.abs(ours.statistic).max() / 100
    high = np.abs(ours.tfce) > 0.1 * np.abs(ours.tfce).max()
    np.testing.assert_allclose(ours.tfce[high], theirs["tfce"][0][high] * step, rtol=0.06)
    assert (ours.p_tfce <= 0.05).sum() > 20


def naive_fit(values: NDArray, design: NDArray, contrast: NDArray) -> NDArray:
    return contrast_of(fit_voxels(values, design), contrast).statistic


@pytest.mark.parametrize("contrast", [[0, 1, 0], [[0, 1, 0], [0, 0, 1]], [0.5, 1, -0.1]])
@pytest.mark.parametrize("scheme", ["permute", "flip"])
def test_is_the_refit_of_permuted_residuals(contrast: list, scheme: str) -> None:
    values, design = study(14)
    found = permutation_test(
        values, design, contrast, MASK, n_permutations=8, scheme=scheme, seed=3, primary_p=0.05
    )
    places, signs = exchanges(14, 8, scheme, 3)
    rows = np.atleast_2d(contrast)
    rest = design @ null_space(rows)
    residuals = values - rest @ np.linalg.lstsq(rest, values.astype(float), rcond=None)[0]
    for k in range(8):
        # image `places[i]` of the design's rows stands beside residual `i`
        moved = np.empty_like(residuals)
        moved[places[k]] = residuals * signs[k][:, None]
        refit = naive_fit(moved, design, contrast)
        height = np.abs(refit) if np.ndim(contrast) == 1 else np.sqrt(refit)
        assert found.maxima[k, 0] == pytest.approx(height.max(), rel=1e-4)
        signed = refit if np.ndim(contrast) == 1 else height
        enhanced = np.abs(tfce(signed, MASK)).max()
        assert found.maxima[k, 1] == pytest.approx(enhanced, rel=1e-3)


def test_f_of_one_row_has_the_p_of_two_sided_t() -> None:
    values, design = study()
    t = permutation_test(values, design, [0, 1, 0], MASK, n_permutations=50, seed=2)
    f = permutation_test(values, design, [[0, 1, 0]], MASK, n_permutations=50, seed=2)
    np.testing.assert_allclose(f.statistic, t.statistic**2, rtol=1e-4)
    np.testing.assert_array_equal(f.p_voxel, t.p_voxel)
    np.testing.assert_array_equal(f.p_uncorrected, t.p_uncorrected)
    assert f.distribution.kind == "F"


def test_one_sided_tests_look_at_one_side() -> None:
    values, design = study()
    greater, less, other = (
        permutation_test(values, design, c, MASK, n_permutations=60, alternative=side)
        for c, side in (([0, 1, 0], "greater"), ([0, 1, 0], "less"), ([0, -1, 0], "greater"))
    )
    assert greater.p_tfce.min() < 0.05
    assert less.p_tfce.min() > 0.2
    assert (greater.tfce >= 0).all()
    assert (less.tfce <= 0).all()
    np.testing.assert_array_equal(less.p_voxel, other.p_voxel)
    np.testing.assert_array_equal(less.tfce, -other.tfce)
    np.testing.assert_array_equal(less.statistic, -other.statistic)


def test_signs_are_flipped_where_a_mean_is_tested() -> None:
    values = images(12) - np.float32(30)
    values[:, :60] += 12
    found = permutation_test(values, np.ones((12, 1)), [1], MASK, n_permutations=200)
    assert found.scheme == "flip"
    assert np.mean(found.p_voxel[:60] <= 0.05) > 0.8
    assert found.p_voxel[60:].min() > 0.2
    expected = stats.ttest_1samp(values.astype(float), 0).statistic
    np.testing.assert_allclose(found.statistic, expected, rtol=1e-5)
    groups = np.repeat(np.eye(2), 6, axis=0)  # a mean of each group, and no intercept
    assert permutation_test(values, groups, [1, -1], MASK, n_permutations=2).scheme == "permute"
    assert permutation_test(values, groups, [1, 0], MASK, n_permutations=2).scheme == "flip"


def test_all_permutations_give_the_exact_p() -> None:
    values = images(6)
    values[3:] += np.linspace(0, 12, MASK.sum(), dtype=np.float32)
    design = np.column_stack([np.ones(6), np.arange(6) >= 3])
    orders = np.array(list(itertools.permutations(range(6)))[1:])
    found = permutation_test(values, design, [0, 1], MASK, orders=orders)
    splits = [
        stats.ttest_ind(values[list(a)], np.delete(values, a, axis=0)).statistic
        for a in itertools.combinations(range(6), 3)
    ]
    reached = np.abs(splits) >= np.abs(found.statistic) * (1 - 1e-4)
    np.testing.assert_allclose(found.p_uncorrected, reached.mean(axis=0), rtol=1e-9)
    highest = np.abs(splits).max(axis=1)[:, None] >= np.abs(found.statistic) * (1 - 1e-4)
    np.testing.assert_allclose(found.p_voxel, highest.mean(axis=0), rtol=1e-9)


@pytest.fixture
def threads() -> Iterator[None]:
    before = numba.get_num_threads()
    yield
    numba.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_neither_threads_nor_mapped_files_change_the_result(tmp_path) -> None:
    values, design = study()
    np.save(tmp_path / "values.npy", values)
    numba.set_num_threads(1)
    one = permutation_test(values, design, [0, 1, 0], MASK, n_permutations=21)
    numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    mapped = np.load(tmp_path / "values.npy", mmap_mode="r")
    many = permutation_test(mapped, design, [0, 1, 0], MASK, n_permutations=21)
    np.testing.assert_array_equal(one.maxima, many.maxima)
    np.testing.assert_array_equal(one.p_uncorrected, many.p_uncorrected)
    np.testing.assert_array_equal(one.tfce, many.tfce)
    other = permutation_test(values, design, [0, 1, 0], MASK, n_permutations=21, seed=9)
    assert not np.array_equal(one.maxima, other.maxima)


def test_voxels_without_values_are_left_out() -> None:
    values, design = study()
    values[3, 7] = np.nan
    values[:, 20] = 0
    found = permutation_test(values, design, [0, 1, 0], MASK, n_permutations=20)
    assert np.flatnonzero(~found.valid).tolist() == [7, 20]
    assert found.p_voxel[[7, 20]].tolist() == [1, 1]
    assert found.p_uncorrected[[7, 20]].tolist() == [1, 1]
    assert found.tfce[[7, 20]].tolist() == [0, 0]
    assert np.isfinite(found.maxima).all()


def test_clusters_are_numbered_by_mass_with_the_sides_apart() -> None:
    values, design = study()
    found = permutation_test(values, design, [0, 1, 0], MASK, n_permutations=20, primary_p=0.1)
    assert (np.diff(found.cluster_mass) <= 0).all()
    assert found.threshold == pytest.approx(stats.t.isf(0.05, 21))
    assert len(found.p_mass) == len(found.p_size) == found.clusters.max() > 2
    for number, (size, mass) in enumerate(
        zip(found.cluster_size, found.cluster_mass, strict=True), start=1
    ):
        inside = found.statistic[found.clusters == number]
        assert inside.size == size
        assert abs(np.sign(inside).sum()) == size
        assert (np.abs(inside) - found.threshold).sum() == pytest.approx(mass, rel=1e-3)


@pytest.mark.usefixtures("threads")
def test_p_of_null_data_are_uniform() -> None:
    """100 studies: the least corrected p is .25 or less in about a quarter of them."""
    numba.set_num_threads(1)
    design = np.column_stack([np.ones(12), np.arange(12) % 2])
    small = np.ones((4, 4, 4), np.bool_)
    rng = np.random.default_rng(1)
    low = np.zeros(2)
    for seed in range(100):
        values = rng.standard_normal((12, 64))
        found = permutation_test(values, design, [0, 1], small, n_permutations=39, seed=seed)
        low += found.p_tfce.min() <= 0.25, found.p_voxel.min() <= 0.25
    assert (np.abs(low - 25) < 11).all()  # 2.5 SD


def test_blocks_keep_images_together() -> None:
    subjects = np.repeat(np.arange(5), [2, 2, 2, 3, 3])
    within, _ = exchanges(12, 50, "permute", 1, subjects)
    assert (subjects[within] == subjects).all()
    assert (within != np.arange(12)).any(axis=0).all()
    wholes, _ = exchanges(12, 50, "permute", 1, subjects, as_wholes=True)
    assert (np.sort(wholes, axis=1) == np.arange(12)).all()
    assert (wholes[:, 1:6:2] - wholes[:, 0:6:2] == 1).all()  # sessions stay in their order
    assert set(wholes[:, 6:].ravel()) == set(range(6, 12))  # sizes do not mix
    _, signs = exchanges(12, 50, "flip", 1, subjects, as_wholes=True)
    assert all(
        (signs[:, subjects == s] == signs[:, [int(np.argmax(subjects == s))]]).all()
        for s in range(5)
    )
    assert (signs.mean(axis=0) < 0.6).all()
    _, signs = exchanges(12, 50, "flip", 1)
    assert set(np.unique(signs)) == {-1, 1}


def test_bad_input_is_refused_in_a_sentence() -> None:
    values, design = study()
    with pytest.raises(ValueError, match="one column for each voxel"):
        permutation_test(values[:, 1:], design, [0, 1, 0], MASK)
    with pytest.raises(ValueError, match="cannot be fitted"):
        permutation_test(values, np.column_stack([design, design[:, 1]]), [0, 1, 0, 0], MASK)
    with pytest.raises(ValueError, match="3 coefficients"):
        permutation_test(values, design, [0, 1], MASK)
    with pytest.raises(ValueError, match="primary p between 0 and"):
        permutation_test(values, design, [0, 1, 0], MASK, primary_p=3.1)
    with pytest.raises(ValueError, match="two-sided, greater or less, and is 'both'"):
        permutation_test(values, design, [0, 1, 0], MASK, alternative="both")
    with pytest.raises(ValueError, match="name the block of each image"):
        permutation_test(values, design, [0, 1, 0], MASK, blocks=[1, 2])
    with pytest.raises(ValueError, match="each holds one image"):
        permutation_test(values, design, [0, 1, 0], MASK, blocks=np.arange(24))
    with pytest.raises(ValueError, match="24 images once"):
        permutation_test(values, design, [0, 1, 0], MASK, orders=np.zeros((2, 24), int))
