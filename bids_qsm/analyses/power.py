"""How many subjects a study needs, from formulas alone."""

from __future__ import annotations

import pandas as pd

from bids_qsm.analyses.cohort import Cohort, need
from bids_qsm.analyses.longitudinal import with_lesions
from bids_qsm.analyses.result import Result, ResultChart, ResultTable
from bids_qsm.report.group_course_charts import curves
from bids_qsm.statistics.expressions import listed
from bids_qsm.statistics.longitudinal import longitudinal
from bids_qsm.statistics.power import (
    correlation_power,
    paired_power,
    sample_size_table,
    two_sample_power,
)
from bids_qsm.statistics.power_simulation import (
    simulate_correlation,
    simulate_paired,
    simulate_trial,
    simulate_two_sample,
)
from bids_qsm.statistics.trials import Trial, endpoint, trial_power, trial_table

POWERS = {"correlation": correlation_power, "two_sample": two_sample_power, "paired": paired_power}
SIMULATIONS = {
    "correlation": simulate_correlation,
    "two_sample": simulate_two_sample,
    "paired": simulate_paired,
}
CURVE_POINTS = 24


def power(
    cohort: Cohort,
    *,
    design: str = "correlation",
    effects: tuple[float, ...] = (0.28,),
    powers: tuple[float, ...] = (0.8, 0.9),
    alphas: tuple[float, ...] = (0.05,),
    two_sided: bool = True,
    simulate: bool = False,
    seed: int = 1,
) -> Result:
    """Give sample sizes of a study of correlations, of two groups, or of pairs.

    Parameters
    ----------
    cohort : Cohort
        Not used: all follows from the options.
    design : str
        ``correlation``, ``two_sample`` or ``paired``.
    effects : tuple of float
        Correlations, or differences over the SD.
    powers, alphas : tuple of float
        Wanted, and levels of the test.
    two_sided : bool
        Whether an effect of either sign counts.
    simulate : bool
        Whether each sample size is checked by 20,000 simulated studies.
    seed : int
        Of the simulation.
    """
    need(effects=effects, powers=powers, alphas=alphas)
    table = sample_size_table(design, effects, powers=powers, alphas=alphas, two_sided=two_sided)
    if simulate:
        rows = [_simulated(design, row, two_sided, seed) for row in table.itertuples(index=False)]
        table = table.assign(power_simulated=rows)
    largest = int(table["n_a"].max() * 1.5)
    sizes = sorted({max(4, round(largest * i / CURVE_POINTS)) for i in range(1, CURVE_POINTS + 1)})
    points = pd.DataFrame(
        [
            (n, f"{effect:g}", POWERS[design](n, effect, alpha=alphas[0], two_sided=two_sided))
            for effect in effects
            for n in sizes
        ],
        columns=["n", "effect", "power"],
    )
    x_label = "participants" if design != "two_sample" else "participants in each group"
    chart = curves(
        points,
        "n",
        "power",
        x_label,
        "power",
        series="effect",
        series_label="effect",
        target=powers[0],
    )
    return Result(
        f"Sample sizes for effects of {listed(effects)} ({design.replace('_', ' ')}).",
        tables=(ResultTable("sample-sizes", "Sample sizes", table),),
        charts=(ResultChart("power", "Power", chart, f"At alpha {alphas[0]:g}."),),
        methods="Sample sizes follow from the noncentral t distribution and, for correlations, "
        "the exact distribution of the bivariate normal.",
    )


