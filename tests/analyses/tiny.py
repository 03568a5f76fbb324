"""A cohort so small that the group level can be tried on it in a second, with a known truth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from bids_qsm.analyses.cohort import Cohort as GroupCohort
from bids_qsm.analyses.result import Result
from bids_qsm.anatomy.atlases import load_atlas
from bids_qsm.bids.publishing import encode_table
from bids_qsm.gathering import gather
from bids_qsm.group import analyse
from bids_qsm.images import Image, encode_image
from bids_qsm.models import analysis_from
from bids_qsm.report import group_style
from bids_qsm.settings import Settings
from tests.benchmarks.cohort import write
from tests.benchmarks.cohort_images import Cohort

SHAPE = (14, 14, 12)
VOXEL_MM = 3.0
AFFINE = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
AFFINE[:3, 3] = (-19.5, -25.5, -6.0)
BOXES = {
    10: ("Left thalamus", "L", (slice(4, 7), slice(2, 7), slice(3, 10))),
    12: ("Left putamen", "L", (slice(1, 4), slice(7, 12), slice(3, 10))),
    4: ("Left lateral ventricle", "L", (slice(5, 7), slice(9, 12), slice(8, 10))),
    49: ("Right thalamus", "R", (slice(7, 10), slice(2, 7), slice(3, 10))),
    51: ("Right putamen", "R", (slice(10, 13), slice(7, 12), slice(3, 10))),
    43: ("Right lateral ventricle", "R", (slice(7, 9), slice(9, 12), slice(8, 10))),
}
USUAL = {
    "Chimap": {"thalamus": 0.06, "putamen": 0.09, "ventricle": 0.01},
    "R2starmap": {"thalamus": 28.0, "putamen": 35.0, "ventricle": 4.0},
}
SCALE = {"Chimap": 1.0, "R2starmap": 200.0}
"""Of all that varies: it is in ppm."""
EFFECT_PPM = 0.03
"""Of patients, in χ of the lower half of the thalamus alone; R2* does not differ."""
AGE_PPM = 0.0004
RATE_PPM = 0.01
"""Per year, in χ of the putamen."""
YEARS = 1.25
"""Between the two sessions."""


@dataclass(frozen=True)
class Tiny:
    """Where the cohort lies, and what it was made from."""

    bids: Path
    out: Path
    atlas: Path
    plan: Cohort

    @property
    def settings(self) -> Settings:
        """What the command line would make of it."""
        return Settings(self.bids, self.out, "group", atlases=(str(self.atlas),))

    @property
    def words(self) -> list[str]:
        """The command line."""
        return [str(self.bids), str(self.out), "group", "--atlas", str(self.atlas)]


def make(
    folder: Path, *, n_each: int = 8, n_sessions: int = 2, seed: int = 3, thalamus: str = "thalamus"
) -> Tiny:
    """Write a dataset of controls and patients, its derivatives, and an atlas."""
    plan = _plan(n_each, seed)
    plan.table["name"] = plan.table["name"].str.replace("thalamus", thalamus)
    bids, out = folder / "bids", folder / "out"
    write(plan, bids, out, n_sessions=n_sessions, paint=_Paint(plan).image, atlas="tiny")
    for place, participant in enumerate(plan.participants["participant_id"]):
        if n_sessions > 1:
            first = 2020 + place % 3
            table = pd.DataFrame(
                {
                    "session_id": ["ses-1", "ses-2"],
                    "years": [0.0, YEARS],
                    "acq_time": [f"{first}-01-01T09:00:00", f"{first + 1}-04-02T15:00:00"],
                    "relapses": [np.nan, float(place % 2)],
                }
            )
            path = bids / participant / f"{participant}_sessions.tsv"
            path.write_text(encode_table(table), encoding="utf-8")
    return Tiny(bids, out, _write_atlas(folder / "tiny.nii.gz", plan.table), plan)


@contextmanager
def small_pictures() -> Iterator[None]:
    """Let figures be made, but not painted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group_style, "rasterised", lambda figure: PIL.Image.new("RGB", (8, 8)))
        patch.setattr(group_style, "svg_of", lambda figure: b"<svg/>")
        yield


def cohort_of(tiny: Tiny, work: Path) -> GroupCohort:
    """Gather what the participant level left, as the group level does."""
    g = gather(tiny.settings)
    atlases = {"tiny": load_atlas(str(tiny.atlas))}
    return GroupCohort(g.regions, g.scans, g.outcomes, g.images, atlases, g.reference, work)


