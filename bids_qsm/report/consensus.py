"""How a run meets the consensus on quantitative susceptibility mapping, point by point.

Bilgic et al. 2024, 10.1002/mrm.30006.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bids_qsm.report.methods import method_name
from bids_qsm.report.record import SeriesRecord

Met = Literal["yes", "partly", "no"]

EXACT_UNWRAPPING = {"romeo", "best-path"}
COMBINING_FITS = {"nonlinear", "linear", "weighted-average"}
RECOMMENDED_BACKGROUND = {"pdf", "sharp", "vsharp", "resharp", "ismv"}
SPARSE_INVERSIONS = {"tv", "nltv", "tgv", "medi", "hd-qsm", "rts"}
INEXACT_INVERSIONS = {"tkd", "l2", "tikhonov", "ilsqr", "ndi"}
WHOLE_BRAIN = {"whole brain", "whole-brain"}


@dataclass(frozen=True)
class ChecklistItem:
    """One recommendation and how the run meets it."""

    point: str
    answer: str
    met: Met


def consensus_checklist(record: SeriesRecord) -> tuple[ChecklistItem, ...]:
    """Return the consensus' recommendations on processing with the run's answer to each."""
    return (
        _unwrapping(record),
        _combination(record),
        _masks(record),
        _background(record),
        _inversion(record),
        _reference(record),
        _reporting(record),
    )


def _method(record: SeriesRecord, name: str) -> str | None:
    step = record.step(name)
    return None if step is None else step.method


def _option(record: SeriesRecord, name: str, option: str) -> object:
    step = record.step(name)
    return None if step is None else step.parameters.get(option)


def _not_done(record: SeriesRecord) -> tuple[str, Met]:
    reason = "the step was not run." if record.has_phase else "the series has no phase."
    return f"Not done: {reason}", "no"


def _unwrapping(record: SeriesRecord) -> ChecklistItem:
    method = _method(record, "unwrapping")
    if method is None:
        answer, met = _not_done(record)
    elif method in EXACT_UNWRAPPING:
        answer, met = (
            f"Unwrapped with {method_name(method)}, which changes the phase by whole turns only.",
            "yes",
        )
    elif method == "laplacian" and _option(record, "unwrapping", "whole_turns"):
        answer = "Unwrapped with the Laplacian method, then brought to whole turns."
        met = "partly"
    elif method == "laplacian":
        answer, met = "Unwrapped with the Laplacian method, which is not exact.", "no"
    else:
        answer, met = (
            f"Unwrapped with {method_name(method)}; whether it is exact is not known here.",
            "partly",
        )
    return ChecklistItem(
        "The phase is unwrapped by an exact (not a Laplacian) method.", answer, met
    )


def _combination(record: SeriesRecord) -> ChecklistItem:
    method = _method(record, "field")
    if method is None:
        answer, met = _not_done(record)
    elif method in COMBINING_FITS:
        answer = f"One total field comes from all echoes ({method_name(method)}) before it."
        met = "yes"
    else:
        answer, met = f"The field came from {method_name(method)}; see its description.", "partly"
    return ChecklistItem("Echoes are combined before background field removal.", answer, met)


def _masks(record: SeriesRecord) -> ChecklistItem:
    method = _method(record, "mask")
    if method is None:
        answer, met = _not_done(record)
    elif method == "brain-and-quality":
        answer, met = "Both were used, and holes filled.", "yes"
    elif method == "brain":
        answer, met = "A brain mask alone: voxels of poor phase were kept.", "partly"
    elif method == "quality":
        answer, met = "A phase-quality mask alone, without a brain mask.", "partly"
    else:
        answer, met = f"The mask came from {method_name(method)}.", "partly"
    return ChecklistItem("A brain mask and a mask of phase quality are used.", answer, met)


def _background(record: SeriesRecord) -> ChecklistItem:
    method = _method(record, "background")
    if method is None:
        answer, met = _not_done(record)
    elif method == "none":
        answer, met = "It was not removed before the inversion.", "no"
    elif method == "joint":
        answer = "Removed by projection onto sources outside, as by PDF, fitted with those inside."
        met = "yes"
    elif method in RECOMMENDED_BACKGROUND:
        answer, met = f"Removed with {method_name(method)}.", "yes"
    else:
        answer, met = (
            f"Removed with {method_name(method)}, which is not among those recommended.",
            "partly",
        )
    return ChecklistItem(
        "The background field is removed with a SHARP-like method or PDF.", answer, met
    )


def _inversion(record: SeriesRecord) -> ChecklistItem:
    method = _method(record, "inversion")
    if method is None:
        answer, met = _not_done(record)
    elif method in SPARSE_INVERSIONS:
        answer, met = f"Inverted with {method_name(method)}, which favours sparse edges.", "yes"
    elif method in INEXACT_INVERSIONS:
        answer, met = (
            f"Inverted with {method_name(method)}, which has no sparsity regularisation.",
            "no",
        )
    else:
        answer, met = f"Inverted with {method_name(method)}; see its description.", "partly"
    return ChecklistItem("The inversion is regularised by sparsity.", answer, met)


def _reference(record: SeriesRecord) -> ChecklistItem:
    point = (
        "χ is relative to a stated reference; for a region, its mean ± SD under whole-brain "
        "referencing is given."
    )
    reference = record.reference
    if record.step("inversion") is None:
        return ChecklistItem(point, *_not_done(record))
    if reference is None or reference.region == "none":
        return ChecklistItem(point, "No reference: the zero of χ is arbitrary.", "no")
    if reference.region in WHOLE_BRAIN:
        return ChecklistItem(point, "Relative to the mean of the whole brain.", "yes")
    answer = (
        f"Relative to {reference.region}, which is at {1000 * reference.mean_ppm:.1f} ± "
        f"{1000 * reference.sd_ppm:.1f} ppb under whole-brain referencing "
        f"({reference.n_voxels} voxels)."
    )
    return ChecklistItem(point, answer, "yes")


def _reporting(record: SeriesRecord) -> ChecklistItem:
    return ChecklistItem(
        "Toolbox, version, algorithm and parameters of each step are reported.",
        f"bids_qsm {record.version}; algorithm and parameters of {len(record.steps)} steps are in "
        "the methods text below and in each map's sidecar.",
        "yes" if record.steps else "no",
    )
