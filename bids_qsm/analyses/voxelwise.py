"""A linear model in every voxel of the structures, in the atlas' space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_qsm.analyses.cohort import KEYS, Cohort, one_scan_each, with_labels
from bids_qsm.analyses.result import Result, ResultChart, ResultMap, ResultTable
from bids_qsm.analyses.stacks import Stack, not_measured, stack_maps
from bids_qsm.anatomy.grids import on_grid
from bids_qsm.anatomy.template import load_template
from bids_qsm.report.group_maps import StatisticScale, statistic_map
from bids_qsm.report.group_style import quantity_of
from bids_qsm.report.group_surfaces import cluster_views
from bids_qsm.statistics.clusters import cluster_table, find_clusters, significant_by_region
from bids_qsm.statistics.designs import Contrast, Design, build_design, contrast
from bids_qsm.statistics.expressions import counted, listed
from bids_qsm.statistics.glm import ContrastMap, false_discovery_q, fit_voxels, p_values
from bids_qsm.statistics.glm import test_contrast as tested
from bids_qsm.statistics.permutation import PermutationTest, permutation_test
from bids_qsm.statistics.random_fields import (
    cluster_p,
    cluster_resels,
    peak_p,
    peak_threshold,
    primary_threshold,
)
from bids_qsm.statistics.regions import group_order
from bids_qsm.statistics.smoothness import Smoothness, estimate_smoothness

ALPHA = 0.05
UNITS = {"Chimap": "ppm", "R2starmap": "1/s"}


@dataclass(frozen=True, eq=False)
class Model:
    """What is tested: a design of the scans, and a contrast of it.

    Attributes
    ----------
    scans : DataFrame
        The rows of the design.
    design : Design
    contrast : Contrast
    title : str
        Such as ``t (patient - control)``.
    groups : tuple of str
        The two that are compared, the reference last; empty if no two groups are.
    notes : tuple of str
    """

    scans: pd.DataFrame
    design: Design
    contrast: Contrast
    title: str
    groups: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Inference:
    """Which voxels are significant, by random field theory and by permutation."""

    smoothness: Smoothness
    clusters: NDArray[np.int32]
    table: pd.DataFrame
    peak_threshold: float
    significant: NDArray[np.bool_]
    permuted: PermutationTest | None


def voxelwise(
    cohort: Cohort,
    *,
    by: str = "group",
    covariates: tuple[str, ...] = (),
    reference_group: str = "",
    formula: str = "",
    contrast: str = "",
    primary_p: float = 0.001,
    stationary: bool = False,
    permutations: int = 1000,
    smoothing_mm: float = 0.0,
    seed: int = 1,
) -> Result:
    """Test a contrast in every voxel: clusters by random field theory, TFCE by permutation.

    Parameters
    ----------
    cohort : Cohort
    by : str
        Column of the groups, or a number, whose effect is tested.
    covariates : tuple of str
        Terms to adjust for.
    reference_group : str
        That differences are from; the controls, where it is empty.
    formula : str
        In place of ``by`` and ``covariates``: any model, such as ``group * age``.
    contrast : str
        Of the formula's coefficients; ``by`` where it is empty.
    primary_p : float
        Of one voxel, two-sided: what forms clusters.
    stationary : bool
        Whether the noise is taken to be equally smooth everywhere.
    permutations : int
        0 leaves them out.
    smoothing_mm : float
        Full width at half maximum, within the structures.
    seed : int
        Of the permutations.
    """
    if permutations < 0:
        raise ValueError(f"'permutations' must not be below 0, got {permutations}.")
    cohort = one_scan_each(cohort)
    if not formula and _names_groups(cohort.scans, by):
        cohort = with_labels(cohort, by)
    tables: list[ResultTable] = []
    charts: list[ResultChart] = []
    maps: list[ResultMap] = []
    notes, warnings = list(cohort.notes), []
    measures = list(dict.fromkeys(cohort.images["measure"]))
    if not measures:
        raise ValueError(
            "there are no maps in the atlas' space; run the participant level with the output "
            "space MNI152NLin2009cAsym."
        )
    for measure in measures:
        images = cohort.images[cohort.images["measure"] == measure]
        scans = cohort.scans.merge(images[[*KEYS, "path"]], on=KEYS)
        notes += _without_map(cohort.scans, scans, measure)
        model = _model(scans, by, covariates, reference_group, formula, contrast)
        stack = stack_maps(cohort, list(model.scans["path"]), smoothing_mm)
        fit = fit_voxels(stack.values, model.design.matrix, names=model.design.names)
        result = tested(fit, _weights(model.contrast))
        smoothness = estimate_smoothness(stack.values, fit, stack.mask.data, stack.voxel_mm)
        found = _infer(stack, model, result, smoothness, primary_p, stationary, permutations, seed)
        tables += _tables(measure, stack, model, found, result)
        charts += _charts(measure, stack, model, found, result)
        maps += _maps(measure, stack, found, result)
        notes += [*model.notes, *not_measured(stack, fit.valid), _smoothness_note(found, measure)]
        warnings += _warnings(smoothness, measure)
    return Result(
        f"{model.title} in every voxel of {listed(stack.joined.names.values())}, by the model "
        f"{model.design.formula}.",
        tuple(notes),
        tuple(warnings),
        tuple(tables),
        tuple(charts),
        tuple(maps),
        _methods(model, primary_p, stationary, permutations, smoothing_mm),
    )


def _model(
    scans: pd.DataFrame,
    by: str,
    covariates: tuple[str, ...],
    reference_group: str,
    formula: str,
    words: str,
) -> Model:
    """Return the design and contrast, of groups with the reference first."""
    groups: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    if formula:
        design = build_design(scans, formula)
        chosen = contrast(design, words or by)
        title = f"{chosen.kind} of {chosen.name}"
        return Model(scans.iloc[design.rows], design, chosen, title, (), notes + design.left_out)
    if _names_groups(scans, by):
        order, notes = group_order(scans[scans[by].notna()], by, reference_group or None)
        scans = scans.assign(**{by: pd.Categorical(scans[by], order, ordered=True)})
        groups = (order[1], order[0]) if len(order) == 2 else ()
    design = build_design(scans, " + ".join((by if by.isidentifier() else f"`{by}`", *covariates)))
    chosen = contrast(design, words or next(iter(design.terms)))
    title = f"{chosen.kind} of {by}"
    if groups and not words:
        title = f"t ({groups[0]} − {groups[1]})"
    elif words:
        groups = ()
    return Model(scans.iloc[design.rows], design, chosen, title, groups, notes + design.left_out)


def _names_groups(scans: pd.DataFrame, by: str) -> bool:
    """Whether a column holds texts, or two numbers, and so names groups."""
    if by not in scans:
        return False
    return not pd.api.types.is_numeric_dtype(scans[by]) or scans[by].nunique() <= 2


def _without_map(scans: pd.DataFrame, mapped: pd.DataFrame, measure: str) -> tuple[str, ...]:
    """Return a sentence on scans that have no map in the atlas' space."""
    lacking = scans[~scans["series"].isin(mapped["series"])]
    if lacking.empty:
        return ()
    what = counted(len(lacking), "scan")
    return (f"{what} left out for want of a map of {measure}: {listed(lacking['series'], 5)}.",)