def trial(
    cohort: Cohort,
    *,
    endpoint_kind: str = "share",
    controls: tuple[float, ...] = (0.3, 0.5),
    reductions: tuple[float, ...] = (0.2, 0.3, 0.5),
    powers: tuple[float, ...] = (0.9,),
    measurements: int = 2,
    correlation: float = 0.8,
    alpha: float = 0.1,
    years: float = 2.0,
    sd: float = 1.0,
    dropout: float = 0.0,
    simulate: bool = False,
    seed: int = 1,
    lesions: str = "",
) -> Result:
    """Give sample sizes of a trial of two arms that compares averages over time.

    Parameters
    ----------
    cohort : Cohort
        Not used, but for ``lesions``: all follows from the options.
    endpoint_kind : str
        ``share`` of epochs with an event, ``rate`` of events per year, or ``mean``.
    controls : tuple of float
        Its value without treatment.
    reductions : tuple of float
        Share of it that treatment takes away.
    powers : tuple of float
        Wanted.
    measurements : int
        Of each patient during follow-up.
    correlation : float
        Within patients.
    alpha : float
        Two-sided.
    years : float
        Of follow-up.
    sd : float
        Of one measurement, for means.
    dropout : float
        Share of patients lost.
    simulate : bool
        Whether each sample size is checked by 20,000 simulated trials.
    seed : int
        Of the simulation.
    lesions : str
        Take ``controls`` (and ``sd``) from lesions that were followed, ``largest`` of each
        participant or ``all``: the share of epochs in which mean susceptibility rises by 6 % or
        more, their rate per year, or the mean change in per cent.
    """
    if lesions:
        controls, sd = _of_lesions(cohort, lesions, endpoint_kind)
    need(controls=controls, reductions=reductions, powers=powers)
    plan = Trial(measurements, correlation, alpha, years=years)
    table = trial_table(
        endpoint_kind,
        controls=controls,
        reductions=reductions,
        powers=powers,
        trials=(plan,),
        sd=sd,
        dropout=dropout,
    )
    if simulate:
        checked = [
            simulate_trial(
                endpoint_kind,
                int(row.n_a),
                endpoint(endpoint_kind, row.control, row.treated, plan, sd),
                plan,
                seed=seed,
            ).power
            for row in table.itertuples(index=False)
        ]
        table = table.assign(power_simulated=checked)
    points = []
    largest = int(table["n_a"].max() * 1.25)
    for row in table.drop_duplicates(["control", "reduction_percent"]).itertuples(index=False):
        of = endpoint(endpoint_kind, row.control, row.treated, plan, sd)
        name = f"{row.control:g} less {row.reduction_percent:g} %"
        for i in range(1, CURVE_POINTS + 1):
            n = max(4, round(largest * i / CURVE_POINTS))
            points.append((n, name, trial_power(n, of, plan)))
    chart = curves(
        pd.DataFrame(points, columns=["n", "effect", "power"]).drop_duplicates(["n", "effect"]),
        "n",
        "power",
        "patients in each arm",
        "power",
        series="effect",
        series_label="effect",
        target=powers[0],
    )
    return Result(
        f"Sample sizes of a trial over {years:g} years with {measurements} measurements of each "
        f"patient, correlated by {correlation:g}; two-sided alpha {alpha:g}.",
        tables=(ResultTable("sample-sizes", "Sample sizes", table),),
        charts=(ResultChart("power", "Power", chart),),
        methods="Sample sizes are those of a test of time-averaged differences (Diggle and others "
        "2002).",
    )


def _of_lesions(cohort: Cohort, which: str, kind: str) -> tuple[tuple[float, ...], float]:
    """Return the value of an endpoint in the lesions that were followed, and the SD of changes."""
    epochs = longitudinal(with_lesions(cohort, which, "mean").regions).epochs
    exceeding = epochs["exceeds_threshold"].dropna().astype(float)
    change = epochs["percent_change"].dropna()
    value = {
        "share": exceeding.mean(),
        "rate": exceeding.sum() / epochs["years"].sum(),
        "mean": change.mean(),
    }.get(kind, 0.0)
    if not value > 0:
        raise ValueError(
            "no lesion that was followed has a rise from which a trial could be planned; "
            "set 'controls'."
        )
    return (float(value),), float(change.std())


def _simulated(design: str, row: object, two_sided: bool, seed: int) -> float:
    words = {"alpha": row.alpha, "two_sided": two_sided, "seed": seed}  # type: ignore[attr-defined]
    found = SIMULATIONS[design](int(row.n_a), row.effect, **words)  # type: ignore[attr-defined]
    return float(found.power)
