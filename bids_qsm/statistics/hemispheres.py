"""Tidy tables of structures made into means of both sides, or into one row for each subject."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from bids_qsm.statistics.collection import KEYS
from bids_qsm.statistics.expressions import counted, listed

SUBJECT_KEYS = KEYS
OUTCOME_KEYS = ["atlas", "measure", "units", "reference", "hemisphere", "name"]

_SIDES = {"l": "L", "left": "L", "lh": "L", "r": "R", "right": "R", "rh": "R"}
_SIDE_IN_NAME = re.compile(
    r"^(left|right|l|r|lh|rh)[\s_\-.]+|[\s_\-.,]+(left|right|l|r|lh|rh)$", re.IGNORECASE
)
_WEIGHTED = {
    "mean": "n_voxels",
    "mean_without_veins": "n_voxels_without_veins",
    "coverage": "volume_mm3",
}
_SUMMED = ["n_voxels", "n_vein_voxels", "volume_mm3"]
_LOST = ["median", "sd", "p05", "p95", "median_without_veins", "sd_without_veins", "confidence"]
_LOST += ["agreement"]


def present(table: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    """Return those of the keys that are columns of the table."""
    return [key for key in keys if key in table.columns]


def with_keys(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with its keys as text, missing ones as ``n/a``; refuse it without names."""
    for name in ("participant_id", "name"):
        if name not in table.columns:
            raise ValueError(f"the table of structures has no column {name!r}.")
    keys = present(table, SUBJECT_KEYS + OUTCOME_KEYS)
    coded = {key: _coded(table[key]) for key in keys}
    return table.assign(**coded)


def _coded(column: pd.Series) -> pd.Series:
    """Return text as categories, which are sorted and grouped many times as fast."""
    coded = column if isinstance(column.dtype, pd.CategoricalDtype) else column.astype("category")
    coded = coded.cat.rename_categories([str(value) for value in coded.cat.categories])
    if coded.isna().any():
        if "n/a" not in coded.cat.categories:
            coded = coded.cat.add_categories("n/a")
        coded = coded.fillna("n/a")
    return coded


def sides(table: pd.DataFrame) -> pd.Series:
    """Return ``L``, ``R`` or ``B`` for each row."""
    if "hemisphere" not in table.columns:
        return pd.Series("B", index=table.index)
    known = {value: side_of(value) for value in table["hemisphere"].unique()}
    return table["hemisphere"].astype(object).map(known)


def side_of(hemisphere: str) -> str:
    """Return ``L``, ``R``, or ``B`` for anything else."""
    return _SIDES.get(str(hemisphere).strip().lower(), "B")


