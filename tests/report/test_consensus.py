from __future__ import annotations

import dataclasses
import importlib

import pytest

from bids_qsm.report.consensus import consensus_checklist
from bids_qsm.report.record import ReferenceRecord, SeriesRecord, StepRecord

POINTS = ("unwrapping", "field", "mask", "background", "inversion", "reference", "reporting")


def met(record: SeriesRecord) -> dict[str, str]:
    answers = [item.met for item in consensus_checklist(record)]
    return dict(zip(POINTS, answers, strict=True))


def with_method(record: SeriesRecord, name: str, method: str) -> SeriesRecord:
    steps = tuple(StepRecord(name, method) if s.name == name else s for s in record.steps)
    return dataclasses.replace(record, steps=steps)


def test_the_default_run_meets_every_point(series_record: SeriesRecord) -> None:
    assert set(met(series_record).values()) == {"yes"}


@pytest.mark.parametrize(
    ("step", "method", "answer"),
    [
        ("unwrapping", "best-path", "yes"),
        ("unwrapping", "laplacian", "no"),
        ("unwrapping", "novel", "partly"),
        ("field", "weighted-average", "yes"),
        ("field", "last-echo", "partly"),
        ("mask", "brain", "partly"),
        ("mask", "quality", "partly"),
        ("background", "vsharp", "yes"),
        ("background", "joint", "yes"),
        ("background", "lbv", "partly"),
        ("background", "none", "no"),
        ("inversion", "rts", "yes"),
        ("inversion", "nltv", "yes"),
        ("inversion", "ndi", "no"),
        ("inversion", "tkd", "no"),
        ("inversion", "novel", "partly"),
    ],
)
def test_each_method_changes_its_point_alone(
    series_record: SeriesRecord, step: str, method: str, answer: str
) -> None:
    found = met(with_method(series_record, step, method))
    assert found.pop(step) == answer
    assert set(found.values()) == {"yes"}


def test_the_laplacian_brought_to_whole_turns_is_nearly_exact(series_record: SeriesRecord) -> None:
    step = StepRecord("unwrapping", "laplacian", {"whole_turns": True})
    steps = tuple(step if s.name == "unwrapping" else s for s in series_record.steps)
    assert met(dataclasses.replace(series_record, steps=steps))["unwrapping"] == "partly"


@pytest.mark.parametrize("module", ["background", "inversion"])
def test_every_method_is_known(series_record: SeriesRecord, module: str) -> None:
    """LBV alone is between the answers; any other method that is, was forgotten."""
    methods = importlib.import_module(f"bids_qsm.numerics.{module}").METHODS
    answers = {name: met(with_method(series_record, module, name))[module] for name in methods}
    assert {name for name, answer in answers.items() if answer == "partly"} <= {"lbv"}


def test_a_region_has_its_values_and_the_whole_brain_needs_none(
    series_record: SeriesRecord,
) -> None:
    region = consensus_checklist(series_record)[5]
    assert "4.1 ± 18.3 ppb under whole-brain referencing (8120 voxels)" in region.answer
    whole = ReferenceRecord("whole brain", 0.0, 0.03, 100)
    item = consensus_checklist(dataclasses.replace(series_record, reference=whole))[5]
    assert item.met == "yes"
    assert "ppb" not in item.answer


def test_no_reference_is_said(series_record: SeriesRecord) -> None:
    item = consensus_checklist(dataclasses.replace(series_record, reference=None))[5]
    assert item.met == "no"
    assert "arbitrary" in item.answer


def test_without_phase_nothing_of_susceptibility_is_met(bare_record: SeriesRecord) -> None:
    found = met(bare_record)
    assert found.pop("reporting") == "yes"
    assert set(found.values()) == {"no"}
    assert "no phase" in consensus_checklist(bare_record)[0].answer
