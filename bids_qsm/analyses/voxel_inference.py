"""Which voxels are significant: a model of the scans, and a contrast tested in every voxel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_qsm.analyses.cohort import terms_of
from bids_qsm.analyses.stacks import Stack
from bids_qsm.statistics.clusters import cluster_table, find_clusters
from bids_qsm.statistics.designs import Contrast, Design, build_design, contrast
from bids_qsm.statistics.glm import ContrastMap
from bids_qsm.statistics.permutation import PermutationTest, permutation_test
from bids_qsm.statistics.random_fields import (
    cluster_p,
    cluster_resels,
    peak_p,
    peak_threshold,
    primary_threshold,
)
from bids_qsm.statistics.regions import group_order
from bids_qsm.statistics.smoothness import Smoothness

ALPHA = 0.05


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


def model_of(
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
    if names_groups(scans, by):
        order, notes = group_order(scans[scans[by].notna()], by, reference_group or None)
        scans = scans.assign(**{by: pd.Categorical(scans[by], order, ordered=True)})
        groups = (order[1], order[0]) if len(order) == 2 else ()
    design = build_design(scans, " + ".join(terms_of(scans, (by, *covariates))))
    chosen = contrast(design, words or next(iter(design.terms)))
    title = f"{chosen.kind} of {by}"
    if groups and not words:
        title = f"t ({groups[0]} − {groups[1]})"
    elif words:
        groups = ()
    return Model(scans.iloc[design.rows], design, chosen, title, groups, notes + design.left_out)


def names_groups(scans: pd.DataFrame, by: str) -> bool:
    """Whether a column holds texts, or two numbers, and so names groups."""
    if by not in scans:
        return False
    return not pd.api.types.is_numeric_dtype(scans[by]) or scans[by].nunique() <= 2


def weights_of(chosen: Contrast) -> NDArray[np.float64]:
    """Return the contrast as the voxel-wise functions take it: one row is t."""
    return chosen.weights[0] if chosen.kind == "t" else chosen.weights


def infer(
    stack: Stack,
    model: Model,
    result: ContrastMap,
    smoothness: Smoothness,
    primary_p: float,
    stationary: bool,
    permutations: int,
    seed: int,
) -> Inference:
    """Form clusters, find p by random field theory and, if wanted, by permutation."""
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
            weights_of(model.contrast),
            stack.mask.data,
            n_permutations=permutations,
            primary_p=primary_p,
            seed=seed,
        )
    return Inference(smoothness, clusters, table, highest, significant, permuted)
