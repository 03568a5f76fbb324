"""What the participant level left of all subjects, and the part of it that an analysis is of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from bids_qsm.anatomy.atlases import Atlas
from bids_qsm.report.tables import without_side
from bids_qsm.statistics import expressions
from bids_qsm.statistics.collection import KEYS
from bids_qsm.statistics.expressions import counted, listed
from bids_qsm.statistics.hemispheres import bilateral_means, sides
from bids_qsm.statistics.regions import group_labels

NO_STRUCTURES = ("ventricle", "white matter", "cortex", "brain stem", "brain-stem")
NO_STRUCTURES += ("hippocampus", "amygdala")
"""Words in names of what an atlas of deep grey matter has besides."""


@dataclass(frozen=True, eq=False)
class Cohort:
    """All scans, or those of an analysis.

    Attributes
    ----------
    regions : DataFrame
        Tidy: a row for each scan, structure, measure and reference, with the columns of
        ``participants.tsv`` and ``sessions.tsv``.
    scans : DataFrame
        A row for each scan: ``participant_id, session_id, series``, those columns, and a column
        for each outcome (:attr:`outcomes`), sides apart and joined.
    outcomes : DataFrame
        ``column, name, hemisphere, measure, units, reference`` of each outcome.
    images : DataFrame
        ``participant_id, session_id, series, measure, path`` of the maps in the atlas' space.
    atlases : mapping of str to Atlas
        By name, the first one first.
    reference : str
        What susceptibility is relative to.
    work_dir : Path
        Where large arrays may lie while they are used.
    notes : tuple of str
        What was chosen, in sentences.
    tracking : DataFrame or None
        Tidy: a row for each scan and lesion that was followed, with the columns of
        ``participants.tsv`` and ``sessions.tsv``.
    clinical : mapping of str to DataFrame
        Tables of the clinical steps by name, of all scans, with those columns; an analysis takes
        the rows of its scans by :func:`clinical_table`.
    """

    regions: pd.DataFrame
    scans: pd.DataFrame
    outcomes: pd.DataFrame
    images: pd.DataFrame
    atlases: Mapping[str, Atlas]
    reference: str
    work_dir: Path
    notes: tuple[str, ...] = ()
    tracking: pd.DataFrame | None = None
    clinical: Mapping[str, pd.DataFrame] = field(default_factory=dict)


@dataclass(frozen=True)
class Selection:
    """What of the cohort an analysis is of; what is empty leaves the choice to the program.

    Attributes
    ----------
    measures : tuple of str
        Such as ``Chimap``, ``R2starmap``; all.
    structures : tuple of str
        Names without their side, or with it; all but ventricles, cortex and white matter.
    sides : str
        ``joined``: means of both sides; ``apart``; or ``both``.
    atlas : str
        Name; the first one.
    reference : str
        What susceptibility is relative to; as in the maps.
    subset : str
        Condition on columns of the scans, such as ``age < 50``.
    session : str
        ``ses-...``; the first one of each participant, where an analysis takes one scan of each.
    """

    measures: tuple[str, ...] = ()
    structures: tuple[str, ...] = ()
    sides: str = "joined"
    atlas: str = ""
    reference: str = ""
    subset: str = ""
    session: str = ""


def select(cohort: Cohort, selection: Selection) -> Cohort:
    """Return the part of the cohort that an analysis is of.

    Raises
    ------
    ValueError
        If something is chosen that is not there; the message is a sentence for the user.
    """
    regions, scans, notes = cohort.regions, cohort.scans, cohort.notes
    if selection.subset:
        scans, said = expressions.subset(scans, selection.subset)
        notes += said
    if selection.session:
        (session,) = session_ids([selection.session])
        check_there("session", [session], scans["session_id"])
        scans = scans[scans["session_id"] == session]
    regions = regions.merge(scans[KEYS], on=KEYS)
    atlas = selection.atlas or next(iter(cohort.atlases), "")
    check_there("atlas", [atlas], regions["atlas"])
    reference = selection.reference or cohort.reference
    check_there("reference", [reference], regions["reference"])
    regions = regions[(regions["atlas"] == atlas) & regions["reference"].isin(("n/a", reference))]
    if selection.measures:
        check_there("measure", selection.measures, regions["measure"])
        regions = regions[regions["measure"].isin(selection.measures)]
    regions, said = _of_sides(regions, selection.sides)
    regions = _of_structures(regions, selection.structures)
    images = cohort.images.merge(scans[KEYS], on=KEYS)
    if selection.measures:
        images = images[images["measure"].isin(selection.measures)]
    return replace(
        cohort,
        regions=regions.reset_index(drop=True),
        scans=scans.reset_index(drop=True),
        images=images.reset_index(drop=True),
        atlases={atlas: cohort.atlases[atlas]},
        reference=reference,
        notes=notes + said,
        tracking=None if cohort.tracking is None else cohort.tracking.merge(scans[KEYS], on=KEYS),
    )


def one_scan_each(cohort: Cohort) -> Cohort:
    """Return the cohort with the first scan of each participant alone, and say so."""
    first = cohort.scans.sort_values(KEYS, kind="stable").drop_duplicates("participant_id")
    left = len(cohort.scans) - len(first)
    if not left:
        return cohort
    note = (
        f"Of participants with several scans the first was taken; {counted(left, 'scan')} left "
        "out. Choose by 'session' or 'subset'."
    )
    return with_scans(cohort, first, (note,))


def with_scans(cohort: Cohort, scans: pd.DataFrame, notes: tuple[str, ...] = ()) -> Cohort:
    """Return the cohort with some of its scans alone."""
    return replace(
        cohort,
        regions=cohort.regions.merge(scans[KEYS], on=KEYS).reset_index(drop=True),
        scans=scans.reset_index(drop=True),
        images=cohort.images.merge(scans[KEYS], on=KEYS).reset_index(drop=True),
        notes=cohort.notes + notes,
    )


def with_labels(cohort: Cohort, column: str) -> Cohort:
    """Return the cohort with a column of groups as text, however the table was written."""
    if column not in cohort.scans:
        return cohort
    regions, scans = (
        table.assign(**{column: group_labels(table, column)})
        for table in (cohort.regions, cohort.scans)
    )
    return replace(cohort, regions=regions, scans=scans)


def terms_of(scans: pd.DataFrame, words: Iterable[str]) -> tuple[str, ...]:
    """Return terms of a formula: columns whose names it could not read are quoted."""
    return tuple(
        f"`{word}`" if word in scans and not word.isidentifier() else word for word in words
    )


def with_value(cohort: Cohort, value: str) -> Cohort:
    """Return the cohort with rows that a column of values fits, with its units.

    Raises
    ------
    ValueError
        If the column is of the measurement and not of the measure, or empty, as medians of joined
        sides are.
    """
    regions = cohort.regions
    if value == "volume_mm3" and value in regions:
        volumes = regions.drop_duplicates([*KEYS, "atlas", "name", "hemisphere"])
        return replace(
            cohort, regions=volumes.assign(measure="volume", units="mm3", reference="n/a")
        )
    if value in ("n_voxels", "n_vein_voxels", "coverage", "confidence", "agreement", "index"):
        raise ValueError(f"{value!r} is no value of a structure; take 'mean', 'median', 'p95', ...")
    if value in regions and regions[value].isna().all():
        raise ValueError(
            f"no structure has a value in the column {value!r}; of joined sides there are means "
            "alone: set sides = 'apart'."
        )
    return cohort


def clinical_table(cohort: Cohort, name: str) -> pd.DataFrame:
    """Return the rows of a clinical step's table that are of the cohort's scans.

    Raises
    ------
    ValueError
        If there is no such table, or none of these scans.
    """
    if name not in cohort.clinical:
        there = listed(sorted(cohort.clinical)) if cohort.clinical else "none"
        raise ValueError(
            f"there is no table {name!r} of clinical steps; there are: {there}. The participant "
            "level makes them ('--with dbs')."
        )
    table = cohort.clinical[name].merge(cohort.scans[KEYS], on=KEYS)
    if table.empty:
        raise ValueError(f"none of the chosen scans has a table {name!r}.")
    return table


def need(**words: Sequence[object]) -> None:
    """Refuse options that were left empty."""
    for name, value in words.items():
        if not value:
            raise ValueError(f"the analysis needs '{name}'.")


def _of_sides(regions: pd.DataFrame, wanted: str) -> tuple[pd.DataFrame, tuple[str, ...]]:
    if wanted == "apart":
        return regions, ()
    if wanted not in ("joined", "both"):
        raise ValueError(f"'sides' must be 'joined', 'apart' or 'both', got {wanted!r}.")
    means, notes = bilateral_means(regions)
    if wanted == "both":
        means = pd.concat([regions[sides(regions) != "B"], means], ignore_index=True)
    return means, notes


def _of_structures(regions: pd.DataFrame, wanted: Sequence[str]) -> pd.DataFrame:
    names = regions["name"].astype(str)
    bare = names.str.lower()
    if not wanted:
        other = pd.Series(False, index=regions.index)
        for word in NO_STRUCTURES:
            other |= bare.str.contains(word, regex=False)
        return regions[~other]
    chosen = {word.lower() for word in wanted}
    joined = without_side(bare)
    known = {*bare.unique(), *joined.unique()}
    for word in wanted:
        if word.lower() not in known:
            raise ValueError(
                f"there is no structure {word!r}; there are: {listed(sorted(names.unique()))}"
                " (sides stand apart with sides = 'apart')."
            )
    return regions[bare.isin(chosen) | joined.isin(chosen)]


def session_ids(labels: Iterable[str]) -> list[str]:
    """Return sessions as tables name them, given with or without ``ses-``."""
    return [f"ses-{label.removeprefix('ses-')}" for label in labels]


def check_there(what: str, wanted: Iterable[str], there: pd.Series) -> None:
    """Refuse a word that a column does not hold."""
    known = sorted({*map(str, there)} - {"n/a"})
    for word in wanted:
        if word not in known:
            found = listed(known) if known else "none"
            raise ValueError(f"there is no {what} {word!r}; there are: {found}.")
