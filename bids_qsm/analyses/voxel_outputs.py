"""What a test in every voxel gives: tables of clusters, pictures, maps."""

from __future__ import annotations

import numpy as np

from bids_qsm.analyses.result import ResultChart, ResultMap, ResultTable
from bids_qsm.analyses.stacks import UNITS, Stack
from bids_qsm.analyses.voxel_inference import ALPHA, Inference, Model
from bids_qsm.anatomy.grids import on_grid
from bids_qsm.anatomy.template import load_template
from bids_qsm.report.group_maps import StatisticScale, statistic_map
from bids_qsm.report.group_style import quantity_of
from bids_qsm.report.group_surfaces import cluster_views
from bids_qsm.statistics.clusters import cluster_table, significant_by_region
from bids_qsm.statistics.glm import ContrastMap, false_discovery_q, p_values
from bids_qsm.statistics.permutation import PermutationTest

PEAK = ("peak_statistic", "peak_x_mm", "peak_y_mm", "peak_z_mm")


def tables_of(
    measure: str, stack: Stack, model: Model, found: Inference, result: ContrastMap
) -> list[ResultTable]:
    """Return the clusters and, of two groups, the significant part of each structure."""
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
    if found.permuted is not None:
        tables.append(_by_mass(measure, name, stack, found.permuted))
    if model.groups:
        groups = list(model.scans[group_column(model)].astype(str))
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


def _by_mass(measure: str, name: str, stack: Stack, permuted: PermutationTest) -> ResultTable:
    """Return the clusters that the permutations formed, the heaviest first."""
    table = cluster_table(
        permuted.statistic,
        permuted.clusters,
        stack.mask.data,
        stack.mask.affine,
        regions=stack.sided,
    ).assign(mass=permuted.cluster_mass, p_mass=permuted.p_mass, p_size=permuted.p_size)
    shown = ("cluster", "regions", "n_voxels", "p_size", "mass", "p_mass", *PEAK)
    return ResultTable(
        f"{measure}_clusters-permuted",
        f"{name}: clusters by permutation",
        table,
        "p of a cluster's size and mass, corrected by the largest and heaviest of each "
        "permutation.",
        dict.fromkeys(shown, ""),
        is_folded=True,
    )


def group_column(model: Model) -> str:
    """Return the column of the two groups, which is the first term of the design."""
    return next(iter(model.design.terms))


def charts_of(
    measure: str, stack: Stack, model: Model, found: Inference, result: ContrastMap
) -> list[ResultChart]:
    """Return the statistic on slices, and the significant clusters in three dimensions."""
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
                meaning=_meaning(model),
                note=note,
            )
            title = f"{name}: significant clusters in three dimensions, {words}"
            charts.append(ResultChart(f"{measure}_views-{way}", title, views, caption, True))
    return charts


def _meaning(model: Model) -> tuple[str, str]:
    """Return what positive and negative clusters mean."""
    if not model.groups:
        return ("above zero", "below zero")
    more, less = model.groups
    return (f"{more} > {less}", f"{more} < {less}")


def _bare_names(stack: Stack) -> dict[int, str]:
    """Return each label's structure without its side."""
    return {
        index: stack.joined.names[int(stack.joined.labels[stack.labels == index][0])]
        for index in stack.sided.names
    }


def maps_of(measure: str, stack: Stack, found: Inference, result: ContrastMap) -> list[ResultMap]:
    """Return the statistic, effects and p as volumes."""
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