def bilateral_means(
    table: pd.DataFrame, *, weighted: bool = True
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Join the left and right half of each structure.

    Parameters
    ----------
    table : DataFrame
        Tidy: one row for each subject, structure, measure and reference, with ``hemisphere``.
        Names lose ``Left`` or ``Right``, ``L`` or ``R`` at their start or end.
    weighted : bool
        Weigh ``mean``, ``mean_without_veins`` and ``coverage`` by the voxels they are of, as if the
        two halves were one region; else both sides count the same.

    Returns
    -------
    DataFrame
        With hemisphere ``B``; rows that had no side stay as they are.  Numbers of voxels and
        volumes are added up; medians, percentiles and what else cannot be joined is NaN.
    tuple of str
        Sentences on structures that have one side alone in some subjects: they are left out.

    Raises
    ------
    ValueError
        If a side stands twice for a subject, or there are no numbers of voxels to weigh by.
    """
    if "hemisphere" not in table.columns:
        raise ValueError("the table of structures has no column 'hemisphere' to join sides by.")
    table = with_keys(table)
    side = sides(table)
    sided = table[side != "B"].assign(hemisphere=side[side != "B"])
    bare = {name: _SIDE_IN_NAME.sub("", name.strip()) for name in sided["name"].unique()}
    sided["name"] = sided["name"].astype(object).map(bare).astype("category")
    keys = [k for k in present(table, SUBJECT_KEYS + OUTCOME_KEYS) if k != "hemisphere"]
    twice = sided[sided.duplicated([*keys, "hemisphere"])]
    if len(twice):
        row = twice.iloc[0]
        raise ValueError(
            f"{row['participant_id']} has {row['name']} of side {row['hemisphere']} more than once."
        )
    both = sided.groupby(keys, observed=True)["hemisphere"].transform("size") == 2
    notes = _one_sided(sided[~both])
    left = sided[both & (sided["hemisphere"] == "L")].sort_values(keys, ignore_index=True)
    right = sided[both & (sided["hemisphere"] == "R")].sort_values(keys, ignore_index=True)
    joined = _join(left, right, weighted).assign(hemisphere="B")
    result = pd.concat([joined, table[side == "B"]], ignore_index=True)
    return result[list(table.columns)], notes


def _one_sided(alone: pd.DataFrame) -> tuple[str, ...]:
    sentences = []
    for name, rows in alone.groupby("name", observed=True):
        who = rows["participant_id"].unique()
        sentences.append(
            f"{name} has one side alone in {counted(len(who), 'subject')} and is left out there: "
            f"{listed(who, 5)}."
        )
    return tuple(sentences)


def _join(left: pd.DataFrame, right: pd.DataFrame, weighted: bool) -> pd.DataFrame:
    joined = left.copy()
    if "index" in left.columns:
        joined["index"] = np.minimum(left["index"], right["index"])
    for name in present(left, _SUMMED):
        joined[name] = left[name] + right[name]
    for name in present(left, [*_WEIGHTED, "value"]):
        a = _weights(left, name) if weighted else 1.0
        b = _weights(right, name) if weighted else 1.0
        with np.errstate(invalid="ignore", divide="ignore"):
            joined[name] = (a * left[name] + b * right[name]) / (a + b)
    for name in present(left, _LOST):
        joined[name] = np.nan
    return joined


def _weights(side: pd.DataFrame, name: str) -> pd.Series | float:
    by = _WEIGHTED.get(name)
    if by is None:
        return 1.0
    if by == "n_voxels_without_veins" and "n_vein_voxels" in side.columns:
        return side["n_voxels"] - side["n_vein_voxels"]
    by = "n_voxels" if by == "n_voxels_without_veins" else by
    if by not in side.columns:
        raise ValueError(
            f"the table of structures has no column {by!r} to weigh the sides' {name} by: join "
            "them without weights."
        )
    return side[by]


def outcomes_of(
    table: pd.DataFrame, value: str, *, repeated: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Turn a tidy table into a matrix of subjects by outcomes.

    Parameters
    ----------
    table : DataFrame
        Tidy, as from :func:`bids_qsm.statistics.collection.collect`.
    value : str
        Column of the values, such as ``mean``.
    repeated : bool
        Whether participants may have several sessions and series.

    Returns
    -------
    values : DataFrame, shape (n, k)
        One row for each subject, session and series.
    subjects : DataFrame, n rows
        The keys of the rows.
    outcomes : DataFrame, k rows
        What each column is of: ``measure, units, reference, hemisphere, name`` and, where the
        table has it, ``atlas``.

    Raises
    ------
    ValueError
        If a column is missing, or a participant has a structure more than once, as with several
        sessions.
    """
    if value not in table.columns:
        raise ValueError(
            f"the table of structures has no column {value!r}; there are: {listed(table.columns)}."
        )
    table = with_keys(table)
    rows, columns = present(table, SUBJECT_KEYS), present(table, OUTCOME_KEYS)
    _refuse_repeated(table, rows[1:], columns, by=rows if repeated else rows[:1])
    order = present(table, ["atlas", "measure", "reference", "index", "hemisphere", "name"])
    table = table.sort_values(order, kind="stable")
    row = table.groupby(rows, observed=True, sort=True).ngroup().to_numpy()
    column = table.groupby(columns, observed=True, sort=False).ngroup().to_numpy()
    matrix = np.full((row.max() + 1, column.max() + 1), np.nan)
    matrix[row, column] = pd.to_numeric(table[value], errors="coerce").to_numpy(np.float64)
    matrix[~np.isfinite(matrix)] = np.nan
    subjects = table[rows].iloc[np.unique(row, return_index=True)[1]]
    outcomes = table[columns].iloc[np.unique(column, return_index=True)[1]]
    return (
        pd.DataFrame(matrix),
        subjects.astype(object).reset_index(drop=True),
        outcomes.astype(object).reset_index(drop=True),
    )


def _refuse_repeated(
    table: pd.DataFrame, rows: list[str], columns: list[str], by: list[str]
) -> None:
    """Refuse a participant with two values of one outcome, and say which to choose from."""
    twice = table[table.duplicated([*by, *columns], keep=False)]
    if not len(twice):
        return
    first = twice.iloc[0]
    same = twice[twice["participant_id"] == first["participant_id"]]
    which = [k for k in rows if same[k].nunique() > 1]
    found, advice = "the same row twice", "remove one"
    if which:
        found = listed(same[which[0]].unique(), 3)
        advice = f"choose one by a subset, as {which[0]} == {first[which[0]]!r}"
    raise ValueError(
        f"{first['participant_id']} has {first['name']} more than once ({found}): {advice}."
    )


def wide_table(
    table: pd.DataFrame, value: str = "mean", *, repeated: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return one row for each subject, session and series, with a column for each outcome.

    Parameters
    ----------
    table : DataFrame
        Tidy, as from :func:`bids_qsm.statistics.collection.collect`.
    value : str
        Column of the values.
    repeated : bool
        Whether participants may have several sessions and series.

    Returns
    -------
    DataFrame
        Columns that are the same in all rows of a subject, then the outcomes, named as
        ``left_thalamus_Chimap``, with ``_ref_csf`` where there are several references: names that
        stand in formulas as they are.
    DataFrame
        ``column`` with the ``measure``, ``units``, ``name``, ... of each outcome.
    """
    values, subjects, outcomes = outcomes_of(table, value, repeated=repeated)
    names = _column_names(outcomes)
    values.columns = pd.Index(names)
    table = with_keys(table)
    keys = present(table, SUBJECT_KEYS)
    skipped = {*OUTCOME_KEYS, "index", value, *_SUMMED, *_WEIGHTED, *_LOST}
    covariates = [c for c in table.columns if c not in skipped]
    shared = subject_columns(table, [c for c in covariates if c not in keys], strict=False)
    joined = subjects.merge(shared, on=keys, how="left", sort=False)
    return pd.concat([joined, values], axis=1), outcomes.assign(column=names)


def subject_columns(
    table: pd.DataFrame, columns: list[str], *, strict: bool = True
) -> pd.DataFrame:
    """Return the keys of each subject with columns that are the same in all rows of a subject.

    Raises
    ------
    ValueError
        If one differs between the rows of a subject; such columns are dropped if not ``strict``.
    """
    keys = present(table, SUBJECT_KEYS)
    groups = table.groupby(keys, dropna=False, sort=False, observed=True)
    for name in list(columns):
        varies = groups[name].nunique(dropna=False) > 1
        if varies.any() and strict:
            who = varies.index[varies.to_numpy()][0]
            who = who[0] if isinstance(who, tuple) else who
            raise ValueError(
                f"{name!r} differs between the rows of {who}: it is of a structure, and no "
                "property of a subject."
            )
        if varies.any():
            columns = [c for c in columns if c != name]
    first = table.drop_duplicates(keys)[keys + [c for c in columns if c not in keys]]
    return first.astype(dict.fromkeys(keys, object))


def _column_names(outcomes: pd.DataFrame) -> list[str]:
    several = {key: _several(outcomes, key) for key in present(outcomes, ["atlas", "reference"])}
    names = []
    for place, (_, row) in enumerate(outcomes.iterrows()):
        parts = [str(row["name"])] + [str(row[k]) for k in present(outcomes, ["measure"])]
        for key, among in several.items():
            if among[place]:
                parts.append(f"{'ref' if key == 'reference' else key}_{row[key]}")
        side = side_of(row.get("hemisphere", "B"))
        if side != "B" and not _SIDE_IN_NAME.search(str(row["name"])):
            parts.insert(0, side)
        first = parts[0][:1].lower() + parts[0][1:]
        names.append(re.sub(r"\W+", "_", "_".join([first, *parts[1:]])).strip("_"))
    repeated = {name for name in names if names.count(name) > 1}
    return [f"{name}_{i}" if name in repeated else name for i, name in enumerate(names, start=1)]


def _several(outcomes: pd.DataFrame, key: str) -> list[bool]:
    """Tell of each outcome whether its measure stands with more than one value of the key."""
    measures = outcomes["measure"] if "measure" in outcomes else pd.Series("", outcomes.index)
    return list(outcomes[key].groupby(measures).transform("nunique") > 1)
