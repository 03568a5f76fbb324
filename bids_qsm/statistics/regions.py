"""Groups compared structure by structure: the upper half of the usual table of a QSM paper."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_qsm.statistics import anova
from bids_qsm.statistics.adjusted_means import Adjusted, adjust
from bids_qsm.statistics.expressions import (
    counted,
    formula_columns,
    listed,
    row_names,
    typed_column,
    unknown_column,
)
from bids_qsm.statistics.hemispheres import (
    SUBJECT_KEYS,
    bilateral_means,
    outcomes_of,
    present,
    sides,
    subject_columns,
    with_keys,
)
from bids_qsm.statistics.leastsquares import Robust
from bids_qsm.statistics.multiplicity import fdr, holm

Float64 = NDArray[np.float64]
Hemispheres = Literal["separate", "mean", "both"]

_REFERENCES = {"control", "controls", "ctrl", "ctl", "con", "healthy", "hc", "hcs", "cn", "nc"}
_REFERENCES |= {"healthycontrol", "healthycontrols", "normal", "0"}
_MOST_GROUPS = 12


@dataclass(frozen=True, eq=False)
class RegionComparison:
    """Tables of a comparison of groups; see :func:`compare_groups` for their columns.

    Attributes
    ----------
    groups : DataFrame
        One row for each outcome and group.
    pairs : DataFrame
        One row for each outcome and pair of groups.
    anova : DataFrame
        One row for each outcome.
    notes : tuple of str
        Sentences on what was assumed, and on subjects and structures that were left out.
    """

    groups: pd.DataFrame
    pairs: pd.DataFrame
    anova: pd.DataFrame
    notes: tuple[str, ...]


def compare_groups(
    table: pd.DataFrame,
    group: str = "group",
    *,
    covariates: str | Sequence[str] = (),
    value: str = "mean",
    hemispheres: Hemispheres = "separate",
    reference_group: str | None = None,
    robust: Robust | None = None,
    level: float = 0.95,
) -> RegionComparison:
    """Compare groups of subjects in each structure, measure and reference.

    Parameters
    ----------
    table : DataFrame
        Tidy, as from :func:`bids_qsm.statistics.collection.collect`, with participants' columns
        joined, and one row for each participant and outcome.
    group : str
        Column of the groups.
    covariates : str or sequence of str
        Terms of a formula, ``("age", "sex")`` or ``age + sex``, to adjust for.
    value : str
        Column of the values.
    hemispheres : {'separate', 'mean', 'both'}
        Take sides as they are, means of both (weighted by voxels), or one after the other.
    reference_group : str, optional
        Group that differences are from; else one called ``control``, ``HC`` or the like, else the
        first in the alphabet.
    robust : {'HC0', 'HC1', 'HC2', 'HC3'}, optional
        Errors of the adjusted differences that allow for unequal variances.
    level : float
        Of the intervals.

    Returns
    -------
    RegionComparison
        All tables begin with ``measure, units, reference, hemisphere, name`` (and ``atlas``).
        ``groups`` has ``group, n, mean, sd, mean_low, mean_high`` and ``adjusted_mean,
        adjusted_mean_low, adjusted_mean_high`` (at the mean of all covariates).
        ``pairs`` has ``group_a, group_b, n_a, n_b, mean_a, sd_a, mean_b, sd_b``, the difference
        a - b and Welch's test of it (:func:`anova.welch_t`), ``q_fdr, p_holm``, Hedges' g
        (:func:`anova.hedges_g`), and with covariates ``n_adjusted, adjusted_difference,
        adjusted_difference_low, adjusted_difference_high, t_adjusted, p_adjusted,
        q_fdr_adjusted, p_holm_adjusted``; with more than two groups also Tukey's and Games and
        Howell's tests and ``p_tukey_adjusted``.  ``anova`` has the columns of
        :func:`anova.one_way`, ``q_fdr, p_holm``, and with covariates ``f_adjusted, df_adjusted,
        p_adjusted, q_fdr_adjusted, p_holm_adjusted``.
        Corrections are over the structures of one measure and reference, sides and means of both
        sides apart, for each pair of groups.

    Raises
    ------
    ValueError
        With one sentence, as in :func:`bids_qsm.statistics.designs.build_design`; if there is one
        group, a group of one, or more than one row for a participant and outcome.
    """
    if group not in table.columns:
        raise unknown_column("the comparison", group, table.columns)
    table = with_keys(table)
    joined = _of_references(table)
    if hemispheres != "separate":
        means, one_sided = bilateral_means(table)
        joined += one_sided
        table = means if hemispheres == "mean" else pd.concat([table[sides(table) != "B"], means])
    values, subjects, outcomes = outcomes_of(table, value)
    formula = covariates if isinstance(covariates, str) else " + ".join(covariates)
    needed = _covariate_columns(formula, group, list(table.columns))
    shared = subject_columns(table, [group, *needed])
    people = subjects.merge(shared, on=present(table, SUBJECT_KEYS), how="left", sort=False)
    people[group], lost = _group_labels(people, group)
    known = people[group].notna().to_numpy()
    people, matrix = people[known].reset_index(drop=True), values.to_numpy()[known]
    labels, said = group_order(people, group, reference_group)
    moments = anova.group_moments(matrix, people[group].astype(str).to_numpy(), labels)
    adjusted, notes = None, (*joined, *lost, *said, *_thin(moments, labels, outcomes))
    if formula.strip():
        adjusted, left_out = adjust(people, matrix, group, labels, formula, robust, level)
        notes = (*notes, *left_out)
    family = _families(outcomes)
    return RegionComparison(
        _groups_table(outcomes, labels, moments, adjusted, level),
        _pairs_table(outcomes, labels, moments, adjusted, family, level),
        _anova_table(outcomes, moments, adjusted, family),
        tuple(dict.fromkeys(notes)),
    )


def _of_references(table: pd.DataFrame) -> tuple[str, ...]:
    """Say where subjects differ in what their susceptibility is relative to."""
    if "reference" not in table or "measure" not in table:
        return ()
    pairs = table[["participant_id", "measure", "reference"]].drop_duplicates().astype(object)
    sentences = []
    for measure, rows in pairs.groupby("measure"):
        references = rows["reference"].unique()
        if len(references) > 1 and not rows["participant_id"].duplicated().any():
            sentences.append(
                f"subjects differ in the reference of {measure} ({listed(references, 4)}): each is "
                "compared apart; process all subjects with the same reference."
            )
    return tuple(sentences)


def _covariate_columns(formula: str, group: str, columns: list[str]) -> list[str]:
    if not formula.strip():
        return []
    used, _ = formula_columns(formula, columns)
    if group in used:
        raise ValueError(f"{group!r} is the group that is compared: take it out of the covariates.")
    return used


def _group_labels(people: pd.DataFrame, group: str) -> tuple[pd.Series, tuple[str, ...]]:
    """Return the groups as text, and a sentence on those who have none."""
    text = group_labels(people, group)
    missing = text.isna().to_numpy()
    if missing.all():
        raise ValueError(f"column {group!r} has no value for any subject.")
    if not missing.any():
        return text, ()
    who = row_names(people[missing])
    sentence = f"{counted(len(who), 'subject')} left out for want of {group}: {listed(who, 5)}."
    return text, (sentence,)


def group_labels(people: pd.DataFrame, group: str) -> pd.Series:
    """Return a column of groups as text, NaN where it is missing; 1 and 1.0 are group ``1``."""
    column = typed_column(people, group, as_levels=True)
    text = column.map(lambda v: v if pd.isna(v) else f"{v:g}" if isinstance(v, float) else str(v))
    return text.astype(object)


def group_order(
    people: pd.DataFrame, group: str, reference: str | None
) -> tuple[list[str], tuple[str, ...]]:
    """Return the groups with the reference first, and what was assumed.

    Parameters
    ----------
    people : DataFrame
        ``participant_id`` and the groups, as text.
    group : str
        Column of the groups.
    reference : str, optional
        As ``reference_group`` of :func:`compare_groups`.
    """
    members = people.drop_duplicates(["participant_id", group])
    sizes = members[group].value_counts()
    labels = sorted(map(str, sizes.index))
    if not labels:
        raise ValueError(f"column {group!r} has no value for any subject.")
    if len(labels) < 2:
        raise ValueError(f"column {group!r} has one group alone ({labels[0]!r}): two are needed.")
    if len(labels) > _MOST_GROUPS:
        raise ValueError(
            f"column {group!r} has {len(labels)} groups ({listed(labels, 5)}): at most "
            f"{_MOST_GROUPS} are compared; use a regression if it is a number."
        )
    for label in labels:
        if sizes[label] < 2:
            who = members["participant_id"][(members[group] == label).to_numpy()].iloc[0]
            raise ValueError(
                f"group {label!r} of column {group!r} has one subject ({who}): at least two are "
                "needed; leave the subject out by a subset, or join groups."
            )
    if reference is not None and reference not in labels:
        raise ValueError(
            f"the reference group {reference!r} is none of {group!r}; there are: {listed(labels)}."
        )
    said: tuple[str, ...] = ()
    if reference is None:
        usual = [label for label in labels if re.sub(r"[\W_]", "", label.lower()) in _REFERENCES]
        reference = usual[0] if usual else labels[0]
        said = (f"differences are from the group {reference!r} of {group!r}.",)
    return [reference, *(label for label in labels if label != reference)], said


def _thin(
    moments: anova.GroupMoments, labels: list[str], outcomes: pd.DataFrame
) -> tuple[str, ...]:
    """Say which outcomes have too few values in a group, or the same value in a whole group."""
    sentences = []
    for row, label in enumerate(labels):
        few = moments.n[row] < 2
        same = ~few & (moments.variance[row] == 0)
        for which, what in ((few, "fewer than two values"), (same, "one value alone")):
            if which.any():
                names = listed(_titles(outcomes[which]), 5)
                sentences.append(f"group {label!r} has {what} of {names}.")
    return tuple(sentences)


def _titles(outcomes: pd.DataFrame) -> list[str]:
    if "measure" not in outcomes:
        return list(outcomes["name"])
    return [f"{n} ({m})" for n, m in zip(outcomes["name"], outcomes["measure"], strict=True)]


def _families(outcomes: pd.DataFrame) -> NDArray[np.intp]:
    """Return the number of the set of outcomes that each is corrected with."""
    keys = [outcomes[k] for k in present(outcomes, ["atlas", "measure", "reference"])]
    if "hemisphere" in outcomes:
        keys.append(sides(outcomes) == "B")
    if not keys:
        return np.zeros(len(outcomes), np.intp)
    return pd.MultiIndex.from_arrays(keys).factorize()[0]


def _corrected(p: Float64, family: NDArray[np.intp], suffix: str = "") -> dict[str, Float64]:
    q_fdr, p_holm = np.full_like(p, np.nan), np.full_like(p, np.nan)
    for number in np.unique(family):
        members = family == number
        q_fdr[members], p_holm[members] = fdr(p[members]), holm(p[members])
    return {f"q_fdr{suffix}": q_fdr, f"p_holm{suffix}": p_holm}


def _groups_table(
    outcomes: pd.DataFrame,
    labels: list[str],
    moments: anova.GroupMoments,
    adjusted: Adjusted | None,
    level: float,
) -> pd.DataFrame:
    rows = []
    half = anova.mean_half_width(moments, level)
    for g, label in enumerate(labels):
        cells: dict[str, Any] = {
            "group": label,
            "n": moments.n[g].astype(int),
            "mean": moments.mean[g],
            "sd": np.sqrt(moments.variance[g]),
            "mean_low": moments.mean[g] - half[g],
            "mean_high": moments.mean[g] + half[g],
        }
        if adjusted is not None:
            cells |= {name: values[g] for name, values in adjusted.means.items()}
        rows.append(outcomes.assign(**cells))
    return _interleaved(rows)


def _pairs_table(
    outcomes: pd.DataFrame,
    labels: list[str],
    moments: anova.GroupMoments,
    adjusted: Adjusted | None,
    family: NDArray[np.intp],
    level: float,
) -> pd.DataFrame:
    several = len(labels) > 2
    after = [anova.tukey(moments, level), anova.games_howell(moments, level)] if several else []
    rows = []
    for b, a in combinations(range(len(labels)), 2):
        cells: dict[str, Any] = {"group_a": labels[a], "group_b": labels[b]}
        for side, g in (("a", a), ("b", b)):
            cells[f"n_{side}"] = moments.n[g].astype(int)
        for side, g in (("a", a), ("b", b)):
            cells[f"mean_{side}"] = moments.mean[g]
            cells[f"sd_{side}"] = np.sqrt(moments.variance[g])
        welch = anova.welch_t(moments, a, b, level)
        cells |= welch | _corrected(welch["p_welch"], family)
        cells |= anova.hedges_g(moments, a, b, level)
        if adjusted is not None:
            pair = adjusted.pairs[a, b]
            cells |= {"n_adjusted": adjusted.n} | pair
            if several:
                cells["p_tukey_adjusted"] = anova.tukey_p(
                    pair["t_adjusted"], len(labels), adjusted.df
                )
            cells |= _corrected(pair["p_adjusted"], family, "_adjusted")
        for test in after:
            cells |= test[a, b]
        rows.append(outcomes.assign(**cells))
    return _interleaved(rows)


def _anova_table(
    outcomes: pd.DataFrame,
    moments: anova.GroupMoments,
    adjusted: Adjusted | None,
    family: NDArray[np.intp],
) -> pd.DataFrame:
    cells = anova.one_way(moments)
    cells |= _corrected(cells["p_anova"], family)
    if adjusted is not None:
        cells |= {"f_adjusted": adjusted.f, "df_adjusted": adjusted.df, "p_adjusted": adjusted.p}
        cells |= _corrected(adjusted.p, family, "_adjusted")
    return outcomes.assign(**cells)


def _interleaved(rows: list[pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of one outcome next to each other."""
    joined = pd.concat(rows)
    order = np.argsort(joined.index.to_numpy(), kind="stable")
    return joined.iloc[order].reset_index(drop=True)
