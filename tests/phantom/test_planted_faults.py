"""Faults planted in simulated heads are found by the metrics of quality; clean heads pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import ndimage

from bids_qsm.bids.echoes import Echoes
from bids_qsm.images import b0_direction, voxel_sizes_mm
from bids_qsm.numerics import coils, field, masking, unwrapping
from bids_qsm.numerics.background.pdf import pdf
from bids_qsm.numerics.field import FieldFit
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Geometry, hz_per_ppm
from bids_qsm.numerics.inversion.tkd import tkd
from bids_qsm.numerics.inversion.tv import tv
from bids_qsm.numerics.series_quality import (
    METRICS,
    Value,
    chi_values,
    echo_values,
    field_values,
    judged,
    local_values,
    mask_values,
    measure_fit,
)
from bids_qsm.phantom.breakage import high_pass_filtered
from bids_qsm.phantom.options import Acquisition
from bids_qsm.phantom.signal import Megre, simulate_megre

TE_S = Acquisition().te_s
PPM_HZ = hz_per_ppm(3.0)
VENTRICLES = (4, 43)


@dataclass(frozen=True)
class Processed:
    """A head with what was computed of it."""

    megre: Megre
    echoes: Echoes
    unwrapped: np.ndarray
    fitted: FieldFit
    mask: np.ndarray
    local: FieldMap
    chi_ppm: np.ndarray

    def fluid(self) -> np.ndarray:
        return np.isin(self.megre.labels, VENTRICLES) & self.local.mask


def echoes_of(megre: Megre, te_s=TE_S) -> Echoes:
    geometry = Geometry(
        megre.labels.shape, voxel_sizes_mm(megre.affine), b0_direction(megre.affine)
    )
    magnitude, phase = np.abs(megre.signal), np.angle(megre.signal)
    return Echoes(magnitude, phase, tuple(te_s), 3.0, geometry, megre.affine, ())


def fit(echoes: Echoes, brain) -> tuple[np.ndarray, FieldFit, np.ndarray]:
    signal = echoes.magnitude, echoes.te_s
    quality = unwrapping.quality_map(echoes.phase, *signal)
    phase = coils.METHODS["mcpc3ds"](echoes.phase.copy(), *signal, brain, echoes.geometry).phase
    unwrapped = unwrapping.METHODS["romeo"](phase, *signal, brain)
    fitted = field.METHODS["linear"](unwrapped, *signal, brain, echoes.geometry)
    combined = np.sqrt((echoes.magnitude**2).sum(axis=-1))
    return unwrapped, fitted, masking.brain_and_quality(brain, quality, combined, echoes.geometry)


def process(megre: Megre) -> Processed:
    echoes = echoes_of(megre)
    unwrapped, fitted, mask = fit(echoes, megre.brain)
    combined = np.sqrt((echoes.magnitude**2).sum(axis=-1))
    in_ppm = [volume / np.float32(PPM_HZ) for volume in (fitted.field_hz, fitted.noise_hz)]
    total = FieldMap(
        np.where(mask, in_ppm[0], np.float32(0)),
        np.where(mask, in_ppm[1], np.float32(np.inf)),
        combined,
        mask,
        echoes.geometry,
    )
    local = pdf(total)
    return Processed(megre, echoes, unwrapped, fitted, mask, local, tv(local))


def image_values(echoes: Echoes, brain) -> list[Value]:
    voxel_mm = echoes.geometry.voxel_mm
    return echo_values(echoes.magnitude, echoes.phase, echoes.te_s, brain, voxel_mm)


def field_metrics(unwrapped, fitted, mask, te_s=TE_S) -> list[Value]:
    values = measure_fit(unwrapped, fitted, te_s, mask).values()
    return values + field_values(fitted.field_hz, fitted.noise_hz, mask)


def map_values(head: Processed) -> list[Value]:
    local, geometry = head.local, head.local.geometry
    values = mask_values(local, head.megre.brain) + local_values(local, PPM_HZ)
    return values + chi_values(head.chi_ppm, local.mask, head.fluid(), geometry)


def all_values(head: Processed) -> list[Value]:
    values = image_values(head.echoes, head.megre.brain)
    return values + field_metrics(head.unwrapped, head.fitted, head.mask) + map_values(head)


def failed(values: list[Value]) -> dict[str, float]:
    """Return the metrics that are out of their range; the worst value of those with parts."""
    checks = judged(values, PPM_HZ)
    out = [value for value, check in zip(values, checks, strict=True) if check.passed is False]
    return {key: value for key, _, value in sorted(out, key=lambda value: value[2])}


@pytest.fixture(scope="module")
def simulate(make_head) -> Callable[..., Megre]:
    def make(seed=1, head=None, **acquisition) -> Megre:
        options = {"deformation_mm": 2.5, "texture": 1.0, "veins": 8, "nuclei_spread": 0.12}
        phantom = make_head(seed=seed, **{**options, **(head or {})})
        return simulate_megre(phantom, Acquisition(seed=seed, **acquisition))

    return make


@pytest.fixture(scope="module")
def clean(simulate) -> Processed:
    return process(simulate())


def faulty_signal(clean: Processed, signal) -> list[Value]:
    """Return the metrics of images and field of another signal of the clean head."""
    megre = dataclasses.replace(clean.megre, signal=signal.astype(np.complex64))
    echoes = echoes_of(megre)
    return image_values(echoes, megre.brain) + field_metrics(*fit(echoes, megre.brain))


def ghosted(signal):
    return signal + 0.25 * (np.roll(signal, 19, axis=1) + np.roll(signal, -19, axis=1))


def half_scale(signal):
    return np.abs(signal) * np.exp(0.5j * np.angle(signal))


def sixteen_levels(signal):
    turn = 2 * np.pi
    return np.abs(signal) * np.exp(1j * turn / 16 * np.round(16 / turn * np.angle(signal)))


def phase_noise(signal):
    rng = np.random.default_rng(0)
    return signal * np.exp(0.25j * rng.standard_normal(signal.shape))


def moved_echo(signal):
    """Turn the phase of an echo as a motion does: by a third of a turn across the head."""
    n = signal.shape[1]
    signal[..., 2] *= np.exp(2j * np.arange(n) / n)[:, None]
    return signal


def shifted_echoes(signal):
    """Move the head by two voxels before the last two echoes."""
    signal[..., 3:] = np.roll(signal[..., 3:], 2, axis=1)
    return signal


def metal(signal):
    """Add a field of 20 Hz from plane to plane."""
    hz = 20.0 * np.arange(signal.shape[1])[:, None, None]
    return signal * np.exp(2j * np.pi * hz * np.asarray(TE_S))


def clipped(signal):
    size = np.abs(signal)
    limit = np.percentile(size[..., 0], 97)
    return signal * np.minimum(1, limit / np.maximum(size, 1e-9))


def dark_slice(signal):
    signal[:, :, signal.shape[2] // 2] *= 0.4
    return signal


def hole(signal):
    x, y, z = signal.shape[:3]
    signal[x // 2 - 6 : x // 2 + 6, y // 2 : y // 2 + 12, z // 2 - 6 : z // 2 + 6] *= 0.05
    return signal


def swapped(signal):
    return signal[..., [0, 2, 1, 3, 4]]


@pytest.mark.parametrize(
    ("fault", "metric", "value"),
    [
        (phase_noise, "phase_noise", 0.26),
        (moved_echo, "fit_residual", 0.37),
        (shifted_echoes, "high_fit_residual", 0.39),
        (ghosted, "ghosting", 0.065),
        (half_scale, "phase_span", 0.5),
        (sixteen_levels, "phase_levels", 28),
        (high_pass_filtered, "large_scale_phase", 0.07),
        (metal, "field_range", 700),
        (clipped, "clipping", 0.15),
        (dark_slice, "dark_slice", 0.4),
        (hole, "dark_brain", 0.078),
        (swapped, "echo_rise", 1.1),
    ],
)
def test_faults_of_the_images_are_found(clean, fault, metric, value) -> None:
    found = failed(faulty_signal(clean, fault(clean.megre.signal.copy())))
    assert found[metric] == pytest.approx(value, rel=0.2)


def test_noise_is_found_by_the_ratio_and_by_the_field(simulate) -> None:
    megre = simulate(snr=6.0)
    assert failed(image_values(echoes_of(megre), megre.brain))["snr"] == pytest.approx(6, rel=0.2)
    te_s = (0.002, 0.004)
    megre = simulate(snr=10.0, te_s=te_s)
    found = failed(field_metrics(*fit(echoes_of(megre, te_s), megre.brain), te_s))
    theory = 1 / (2 * np.pi * 10 * np.sqrt(sum(te**2 for te in te_s)))
    assert found["field_noise"] == pytest.approx(theory, rel=0.25)


@pytest.mark.parametrize(
    ("echoes", "metric"), [(3, "unwrapping_misfit"), (slice(None), "unwrapping_jumps")]
)
def test_false_turns_are_found(clean, echoes, metric) -> None:
    """In one echo of half a brain; and in all echoes, where they jump at the plane between."""
    unwrapped, brain = clean.unwrapped.copy(), clean.megre.brain
    half = brain.shape[0] // 2
    unwrapped[:half, ..., echoes] += 2 * np.pi
    images = clean.echoes.magnitude, TE_S
    fitted = field.METHODS["nonlinear"](unwrapped, *images, brain, clean.echoes.geometry)
    found = failed(field_metrics(unwrapped, fitted, clean.mask))
    share = clean.mask[:half].sum() if metric == "unwrapping_misfit" else clean.mask[half].sum()
    assert found[metric] == pytest.approx(share / clean.mask.sum(), rel=0.1)


def test_a_mask_that_leaks_or_lacks_brain_is_found(clean) -> None:
    brain = clean.megre.brain
    leaking = ndimage.binary_dilation(brain)
    leaky = mask_values(dataclasses.replace(clean.local, mask=leaking), brain)
    assert failed(leaky) == {"mask_leak": pytest.approx(1 - brain.sum() / leaking.sum())}
    part = clean.local.mask.copy()
    part[: part.shape[0] // 2] = False
    found = failed(mask_values(dataclasses.replace(clean.local, mask=part), brain))
    assert found == {"brain_left_out": pytest.approx(1 - part.sum() / brain.sum())}


def test_background_that_was_left_is_found(clean) -> None:
    """A fifth of the total field shows at the edge; half of it in the strength of the field."""
    local, total = clean.local, np.where(clean.mask, clean.fitted.field_hz / np.float32(PPM_HZ), 0)

    def with_background(share: float) -> dict[str, float]:
        field_ppm = (local.field_ppm + share * total).astype(np.float32)
        spoilt = dataclasses.replace(local, field_ppm=field_ppm)
        return failed(local_values(spoilt, PPM_HZ))

    assert with_background(0.0) == {}
    assert with_background(0.2) == {"edge_background": pytest.approx(2.6, rel=0.2)}
    assert with_background(0.5)["local_field"] == pytest.approx(5.7, rel=0.1)


def test_streaks_and_noise_of_the_map_are_found(clean) -> None:
    local, geometry = clean.local, clean.local.geometry
    rng = np.random.default_rng(1)
    noise = 0.005 * local.mask * rng.standard_normal(local.mask.shape)
    field_ppm = (local.field_ppm + noise).astype(np.float32)
    streaky = tkd(dataclasses.replace(local, field_ppm=field_ppm), threshold=0.02)
    found = failed(chi_values(streaky, local.mask, None, geometry))
    assert found == {"streaks": pytest.approx(6, rel=0.2)}
    noisy = clean.chi_ppm + 0.08 * rng.standard_normal(clean.chi_ppm.shape)
    found = failed(chi_values(noisy, local.mask, clean.fluid(), geometry))
    assert found == {"csf_noise": pytest.approx(0.08, rel=0.2)}


@pytest.mark.slow
def test_clean_heads_raise_no_false_alarm(simulate) -> None:
    """Of 20 heads of all sizes, noise levels and tilts none has any metric failed."""
    alarms = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x, y, z = (float(v) for v in rng.choice([3.5, 4.0, 4.5], 3))
        head = {"sampling_mm": (x, y, z), "tilt_deg": float(rng.uniform(-25, 25))}
        head["deformation_mm"] = float(rng.uniform(0, 4))
        megre = simulate(seed + 100, head, snr=float(rng.uniform(30, 150)))
        values = all_values(process(megre))
        assert {key for key, _, _ in values} == set(METRICS)
        alarms.append(failed(values))
    assert not any(alarms), [alarm for alarm in alarms if alarm]
