"""The multi-echo signal of a head, and its truth on the same grid."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from bids_qsm.images import b0_direction
from bids_qsm.numerics.geometry import Geometry, hz_per_ppm
from bids_qsm.phantom.field import field_ppm
from bids_qsm.phantom.options import Acquisition
from bids_qsm.phantom.signal import sampled_echo, simulate_megre
from bids_qsm.phantom.tissues import is_brain

TE_S = (0.004, 0.008, 0.012)
CLEAN = {"te_s": TE_S, "snr": np.inf, "coil_phase": False}


def _field_hz(signal):
    """Field from the phase difference of the first two echoes."""
    return np.angle(signal[..., 1] * np.conj(signal[..., 0])) / (2 * np.pi * (TE_S[1] - TE_S[0]))


def test_phase_grows_with_the_field_and_magnitude_falls_with_r2star(make_head):
    head = make_head()
    megre = simulate_megre(head, Acquisition(**CLEAN))
    inner = np.isin(megre.labels, (2, 13, 52))
    turn_hz = 1 / (TE_S[1] - TE_S[0])
    error = (_field_hz(megre.signal) - megre.total_field_hz + turn_hz / 2) % turn_hz - turn_hz / 2
    assert np.abs(error[inner]).max() < 1e-3
    size = np.abs(megre.signal)
    r2star = np.log(size[inner, 0] / size[inner, 1]) / (TE_S[1] - TE_S[0])
    np.testing.assert_allclose(r2star, megre.r2star_per_s[inner], rtol=1e-3)


def test_local_field_is_that_of_the_brain_alone(make_head):
    head = make_head()
    megre = simulate_megre(head, Acquisition(**CLEAN, below_brain_mm=1000.0))
    inside = head.chi_ppm * is_brain(head.labels)
    geometry = Geometry(head.labels.shape, head.voxel_mm, b0_direction(head.affine))
    expected = field_ppm(inside, geometry, 0.0) * hz_per_ppm(3.0)
    np.testing.assert_allclose(megre.local_field_hz, expected, atol=1e-4)
    np.testing.assert_array_equal(megre.chi_ppm, inside)


@pytest.mark.parametrize("snr", [20.0, 100.0])
def test_snr_is_as_asked(make_head, snr):
    head = make_head()
    clean = simulate_megre(head, Acquisition(**CLEAN)).signal
    megre = simulate_megre(head, Acquisition(te_s=TE_S, snr=snr, coil_phase=False))
    noise = megre.signal - clean
    mean = np.abs(clean[..., 0][megre.brain]).mean()
    for part in (noise.real, noise.imag):
        for echo in range(3):
            assert mean / part[..., echo].std() == pytest.approx(snr, rel=0.02)
    assert np.corrcoef(noise[..., 0].real.ravel(), noise[..., 1].real.ravel())[0, 1] < 0.02


def test_voxels_hold_blocks_of_the_simulation(make_head):
    head = make_head(sampling_mm=(1.5, 1.5, 1.5))
    megre = simulate_megre(head, Acquisition(**CLEAN, subvoxels=(2, 2, 4)))
    np.testing.assert_allclose(np.diag(megre.affine)[:3], (3, 3, 6))
    assert megre.signal.shape[:3] == megre.chi_ppm.shape == megre.labels.shape
    # the voxel lies where its nuclei lie
    for source, affine, labels in (
        (head, head.affine, head.labels),
        (megre, megre.affine, megre.labels),
    ):
        index = np.argwhere(labels == 52).mean(axis=0)
        middle = affine[:3, :3] @ index + affine[:3, 3]
        np.testing.assert_allclose(middle, [20, 0, 0], atol=1.6, err_msg=type(source).__name__)
    total = megre.chi_ppm[megre.labels == 13].max()
    assert total == pytest.approx(0.125, abs=1e-6)


def test_signal_is_centred_on_its_voxels(make_head):
    head = make_head(sampling_mm=(1.5, 1.5, 1.5))
    megre = simulate_megre(head, Acquisition(**CLEAN, subvoxels=(2, 2, 2), below_brain_mm=1000.0))
    amplitude = (head.labels == 2).astype(float)
    x, y, z = (n // 2 for n in head.labels.shape)
    mean = amplitude[: 2 * x, : 2 * y, : 2 * z].reshape(x, 2, y, 2, z, 2).mean(axis=(1, 3, 5))
    size = np.abs(megre.signal[..., 0])
    shifted = [np.corrcoef(np.roll(mean, s, a).ravel(), size.ravel())[0, 1]
               for a in range(3) for s in (-1, 1)]  # fmt: skip
    for before, after in zip(shifted[::2], shifted[1::2], strict=True):
        assert before == pytest.approx(after, abs=0.01)


@pytest.mark.parametrize(("turns", "expected"), [(0.0, 1.0), (0.3, 1.0), (0.7, 0.0)])
def test_signal_is_lost_when_a_gradient_turns_it_by_more_than_half_a_voxel(turns, expected):
    # a linear field moves the echo in k-space: out of the sampled part at half a turn per voxel
    shape, blocks, te_s = (16, 16, 96), (2, 2, 3), 0.02
    field_hz = np.broadcast_to(np.arange(96) * turns / 3 / te_s, shape).astype(np.float32)
    echo = sampled_echo(
        np.ones(shape, np.int16),
        np.zeros(shape, np.float32),
        field_hz,
        np.array([0, 1], np.float32),
        te_s,
        blocks,
    )
    assert echo.shape == (8, 8, 32)
    assert np.median(np.abs(echo)[:, :, 8:24]) == pytest.approx(expected, abs=0.06)


def test_tilt_changes_affine_and_field_together(make_head):
    straight = simulate_megre(make_head(), Acquisition(**CLEAN, shim_order=-1))
    tilted = simulate_megre(make_head(tilt_deg=25.0), Acquisition(**CLEAN, shim_order=-1))
    assert b0_direction(tilted.affine)[1] == pytest.approx(np.sin(np.deg2rad(25)))
    # the field belongs to the head, not to the slices: it is the same at the same place
    index = np.linalg.inv(tilted.affine) @ straight.affine
    there = ndimage.affine_transform(
        ndimage.gaussian_filter(tilted.local_field_hz, 1.5),
        index[:3, :3],
        index[:3, 3],
        output_shape=straight.brain.shape,
        order=1,
    )
    here = ndimage.gaussian_filter(straight.local_field_hz, 1.5)
    inner = ndimage.binary_erosion(straight.brain, iterations=5)
    assert np.corrcoef(here[inner], there[inner])[0, 1] > 0.95
    assert abs(here[inner].mean() - there[inner].mean()) < 0.1


def test_repositioned_head_moves_and_keeps_its_tissue(make_head):
    head = make_head()
    first = simulate_megre(head, Acquisition(**CLEAN))
    second = simulate_megre(head, Acquisition(**CLEAN, repositioned=True, seed=5))
    assert np.abs(second.pose - np.eye(4)).max() > 0.01
    np.testing.assert_allclose(second.affine, second.pose @ first.affine)
    rotation = second.pose[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    np.testing.assert_array_equal(first.chi_ppm, second.chi_ppm)
    assert np.abs(first.total_field_hz - second.total_field_hz).max() > 0.5


def test_shim_lowers_the_spread_of_the_field(make_head):
    head = make_head()
    spread = []
    for order in (-1, 0, 1, 2):
        megre = simulate_megre(head, Acquisition(**CLEAN, shim_order=order))
        spread.append(np.sqrt(np.mean(megre.total_field_hz[megre.brain].astype(float) ** 2)))
    assert spread == sorted(spread, reverse=True) and spread[-1] < spread[0]


def test_coil_offset_is_smooth_and_the_same_at_all_echoes(make_head):
    head = make_head()
    clean = simulate_megre(head, Acquisition(**CLEAN)).signal
    megre = simulate_megre(head, Acquisition(te_s=TE_S, snr=np.inf))
    ratio = megre.signal / np.where(clean == 0, 1, clean)
    inside = np.isin(megre.labels, (2, 13, 52))
    for echo in (1, 2):
        np.testing.assert_allclose(ratio[inside, echo], ratio[inside, 0], rtol=2e-3)
    offset = np.angle(ratio[..., 0])
    step = np.angle(np.exp(1j * np.diff(offset, axis=0)))
    assert np.ptp(offset[inside]) > 0.5
    assert np.abs(step[inside[1:] & inside[:-1]]).max() < 0.3


def test_impossible_requests_are_refused(make_head):
    head = make_head()
    with pytest.raises(ValueError, match="repetition time"):
        simulate_megre(head, Acquisition(te_s=(0.004, 0.1)))


def test_same_seed_same_signal(make_head):
    head = make_head()
    one, two, other = (
        simulate_megre(head, Acquisition(te_s=TE_S, seed=s)).signal for s in (3, 3, 4)
    )
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)
