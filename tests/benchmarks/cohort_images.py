"""A simulated cohort in atlas space with a known truth.

Patients and controls have the means and SDs of R2* and χ of Table 1 of the conference abstract
on deep grey matter in multiple sclerosis at 4.7 T (37 + 37): by construct, not by chance, in each
whole nucleus and in the part of it that differs.  Within a nucleus there is a pattern that all
share, a smooth one of each subject's own, and smooth noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from scipy.ndimage import gaussian_filter

from bids_qsm.anatomy.atlases import load_atlas

MEASURES = ("R2starmap", "Chimap")
CONTROLS, PATIENTS = GROUPS = ("control", "patient")


@dataclass(frozen=True)
class Effect:
    """Mean and SD of controls and of patients, in a whole nucleus and in the part that differs.

    ``share`` is the part's share of the nucleus.
    """

    share: float
    whole: tuple[tuple[float, float], tuple[float, float]]
    part: tuple[tuple[float, float], tuple[float, float]]


TABLE_1: dict[str, dict[str, Effect]] = {
    "R2starmap": {
        "thalamus": Effect(0.30, ((27.3, 2.0), (28.6, 2.8)), ((28.3, 2.5), (31.0, 3.4))),
        "caudate": Effect(0.42, ((28.3, 2.0), (29.3, 3.6)), ((29.0, 2.4), (31.6, 3.7))),
        "putamen": Effect(0.35, ((34.0, 3.1), (35.6, 4.6)), ((32.2, 2.5), (34.8, 4.4))),
        "pallidum": Effect(0.46, ((47.5, 4.6), (50.3, 4.9)), ((46.1, 4.4), (50.3, 4.8))),
    },
    "Chimap": {
        "thalamus": Effect(
            0.57, ((0.058, 0.012), (0.065, 0.012)), ((0.063, 0.013), (0.073, 0.013))
        ),
        "caudate": Effect(0.93, ((0.091, 0.018), (0.104, 0.013)), ((0.091, 0.018), (0.106, 0.014))),
        "putamen": Effect(0.97, ((0.092, 0.020), (0.107, 0.018)), ((0.093, 0.020), (0.108, 0.018))),
        "pallidum": Effect(
            0.99, ((0.151, 0.032), (0.172, 0.020)), ((0.150, 0.032), (0.172, 0.020))
        ),
    },
}
"""R2* in 1/s, χ in ppm, at 4.7 T."""
ELSEWHERE = {
    "R2starmap": {
        "hippocampus": (20.0, 1.8),
        "amygdala": (19.0, 2.0),
        "accumbens": (26.0, 2.6),
        "ventricle": (4.0, 0.6),
    },
    "Chimap": {
        "hippocampus": (0.012, 0.008),
        "amygdala": (0.006, 0.008),
        "accumbens": (0.035, 0.012),
        "ventricle": (0.0, 0.003),
    },
}
"""Mean and SD of structures in which the groups do not differ."""
AGE = {
    "R2starmap": {"thalamus": 0.26, "caudate": 0.6, "putamen": 0.61, "pallidum": 0.41},
    "Chimap": {"thalamus": 0.32, "caudate": 0.21, "putamen": 0.25, "pallidum": 0.25},
}
"""Correlation with age within a group: with it the table's means and SDs, adjusted for age, give
the p that the abstract prints, which are lower than those of plain t tests."""
AGE_ELSEWHERE = 0.3
TOWARDS = {
    "thalamus": (0.3, -1.0, 0.3),
    "caudate": (0.0, 1.0, 0.2),
    "putamen": (0.0, -1.0, -0.3),
    "pallidum": (0.6, 1.0, 0.0),
}
"""Where in each nucleus the part that differs lies: away from the midline, front, top."""
LARGE_SHARE = 0.9
"""From here the rest is too small to have moments of its own: it does not differ at all."""
CORRELATION = 0.9
"""Between the whole nucleus and the part, over subjects."""
SMOOTH_SD = {"R2starmap": (0.3, 0.45), "Chimap": (0.25, 0.1)}
SMOOTH_FWHM_MM = {"R2starmap": (8.0, 2.5), "Chimap": (8.0, 4.0)}
"""Own pattern and noise: SD as a share of the nucleus' SD over subjects, and smoothness.  The noise
of R2* is what two scans differ by; χ is smoother, and most voxels of the parts have the t of 3.2
or more that made them significant."""
RESCAN_SHARE = {"R2starmap": (0.044, 0.0177), "Chimap": (0.0089, 0.0035)}
"""SD of voxels and of whole structures over scans, as a share of the mean: mean absolute
differences of two scans of 5 % and 2 % for R2*, of 1 % and 0.4 % for χ."""


@dataclass(frozen=True)
class Cohort:
    """Subjects, structures, and what each subject's mean shall be in each structure.

    Attributes
    ----------
    participants : pandas.DataFrame
        ``participant_id, age, sex, group, edss, duration``; controls first.
    affine : ndarray, shape (4, 4)
    mask : ndarray of bool, shape (x, y, z)
        All labelled voxels, ventricles included.
    labels : ndarray of int16, shape (n_voxels,)
    table : pandas.DataFrame
        ``index, name, hemisphere, nucleus``.
    truth : dict of str to ndarray of bool, shape (n_voxels,)
        Where the groups differ, for each measure.
    means : dict of (str, str) to ndarray, shape (n_subjects, 2)
        By measure and nucleus: mean in the whole nucleus and in its part (equal where none).
    parts : dict of (str, str) to ndarray of bool, shape (n_voxels,)
    seed : int
    """

    participants: pd.DataFrame
    affine: NDArray[np.float64]
    mask: NDArray[np.bool_]
    labels: NDArray[np.int16]
    table: pd.DataFrame
    truth: dict[str, NDArray[np.bool_]]
    means: dict[tuple[str, str], NDArray[np.float64]]
    parts: dict[tuple[str, str], NDArray[np.bool_]]
    seed: int

    def of_nucleus(self, nucleus: str) -> NDArray[np.bool_]:
        """Return the voxels of a nucleus, both sides."""
        indices = self.table.loc[self.table["nucleus"] == nucleus, "index"]
        return np.isin(self.labels, indices)

    @property
    def deep_grey(self) -> NDArray[np.bool_]:
        """The voxels of all structures but the ventricles."""
        return ~self.of_nucleus("ventricle")


def plan(n_controls: int = 37, n_patients: int = 37, *, seed: int = 1, size: float = 1.0) -> Cohort:
    """Return a cohort; ``size`` 0 makes one without any difference of the groups."""
    if min(n_controls, n_patients) < 4:
        raise ValueError("a group needs at least four subjects to have given means and SDs.")
    atlas = load_atlas("default")
    mask = atlas.labels.data > 0
    labels = atlas.labels.data[mask]
    table = atlas.table.assign(nucleus=atlas.table["name"].str.split().str[-1].str.lower())
    rng = np.random.default_rng(seed)
    people = _people(n_controls, n_patients, rng)
    positions = np.argwhere(mask) @ atlas.labels.affine[:3, :3].T + atlas.labels.affine[:3, 3]
    parts, means, truth = {}, {}, {m: np.zeros(labels.size, np.bool_) for m in MEASURES}
    for nucleus in dict.fromkeys(table["nucleus"]):
        sides = [labels == i for i in table.loc[table["nucleus"] == nucleus, "index"]]
        iron = _iron(people, rng)
        for measure in MEASURES:
            effect = TABLE_1[measure].get(nucleus)
            if effect is None:
                moments = ELSEWHERE[measure][nucleus]
                effect = Effect(1.0, (moments, moments), (moments, moments))
                parts[measure, nucleus] = np.logical_or.reduce(sides)
            else:
                parts[measure, nucleus] = _part(positions, sides, nucleus, effect.share)
                truth[measure] |= parts[measure, nucleus] & bool(size)
            age = AGE[measure].get(nucleus, AGE_ELSEWHERE)
            means[measure, nucleus] = _means(effect, age, people, iron, size, rng)
    return Cohort(people, atlas.labels.affine, mask, labels, table, truth, means, parts, seed)


def _people(n_controls: int, n_patients: int, rng: np.random.Generator) -> pd.DataFrame:
    """Return groups that are matched for age and sex."""
    n = n_controls + n_patients
    patient = np.arange(n) >= n_controls
    age, sex = np.empty(n, np.int64), np.empty(n, dtype="U1")
    for member in (~patient, patient):
        size = int(member.sum())
        quantiles = stats.norm.ppf((np.arange(size) + 0.5) / size, 38, 9)
        age[member] = rng.permutation(np.clip(np.round(quantiles), 18, 65))
        sex[member] = rng.permutation(np.where(np.arange(size) < round(0.7 * size), "F", "M"))
    edss = np.clip(np.round(2 * rng.gamma(3.0, 2.3 / 3.0, n)) / 2, 0, 7.5)
    digits = max(2, len(str(n)))
    return pd.DataFrame(
        {
            "participant_id": [f"sub-{k + 1:0{digits}d}" for k in range(n)],
            "age": age,
            "sex": sex,
            "group": np.where(patient, PATIENTS, CONTROLS),
            "edss": np.where(patient, edss, np.nan),
            "duration": np.where(patient, np.round(rng.exponential(5.3, n) + 0.1, 1), np.nan),
        }
    )


def _iron(people: pd.DataFrame, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a score of each subject that disability raises a little."""
    worse = np.nan_to_num((people["edss"].to_numpy(float) - 2.3) / 1.3)
    return 0.4 * worse + rng.standard_normal(len(people))


