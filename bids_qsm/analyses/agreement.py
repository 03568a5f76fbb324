"""Two measurements of the same thing compared."""

from __future__ import annotations

import pandas as pd

from bids_qsm.analyses.cohort import Cohort, clinical_table
from bids_qsm.analyses.result import Result, ResultChart, ResultTable
from bids_qsm.report.group_agreement_charts import agreement as agreement_chart
from bids_qsm.report.group_agreement_charts import bland_altman, tolerance_shares
from bids_qsm.report.group_frames import fitted_lines
from bids_qsm.report.group_style import Quantity
from bids_qsm.statistics.agreement import agreement as compared
from bids_qsm.statistics.expressions import counted

SHOWN = ("n", "bias", "bias_low", "bias_high", "loa_lower", "loa_upper", "p_proportional")
SHOWN += ("icc_2_1", "icc_2_1_low", "icc_2_1_high", "concordance", "pearson_r")
SHOWN += ("passing_bablok_slope", "passing_bablok_slope_low", "passing_bablok_slope_high")


def agreement(
    cohort: Cohort,
    *,
    first: str = "",
    second: str = "",
    by: tuple[str, ...] = (),
    tolerances: tuple[float, ...] = (0.1, 0.5, 1.0, 2.0),
    units: str = "",
    normalise: str = "none",
    table: str = "",
) -> Result:
    """Compare two columns: Bland-Altman, ICC, lines, share within tolerances.

    Parameters
    ----------
    cohort : Cohort
    first, second : str
        Columns of ``group_scans.tsv`` (also of participants.tsv or sessions.tsv).
    by : tuple of str
        Columns whose levels are compared apart.
    tolerances : tuple of float
        In the units of the columns.
    units : str
        Of both columns, for the figures.
    normalise : str
        ``none``, ``mean`` or ``z``.
    table : str
        A table of the clinical steps whose columns are taken in place of those of
        ``group_scans.tsv``: ``trajectories`` (``first = "recorded_span_mm"``, ``second =
        "span_mm"``, ``by = ["name"]``).  Rows without ``first`` have no part in it.
    """
    if not first or not second:
        raise ValueError("the analysis needs 'first' and 'second', two columns.")
    rows = clinical_table(cohort, table) if table else cohort.scans
    if table and first in rows:
        rows = rows[rows[first].notna()]  # of most structures along a line nothing is recorded
    found = compared(rows, first, second, by=by, tolerances=tolerances, normalise=normalise)
    points = rows[list(dict.fromkeys((*by, first, second)))].copy()
    points = points.dropna(subset=[first, second]).astype({first: float, second: float})
    panel = by[0] if len(by) == 1 else None
    charts: list[ResultChart] = []
    if normalise == "none" and len(by) < 2:
        charts += _charts(points, found.table, first, second, units, panel)
    if len(found.shares):
        drawn = tolerance_shares(
            found.shares, low="share_low", high="share_high", series=panel, units=units
        )
        charts.append(
            ResultChart(
                "tolerances", "Share of pairs that agree", drawn, "With Wilson's 95 % intervals."
            )
        )
    columns = dict.fromkeys([c for c in (*by, *SHOWN) if c in found.table.columns], "")
    lacking = counted(len(found.left_out), "row" if table else "scan")
    left = (f"{lacking} left out for want of one of the two.",) if len(found.left_out) else ()
    return Result(
        f"{second} compared with {first}.",
        (*cohort.notes, *left, *((_NOT_INDEPENDENT,) if _has_several(rows, first) else ())),
        tables=(
            ResultTable("agreement", "Agreement", found.table, columns=columns),
            ResultTable("shares", "Share within tolerances", found.shares),
            ResultTable("left-out", "Rows without both", found.left_out, is_folded=True),
        ),
        charts=tuple(charts),
        methods=(
            "Two measurements were compared by bias and limits of agreement [@bland1999], "
            "intraclass correlations [@mcgraw1996], Deming's and Passing and Bablok's lines "
            "[@passing1983], and the share of pairs within given tolerances."
        ),
    )


_NOT_INDEPENDENT = (
    "Some participants have several rows, which count as if they were of different participants: "
    "intervals are somewhat too narrow."
)


def _has_several(rows: pd.DataFrame, first: str) -> bool:
    return bool(rows.loc[rows[first].notna(), "participant_id"].duplicated().any())


def _charts(
    points: pd.DataFrame,
    table: pd.DataFrame,
    first: str,
    second: str,
    units: str,
    panel: str | None,
) -> list[ResultChart]:
    points = points.assign(
        average=(points[first] + points[second]) / 2, difference=points[second] - points[first]
    )
    lines = fitted_lines(table, keep=[panel] if panel else [])
    both = agreement_chart(
        points, lines, first, second, Quantity(first, units), Quantity(second, units), panel=panel
    )
    differences = bland_altman(points, table, Quantity("mean of both", units), panel=panel)
    return [
        ResultChart(
            "bland-altman",
            "Differences over means",
            differences,
            f"{second} less {first}; bias and 95 % limits of agreement.",
        ),
        ResultChart("lines", "Both measurements", both, "With the line of identity."),
    ]
