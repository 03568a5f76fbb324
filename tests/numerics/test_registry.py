from __future__ import annotations

import pytest

from bids_qsm.numerics.registry import choose, options_of


def method(field: float, *, threshold: float = 0.2, steps: int = 3, fast: bool = False) -> float:
    return field * threshold


METHODS = {"one": method}


def test_defaults_are_those_of_the_signature() -> None:
    assert options_of(method) == {"threshold": 0.2, "steps": 3, "fast": False}
    function, options = choose("inversion", METHODS, "one", {"threshold": 1})
    assert function is method
    assert options == {"threshold": 1.0, "steps": 3, "fast": False}
    assert isinstance(options["threshold"], float)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("two", {}, "inversion has no method 'two'; choose one of: one."),
        ("one", {"x": 1}, "has no option 'x'; its options: fast, steps, threshold"),
        ("one", {"threshold": "a"}, "must be of type float, got 'a'"),
        ("one", {"steps": 1.5}, "must be of type int, got 1.5"),
        ("one", {"steps": True}, "must be of type int, got True"),
        ("one", {"fast": 1}, "must be of type bool, got 1"),
    ],
)
def test_wrong_names_and_types_are_refused(name, options, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        choose("inversion", METHODS, name, options)
