from __future__ import annotations

import importlib
import re

import pytest

from bids_qsm.numerics.registry import options_of
from bids_qsm.report.methods import (
    OPTION_SENTENCES,
    SECTIONS,
    SENTENCES,
    STEP_NAMES,
    STEP_SENTENCES,
    methods_text,
    parameter_texts,
)
from bids_qsm.report.record import SeriesRecord, StepRecord
from bids_qsm.report.references import REFERENCES, cited_keys

MODULES = {
    "offset": "coils",
    "unwrapping": "unwrapping",
    "field": "field",
    "mask": "masking",
    "background": "background",
    "inversion": "inversion",
    "relaxometry": "relaxometry",
    "separation": "separation",
    "swi": "swi",
    "uncertainty": "uncertainty",
}


def test_every_parameter_is_mentioned(series_record: SeriesRecord) -> None:
    text = methods_text(series_record.steps)
    for step in series_record.steps:
        for parameter in parameter_texts(step.parameters):
            assert f"`{parameter}`" in text
    assert "`tolerance = 0.001`" in text
    assert "`weights = (1, 2)`" in text


def test_steps_are_told_in_the_order_of_the_method(series_record: SeriesRecord) -> None:
    text = methods_text(series_record.steps)
    places = [text.index(word) for word in ("MCPC", "ROMEO", "dipole fields", "ARLO", "MNI152")]
    assert places == sorted(places)


def test_reference_region_has_its_values(series_record: SeriesRecord) -> None:
    text = methods_text(series_record.steps, reference=series_record.reference)
    assert "lateral ventricles) is at 4.1 ± 18.3 ppb (mean ± SD, 8120 voxels)" in text


def test_whole_brain_needs_no_values(series_record: SeriesRecord) -> None:
    steps = (StepRecord("reference", "whole brain"),)
    text = methods_text(steps, reference=series_record.reference)
    assert "relative to the mean over the whole brain." in text
    assert "ppb" not in text


def test_all_citations_have_a_reference_and_all_references_are_cited(
    series_record: SeriesRecord,
) -> None:
    text = methods_text(series_record.steps)
    body, listed = text.split("## References")
    assert cited_keys(body) == cited_keys(listed) == sorted(cited_keys(body))
    for key in cited_keys(body):
        assert f"doi:{REFERENCES[key].doi}" in listed


@pytest.mark.parametrize(
    "sentence", [*SENTENCES.values(), *OPTION_SENTENCES.values(), *STEP_SENTENCES.values()]
)
def test_sentences_cite_known_papers(sentence: str) -> None:
    assert set(cited_keys(sentence)) <= REFERENCES.keys()
    assert sentence.count("@") == len(cited_keys(sentence))


@pytest.mark.parametrize("step", MODULES)
def test_each_method_of_the_registry_has_a_sentence(step: str) -> None:
    module = importlib.import_module(f"bids_qsm.numerics.{MODULES[step]}")
    assert {(step, name) for name in module.METHODS} <= SENTENCES.keys()


@pytest.mark.parametrize(("step", "option"), [key for key in OPTION_SENTENCES if key[0] in MODULES])
def test_each_option_that_is_spoken_of_exists(step: str, option: str) -> None:
    methods = importlib.import_module(f"bids_qsm.numerics.{MODULES[step]}").METHODS
    assert any(option in options_of(function) for function in methods.values())


def test_fused_heads_are_spoken_of() -> None:
    step = StepRecord("atlas", "Nuclei", {"fused_heads": 4, "contrasts": "T1w and χ"})
    assert "its 4 heads were fused [@wang2013]" in methods_text([step])
    alone = StepRecord("atlas", "Nuclei", {"fused_heads": 0, "contrasts": "T1w"})
    assert "fused [@" not in methods_text([alone])


@pytest.mark.parametrize("reference", REFERENCES)
def test_each_reference_is_cited_somewhere(reference: str) -> None:
    sentences = [*SENTENCES.values(), *OPTION_SENTENCES.values(), *STEP_SENTENCES.values()]
    cited = cited_keys(" ".join([*sentences, methods_text([])]))
    assert reference in {*cited, "desikan2006", "fischl2002"}  # these two by the atlases


def test_options_are_spoken_of_where_they_are_set() -> None:
    on = StepRecord("background", "lbv", {"polynomial_order": 2, "peel_mm": 2.0})
    off = StepRecord("background", "lbv", {"polynomial_order": -1, "peel_mm": 2.0})
    assert "A polynomial of the order 2 was then subtracted. Parameters:" in methods_text([on])
    assert "polynomial of" not in methods_text([off])
    on = StepRecord("relaxometry", "nonlinear", {"gradient_correction": True})
    off = StepRecord("relaxometry", "nonlinear", {"gradient_correction": False})
    assert "@hernando2012" in methods_text([on])
    assert "@hernando2012" not in methods_text([off])


def test_unknown_methods_and_steps_are_named() -> None:
    text = methods_text(
        [StepRecord("inversion", "xqsm", {"depth": 3}), StepRecord("vein_mask", "frangi")]
    )
    assert "Dipole inversion used the method xqsm. Parameters: `depth = 3`." in text
    assert "Vein mask used the method frangi." in text


def test_a_text_from_outside_cannot_break_the_markdown() -> None:
    text = methods_text([StepRecord("atlas", "a`b\n\n# c")])
    assert "the atlas a'b # c," in text


def test_every_step_of_a_section_has_a_name() -> None:
    assert {name for names in SECTIONS.values() for name in names} == set(STEP_NAMES)


def test_nothing_done_still_gives_a_text() -> None:
    text = methods_text([])
    assert "bids_qsm" in text
    assert not re.search(r"## (?!References)", text)
