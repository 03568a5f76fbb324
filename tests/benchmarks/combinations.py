"""Which methods are set against each other: words in, settings out."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bids_qsm.choices import METHODS, method
from bids_qsm.errors import CommandLineError
from bids_qsm.participant import FIELD_STEPS
from bids_qsm.settings import Method, Processing, read_processing

STEPS = {
    "background": ("background",),
    "inversion": ("inversion",),
    "chain": (*FIELD_STEPS, "background", "inversion", "artefact_reduction"),
}
"""The steps that each stage runs."""


@dataclass(frozen=True)
class Combination:
    """Settings with a name that says what they vary."""

    name: str
    processing: Processing


def combinations(
    stage: str,
    combine: Sequence[str] = (),
    every: str | None = None,
    presets: Sequence[Path] = (),
) -> list[Combination]:
    """Return the combinations of a stage; those that differ in other steps only are one.

    Parameters
    ----------
    stage : str
    combine : sequence of str
        ``step=method[:option=value...][,method...]``; all are crossed.
    every : {"one", "crossed"} or None
        Every registered method, one step at a time or all steps crossed.
    presets : sequence of Path
        Settings files.

    Raises
    ------
    CommandLineError
        If a step, method or option does not exist.
    UnreadableInputError
        If a settings file cannot be read.
    """
    default = Processing()
    choices = _choices(combine)
    chosen = [read_processing(path) for path in presets]
    if choices:
        chosen += _crossed(default, choices)
    if every is not None:
        registered = {step: [Method(name) for name in METHODS[step]] for step in STEPS[stage]}
        chosen += _crossed(default, registered) if every == "crossed" else [default]
        if every == "one":
            chosen += [
                p for step in registered for p in _crossed(default, {step: registered[step]})
            ]
    return _named(stage, chosen or [default])


def _choices(words: Iterable[str]) -> dict[str, list[Method]]:
    choices: dict[str, list[Method]] = {}
    steps = STEPS["chain"]
    for word in words:
        step, equals, methods = word.partition("=")
        if not equals or step not in steps:
            raise CommandLineError(
                f"--combine takes step=method,..., with one of the steps {', '.join(steps)}; "
                f"got {word!r}."
            )
        choices.setdefault(step, []).extend(_method(text) for text in methods.split(","))
    return choices


def _method(text: str) -> Method:
    name, *options = text.split(":")
    pairs = (option.partition("=")[::2] for option in options)
    return Method(name, {key: _value(value) for key, value in pairs})


def _value(text: str) -> float | int | str | bool:
    """Return a number or truth value as such, anything else as the text that it is."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _crossed(base: Processing, choices: Mapping[str, Sequence[Method]]) -> list[Processing]:
    return [
        dataclasses.replace(base, **dict(zip(choices, chosen, strict=True)))
        for chosen in itertools.product(*choices.values())
    ]


def _named(stage: str, chosen: Iterable[Processing]) -> list[Combination]:
    """Name each by its methods; the last two steps always, the others where they differ."""
    default = Processing()
    found: dict[str, Processing] = {}
    for processing in chosen:
        words = []
        for step in STEPS[stage]:
            method(processing, step)  # refuses what does not exist
            its = getattr(processing, step)
            if step in ("background", "inversion") or its != getattr(default, step):
                words.append(":".join([its.name, *(f"{k}={v}" for k, v in its.options.items())]))
        found.setdefault(" + ".join(words), processing)
    return [Combination(name, processing) for name, processing in found.items()]
