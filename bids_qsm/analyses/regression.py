"""Outcomes regressed on predictors, before and after adjustment; nested models; correlations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import pandas as pd

from bids_qsm.analyses.cohort import Cohort, need, one_scan_each, terms_of
from bids_qsm.analyses.result import Result, ResultChart, ResultTable
from bids_qsm.report.group_charts import Interval, forest
from bids_qsm.report.group_fit_charts import heat_map, ladder_of_powers, scatter_with_fit
from bids_qsm.report.group_style import Quantity, quantity_of
from bids_qsm.statistics.correlations import correlate
from bids_qsm.statistics.diagnostics import diagnose
from bids_qsm.statistics.expressions import listed
from bids_qsm.statistics.linear_models import fit_model
from bids_qsm.statistics.nested import Question, compare_models
from bids_qsm.statistics.regression import associations
from bids_qsm.statistics.transforms import expression, ladder, ladder_quantiles

MOST_SCATTERS = 12
LEAST_LADDER = 8
NO_LEVEL = ("", "n/a", "nan", "None")


def regression(
    cohort: Cohort,
    *,
    outcomes: tuple[str, ...] = (),
    predictors: tuple[str, ...] = (),
    covariates: tuple[str, ...] = (),
    transforms: Mapping[str, str] = MappingProxyType({}),
    subsets: tuple[str, ...] = (),
    robust: bool = False,
) -> Result:
    """Regress each outcome on each predictor, before and after adjustment.

    Parameters
    ----------
    cohort : Cohort
    outcomes, predictors, covariates : tuple of str
        Columns of ``group_scans.tsv``, or terms such as ``log(T2_lesions_volume_mL)``.
    transforms : mapping of str to str
        Transform of the ladder of powers for columns, such as ``{T2_lesions_volume_mL = "log"}``.
    subsets : tuple of str
        Conditions such as ``age < 50``: all is repeated for each.
    robust : bool
        Whether errors allow for unequal variances (HC3).
    """
    need(outcomes=outcomes, predictors=predictors)
    cohort = one_scan_each(cohort)
    scans, errors = cohort.scans, "HC3" if robust else None
    tables, notes = [], list(cohort.notes)
    for subset in (None, *subsets):
        found = associations(
            scans,
            outcomes,
            predictors,
            covariates=covariates,
            transforms=transforms,
            subset=subset,
            robust=errors,
        )
        tables.append(found.table.assign(subset=subset or "all"))
        notes += found.notes
    table = pd.concat(tables, ignore_index=True)
    checks = _diagnostics(scans, outcomes, predictors, covariates, transforms)
    columns = _plain_columns(scans, (*outcomes, *predictors))
    return Result(
        f"{listed(outcomes)} regressed on {listed(predictors)}"
        + (f", before and after adjustment for {listed(covariates)}." if covariates else "."),
        (*notes, *checks[1]),
        tables=(
            ResultTable(
                "associations",
                "Coefficients before and after adjustment",
                table,
                "Per unit of the predictor (or against its reference level), with 95 % intervals.",
                _shown(table, _ASSOCIATIONS),
            ),
            *checks[0],
            _ladders(scans, columns),
        ),
        charts=(
            _forest(table),
            *_scatters(cohort, outcomes, predictors),
            *_ladder_charts(scans, columns),
        ),
        methods=(
            "Each outcome was regressed on each predictor alone and with all covariates, on the "
            "same participants"
            + (", with errors that allow for unequal variances (HC3)" if robust else "")
            + ". Normality was judged by the ladder of powers, collinearity by variance inflation "
            "factors and condition indices, influence by Cook's distance and DFBETAS."
        ),
    )


_ASSOCIATIONS = ("outcome", "predictor", "level", "subset", "n_before", "coefficient_before")
_ASSOCIATIONS += ("coefficient_before_low", "coefficient_before_high", "p_before", "n_after")
_ASSOCIATIONS += ("coefficient_after", "coefficient_after_low", "coefficient_after_high")
_ASSOCIATIONS += ("p_after", "q_fdr_after")


def nested(
    cohort: Cohort,
    *,
    outcomes: tuple[str, ...] = (),
    base: str = "",
    added: tuple[str, ...] = (),
    event: str = "",
    bootstrap: int = 0,
    seed: int = 1,
) -> Result:
    """Ask whether terms tell more of an outcome than a base model does.

    Parameters
    ----------
    cohort : Cohort
    outcomes : tuple of str
        Columns of numbers, or of two words (then by logistic regression).
    base : str
        Right-hand side, such as ``thalamus_volume_mL + age + sex``.
    added : tuple of str
        Terms that are added to it, each by itself.
    event : str
        Level of a logistic outcome whose odds are modelled.
    bootstrap : int
        Resamplings for the interval of the difference in R2; 0 takes the noncentral F.
    seed : int
        Of the resampling.
    """
    need(outcomes=outcomes, base=base, added=added)
    cohort = one_scan_each(cohort)
    (model,) = terms_of(cohort.scans, [base])
    terms = terms_of(cohort.scans, added)
    questions = [Question(outcome, model, term) for outcome in outcomes for term in terms]
    found = compare_models(
        cohort.scans, questions, event=event or None, bootstrap=bootstrap, seed=seed
    )
    shown = ("outcome", "added", "n", "r2_base", "r2_full", "delta_r2", "delta_r2_low")
    shown += ("delta_r2_high", "delta_auc", "delta_auc_low", "delta_auc_high", "delta_aic")
    return Result(
        f"The model {base} of {listed(outcomes)} with and without {listed(added)}.",
        (*cohort.notes, *found.notes),
        tables=(
            ResultTable(
                "models",
                "Models with and without the added terms",
                found.table,
                "Below zero, the difference in AIC speaks for the added terms.",
                _shown(found.table, (*shown, "p", "q_fdr")),
            ),
        ),
        methods=(
            "Nested models of the same participants were compared by the F test (likelihood ratio "
            "where the outcome has two levels) and by the difference in explained variance."
        ),
    )


def correlations(
    cohort: Cohort,
    *,
    variables: tuple[str, ...] = (),
    covariates: tuple[str, ...] = (),
    outcomes: tuple[str, ...] = (),
    rank: bool = False,
) -> Result:
    """Correlate structures' values with clinical variables.

    Parameters
    ----------
    cohort : Cohort
    variables : tuple of str
        Columns such as ``edss``.
    covariates : tuple of str
        Held fixed: partial correlations.
    outcomes : tuple of str
        Columns of ``group_scans.tsv``; those of the chosen structures and measures, if empty.
    rank : bool
        Spearman's in place of Pearson's.
    """
    need(variables=variables)
    cohort = one_scan_each(cohort)
    chosen = list(outcomes) or _outcome_columns(cohort)
    method = "spearman" if rank else "pearson"
    found = correlate(cohort.scans, chosen, variables, covariates=covariates, method=method)
    r = found.table.pivot(index="outcome", columns="variable", values="r").reindex(chosen)
    p = found.table.pivot(index="outcome", columns="variable", values="p").reindex(chosen)
    label = ("ρ" if rank else "r") + (" (partial)" if covariates else "")
    shown = ("outcome", "variable", "n", "r", "r_low", "r_high", "p", "q_fdr", "p_holm")
    return Result(
        f"{'Rank correlations' if rank else 'Correlations'} with {listed(variables)}"
        + (f", {listed(covariates)} held fixed." if covariates else "."),
        (*cohort.notes, *found.notes),
        tables=(
            ResultTable(
                "correlations", "Correlations", found.table, columns=dict.fromkeys(shown, "")
            ),
        ),
        charts=(
            ResultChart(
                "correlations",
                "Correlations",
                heat_map(r[list(variables)], label, p_values=p[list(variables)]),
                "Framed where p < 0.05, not corrected.",
            ),
        ),
        methods=(
            f"{'Spearman' if rank else 'Pearson'} correlations"
            + (f", partial of {listed(covariates)}," if covariates else "")
            + " were corrected over structures by the false discovery rate [@benjamini1995]."
        ),
    )


def _outcome_columns(cohort: Cohort) -> list[str]:
    """Return the columns of the structures and measures that the cohort's rows have."""
    keys = ["name", "hemisphere", "measure"]
    there = cohort.regions[[*keys, "index"]].drop_duplicates(keys).sort_values(["measure", "index"])
    columns = there.astype(dict.fromkeys(keys, str)).merge(
        cohort.outcomes[cohort.outcomes["reference"].isin(("n/a", cohort.reference))], on=keys
    )
    return list(columns["column"])