def _weights(chosen: Contrast) -> NDArray[np.float64]:
    return chosen.weights[0] if chosen.kind == "t" else chosen.weights


def _infer(
    stack: Stack,
    model: Model,
    result: ContrastMap,
    smoothness: Smoothness,
    primary_p: float,
    stationary: bool,
    permutations: int,
    seed: int,
) -> Inference:
    distribution = result.distribution
    height = primary_threshold(primary_p, distribution)
    clusters = find_clusters(result.statistic, stack.mask.data, height)
    table = cluster_table(
        result.statistic, clusters, stack.mask.data, stack.mask.affine, regions=stack.sided
    )
    resels = cluster_resels(clusters, smoothness, stationary=stationary)
    options = {"stationary": stationary}
    p_cluster = cluster_p(resels, height, distribution, smoothness, **options)
    p_peak = peak_p(table["peak_statistic"], distribution, smoothness, **options)
    table = table.assign(resels=resels, p_cluster=p_cluster, p_peak=p_peak)
    highest = peak_threshold(ALPHA, distribution, smoothness, **options)
    passed = np.isin(clusters, table["cluster"][table["p_cluster"] < ALPHA])
    significant = passed | (np.abs(result.statistic) >= highest)
    permuted = None
    if permutations:
        permuted = permutation_test(
            stack.values,
            model.design.matrix,
            _weights(model.contrast),
            stack.mask.data,
            n_permutations=permutations,
            primary_p=primary_p,
            seed=seed,
        )
    return Inference(smoothness, clusters, table, highest, significant, permuted)


