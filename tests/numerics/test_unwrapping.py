"""Phase unwrapping and the phase-quality map."""

from __future__ import annotations

import itertools

import nibabel as nib
import numba
import numpy as np
import pytest
from scipy.sparse import coo_array, csgraph
from skimage.restoration import unwrap_phase

from bids_qsm.numerics.phase import wrap
from bids_qsm.numerics.romeo import NO_EDGE, WORST, edge_costs, grow_regions
from bids_qsm.numerics.unwrapping import (
    METHODS,
    best_path,
    laplacian,
    quality_map,
    romeo,
    template_echo,
    unwrap_volume,
)

TURN = 2 * np.pi
TE_S = (0.004, 0.010, 0.016, 0.022)
OTHERS = ("laplacian", "best-path")


def _coordinates(shape):
    return np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")


def _smooth_phase(shape=(36, 32, 28)):
    """Several turns, nowhere more than half a turn between neighbours; median near zero."""
    x, y, z = _coordinates(shape)
    phase = 9 * np.sin(1.5 * x) + 6 * x * y - 5 * z**2
    return (phase - np.median(phase)).astype(np.float32)


def _echoes(rng, shape=(36, 32, 28), noise=0.05):
    x, y, z = _coordinates(shape)
    field_hz = 90 * (x * y + 0.7 * z * x) + 15 * np.sin(6 * z)
    true = (TURN * field_hz[..., None] * np.asarray(TE_S)).astype(np.float32)
    magnitude = np.exp(-30 * np.asarray(TE_S)) * (1 + 0.2 * x[..., None])
    signal = magnitude * np.exp(1j * true)
    signal = signal + noise * (
        rng.standard_normal(true.shape) + 1j * rng.standard_normal(true.shape)
    )
    noisy = true + np.angle(signal * np.exp(-1j * true))
    return noisy.astype(np.float32), np.abs(signal).astype(np.float32)


def _turns_apart(a, b, mask):
    """Return the whole turns between two phases in the mask, without the most frequent one."""
    turns = (a - b)[mask] / TURN
    assert np.abs(turns - np.rint(turns) - np.median(turns - np.rint(turns))).max() < 1e-3
    whole = np.rint(turns).astype(int)
    return whole - np.bincount(whole - whole.min()).argmax() - whole.min()


def test_a_ramp_is_unwrapped_exactly():
    x = np.arange(-30, 31, dtype=np.float32)[:, None, None] * np.ones((1, 5, 4), np.float32)
    true = 2.5 * x
    everywhere = np.ones(true.shape, bool)
    unwrapped = unwrap_volume(wrap(true), np.ones_like(true), everywhere)
    np.testing.assert_allclose(unwrapped, true, atol=1e-4)


def test_agrees_with_skimage_up_to_whole_turns(rng):
    true = _smooth_phase()
    wrapped = wrap(true + rng.normal(0, 0.4, true.shape).astype(np.float32))
    x, y, z = _coordinates(true.shape)
    mask = x**2 + y**2 + z**2 < 0.9
    ours = unwrap_volume(wrapped, np.ones_like(wrapped), mask)
    theirs = np.asarray(unwrap_phase(np.ma.array(wrapped, mask=~mask)))
    assert not _turns_apart(ours, theirs, mask).any()
    assert not ours[~mask].any()


@pytest.mark.parametrize("each_echo", [False, True])
def test_all_echoes_are_unwrapped_to_the_truth(rng, each_echo):
    noisy, magnitude = _echoes(rng)
    x, y, z = _coordinates(noisy.shape[:3])
    mask = x**2 + y**2 + z**2 < 1
    unwrapped = romeo(wrap(noisy), magnitude, TE_S, mask, each_echo=each_echo)
    assert unwrapped.dtype == np.float32
    assert not unwrapped[~mask].any()
    np.testing.assert_allclose(unwrapped[mask], noisy[mask], atol=1e-3)