def _shown(table: pd.DataFrame, wanted: Sequence[str]) -> dict[str, str]:
    return {name: "" for name in wanted if name in table.columns}


def _plain_columns(scans: pd.DataFrame, words: Sequence[str]) -> list[str]:
    """Return those of the words that are columns of many numbers."""
    columns = [w for w in dict.fromkeys(words) if w in scans.columns]
    return [
        c
        for c in columns
        if pd.api.types.is_numeric_dtype(scans[c]) and scans[c].nunique() >= LEAST_LADDER
    ]


def _diagnostics(
    scans: pd.DataFrame,
    outcomes: Sequence[str],
    predictors: Sequence[str],
    covariates: Sequence[str],
    transforms: Mapping[str, str],
) -> tuple[tuple[ResultTable, ...], tuple[str, ...]]:
    """Return tables on the adjusted models, and what was found in them."""
    terms, subjects, sentences = [], [], []
    for outcome in outcomes:
        for predictor in predictors:
            words = [w for w in dict.fromkeys((predictor, *covariates)) if w != outcome]
            formula = " + ".join(_transformed(scans, word, transforms) for word in words)
            try:
                model = fit_model(scans, _transformed(scans, outcome, transforms), formula)
            except ValueError:
                continue  # the table of coefficients has no such row, and its notes say why
            found = diagnose(model, scans)
            key = {"outcome": outcome, "predictor": predictor}
            terms.append(found.terms.assign(**key))
            subjects.append(found.subjects[found.subjects["influential"]].assign(**key))
            sentences += [f"{outcome} on {predictor}: {sentence}" for sentence in found.sentences]
    collinearity = pd.concat(terms or [pd.DataFrame()], ignore_index=True)
    influential = pd.concat(subjects or [pd.DataFrame()], ignore_index=True)
    first = ("outcome", "predictor")
    return (
        ResultTable(
            "collinearity",
            "Collinearity",
            collinearity,
            columns=_shown(collinearity, (*first, "term", "vif", "influential", "largest_by")),
            is_folded=True,
        ),
        ResultTable(
            "influential",
            "Influential participants",
            influential,
            columns=_shown(
                influential,
                (*first, "subject", "studentised_residual", "leverage", "cooks_distance"),
            ),
            is_folded=True,
        ),
    ), tuple(sentences)


