"""Groups compared structure by structure."""

from __future__ import annotations

import pandas as pd

from bids_qsm.analyses.cohort import (
    Cohort,
    one_scan_each,
    terms_of,
    with_labels,
    with_value,
)
from bids_qsm.analyses.result import Result, ResultChart, ResultTable
from bids_qsm.report.group_charts import Interval, forest, values_by_group
from bids_qsm.report.group_frames import stacked_estimates
from bids_qsm.report.group_style import quantity_of, structure_labels
from bids_qsm.statistics.expressions import listed
from bids_qsm.statistics.regions import RegionComparison, compare_groups

IN_UNITS = ("mean_a", "sd_a", "mean_b", "sd_b", "mean", "sd")


def regions(
    cohort: Cohort,
    *,
    by: str = "group",
    covariates: tuple[str, ...] = (),
    reference_group: str = "",
    value: str = "mean",
    robust: bool = False,
) -> Result:
    """Compare groups in each structure: means, differences, effect sizes, corrected p.

    Parameters
    ----------
    cohort : Cohort
    by : str
        Column of the groups: two, or more (then with an analysis of variance and post-hoc tests).
    covariates : tuple of str
        Terms to adjust for, such as ``["age", "sex"]``.
    reference_group : str
        That differences are from; the controls, where it is empty.
    value : str
        Column of the regions' table.
    robust : bool
        Whether the adjusted model allows for unequal variances (HC3).
    """
    cohort = with_value(with_labels(one_scan_each(cohort), by), value)
    found = compare_groups(
        cohort.regions,
        by,
        covariates=terms_of(cohort.scans, covariates),
        value=value,
        reference_group=reference_group or None,
        robust="HC3" if robust else None,
    )
    groups = list(dict.fromkeys(found.groups["group"]))
    adjusted = f", then adjusted for {listed(covariates)}" if covariates else ""
    summary = f"{listed(groups)} compared in each structure{adjusted}."
    return Result(
        summary,
        notes=(*cohort.notes, *found.notes),
        tables=_tables(found, several=len(groups) > 2),
        charts=tuple(_charts(cohort, found, by, groups, value)),
        methods=_methods(groups, covariates, robust),
    )


def _tables(found: RegionComparison, several: bool) -> tuple[ResultTable, ...]:
    wanted = ("name", "hemisphere", "measure", "units", "group_a", "mean_a", "sd_a", "group_b")
    wanted += ("mean_b", "sd_b", "difference", "difference_low", "difference_high")
    wanted += ("p_welch", "q_fdr", "p_holm", "hedges_g", "hedges_g_low", "hedges_g_high")
    wanted += ("adjusted_difference", "adjusted_difference_low", "adjusted_difference_high")
    wanted += ("p_adjusted", "q_fdr_adjusted", "p_tukey")
    columns = {name: "" for name in wanted if name in found.pairs.columns}
    in_units = tuple(c for c in columns if c in IN_UNITS or "difference" in c)
    pairs = ResultTable(
        "pairs",
        "Differences",
        found.pairs,
        "Group A less group B, with 95 % intervals; Welch's test; q (FDR) and Holm's p over the "
        "structures of a measure.",
        columns,
        in_units,
    )
    means = ResultTable(
        "means",
        "Means",
        found.groups,
        in_units=tuple(c for c in found.groups.columns if c == "sd" or "mean" in c),
        is_folded=True,
    )
    variance = ResultTable("anova", "Analysis of variance", found.anova, is_folded=not several)
    return (pairs, means, variance) if several else (pairs, means)


def _charts(
    cohort: Cohort, found: RegionComparison, by: str, groups: list[str], value: str
) -> list[ResultChart]:
    charts = []
    for (measure, units), pairs in found.pairs.groupby(["measure", "units"], sort=False):
        rows = cohort.regions[cohort.regions["measure"] == measure].sort_values("index")
        rows = rows.assign(structure=structure_labels(rows["name"], rows["hemisphere"]))
        rows = rows[rows[by].notna()]
        pairs = pairs.assign(structure=structure_labels(pairs["name"], pairs["hemisphere"]))
        quantity = quantity_of(str(measure), str(units))
        p_values = None
        if len(groups) == 2:
            p_values = dict(zip(pairs["structure"], pairs["p_welch"], strict=True))
        charts.append(
            ResultChart(
                f"{measure}_groups",
                f"{quantity.name} by group",
                values_by_group(
                    rows, quantity, value=value, group=by, groups=groups, p_values=p_values
                ),
                "Each point is a participant; p by Welch's test, not corrected.",
            )
        )
        charts.append(_forest(pairs, str(measure), str(units)))
    return charts


def _forest(pairs: pd.DataFrame, measure: str, units: str) -> ResultChart:
    quantity = quantity_of(measure, units)
    ways, p = {"as measured": "difference"}, {"as measured": "p_welch"}
    if "adjusted_difference" in pairs.columns:
        ways["adjusted"], p["adjusted"] = "adjusted_difference", "p_adjusted"
    table = stacked_estimates(pairs, ways, p=p).dropna(subset=["estimate"])
    if pairs[["group_a", "group_b"]].drop_duplicates().shape[0] > 1:
        table["series"] = table["group_a"] + " – " + table["group_b"] + ", " + table["series"]
    first = pairs.iloc[0]
    return ResultChart(
        f"{measure}_differences",
        f"Differences of {quantity.name}",
        forest(
            table,
            quantity,
            columns=Interval("estimate"),
            series="series" if table["series"].nunique() > 1 else None,
            p="p",
            sides=(f"lower in {first['group_a']}", f"higher in {first['group_a']}"),
        ),
        "Mean differences with 95 % confidence intervals.",
    )


def _methods(groups: list[str], covariates: tuple[str, ...], robust: bool) -> str:
    text = (
        f"In each structure {listed(groups)} were compared by Welch's t test [@welch1947]; the "
        "effect size is Hedges' g [@hedges1981]. "
    )
    if len(groups) > 2:
        text = (
            f"In each structure {listed(groups)} were compared by one-way analysis of variance, "
            "with Tukey's and Games and Howell's tests of the pairs. "
        )
    if covariates:
        errors = ", with errors that allow for unequal variances (HC3)" if robust else ""
        text += f"A linear model adjusted for {listed(covariates)}{errors}. "
    return text + (
        "p was corrected over structures by the false discovery rate [@benjamini1995] and by "
        "Holm's procedure [@holm1979]."
    )
