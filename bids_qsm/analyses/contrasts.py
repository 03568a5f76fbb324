"""How well nuclei stand out in the contrasts of each scan: T1w, T2w, susceptibility, hybrid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_qsm.analyses.cohort import Cohort, check_there, clinical_table, one_scan_each
from bids_qsm.analyses.result import Result, ResultChart, ResultTable
from bids_qsm.report.group_charts import values_by_group
from bids_qsm.report.group_style import Quantity
from bids_qsm.statistics.anova import (
    GroupMoments,
    games_howell,
    group_moments,
    mean_half_width,
    one_way,
    tukey,
)
from bids_qsm.statistics.expressions import counted, listed
from bids_qsm.statistics.multiplicity import fdr, holm
from bids_qsm.statistics.repeated import paired_tests, repeated_measures

TABLE = "contrast_to_noise"
SHOWN_NAMES = {"Chimap": "χ"}
SHOWN_ANOVA = ("structure", "f_anova", "p_anova", "eta2", "n_subjects", "f_repeated")
SHOWN_ANOVA += ("p_repeated", "epsilon", "p_greenhouse_geisser", "eta2_partial")
SHOWN_PAIRS = ("structure", "group_a", "group_b", "difference", "tukey_low", "tukey_high")
SHOWN_PAIRS += ("p_tukey", "p_games_howell", "p_paired", "p_paired_holm", "d_z")
FAVOURED = (
    "The weight of susceptibility in the hybrid contrast was chosen, in each head, in the same "
    "voxels of the globus pallidus interna in which its ratio is measured: by that alone the "
    "hybrid's ratio there cannot be far below those of T1w and χ. Of the other nuclei this is not "
    "so."
)


def contrast(
    cohort: Cohort,
    *,
    nuclei: tuple[str, ...] = (),
    contrasts: tuple[str, ...] = (),
    surround: str = "weakest",
) -> Result:
    """Compare contrast-to-noise ratios of nuclei among T1w, T2w, susceptibility and their hybrid.

    Parameters
    ----------
    cohort : Cohort
    nuclei : tuple of str
        As in the tables of ``--with dbs``; all.
    contrasts : tuple of str
        ``T1w``, ``T2w``, ``Chimap``, ``hybrid``; all that half of the scans have.
    surround : str
        What the nuclei stand out from: ``weakest``, ``unlabelled``, or a neighbour's name.
    """
    cohort = one_scan_each(cohort)
    table = clinical_table(cohort, TABLE)
    check_there("surround", [surround], table["surround"])
    table = table[table["surround"] == surround]
    chosen = _chosen(table, nuclei, contrasts)
    keys = ["participant_id", "session_id", "series"]
    # means of both sides: a subject counts once
    ratios = table.groupby([*keys, "structure", "contrast"], sort=False)["cnr"].mean().reset_index()
    scans = ratios[keys].drop_duplicates()
    structures = list(nuclei) or list(dict.fromkeys(ratios["structure"]))
    values = {
        name: _by_scan(ratios[ratios["structure"] == name], scans, chosen) for name in structures
    }
    means, variance, pairs = _compared(values, chosen)
    lacking = [
        f"{counted(n_lacking, 'scan')} without all contrasts of the {name} left out of the "
        "repeated-measures analysis."
        for name, v in values.items()
        if (n_lacking := int(np.isnan(v).any(axis=1).sum()))
    ]
    return Result(
        f"Contrast-to-noise ratios of {listed(structures)} on {listed(chosen)}: "
        f"{counted(len(scans), 'scan')}, means of both sides.",
        (*cohort.notes, *lacking),
        (FAVOURED,) if "hybrid" in chosen else (),
        tables=(
            ResultTable("means", "Means", means, "With 95 % intervals."),
            ResultTable(
                "anova",
                "Analysis of variance",
                variance,
                "One-way, as if the contrasts were of different subjects; and with repeated "
                "measures, as they are of the same ones (p also by Greenhouse and Geisser).",
                dict.fromkeys(SHOWN_ANOVA, ""),
            ),
            ResultTable(
                "pairs",
                "Pairs of contrasts",
                pairs,
                "Contrast A less contrast B: Tukey's and Games and Howell's tests after the "
                "one-way analysis, and paired t tests with Holm's correction.",
                dict.fromkeys(SHOWN_PAIRS, ""),
            ),
        ),
        charts=(_chart(ratios, structures, chosen, variance),),
        methods=(
            f"Contrast-to-noise ratios of {listed(structures)} on {listed(chosen)} were compared "
            "by one-way analysis of variance with Tukey's and Games and Howell's tests (after "
            "[@wei2019]), and, as all contrasts are of the same subjects, by repeated-measures "
            "analysis of variance with Greenhouse and Geisser's correction [@greenhouse1959] and "
            "paired t tests with Holm's correction [@holm1979]."
        ),
    )


def _chosen(table: pd.DataFrame, nuclei: Sequence[str], contrasts: Sequence[str]) -> list[str]:
    """Return the contrasts that are compared.

    Raises
    ------
    ValueError
        If a nucleus or contrast is not there, or fewer than two contrasts are.
    """
    check_there("nucleus", nuclei, table["structure"])
    check_there("contrast", contrasts, table["contrast"])
    n_scans = table["series"].nunique()
    counts = table.groupby("contrast", sort=False)["series"].nunique()
    chosen = list(contrasts) or [str(c) for c, n in counts.items() if n >= n_scans / 2]
    if len(chosen) < 2:
        raise ValueError(f"there is nothing to compare: the only contrast is {listed(chosen)}.")
    return chosen


def _by_scan(
    ratios: pd.DataFrame, scans: pd.DataFrame, contrasts: Sequence[str]
) -> NDArray[np.float64]:
    """Return a row for each scan, a column for each contrast."""
    wide = ratios.pivot(index="series", columns="contrast", values="cnr")
    return wide.reindex(index=scans["series"], columns=list(contrasts)).to_numpy(np.float64)


def _compared(
    values: dict[str, NDArray[np.float64]], contrasts: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    means, variance, pairs = [], [], []
    for name, ratios in values.items():
        of_scans = ratios.ravel()[:, None]
        moments = group_moments(of_scans, np.tile(contrasts, len(ratios)), contrasts)
        half = mean_half_width(moments)[:, 0]
        mean = moments.mean[:, 0]
        means.append(
            pd.DataFrame(
                {
                    "structure": name,
                    "contrast": contrasts,
                    "n": moments.n[:, 0].astype(int),
                    "mean": mean,
                    "sd": np.sqrt(moments.variance[:, 0]),
                    "mean_low": mean - half,
                    "mean_high": mean + half,
                }
            )
        )
        one = {key: float(value[0]) for key, value in one_way(moments).items()}
        variance.append({"structure": name, **one, **repeated_measures(ratios)})
        pairs.append(_pairs(moments, ratios, contrasts).assign(structure=name))
    table = pd.DataFrame(variance)
    for column in ("p_anova", "p_greenhouse_geisser"):
        p = table[column].to_numpy(np.float64)
        table[f"q_fdr_{column[2:]}"], table[f"p_holm_{column[2:]}"] = fdr(p), holm(p)
    of_pairs = pd.concat(pairs, ignore_index=True)
    order = ["structure", *(c for c in of_pairs.columns if c != "structure")]
    return pd.concat(means, ignore_index=True), table, of_pairs[order]


def _pairs(
    moments: GroupMoments, ratios: NDArray[np.float64], contrasts: list[str]
) -> pd.DataFrame:
    of_variance, unequal = tukey(moments), games_howell(moments)
    rows = []
    for (a, b), test in of_variance.items():
        both = {**test, **unequal[a, b]}
        difference = moments.mean[a, 0] - moments.mean[b, 0]
        found = {key: float(value[0]) for key, value in both.items()}
        rows.append(
            {"group_a": contrasts[a], "group_b": contrasts[b], "difference": difference, **found}
        )
    return pd.DataFrame(rows).merge(paired_tests(ratios, contrasts), on=["group_a", "group_b"])


def _chart(
    ratios: pd.DataFrame, structures: list[str], contrasts: list[str], variance: pd.DataFrame
) -> ResultChart:
    rows = ratios[ratios["structure"].isin(structures) & ratios["contrast"].isin(contrasts)]
    rows = rows.replace({"contrast": SHOWN_NAMES})
    p_values = dict(zip(variance["structure"], variance["p_greenhouse_geisser"], strict=True))
    drawn = values_by_group(
        rows,
        Quantity("contrast-to-noise ratio"),
        value="cnr",
        group="contrast",
        groups=[SHOWN_NAMES.get(name, name) for name in contrasts],
        p_values={name: p for name, p in p_values.items() if np.isfinite(p)},
        kind="box",
    )
    return ResultChart(
        "contrasts",
        "Contrast-to-noise ratios",
        drawn,
        "Each point is a scan; p by repeated-measures analysis of variance.",
    )