def _part(
    positions: NDArray, sides: list[NDArray[np.bool_]], nucleus: str, share: float
) -> NDArray[np.bool_]:
    """Return the end of a nucleus that holds a share of its voxels, on both sides alike."""
    lateral, front, top = TOWARDS[nucleus]
    found = np.zeros(positions.shape[0], np.bool_)
    for side in sides:
        where = np.flatnonzero(side)
        x, y, z = positions[where].T
        depth = lateral * np.abs(x) + front * y + top * z
        found[where[np.argsort(-depth, kind="stable")[: round(share * where.size)]]] = True
    return found


def _means(
    effect: Effect,
    age_correlation: float,
    people: pd.DataFrame,
    iron: NDArray,
    size: float,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Return each subject's mean in the whole and in the part, with each group's moments."""
    means = np.empty((len(people), 2))
    mixed = iron + 0.7 * rng.standard_normal(len(people))
    noise = rng.standard_normal(len(people))
    difference = size * (effect.whole[1][0] - effect.whole[0][0])
    for group, (whole, part) in enumerate(zip(effect.whole, effect.part, strict=True)):
        member = (people["group"] == GROUPS[group]).to_numpy()
        age = _standard(people["age"].to_numpy(float)[member])
        own = _standard(_without(mixed[member], age))
        z = age_correlation * age + np.sqrt(1 - age_correlation**2) * own
        base = effect.whole[0][0] + group * difference
        means[member, 0] = base + whole[1] * z
        if effect.share >= LARGE_SHARE:
            rest = (1 - effect.share) / effect.share
            means[member, 1] = means[member, 0] + group * difference * rest
        else:
            mean = effect.part[0][0] + size * (part[0] - effect.part[0][0])
            other = _standard(_without(noise[member], age, own))
            score = CORRELATION * z + np.sqrt(1 - CORRELATION**2) * other
            means[member, 1] = mean + part[1] * score
    return means


def _without(values: NDArray, *others: NDArray) -> NDArray[np.float64]:
    """Return values without what others of mean 0, which do not correlate, explain of them."""
    left = values - values.mean()
    for other in others:
        left = left - other * (left @ other) / (other @ other)
    return left


def _standard(values: NDArray) -> NDArray[np.float64]:
    return (values - values.mean()) / values.std(ddof=1)


class Painter:
    """Makes the images of a cohort, one at a time; the same whatever their order."""

    def __init__(self, cohort: Cohort) -> None:
        self.cohort = cohort
        corner, end = _box(cohort.mask)
        self._inside = cohort.mask[tuple(slice(a, b) for a, b in zip(corner, end, strict=True))]
        self._nuclei = {n: cohort.of_nucleus(n) for n in dict.fromkeys(cohort.table["nucleus"])}
        self._soft = {
            key: self._softened(part, self._nuclei[key[1]]) for key, part in cohort.parts.items()
        }
        self._common = self._smooth(np.random.default_rng([cohort.seed, 7]), 6.0)

    def image(self, measure: str, subject: int, session: int | None = None) -> NDArray[np.float32]:
        """Return a subject's map, shape (n_voxels,); scans of several sessions differ a little."""
        seed = [self.cohort.seed, subject, MEASURES.index(measure)]
        rng = np.random.default_rng(seed)
        wide, narrow = (self._smooth(rng, fwhm) for fwhm in SMOOTH_FWHM_MM[measure])
        wide_share, narrow_share = SMOOTH_SD[measure]
        values = np.zeros(self.cohort.labels.size, np.float32)
        for nucleus, voxels in self._nuclei.items():
            means = self.cohort.means[measure, nucleus]
            sd = float(np.std(means[:, 0]))
            own = sd * (wide_share * wide[voxels] + narrow_share * narrow[voxels])
            own += 0.1 * abs(means[0, 0]) * self._common[voxels]
            soft = self._soft[measure, nucleus]
            part = self.cohort.parts[measure, nucleus][voxels]
            values[voxels] = _with_means(own, soft, part, *means[subject])
        return values if session is None else values + self._rescan(measure, [*seed, session])

    def images(self, measure: str) -> NDArray[np.float32]:
        """Return the maps of all subjects, shape (n_subjects, n_voxels)."""
        n = len(self.cohort.participants)
        return np.stack([self.image(measure, subject) for subject in range(n)])

    def _rescan(self, measure: str, seed: list[int]) -> NDArray[np.float32]:
        rng = np.random.default_rng(seed)
        voxel_share, structure_share = RESCAN_SHARE[measure]
        own_share = np.sqrt(voxel_share**2 - structure_share**2)
        noise = self._smooth(rng, 2.0)
        change = np.zeros(self.cohort.labels.size, np.float32)
        table = self.cohort.table
        for index, nucleus in zip(table["index"], table["nucleus"], strict=True):
            where = self.cohort.labels == index
            mean = abs(self.cohort.means[measure, nucleus][:, 0].mean())
            own = own_share * (noise[where] - noise[where].mean())
            change[where] = mean * (own + structure_share * rng.standard_normal())
        return change

    def _smooth(self, rng: np.random.Generator, fwhm_mm: float) -> NDArray[np.float32]:
        """Return a smooth stationary field of SD 1 at the voxels, which are of 1 mm."""
        sigma = fwhm_mm / np.sqrt(8 * np.log(2))
        noise = rng.standard_normal(self._inside.shape, np.float32)
        kernel = gaussian_filter(np.eye(1, 129, 64)[0], sigma, mode="wrap")
        smooth = gaussian_filter(noise, sigma, mode="wrap") / np.sum(kernel**2) ** 1.5
        return smooth[self._inside].astype(np.float32)

    def _softened(self, part: NDArray[np.bool_], nucleus: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return 1 in the part and 0 in the rest of a nucleus with a border of some 2 mm."""
        share, whole = np.zeros((2, *self._inside.shape))
        share[self._inside] = part & nucleus
        whole[self._inside] = nucleus
        share, whole = gaussian_filter(share, 1.0), gaussian_filter(whole, 1.0)
        return share[self._inside][nucleus] / whole[self._inside][nucleus]


def _with_means(
    values: NDArray, soft: NDArray, part: NDArray[np.bool_], whole: float, inside: float
) -> NDArray:
    """Return a nucleus' values with the given means, by a constant and a step at the part."""
    lift = 0.0
    if not part.all():
        wanted = (inside - whole) - (values[part].mean() - values.mean())
        lift = wanted / (soft[part].mean() - soft.mean())
    lifted = values + lift * soft
    return lifted + (whole - lifted.mean())


def _box(mask: NDArray[np.bool_]) -> tuple[NDArray, NDArray]:
    where = np.argwhere(mask)
    return where.min(axis=0), where.max(axis=0) + 1