def test_time_follows_a_wrong_template_no_further_than_it_must(rng):
    """What is left of the offset must not be scaled up with the echo time."""
    te_s = tuple(0.003 + 0.004 * np.arange(10))
    field_hz = np.linspace(-60, 60, 4000).reshape(20, 20, 10)
    true = (0.4 + TURN * field_hz[..., None] * np.asarray(te_s)).astype(np.float32)
    true += rng.normal(0, 0.15, true.shape).astype(np.float32)
    mask = np.ones(field_hz.shape, bool)
    unwrapped = romeo(wrap(true), np.ones_like(true), te_s, mask)
    wrong = np.abs(unwrapped - true) > np.pi
    assert wrong.mean() < 2e-3
    naive = true[..., :1] * np.asarray(te_s) / te_s[0]
    assert (np.abs(naive - true)[..., -1] > np.pi).mean() > 0.3


def test_flips_and_permutations_change_nothing(rng):
    noisy, magnitude = _echoes(rng, (17, 14, 11))
    wrapped = wrap(noisy)
    mask = np.ones(noisy.shape[:3], bool)
    expected = romeo(wrapped.copy(), magnitude, TE_S, mask)
    for axis in range(3):
        flipped = romeo(np.flip(wrapped, axis).copy(), np.flip(magnitude, axis), TE_S, mask[::-1])
        np.testing.assert_allclose(np.flip(flipped, axis), expected, atol=1e-4)
    for axes in itertools.permutations(range(3)):
        there, back = (*axes, 3), (*np.argsort(axes), 3)
        permuted = romeo(
            wrapped.transpose(there).copy(),
            magnitude.transpose(there),
            TE_S,
            mask.transpose(axes),
        )
        np.testing.assert_allclose(permuted.transpose(back), expected, atol=1e-4)


def test_magnitude_s_unit_does_not_matter(rng):
    noisy, magnitude = _echoes(rng, (17, 14, 11), noise=0.3)
    wrapped, mask = wrap(noisy), np.ones((17, 14, 11), bool)
    for factor in (2.0**-12, 2.0**12):
        np.testing.assert_array_equal(
            romeo(wrapped.copy(), magnitude * np.float32(factor), TE_S, mask),
            romeo(wrapped.copy(), magnitude, TE_S, mask),
        )
        np.testing.assert_array_equal(
            quality_map(wrapped, magnitude * np.float32(factor), TE_S),
            quality_map(wrapped, magnitude, TE_S),
        )


def test_the_result_does_not_depend_on_threads(rng):
    noisy, magnitude = _echoes(rng, (17, 14, 11), noise=0.3)
    wrapped, mask = wrap(noisy), np.ones((17, 14, 11), bool)
    threads = numba.get_num_threads()
    expected = romeo(wrapped.copy(), magnitude, TE_S, mask)
    numba.set_num_threads(1)
    try:
        np.testing.assert_array_equal(romeo(wrapped.copy(), magnitude, TE_S, mask), expected)
    finally:
        numba.set_num_threads(threads)


def test_each_part_of_a_mask_is_near_zero():
    shape = (40, 9, 8)
    true = np.zeros(shape, np.float32)
    x = np.arange(15, dtype=np.float32)[:, None, None]
    true[:15] = 1.5 * (x - 7) + 0.5
    true[20:35] = 2.0 * (x - 7) - 1.0
    true[38, 4, 4] = 2.9
    mask = np.zeros(shape, bool)
    mask[:15], mask[20:35], mask[38, 4, 4] = True, True, True
    unwrapped = unwrap_volume(wrap(true), np.ones_like(true), mask)
    np.testing.assert_allclose(unwrapped, true, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 1), (5, 4, 1), (2, 3, 300)])
def test_any_size_and_a_single_echo(shape):
    true = 0.5 * np.indices(shape).sum(axis=0).astype(np.float32)
    true -= TURN * np.rint(np.median(true) / TURN)
    mask = np.ones(shape, bool)
    for each_echo in (False, True):
        unwrapped = romeo(
            wrap(true)[..., None],
            np.ones((*shape, 1), np.float32),
            (0.02,),
            mask,
            each_echo=each_echo,
        )
        np.testing.assert_allclose(unwrapped[..., 0], true, atol=1e-3)
    assert quality_map(wrap(true)[..., None], np.ones((*shape, 1), np.float32), (0.02,)).max() <= 1