def made(cohort: GroupCohort, kind: str, **words: Any) -> Result:
    """Make an analysis as the table of a models file asks for it."""
    return analyse(cohort, analysis_from({"name": "tried", "kind": kind, **words}))


def table_of(result: Result, name: str) -> pd.DataFrame:
    """Return a table of a result by the name of its file."""
    (table,) = (t.table for t in result.tables if t.name == name)
    return table


def map_of(result: Result, name: str) -> NDArray:
    """Return a map of a result by the name of its file."""
    (found,) = (m.image.data for m in result.maps if m.name == name)
    return found


def means(cohort: GroupCohort, name: str, measure: str = "Chimap") -> pd.DataFrame:
    """Return the scans with the mean of one sided structure, as the tables have it."""
    rows = cohort.regions.query("name == @name and measure == @measure")
    return rows[rows["reference"].isin(("n/a", cohort.reference))].reset_index(drop=True)


def _write_atlas(path: Path, table: pd.DataFrame) -> Path:
    path.write_bytes(encode_image(Image(_labels(), AFFINE)))
    rows = encode_table(table[["index", "name", "hemisphere"]])
    path.with_name(path.name.replace(".nii.gz", ".tsv")).write_text(rows, encoding="utf-8")
    return path


def _labels() -> NDArray[np.int16]:
    labels = np.zeros(SHAPE, np.int16)
    for index, (_, _, box) in BOXES.items():
        labels[box] = index
    return labels


def _table() -> pd.DataFrame:
    rows = [(i, name, side, name.split()[-1]) for i, (name, side, _) in BOXES.items()]
    return pd.DataFrame(rows, columns=["index", "name", "hemisphere", "nucleus"])


def _plan(n_each: int, seed: int) -> Cohort:
    rng = np.random.default_rng(seed)
    n, labels = 2 * n_each, _labels()
    patient = np.arange(n) >= n_each
    people = pd.DataFrame(
        {
            "participant_id": [f"sub-{k + 1:02d}" for k in range(n)],
            "age": rng.permutation(np.round(np.linspace(24, 58, n))).astype(int),
            "sex": rng.permutation(np.resize(["F", "M"], n)),
            "group": np.where(patient, "patient", "control"),
            "edss": np.where(patient, rng.integers(0, 12, n) / 2, np.nan),
        }
    )
    mask = labels > 0
    table, inside = _table(), labels[mask]
    own = rng.normal(0, 0.004, (n, 3)) + AGE_PPM * (people["age"].to_numpy() - 40)[:, None]
    for group in (patient, ~patient):  # else chance makes a difference of the groups
        own[group] -= own[group].mean(axis=0)
    means = {
        (measure, nucleus): usual + SCALE[measure] * np.repeat(own[:, place, None], 2, 1)
        for measure, nuclei in USUAL.items()
        for place, (nucleus, usual) in enumerate(nuclei.items())
    }
    lower = np.argwhere(mask)[:, 2] < 6
    thalamus = np.isin(inside, (10, 49))
    truth = {"Chimap": thalamus & lower, "R2starmap": np.zeros(inside.size, np.bool_)}
    return Cohort(people, AFFINE, mask, inside, table, truth, means, {}, seed)


class _Paint:
    """Maps with a subject's own level in each nucleus, smooth noise, and the effects above."""

    def __init__(self, plan: Cohort) -> None:
        self.plan = plan

    def image(self, measure: str, subject: int, session: int | None) -> NDArray[np.float32]:
        plan, scale = self.plan, SCALE[measure]
        seed = [plan.seed, subject, measure == "Chimap", session or 0]
        rng, again = np.random.default_rng(seed[:3]), np.random.default_rng(seed)
        values = np.zeros(plan.labels.size)
        for nucleus in USUAL[measure]:
            values[plan.of_nucleus(nucleus)] = plan.means[measure, nucleus][subject, 0]
        values += scale * (0.004 * self._noise(rng) + 0.001 * self._noise(again))
        values += scale * 0.001 * again.standard_normal()
        if plan.participants["group"].iloc[subject] == "patient":
            values[plan.truth[measure]] += scale * EFFECT_PPM
        if measure == "Chimap" and session == 2:
            values[plan.of_nucleus("putamen")] += RATE_PPM * YEARS
        return values.astype(np.float32)

    def _noise(self, rng: np.random.Generator) -> NDArray:
        noise = gaussian_filter(rng.standard_normal(SHAPE), 1.0, mode="wrap")
        return (noise / noise.std())[self.plan.mask]