def _transformed(scans: pd.DataFrame, word: str, transforms: Mapping[str, str]) -> str:
    """Return a column as it is written in a formula, or a term as it is."""
    return expression(word, transforms.get(word, "identity")) if word in scans else word


def _ladders(scans: pd.DataFrame, columns: Sequence[str]) -> ResultTable:
    tables = [ladder(scans[c], c).table.assign(variable=c) for c in columns]
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"variable": []})
    shown = ("variable", "transform", "formula", "chi2", "p_chi2", "p_shapiro", "suggested")
    return ResultTable(
        "ladder", "Ladder of powers", table, columns=_shown(table, shown), is_folded=True
    )


def _ladder_charts(scans: pd.DataFrame, columns: Sequence[str]) -> list[ResultChart]:
    charts = []
    for column in columns:
        found = ladder(scans[column], column)
        points = ladder_quantiles(scans[column], column)
        chart = ladder_of_powers(
            points,
            column,
            normal="expected",
            observed="observed",
            p_values=dict(zip(found.table["transform"], found.table["p_chi2"], strict=True)),
            suggested=found.suggested,
        )
        title = f"Ladder of powers: {column}"
        charts.append(ResultChart(f"ladder_{column}", title, chart, found.reason))
    return charts


def _forest(table: pd.DataFrame) -> ResultChart:
    rows = []
    for when in ("before", "after"):
        label = table["outcome"] + " on " + table["predictor"]
        label += table["level"].map(lambda v: f" [{v}]" if str(v) not in NO_LEVEL else "")
        label += table["subset"].map(lambda v: "" if v == "all" else f", {v}")
        t = table[f"standardised_{when}"] / table[f"coefficient_{when}"]
        ends = [table[f"coefficient_{when}_{end}"] * t for end in ("low", "high")]
        rows.append(
            pd.DataFrame(
                {
                    "structure": label,
                    "series": f"{when} adjustment",
                    "difference": table[f"standardised_{when}"],
                    "ci_low": ends[0].where(t > 0, ends[1]),
                    "ci_high": ends[1].where(t > 0, ends[0]),
                    "p": table[f"p_{when}"],
                }
            )
        )
    joined = pd.concat(rows, ignore_index=True).dropna(subset=["difference"])
    quantity = Quantity("standardised coefficient")
    chart = forest(joined, quantity, columns=Interval(), series="series", p="p")
    return ResultChart(
        "coefficients",
        "Standardised coefficients",
        chart,
        "Standard deviations of the outcome for one of the predictor (or per level), with 95 % "
        "intervals.",
    )


def _scatters(
    cohort: Cohort, outcomes: Sequence[str], predictors: Sequence[str]
) -> list[ResultChart]:
    pairs = [
        (outcome, predictor)
        for outcome in _plain_columns(cohort.scans, outcomes)
        for predictor in _plain_columns(cohort.scans, predictors)
    ]
    charts = []
    for outcome, predictor in pairs[:MOST_SCATTERS]:
        rows = cohort.scans[[outcome, predictor]].dropna().astype(float)
        chart = scatter_with_fit(
            rows, predictor, outcome, _quantity(cohort, predictor), _quantity(cohort, outcome)
        )
        title = f"{outcome} over {predictor}"
        name = f"scatter_{outcome}_{predictor}"
        charts.append(ResultChart(name, title, chart, "Not adjusted; 95 % band of the mean."))
    return charts


def _quantity(cohort: Cohort, column: str) -> Quantity:
    known = cohort.outcomes[cohort.outcomes["column"] == column]
    if known.empty:
        return Quantity(column)
    row = known.iloc[0]
    quantity = quantity_of(str(row["measure"]), str(row["units"]))
    return Quantity(f"{row['name']}: {quantity.name}", quantity.units)
