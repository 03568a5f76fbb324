from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.numerics.field import FieldFit
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Geometry, dipole_kernel, hz_per_ppm
from bids_qsm.numerics.segmentation_quality import failures
from bids_qsm.numerics.series_quality import (
    METRICS,
    chi_values,
    echo_values,
    field_values,
    judged,
    local_values,
    mask_values,
    measure_fit,
    metrics_table,
)
from bids_qsm.numerics.series_quality.echoes import ghost_to_signal, phase_noise_rad
from bids_qsm.numerics.series_quality.maps import streak_index

GEOMETRY = Geometry((40, 44, 36), (1.5, 1.5, 2.0))
SHAPE = GEOMETRY.shape
TE_S = (0.004, 0.010, 0.016)


def ball(radius_mm: float) -> np.ndarray:
    axes = np.ogrid[tuple(slice(0, n) for n in SHAPE)]
    terms = zip(axes, SHAPE, GEOMETRY.voxel_mm, strict=True)
    return sum(((a - (n - 1) / 2) * v) ** 2 for a, n, v in terms) < radius_mm**2


def test_phase_noise_is_told_from_smooth_and_wrapped_phase(rng) -> None:
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    smooth = 9 * x + 7 * y**2 - 8 * z * x
    for sd in (0.02, 0.2):
        noisy = np.angle(np.exp(1j * (smooth + sd * rng.standard_normal(SHAPE))))
        found = phase_noise_rad(noisy.astype(np.float32), np.ones(SHAPE, bool))
        assert found == pytest.approx(sd, rel=0.03)
    assert np.isnan(phase_noise_rad(smooth.astype(np.float32), np.zeros(SHAPE, bool)))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_ghost_is_found_along_its_axis(rng, axis) -> None:
    """The mean of what lies beside the head: the ghost fills a part of it."""
    head = ball(20).astype(np.float32)
    air = np.abs(0.01 * rng.standard_normal((*SHAPE, 2)) @ (1, 1j)).astype(np.float32)
    shifted = np.roll(head, SHAPE[axis] // 2, axis)
    ghosts = ghost_to_signal(head + air + np.float32(0.3) * shifted, 1.0, GEOMETRY.voxel_mm)
    clean = ghost_to_signal(head + air, 1.0, GEOMETRY.voxel_mm)
    assert np.abs(clean).max() < 1e-3
    others = [ghost for other, ghost in enumerate(ghosts) if other != axis]
    assert 0.05 < ghosts[axis] < 0.15
    assert max(others) < 0.3 * ghosts[axis]


def test_without_air_there_is_no_ghost_to_see() -> None:
    assert np.isnan(ghost_to_signal(np.ones(SHAPE, np.float32), 1.0, GEOMETRY.voxel_mm)).all()


def test_signal_and_its_loss(rng) -> None:
    """SNR as made; a dark slice, a dark share and a rising echo as made."""
    brain = ball(22)
    magnitude = np.stack([brain * np.float32(s) for s in (100, 80, 90)], axis=-1)
    magnitude = magnitude + 2 * rng.standard_normal(magnitude.shape).astype(np.float32)
    magnitude[:, :, 18] *= np.float32(0.5)
    dark = brain.copy()
    dark[:, :20] = False
    values = {k: v for k, _, v in echo_values(magnitude, None, TE_S, brain, GEOMETRY.voxel_mm)}
    assert values["snr"] == pytest.approx(50, rel=0.05)
    assert values["dark_slice"] == pytest.approx(0.5, rel=0.02)
    assert values["echo_rise"] == pytest.approx(90 / 80, rel=0.01)
    assert values["dark_brain"] == 0
    assert values["clipping"] == 0
    assert "phase_noise" not in values
    magnitude[dark] *= np.float32(0.1)
    limited = np.minimum(magnitude, np.float32(95))
    values = {k: v for k, _, v in echo_values(limited, None, TE_S, brain, GEOMETRY.voxel_mm)}
    assert values["clipping"] == pytest.approx(
        (magnitude[..., 0] >= 95).sum() / brain.sum(), rel=0.01
    )


def test_misfits_and_jumps_are_counted() -> None:
    mask = ball(15)
    field = np.full(SHAPE, 20, np.float32)
    phase = (2 * np.pi * field[..., None] * np.asarray(TE_S)).astype(np.float32)
    residual = np.where(mask, np.linspace(0, 1, SHAPE[0])[:, None, None], 0).astype(np.float32)
    noise = np.where(mask, 1, np.inf).astype(np.float32)
    fitted = FieldFit(field, noise, np.zeros(SHAPE, np.float32), residual)
    found = measure_fit(phase, fitted, TE_S, mask)
    assert (found.misfit, found.jumps) == (0, 0)
    assert found.residual == pytest.approx(np.median(residual[mask]))
    assert found.high_residual == pytest.approx(np.percentile(residual[mask], 90))
    phase[20, ..., 1] += 2 * np.pi
    assert measure_fit(phase, fitted, TE_S, mask).misfit == mask[20].sum() / mask.sum()
    phase[..., 0] += 2 * np.pi * (np.arange(SHAPE[0]) > 20)[:, None, None]
    jumps = (mask[20] & mask[21]).sum() / mask.sum()
    assert measure_fit(phase, fitted, TE_S, mask).jumps == jumps
    empty = measure_fit(phase, fitted, TE_S, np.zeros(SHAPE, bool))
    assert np.isnan(empty.residual)


def test_streaks_have_no_direction_but_the_cone(rng) -> None:
    """White noise has an index of one; what is raised in the cone has the factor; B0 counts."""
    mask, noise = np.ones(SHAPE, bool), rng.standard_normal(SHAPE).astype(np.float32)
    assert streak_index(noise, mask, GEOMETRY) == pytest.approx(1, abs=0.1)
    spectrum = np.fft.rfftn(noise)
    spectrum[np.abs(dipole_kernel(GEOMETRY)) < 0.1] *= 3
    streaky = np.fft.irfftn(spectrum, SHAPE, (0, 1, 2)).astype(np.float32)
    found = streak_index(streaky, mask, GEOMETRY)
    assert 4 < found < 9
    turned = Geometry(SHAPE, GEOMETRY.voxel_mm, (1.0, 0.0, 0.0))
    assert streak_index(streaky, mask, turned) < 0.5 * found
    assert np.isnan(streak_index(noise[:6], mask[:6], GEOMETRY.with_shape((6, 44, 36))))


def test_the_edge_of_the_field_is_set_against_the_inside(rng) -> None:
    mask, inner = ball(24), ball(18.5)
    field = rng.standard_normal(SHAPE) * np.where(inner, 0.01, 0.03) * mask
    volume = field.astype(np.float32)
    local = FieldMap(volume, np.ones_like(volume), mask * np.float32(100), mask, GEOMETRY)
    values = {key: value for key, _, value in local_values(local, 100.0)}
    assert values["edge_background"] == pytest.approx(3, rel=0.1)
    assert values["local_field"] == pytest.approx(100 * np.sqrt((field[mask] ** 2).mean()))


def test_masks_are_set_against_each_other() -> None:
    brain, mask = ball(24), ball(24)
    mask[:20] = False
    mask[-3:, :3, :3] = True
    magnitude = np.where(brain, 100, 0).astype(np.float32)
    nil = np.zeros(SHAPE, np.float32)
    local = FieldMap(nil, nil, magnitude, mask, GEOMETRY)
    values = {key: value for key, _, value in mask_values(local, brain)}
    assert values["mask_leak"] == 27 / mask.sum()
    assert values["brain_left_out"] == brain[:20].sum() / brain.sum()


def test_values_are_judged_by_their_ranges() -> None:
    """Bounds in ppm follow B0; what cannot be measured neither passes nor fails."""
    values = [
        ("snr", "first echo", 5.0),
        ("field_range", "field", 300.0),
        ("csf_noise", "susceptibility", float("nan")),
    ]
    checks = judged(values, hz_per_ppm(3.0))
    assert [check.passed for check in checks] == [False, True, None]
    assert judged(values, hz_per_ppm(1.5))[1].passed is (4 * hz_per_ppm(1.5) >= 300)
    assert failures(checks) == (
        "First echo: signal to noise 5, expected at least 10: the images are noisy, or the noise "
        "is not the scanner's.",
    )
    assert checks[2].sentence.endswith("could not be measured.")
    table = metrics_table(checks)
    assert table["direction"].tolist() == ["low", "both", "high"]
    assert np.isnan(table.loc[0, "high"])
    assert len({metric.title for metric in METRICS.values()}) == len(METRICS)


def test_nothing_to_measure_is_no_number() -> None:
    nil, none = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, bool)
    local = FieldMap(nil, nil, nil, none, GEOMETRY)
    values = field_values(nil, nil, none) + mask_values(local, none) + local_values(local, 1.0)
    values += chi_values(nil, none, None, GEOMETRY)
    assert len(values) == 8
    assert all(np.isnan(value) for _, _, value in values)