def test_dark_voxels_are_still_unwrapped(rng):
    noisy, magnitude = _echoes(rng, (15, 14, 13))
    magnitude[4:7, 4:7, 4:7] = 0
    mask = np.ones((15, 14, 13), bool)
    unwrapped = romeo(wrap(noisy), magnitude, TE_S, mask)
    np.testing.assert_allclose(np.exp(1j * unwrapped), np.exp(1j * noisy), atol=1e-3)
    np.testing.assert_allclose(unwrapped[8:], noisy[8:], atol=1e-3)


@pytest.mark.parametrize("name", METHODS)
def test_an_empty_mask_is_refused(name):
    phase = np.zeros((4, 4, 4, 1), np.float32)
    with pytest.raises(ValueError, match="mask is empty"):
        METHODS[name](phase, phase + 1, (0.01,), np.zeros((4, 4, 4), bool))


@pytest.mark.parametrize("name", OTHERS)
def test_other_methods_unwrap_all_echoes_to_the_truth(rng, name):
    noisy, magnitude = _echoes(rng)
    x, y, z = _coordinates(noisy.shape[:3])
    mask = x**2 + y**2 + z**2 < 1
    unwrapped = METHODS[name](wrap(noisy), magnitude, TE_S, mask)
    assert unwrapped.dtype == np.float32
    assert not unwrapped[~mask].any()
    np.testing.assert_allclose(unwrapped[mask], noisy[mask], atol=1e-3)


@pytest.mark.parametrize("name", OTHERS)
def test_other_methods_agree_with_skimage_up_to_whole_turns(rng, name):
    true = _smooth_phase()
    wrapped = wrap(true + rng.normal(0, 0.4, true.shape).astype(np.float32))
    x, y, z = _coordinates(true.shape)
    mask = x**2 + y**2 + z**2 < 0.9
    ours = METHODS[name](wrapped[..., None], np.ones_like(wrapped)[..., None], (0.01,), mask)
    theirs = np.asarray(unwrap_phase(np.ma.array(wrapped, mask=~mask)))
    assert not _turns_apart(ours[..., 0], theirs, mask).any()


@pytest.mark.parametrize("name", OTHERS)
def test_other_methods_bring_every_part_of_each_echo_to_the_turn_that_time_tells(name):
    te_s = (0.004, 0.009, 0.017)
    x = np.arange(40, dtype=np.float32)[:, None, None]
    field_rad_per_s = np.where(x < 15, 130 * (x - 7), 150 * (x - 27) - 300)
    field_rad_per_s = np.broadcast_to(field_rad_per_s, (40, 9, 8))
    true = (field_rad_per_s[..., None] * np.asarray(te_s)).astype(np.float32)
    mask = np.zeros((40, 9, 8), bool)
    mask[:15], mask[20:35], mask[38, 4, 4] = True, True, True
    true[38, 4, 4] = (0.5, 1.2, 2.0)
    unwrapped = METHODS[name](wrap(true), np.ones_like(true), te_s, mask)
    np.testing.assert_allclose(unwrapped[mask], true[mask], atol=5e-3)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 1), (5, 4, 1), (2, 3, 100)])
@pytest.mark.parametrize("name", OTHERS)
def test_other_methods_take_any_size_and_a_single_echo(name, shape):
    true = 0.5 * np.indices(shape).sum(axis=0).astype(np.float32)
    true -= TURN * np.rint(np.median(true) / TURN)
    echoes = np.ones((*shape, 1), np.float32)
    unwrapped = METHODS[name](wrap(true)[..., None], echoes, (0.02,), np.ones(shape, bool))
    np.testing.assert_allclose(unwrapped[..., 0], true, atol=1e-2)


