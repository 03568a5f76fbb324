"""A linear model in every voxel of the structures, in the atlas' space."""

from __future__ import annotations

import pandas as pd

from bids_qsm.analyses.cohort import Cohort, one_scan_each, with_labels
from bids_qsm.analyses.result import Result, ResultChart, ResultMap, ResultTable
from bids_qsm.analyses.stacks import not_measured, stack_maps
from bids_qsm.analyses.voxel_inference import (
    Inference,
    Model,
    infer,
    model_of,
    names_groups,
    weights_of,
)
from bids_qsm.analyses.voxel_outputs import charts_of, maps_of, tables_of
from bids_qsm.statistics.collection import KEYS
from bids_qsm.statistics.expressions import counted, listed
from bids_qsm.statistics.glm import fit_voxels
from bids_qsm.statistics.glm import test_contrast as tested
from bids_qsm.statistics.smoothness import Smoothness, estimate_smoothness


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
    if not formula and names_groups(cohort.scans, by):
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
        model = model_of(scans, by, covariates, reference_group, formula, contrast)
        stack = stack_maps(cohort, list(model.scans["path"]), smoothing_mm)
        fit = fit_voxels(stack.values, model.design.matrix, names=model.design.names)
        result = tested(fit, weights_of(model.contrast))
        smoothness = estimate_smoothness(stack.values, fit, stack.mask.data, stack.voxel_mm)
        found = infer(stack, model, result, smoothness, primary_p, stationary, permutations, seed)
        tables += tables_of(measure, stack, model, found, result)
        charts += charts_of(measure, stack, model, found, result)
        maps += maps_of(measure, stack, found, result)
        notes += [
            *model.notes,
            *not_measured(stack, fit.valid),
            _smoothness_note(found, model, measure),
        ]
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


def _without_map(scans: pd.DataFrame, mapped: pd.DataFrame, measure: str) -> tuple[str, ...]:
    """Return a sentence on scans that have no map in the atlas' space."""
    lacking = scans[~scans["series"].isin(mapped["series"])]
    if lacking.empty:
        return ()
    what = counted(len(lacking), "scan")
    return (f"{what} left out for want of a map of {measure}: {listed(lacking['series'], 5)}.",)


def _smoothness_note(found: Inference, model: Model, measure: str) -> str:
    statistic = "|t|" if model.contrast.kind == "t" else "F"
    fwhm = ", ".join(f"{v:.1f}" for v in found.smoothness.fwhm_mm)
    return (
        f"{measure}: the residuals' FWHM is {fwhm} mm; {found.smoothness.n_voxels} voxels are "
        f"{found.smoothness.resels[3]:.0f} resels; {statistic} of {found.peak_threshold:.2f} is "
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