def _tables(
    measure: str, stack: Stack, model: Model, found: Inference, result: ContrastMap
) -> list[ResultTable]:
    name = quantity_of(measure, "").name
    tables = [
        ResultTable(
            f"{measure}_clusters",
            f"{name}: clusters",
            found.table,
            "Of the voxels beyond the primary threshold; p corrected for the whole of the "
            "structures by random field theory.",
            dict.fromkeys(
                (
                    "cluster",
                    "regions",
                    "n_voxels",
                    "resels",
                    "p_cluster",
                    "peak_statistic",
                    "p_peak",
                    "peak_x_mm",
                    "peak_y_mm",
                    "peak_z_mm",
                ),
                "",
            ),
        )
    ]
    if model.groups:
        groups = list(model.scans[_group_column(model)].astype(str))
        ways = {"random-fields": (found.significant, "by random field theory")}
        if found.permuted is not None:
            ways["tfce"] = (found.permuted.p_tfce < ALPHA, "by TFCE")
        for way, (significant, words) in ways.items():
            by_region = significant_by_region(
                stack.values, stack.joined, significant, groups, group_order=model.groups
            )
            tables.append(
                ResultTable(
                    f"{measure}_significant-{way}",
                    f"{name}: significant part of each structure, {words}",
                    by_region.assign(units=UNITS.get(measure, "")),
                    "The voxels were chosen by the difference that is then tested: the means "
                    "describe, and prove nothing.",
                    dict.fromkeys(
                        (
                            "name",
                            "units",
                            "n_voxels",
                            "percent_significant",
                            "group_a",
                            "mean_a",
                            "sd_a",
                            "group_b",
                            "mean_b",
                            "sd_b",
                            "p_welch",
                        ),
                        "",
                    ),
                    ("mean_a", "sd_a", "mean_b", "sd_b"),
                )
            )
    return tables


def _group_column(model: Model) -> str:
    """Return the column of the two groups, which is the first term of the design."""
    return next(iter(model.design.terms))


def _charts(
    measure: str, stack: Stack, model: Model, found: Inference, result: ContrastMap
) -> list[ResultChart]:
    background = on_grid(load_template(), stack.mask)
    statistic = stack.volume(result.statistic).data
    labels = stack.volume(stack.labels).data
    is_signed = model.contrast.kind == "t"
    largest = float(np.quantile(np.abs(result.statistic), 0.999))
    scale = StatisticScale(model.title, max(3.0, float(np.ceil(largest))), is_signed)
    name = quantity_of(measure, "").name
    ways = {"random-fields": (found.significant, "random field theory")}
    if found.permuted is not None:
        ways["tfce"] = (found.permuted.p_tfce < ALPHA, "TFCE")
    charts = []
    for way, (inside, words) in ways.items():
        note = f"p < {ALPHA:g}, {words}"
        significant = stack.volume(inside).data
        caption = f"{model.title} of {name}; outlined where significant ({note})."
        drawn = statistic_map(
            background.data,
            statistic,
            significant,
            stack.mask.affine,
            mask=stack.mask.data,
            labels=labels,
            scale=scale,
            note=note,
        )
        title = f"{name}: {model.title}, {words}"
        charts.append(ResultChart(f"{measure}_slices-{way}", title, drawn, caption, True))
        if significant.any():
            views = cluster_views(
                significant,
                labels,
                stack.mask.affine,
                names=_bare_names(stack),
                statistic=statistic,
                note=note,
            )
            title = f"{name}: significant clusters in three dimensions, {words}"
            charts.append(ResultChart(f"{measure}_views-{way}", title, views, caption, True))
    return charts


