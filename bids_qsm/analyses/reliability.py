"""Repeated scans without a change in between: by structure and by voxel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from bids_qsm.analyses.cohort import (
    Cohort,
    check_there,
    session_ids,
    with_scans,
    with_value,
)
from bids_qsm.analyses.result import Result, ResultChart, ResultMap, ResultTable
from bids_qsm.analyses.stacks import UNITS, Stack, stack_maps
from bids_qsm.report.group_agreement_charts import bland_altman
from bids_qsm.report.group_style import quantity_of, structure_labels
from bids_qsm.statistics.collection import KEYS
from bids_qsm.statistics.expressions import counted, listed
from bids_qsm.statistics.pairs import side_by_side
from bids_qsm.statistics.regions import group_labels
from bids_qsm.statistics.reliability import (
    Reliability,
    VoxelReliability,
    by_label,
    voxel_reliability,
)
from bids_qsm.statistics.reliability import reliability as of_structures

SHOWN = ("n", "mean", "mad", "mad_percent", "mad_percent_of_mean", "sd_within")
SHOWN += ("smallest_detectable_change", "cv_percent", "icc_2_1", "icc_2_1_low", "icc_2_1_high")
SHOWN += ("icc_3_1", "icc_3_1_low", "icc_3_1_high", "bias", "loa_lower", "loa_upper")
IN_UNITS = ("mean", "mad", "sd_within", "smallest_detectable_change", "bias")
IN_UNITS += ("loa_lower", "loa_upper", "mad_in_units")
RESCAN = "rescan_of"
STRUCTURE = ("name", "hemisphere", "measure", "units", "reference")


def reliability(
    cohort: Cohort, *, sessions: tuple[str, ...] = (), value: str = "mean", voxels: bool = True
) -> Result:
    """Compare repeated scans: differences, within-subject SD, ICC, Bland-Altman.

    Parameters
    ----------
    cohort : Cohort
    sessions : tuple of str
        Two or more, such as ``["ses-1", "ses-2"]``; where it is empty, those that the column
        ``rescan_of`` of sessions.tsv pairs (it names the session that a session repeats), or,
        without that column, all that there are.
    value : str
        Column of the regions' table.
    voxels : bool
        Whether the first two sessions are compared by voxel, too.
    """
    if not sessions and RESCAN in cohort.scans:
        cohort = _paired(cohort)
    there = cohort.scans["session_id"]
    chosen = session_ids(sessions) or sorted(set(there))
    if len(chosen) < 2:
        raise ValueError("repeated scans need two sessions or more; there is one.")
    check_there("session", chosen, there)
    scans, notes = _one_series(cohort.scans[there.isin(chosen)])
    cohort = with_value(with_scans(cohort, scans, notes), value)
    found = of_structures(cohort.regions, chosen, value=value)
    tables = [_table(found)]
    charts = list(_charts(cohort, found, chosen, value)) if len(chosen) == 2 else []
    maps: list[ResultMap] = []
    said: list[str] = []
    if voxels and len(cohort.images):
        for measure in dict.fromkeys(cohort.images["measure"]):
            table, made, sentence = _by_voxel(cohort, str(measure), chosen[:2])
            tables.append(table)
            maps += made
            said.append(sentence)
    left = [
        f"{row.participant_id} left out: {row.reason}."
        for row in found.left_out.drop_duplicates(["participant_id", "reason"]).itertuples()
    ]
    return Result(
        f"Repeated scans of the same participants compared: {listed(chosen)}.",
        (*cohort.notes, *left, *said),
        tables=tuple(tables),
        charts=tuple(charts),
        maps=tuple(maps),
        methods=(
            "Repeated scans were compared by the mean absolute difference, the within-subject "
            "standard deviation, the smallest detectable change (1.96 √2 times it), intraclass "
            "correlations [@mcgraw1996], and limits of agreement [@bland1999]. Percentages are of "
            "the mean of a participant's two scans; where that is too near zero to divide by, "
            "there is none."
        ),
    )


def _paired(cohort: Cohort) -> Cohort:
    """Return the scans that sessions.tsv pairs, their sessions called ``first`` and ``second``."""
    # a column of 1 and n/a is read as one of numbers
    named_by = cohort.scans.assign(**{RESCAN: group_labels(cohort.scans, RESCAN)})
    again = named_by[named_by[RESCAN].notna()]
    if again.empty:
        raise ValueError(f"the column {RESCAN!r} of sessions.tsv names no session.")
    places: dict[tuple[str, str], str] = {}
    for row in again[["participant_id", "session_id", RESCAN]].itertuples(index=False):
        who, second, first = map(str, row)
        for session, place in ((f"ses-{first.removeprefix('ses-')}", "first"), (second, "second")):
            if places.setdefault((who, session), place) != place:
                raise ValueError(
                    f"{who}: {session} is repeated and repeats another session by {RESCAN!r} of "
                    "sessions.tsv; pair each session once."
                )

    def named(table: pd.DataFrame) -> pd.DataFrame:
        keys = zip(table["participant_id"].astype(str), table["session_id"], strict=True)
        names = pd.Series([places.get(key) for key in keys], index=table.index, dtype=object)
        return table.assign(session_id=names)[names.notna()].reset_index(drop=True)

    note = f"Sessions were paired by the column {RESCAN!r} of sessions.tsv."
    return replace(
        cohort,
        regions=named(cohort.regions),
        scans=named(cohort.scans),
        images=named(cohort.images),
        notes=(*cohort.notes, note),
    )


def _one_series(scans: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    first = scans.sort_values(KEYS).drop_duplicates(["participant_id", "session_id"])
    if len(first) == len(scans):
        return scans, ()
    left = counted(len(scans) - len(first), "series")
    return first, (f"Of sessions with several series the first was taken; {left} left out.",)


def _table(found: Reliability) -> ResultTable:
    columns = [c for c in (*STRUCTURE, *SHOWN) if c in found.table.columns]
    return ResultTable(
        "structures",
        "By structure",
        found.table,
        "Of the structures' means in two scans; ‘mean abs. difference’ in units and in per cent "
        "of the mean of both.",
        dict.fromkeys(columns, ""),
        tuple(c for c in columns if c in IN_UNITS),
    )


def _charts(
    cohort: Cohort, found: Reliability, sessions: list[str], value: str
) -> list[ResultChart]:
    pairs, _ = side_by_side(cohort.regions, *sessions, value=value)
    pairs = pairs.assign(
        structure=structure_labels(pairs["name"], pairs["hemisphere"]),
        average=(pairs[sessions[0]] + pairs[sessions[1]]) / 2,
        difference=pairs[sessions[1]] - pairs[sessions[0]],
    )
    limits = found.table.assign(
        structure=structure_labels(found.table["name"], found.table["hemisphere"])
    )
    charts = []
    for (measure, units), rows in pairs.groupby(["measure", "units"], sort=False):
        quantity = quantity_of(str(measure), str(units))
        chart = bland_altman(rows, limits[limits["measure"] == measure], quantity)
        charts.append(
            ResultChart(
                f"{measure}_bland-altman",
                f"{quantity.name}: differences of two scans",
                chart,
                f"{sessions[1]} less {sessions[0]} over the mean of both, with the bias and the "
                "95 % limits of agreement.",
            )
        )
    return charts


def _by_voxel(
    cohort: Cohort, measure: str, sessions: list[str]
) -> tuple[ResultTable, list[ResultMap], str]:
    images = cohort.images[cohort.images["measure"] == measure]
    wide = images.pivot(index="participant_id", columns="session_id", values="path")
    both = wide.reindex(columns=sessions).dropna()
    if len(both) < 2:
        raise ValueError(
            f"fewer than two participants have maps of {measure} in the atlas' space in "
            f"{' and '.join(sessions)}."
        )
    stack = stack_maps(cohort, [*both[sessions[0]], *both[sessions[1]]])
    half = len(both)
    voxels = voxel_reliability(stack.values[:half], stack.values[half:])
    structures = pd.DataFrame(
        {"index": list(stack.joined.names), "name": list(stack.joined.names.values())}
    )
    quantity = quantity_of(measure, UNITS[measure])
    table = by_label(voxels, stack.joined.labels, structures)
    table = table.assign(measure=measure, units=quantity.units)
    shown = ("name", "units", "n_voxels", "mean", "mad", "mad_percent", "mad_percent_of_mean")
    shown += ("sd_within", "smallest_detectable_change", "icc_2_1", "icc_3_1")
    columns = [c for c in shown if c in table.columns]
    return (
        ResultTable(
            f"{measure}_voxels",
            f"{quantity.name}: by voxel",
            table,
            "Averages over the voxels of each structure.",
            dict.fromkeys(columns, ""),
            tuple(c for c in columns if c in IN_UNITS),
        ),
        _maps(measure, quantity.units, stack, voxels),
        f"{measure}: {counted(half, 'participant')} compared voxel by voxel.",
    )


def _maps(measure: str, units: str, stack: Stack, voxels: VoxelReliability) -> list[ResultMap]:
    wanted = (
        ("mean-absolute-difference", voxels.mad, "Mean absolute difference of two scans.", units),
        ("within-subject-sd", voxels.sd_within, "Within-subject standard deviation.", units),
        ("icc-2-1", voxels.icc_2_1, "Intraclass correlation ICC(2,1).", ""),
    )
    return [
        ResultMap(f"{measure}_{name}", stack.volume(np.nan_to_num(values)), text, unit)
        for name, values, text, unit in wanted
    ]
