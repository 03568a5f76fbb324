from __future__ import annotations

import pytest

from bids_qsm.errors import CommandLineError, UnreadableInputError
from bids_qsm.settings import Method, Processing, as_json, processing_from, read_processing


def test_defaults_stay_where_nothing_is_said() -> None:
    assert processing_from({}) == Processing()
    assert processing_from({"phase": {}}) == Processing()


def test_tables_become_methods() -> None:
    processing = processing_from(
        {
            "reference": "whole-brain",
            "phase": {"units_per_turn": 4096, "sign": -1, "b0_direction": [0, 0, 2]},
            "inversion": {"method": "tkd", "threshold": 0.2},
            "background": {"tolerance": 0.1},
        }
    )
    assert processing.reference == "whole-brain"
    assert processing.phase.b0_direction == (0.0, 0.0, 1.0)
    assert (processing.phase.units_per_turn, processing.phase.sign) == (4096, -1)
    assert processing.inversion == Method("tkd", {"threshold": 0.2})
    assert processing.background == Method(Processing().background.name, {"tolerance": 0.1})


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        ({"inverson": {}}, "no table or key 'inverson'"),
        ({"inversion": "tkd"}, "'inversion' must be a table"),
        ({"reference": 3}, "'reference' must be a text"),
        ({"phase": {"scale": 1}}, "'phase' has no key 'scale'"),
        ({"phase": {"sign": 2}}, "must be 1 or -1"),
        ({"phase": {"units_per_turn": -1}}, "must be a positive number"),
        ({"phase": {"accept_filtered": 1}}, "must be true or false"),
        ({"phase": {"units_per_turn": "x"}}, "must be a positive number"),
        ({"phase": {"b0_direction": [0, 0]}}, "must be three numbers"),
        ({"phase": {"b0_direction": [0, 0, 0]}}, "must be three numbers"),
        ({"phase": {"b0_direction": "z"}}, "must be three numbers"),
    ],
)
def test_what_makes_no_sense_is_refused(tables, sentence) -> None:
    with pytest.raises(CommandLineError, match=sentence):
        processing_from(tables)


def test_toml_may_begin_with_the_mark_of_an_editor(tmp_path) -> None:
    file = tmp_path / "marked.toml"
    file.write_text('reference = "none"\n', encoding="utf-8-sig")
    assert read_processing(file).reference == "none"


def test_file_errors_name_the_file(tmp_path) -> None:
    file = tmp_path / "bad.toml"
    with pytest.raises(UnreadableInputError, match=r"bad\.toml"):
        read_processing(file)
    file.write_text("[inversion\n")
    with pytest.raises(CommandLineError, match=r"bad\.toml"):
        read_processing(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UnreadableInputError, match=r"bad\.toml"):
        read_processing(file)


def test_equal_settings_give_equal_text() -> None:
    first = processing_from({"inversion": {"method": "tkd", "a": 1, "b": 2}})
    second = processing_from({"inversion": {"b": 2, "a": 1, "method": "tkd"}})
    assert as_json(first) == as_json(second) != as_json(Processing())