def _bare_names(stack: Stack) -> dict[int, str]:
    """Return each label's structure without its side."""
    return {
        index: stack.joined.names[int(stack.joined.labels[stack.labels == index][0])]
        for index in stack.sided.names
    }


def _maps(measure: str, stack: Stack, found: Inference, result: ContrastMap) -> list[ResultMap]:
    kind = result.distribution.kind
    maps = [
        ("statistic", result.statistic, f"{kind} of the contrast.", ""),
        ("partial-eta-squared", result.partial_eta_squared, "Share of variance explained.", ""),
        (
            "q-fdr",
            false_discovery_q(p_values(result), result.valid).astype(np.float32),
            "False discovery rate at which the voxel becomes significant.",
            "",
        ),
        ("clusters", found.clusters, "Number of the cluster in the table.", ""),
        ("significant", found.significant, "Significant by random field theory.", ""),
    ]
    if result.effect is not None and result.cohen_d is not None:
        effect = "Effect, in the units of the maps."
        maps.append(("effect", result.effect, effect, UNITS.get(measure, "")))
        maps.append(("cohen-d", result.cohen_d, "Effect over the residual SD.", ""))
    if found.permuted is not None:
        for name, p, what in (
            ("log10p-tfce", found.permuted.p_tfce, "TFCE"),
            ("log10p-voxel", found.permuted.p_voxel, "the highest statistic"),
        ):
            text = f"-log10 of p, corrected by permutations of {what}."
            maps.append((name, (-np.log10(p)).astype(np.float32), text, ""))
    return [
        ResultMap(f"{measure}_{name}", stack.volume(values), text, units)
        for name, values, text, units in maps
    ]


def _smoothness_note(found: Inference, measure: str) -> str:
    fwhm = ", ".join(f"{v:.1f}" for v in found.smoothness.fwhm_mm)
    return (
        f"{measure}: the residuals' FWHM is {fwhm} mm; {found.smoothness.n_voxels} voxels are "
        f"{found.smoothness.resels[3]:.0f} resels; |t| of {found.peak_threshold:.2f} is "
        "significant in a single voxel."
    )


def _warnings(smoothness: Smoothness, measure: str) -> list[str]:
    if smoothness.fwhm_voxels.min() >= 2:
        return []
    return [
        f"{measure}: the maps are hardly smooth (FWHM {smoothness.fwhm_voxels.min():.1f} voxels): "
        "cluster p by random field theory may be too low; trust the permutations, or smooth by "
        "'smoothing_mm'."
    ]


def _methods(
    model: Model, primary_p: float, stationary: bool, permutations: int, smoothing_mm: float
) -> str:
    smoothed = (
        f"smoothed within the structures by {smoothing_mm:g} mm (FWHM)"
        if smoothing_mm
        else "not smoothed"
    )
    text = (
        f"In the atlas' space the maps, {smoothed}, were fitted by the linear model "
        f"`{model.design.formula}` in each voxel of the structures ({len(model.scans)} scans). "
        f"Clusters were formed at p < {primary_p:g}; their p and those of peaks were corrected by "
        "random field theory [@worsley1996; @friston1994], "
    )
    text += (
        "the noise taken as equally smooth everywhere."
        if stationary
        else "with each voxel's own smoothness [@worsley1999; @hayasaka2004]."
    )
    if permutations:
        text += (
            f" Threshold-free cluster enhancement [@smith2009] was tested by {permutations} "
            "permutations of Freedman and Lane [@winkler2014]."
        )
    return text
