"""What is measured of a series, and what is expected of it: one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from bids_qsm.frames import pd
from bids_qsm.numerics.segmentation_quality.check import Check

Value = tuple[str, str, float]
"""Key in :data:`METRICS`, part of the data, and what was found; NaN where it cannot be measured."""


@dataclass(frozen=True)
class Metric:
    """One metric with its reference range.

    Attributes
    ----------
    title, units : str
    low, high : float
        Of the expected values, both included; infinite where there is no bound.
    advice : str
        What may be behind a value out of range.
    reason : str
        What is measured, and why the range is what it is.
    of_b0 : bool
        Whether the bounds are ppm of B0 while the value is in Hz.
    """

    title: str
    units: str
    low: float
    high: float
    advice: str
    reason: str
    of_b0: bool = False

    @property
    def direction(self) -> str:
        """Which values are bad: ``high``, ``low`` or ``both``."""
        if np.isinf(self.low):
            return "high"
        return "low" if np.isinf(self.high) else "both"


_NONE = float("inf")
METRICS = {
    "snr": Metric(
        "signal to noise",
        "",
        10,
        _NONE,
        "the images are noisy, or the noise is not the scanner's",
        "Median magnitude of the brain over the noise of its finest detail, first echo. Scans for "
        "susceptibility have 20 to 150; below 10 the noise of phase is more than 0.1 rad.",
    ),
    "phase_noise": Metric(
        "phase noise",
        "rad",
        -_NONE,
        0.1,
        "the phase is noisier than it should be: low signal, or coils combined badly",
        "Standard deviation of the finest detail of the phase in the brain, first echo. It is one "
        "over the signal-to-noise ratio (Conturo and Smith 1990, 10.1002/mrm.1910150308), so that "
        "the bound is that of a ratio of 10, but it is measured in the phase alone.",
    ),
    "field_noise": Metric(
        "noise of the field",
        "Hz",
        -_NONE,
        0.02,
        "the susceptibility will be noisy: late echoes are missing, or the signal is low",
        "Median standard deviation of the fitted field. Noise of 0.02 ppm (2.6 Hz at 3 T) is the "
        "difference between grey and white matter; usual scans have a tenth of it.",
        of_b0=True,
    ),
    "fit_residual": Metric(
        "residual of the field's fit",
        "",
        -_NONE,
        0.1,
        "the phase of the echoes does not follow one field: motion, wrong echo times, or a "
        "phase that changes from echo to echo",
        "Median, over the mask, of the root of the squared misfit over the squared signal. Noise "
        "alone gives about the phase noise, so that the bound is the same.",
    ),
    "high_fit_residual": Metric(
        "residual of the field's fit in the worst tenth",
        "",
        -_NONE,
        0.15,
        "in part of the brain the echoes do not follow one field: motion, wrong echo times, or a "
        "phase that changes from echo to echo",
        "90th percentile of the same. Veins, flow and air spaces take less than a tenth of the "
        "brain; half as much again as the bound of the median is more than noise makes.",
    ),
    "unwrapping_misfit": Metric(
        "voxels whose unwrapped phase is half a turn off the fit",
        "",
        -_NONE,
        0.02,
        "the phase was unwrapped wrongly, or the echoes do not belong together",
        "Share of the mask's voxels in which the unwrapped phase of some echo is more than pi off "
        "the line over echoes. Veins and air spaces take less than 1 % of a brain.",
    ),
    "unwrapping_jumps": Metric(
        "voxels with a jump of the unwrapped phase to a neighbour",
        "",
        -_NONE,
        0.01,
        "the phase was unwrapped wrongly",
        "Share of the mask's voxels whose unwrapped phase in the first echo is more than pi off "
        "that of the next voxel. At a short echo time this takes a field that no shimmed brain "
        "has but right above the air spaces.",
    ),
    "ghosting": Metric(
        "ghost to signal",
        "",
        -_NONE,
        0.03,
        "the head moved or pulsed, or the image is folded",
        "Mean magnitude of the air beside the head along an axis, less that of the corners, over "
        "the brain's median (Giannelli et al. 2010, 10.1120/jacmp.v11i4.3237, for any ghost). "
        "A ghost of a tenth of the head has 0.03 to 0.04; simulated heads have less than 0.01.",
    ),
    "phase_span": Metric(
        "span of the phase over one turn",
        "",
        0.9,
        1.01,
        "the scale of the phase is wrong",
        "Range of the stored phase of all echoes, in turns. Noise and late echoes fill a turn; "
        "find_units_per_turn asks the same 0.9 of a scale that it finds by itself.",
    ),
    "phase_levels": Metric(
        "distinct values of the phase",
        "",
        128,
        _NONE,
        "the phase was stored with too few bits",
        "Number of different values among 50 000 of the first echo. With 128 levels rounding has a "
        "standard deviation of 0.014 rad, that of noise at a signal-to-noise ratio of 70.",
    ),
    "large_scale_phase": Metric(
        "spread of the large scales of the phase",
        "rad",
        0.15,
        _NONE,
        "the phase looks high-pass filtered, as for SWI: most of the susceptibility is gone",
        "Circular standard deviation of the smoothed complex image; heads have 0.2 and more, "
        "filtered ones 0.08 and less (see looks_high_pass_filtered).",
    ),
    "clipping": Metric(
        "voxels at the largest magnitude",
        "",
        -_NONE,
        0.001,
        "the magnitude is clipped: the receiver or the conversion ran over",
        "Voxels that have exactly the largest magnitude of the first echo, over the brain's "
        "number. Unclipped images have one, or some few where they are stored with few bits.",
    ),
    "dark_brain": Metric(
        "voxels of the brain without signal",
        "",
        -_NONE,
        0.03,
        "signal is missing: drop-out above air spaces, metal, a bleed, or a wrong brain mask",
        "Share of the brain with less than a fifth of its median magnitude in the first echo. "
        "Brain and fluid have more; air spaces darken 1 to 2 % at a short echo time.",
    ),
    "dark_slice": Metric(
        "signal of the darkest slice over its neighbours'",
        "",
        0.7,
        _NONE,
        "a slice lost its signal: motion, a spike, or a damaged file",
        "Least ratio, over axes and first and last echo, of a slice's mean magnitude in the "
        "brain to that of the slices before and after it. Anatomy changes it by less than 10 %.",
    ),
    "echo_rise": Metric(
        "largest rise of the signal from echo to echo",
        "",
        -_NONE,
        1.05,
        "echoes are mixed up, scaled differently, or have wrong echo times",
        "Largest ratio of the brain's median magnitude in an echo to that in the one before. It "
        "decays by 5 to 10 % in 5 ms; 5 % are left for differences between odd and even echoes.",
    ),
    "mask_leak": Metric(
        "share of the susceptibility's mask outside the brain or without signal",
        "",
        -_NONE,
        0.05,
        "the mask takes in skull, air or scalp, whose phase spoils the map",
        "Voxels outside the brain mask, or with less than a fifth of the brain's median magnitude. "
        "A wrong rim of half a voxel around a brain takes 5 %.",
    ),
    "brain_left_out": Metric(
        "share of the brain left out of the susceptibility's mask",
        "",
        -_NONE,
        0.25,
        "much of the brain has no susceptibility: its phase was unreliable, or the mask eroded",
        "Erosion by 2 to 3 mm, as some methods need, takes up to a quarter of a brain.",
    ),
    "edge_background": Metric(
        "local field at the edge over that of the inside",
        "",
        -_NONE,
        2.0,
        "background field was left at the brain's edge",
        "Median distance of the local field from its median in the outer 5 mm over that of the "
        "rest: some voxels beside air would rule a root mean square. Simulated heads have 0.1 to "
        "1.6; background falls off inward, and gives more.",
    ),
    "local_field": Metric(
        "local field",
        "Hz",
        -_NONE,
        0.04,
        "background field was left in the local field",
        "Root mean square of the local field. Heads have 0.01 to 0.025 ppm, bleeds add to it; "
        "background is ten to a hundred times as strong.",
        of_b0=True,
    ),
    "streaks": Metric(
        "streak index",
        "",
        -_NONE,
        2.0,
        "streaks: the inversion is regularised too little, or the field is inconsistent",
        "Power of susceptibility in k-space within the cone where the dipole kernel is less than "
        "0.1, over that of the other voxels of the same |k|. Tissue has no such direction, "
        "regularised maps have less than one; noise that the inversion raises has more (after the "
        "frequency analysis of Milovic et al. 2021, 10.1002/mrm.28435).",
    ),
    "csf_noise": Metric(
        "spread of susceptibility in the reference region",
        "ppm",
        -_NONE,
        0.05,
        "the region is not fluid alone, or the map is noisy or shaded",
        "Standard deviation in the fluid that is the reference. Fluid has one susceptibility; "
        "in simulated heads it has 0.003 to 0.025 ppm.",
    ),
    "field_range": Metric(
        "range of the field in the brain",
        "Hz",
        0.05,
        4.0,
        "the shim failed, metal is near, or the phase is not that of a field",
        "From the 1st to the 99th percentile of the total field. Air spaces leave 0.5 to 2 ppm in "
        "a shimmed brain, an unshimmed one has some 4.",
        of_b0=True,
    ),
}
"""Every metric by its key."""


def judged(values: Sequence[Value], ppm_hz: float = 1.0) -> tuple[Check, ...]:
    """Return a check of each value; ``ppm_hz`` is 1 ppm of B0 in Hz.

    What could not be measured is neither passed nor failed.
    """
    checks = []
    for key, part, value in values:
        metric = METRICS[key]
        low, high = (b * ppm_hz if metric.of_b0 else b for b in (metric.low, metric.high))
        passed = None if np.isnan(value) else bool(low <= value <= high)
        said = f"{part[0].upper()}{part[1:]}: {metric.title} "
        said += (
            "could not be measured" if passed is None else f"{value:.3g} {metric.units}".rstrip()
        )
        if passed is not None:
            said += ", as expected" if passed else f", {_expected(low, high)}: {metric.advice}"
        checks.append(
            Check(
                metric.title, part, "B", float(value), low, high, metric.units, passed, said + "."
            )
        )
    return tuple(checks)


def _expected(low: float, high: float) -> str:
    if np.isinf(low):
        return f"expected at most {high:g}"
    return f"expected at least {low:g}" if np.isinf(high) else f"expected {low:g} to {high:g}"


def metrics_table(checks: Sequence[Check]) -> pd.DataFrame:
    """Return one row for each check of a series, with the direction in which values are bad."""
    directions = {metric.title: metric.direction for metric in METRICS.values()}
    rows = [asdict(check) | {"direction": directions[check.check]} for check in checks]
    return pd.DataFrame(rows).replace([np.inf, -np.inf], np.nan)