@pytest.mark.parametrize("name", OTHERS)
def test_other_methods_are_the_same_at_every_run(rng, name):
    noisy, magnitude = _echoes(rng, (17, 14, 11), noise=0.5)
    mask = np.ones((17, 14, 11), bool)
    one, other = (METHODS[name](wrap(noisy), magnitude, TE_S, mask) for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_laplacian_keeps_a_steep_ramp_and_its_wrapped_values(rng):
    """No loss of large scales, which the periodic Laplacian has; flips change nothing."""
    x, y, z = np.indices((31, 20, 9), np.float32)
    true = (2.4 * (x - 15) + 0.3 * (y - 9.5) - 1.1 * (z - 4))[..., None]
    mask = (((x - 15) / 15) ** 2 + ((y - 9.5) / 10) ** 2) < 1
    ones = np.ones_like(true)
    found = laplacian(wrap(true), ones, (0.01,), mask)
    np.testing.assert_allclose(found[mask], true[mask], atol=1e-3)
    flipped = laplacian(wrap(true)[::-1, :, ::-1], ones, (0.01,), mask[::-1, :, ::-1])
    np.testing.assert_allclose(flipped[::-1, :, ::-1], found, atol=1e-3)


def test_laplacian_without_whole_turns_is_smooth_where_the_phase_has_poles(rng):
    """Around an open-ended fringe no whole turns are free of a jump."""
    x, y, _ = np.indices((24, 24, 6)) - np.array([11.5, 11.5, 0])[:, None, None, None]
    wrapped = np.arctan2(y, x).astype(np.float32)[..., None]
    mask, ones = np.ones((24, 24, 6), bool), np.ones_like(wrapped)
    exact = laplacian(wrapped, ones, (0.01,), mask)
    smooth = laplacian(wrapped, ones, (0.01,), mask, whole_turns=False)
    turns = (exact - wrapped) / TURN
    np.testing.assert_allclose(turns, np.rint(turns), atol=1e-5)
    assert np.abs(np.diff(exact[..., 0], axis=1)).max() > np.pi
    assert np.abs(np.diff(smooth[..., 0], axis=1)).max() < np.pi / 2


def test_best_path_outside_the_mask_does_not_matter(rng):
    noisy, magnitude = _echoes(rng, (17, 14, 11))
    x, y, z = _coordinates(noisy.shape[:3])
    mask = x**2 + y**2 + z**2 < 0.8
    wrapped = wrap(noisy)
    expected = best_path(wrapped, magnitude, TE_S, mask)
    wrapped[~mask] = rng.uniform(-np.pi, np.pi, wrapped[~mask].shape)
    np.testing.assert_array_equal(best_path(wrapped, magnitude, TE_S, mask), expected)


@pytest.mark.parametrize(
    ("te_s", "expected"),
    [((0.01,), 0), (TE_S, 0), ((0.00003, 0.0046), 1), ((0.0001, 0.002, 0.004), 1)],
)
def test_the_template_is_early_but_tells_the_next_echo(te_s, expected):
    assert template_echo(te_s) == expected


def test_an_ultrashort_first_echo_is_unwrapped_from_the_second(rng):
    te_s = (0.00003, 0.0046)
    true = _smooth_phase()[..., None] * np.array([0.01, 1.0], np.float32)
    mask = np.ones(true.shape[:3], bool)
    unwrapped = romeo(wrap(true), np.ones_like(true), te_s, mask)
    np.testing.assert_allclose(unwrapped, true, atol=1e-3)


def _naive_cost(phase, other, scales, magnitude, here, there):
    def step(volume):
        return np.angle(np.exp(1j * (float(volume[there]) - float(volume[here]))))

    low, high = sorted((float(magnitude[here]), float(magnitude[there])))
    temporal = max(0.0, 1 - abs(step(phase) * scales[0] - step(other) * scales[1]))
    weight = (1 - abs(step(phase)) / np.pi) * temporal * ((low / high) ** 2 if high else 0)
    return WORST - (WORST - 1) * weight


def _unpacked(costs):
    """Return the costs of the edges, by axis first."""
    return np.stack([(costs >> np.uint32(8 * axis)) & np.uint32(255) for axis in range(3)])


@pytest.mark.parametrize("shape", [(5, 4, 6), (19, 5, 3)])
def test_edge_costs_are_those_of_the_formula(rng, shape):
    phase, other = rng.uniform(-np.pi, np.pi, (2, *shape)).astype(np.float32)
    phase = np.stack([phase, other], -1)[..., 0]  # voxels of an echo lie apart
    other = np.where(rng.random(shape) < 0.7, wrap(2.5 * phase), other).astype(np.float32)
    magnitude = rng.uniform(0.5, 1, shape).astype(np.float32)
    mask = rng.random(shape) < 0.8
    scales = (1.0, 0.4)
    costs = edge_costs(phase, other, scales, magnitude, mask)
    assert costs.dtype == np.uint32
    costs = _unpacked(costs)
    n_edges = 0
    for here in np.ndindex(shape):
        for axis in range(3):
            there = tuple(np.add(here, np.eye(3, dtype=int)[axis]))
            if there[axis] == shape[axis] or not (mask[here] and mask[there]):
                assert costs[(axis, *here)] == NO_EDGE
                continue
            expected = _naive_cost(phase, other, scales, magnitude, here, there)
            assert abs(costs[(axis, *here)] - expected) <= 0.51
            n_edges += 1
    assert n_edges > 150


def _grow_from_each_edge(phase, costs, mask):
    """Unwrap as ``grow_regions`` does, in plain Python: whole regions are joined edge by edge."""
    part = np.where(mask, np.arange(mask.size).reshape(mask.shape), -1)
    unwrapped = np.where(mask, phase, 0).astype(np.float64)
    edges = [
        (costs[(axis, *here)], here, axis)
        for here in np.ndindex(phase.shape)
        for axis in range(3)
        if costs[(axis, *here)] != NO_EDGE
    ]
    for _, here, axis in sorted(edges):
        there = tuple(np.add(here, np.eye(3, dtype=int)[axis]))
        if part[here] != part[there]:
            joined = part == part[there]
            unwrapped[joined] += TURN * np.rint((unwrapped[here] - unwrapped[there]) / TURN)
            part[joined] = part[here]
    return unwrapped, part


@pytest.mark.parametrize("density", [0.4, 1.0])
def test_regions_grow_as_in_plain_python(rng, density):
    shape = (7, 6, 5)
    phase = rng.uniform(-np.pi, np.pi, shape).astype(np.float32)
    magnitude = rng.uniform(0.2, 1, shape).astype(np.float32)
    mask = rng.random(shape) < density
    costs = edge_costs(phase, phase, (1.0, 1.0), magnitude, mask)
    unwrapped, order, starts = grow_regions(phase, costs, mask)
    unwrapped = unwrapped.reshape(shape)
    expected, part = _grow_from_each_edge(phase, _unpacked(costs), mask)
    assert len(starts) - 1 == len(np.unique(part[mask]))
    assert (len(starts) > 2) == (density < 1), "the thin mask should have several parts"
    np.testing.assert_array_equal(np.sort(order), np.flatnonzero(mask))
    assert not unwrapped[~mask].any()
    for start, stop in itertools.pairwise(starts):
        voxels = order[start:stop]
        assert np.unique(part.flat[voxels]).size == 1
        difference = unwrapped.flat[voxels] - expected.flat[voxels]
        np.testing.assert_allclose(difference, difference[0], atol=1e-4)  # whole turns are free


def test_the_tree_is_as_cheap_as_one_grown_from_a_seed(rng):
    """Along scipy's minimum spanning tree the phase unwraps in the same way."""
    shape = (6, 5, 4)
    phase = rng.uniform(-np.pi, np.pi, shape).astype(np.float32)
    n_edges = sum(np.prod(np.subtract(shape, np.eye(3, dtype=int)[axis])) for axis in range(3))
    costs_of = np.zeros((3, *shape), np.uint32)
    values = itertools.cycle(rng.permutation(np.arange(1, 256)))
    heads, tails, weights = [], [], []
    index = np.arange(phase.size).reshape(shape)
    for axis in range(3):
        for here in np.ndindex(*np.subtract(shape, np.eye(3, dtype=int)[axis])):
            there = tuple(np.add(here, np.eye(3, dtype=int)[axis]))
            costs_of[(axis, *here)] = next(values)
            heads.append(index[here])
            tails.append(index[there])
            # ties as they are broken: by voxel, then by axis
            weights.append(costs_of[(axis, *here)] + (3 * index[here] + axis) / 1e4)
    assert len(heads) == n_edges
    ends = (np.array(heads, np.int32), np.array(tails, np.int32))
    tree = csgraph.minimum_spanning_tree(
        coo_array((weights, ends), shape=(phase.size, phase.size)).tocsr()
    )
    expected = np.zeros(phase.size)
    visited, before = csgraph.breadth_first_order(tree, 0, directed=False)
    expected[0] = phase.flat[0]
    for voxel in visited[1:]:
        turns = np.rint((expected[before[voxel]] - phase.flat[voxel]) / TURN)
        expected[voxel] = phase.flat[voxel] + TURN * turns
    packed = costs_of[0] | costs_of[1] << 8 | costs_of[2] << 16
    unwrapped, _, _ = grow_regions(phase, packed.astype(np.uint32), np.ones(shape, bool))
    difference = unwrapped - expected
    np.testing.assert_allclose(difference, difference[0], atol=1e-4)


def test_quality_is_the_mean_weight_of_the_edges(rng):
    shape = (4, 5, 3)
    phase = rng.uniform(-0.7, 0.7, (*shape, 1)).astype(np.float32)
    magnitude = rng.uniform(0.7, 1, (*shape, 1)).astype(np.float32)
    own = (phase[..., 0], phase[..., 0], (1.0, 1.0), magnitude[..., 0])
    weights = [[] for _ in range(phase.size)]
    index = np.arange(phase.size).reshape(shape)
    for here in np.ndindex(shape):
        for axis in range(3):
            there = tuple(np.add(here, np.eye(3, dtype=int)[axis]))
            if there[axis] < shape[axis]:
                weight = (WORST - _naive_cost(*own, here, there)) / (WORST - 1)
                weights[index[here]].append(weight)
                weights[index[there]].append(weight)
    expected = np.reshape([np.mean(w) for w in weights], shape)
    np.testing.assert_allclose(quality_map(phase, magnitude, (0.01,)), expected, atol=0.003)


def test_quality_is_one_where_nothing_changes_and_low_in_noise(rng):
    shape = (16, 15, 14)
    phase = np.full((*shape, 2), 0.3, np.float32)
    phase[8:] = rng.uniform(-np.pi, np.pi, phase[8:].shape)
    quality = quality_map(phase, np.ones_like(phase), (0.005, 0.010))
    assert quality.dtype == np.float32
    assert quality.min() >= 0
    np.testing.assert_allclose(quality[:7], 1.0, atol=1e-6)
    assert quality[9:].mean() < 0.3


def test_a_smooth_offset_hardly_changes_the_quality(rng):
    noisy, magnitude = _echoes(rng)
    offset = 0.1 * _smooth_phase()[..., None]
    plain = quality_map(wrap(noisy), magnitude, TE_S)
    shifted = quality_map(wrap(noisy + offset), magnitude, TE_S)
    assert np.abs(plain - shifted).mean() < 0.05
    assert 0.5 < plain.mean() < 1


@pytest.mark.shared
def test_real_phase_agrees_with_skimage_and_is_linear_in_time(shared_data):
    folder = shared_data / "romeo_crop"
    stored = nib.load(folder / "phase.nii.gz").get_fdata(dtype=np.float32)
    phase = wrap(stored / np.abs(stored).max() * np.float32(np.pi))
    magnitude = nib.load(folder / "mag.nii.gz").get_fdata(dtype=np.float32)
    mask = magnitude[..., 2] > 0.25 * np.median(magnitude[..., 2])
    unwrapped = romeo(phase, magnitude, (0.004, 0.008, 0.012), mask)
    for echo in range(2):
        wrapped = np.ma.array(phase[..., echo], mask=~mask)
        wrong = _turns_apart(unwrapped[..., echo], np.asarray(unwrap_phase(wrapped)), mask) != 0
        assert wrong.mean() < 1e-3
    bend = (unwrapped[..., 2] - 2 * unwrapped[..., 1] + unwrapped[..., 0])[mask]
    assert np.mean(np.abs(bend) > np.pi) < 1e-3
