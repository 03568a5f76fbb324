"""How a step's method is chosen by name and its options are checked.

Each step has a table ``METHODS`` from name to function.  The options of a method are the
keyword-only arguments of its function: their defaults live there and nowhere else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

Option = float | int | str | bool
Methods = Mapping[str, Callable[..., Any]]


def options_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the names and defaults of a method's options."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def choose(
    step: str, methods: Methods, name: str, options: Mapping[str, Option]
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return the function of a method and its complete options.

    Parameters
    ----------
    step : str
        What the method does, for the error's sentence.
    methods : mapping of str to callable
    name : str
        The method's name.
    options : mapping
        Options that differ from the defaults.

    Raises
    ------
    ValueError
        If there is no such method or option, or an option has the wrong type; the message is a
        sentence for the user.
    """
    if name not in methods:
        raise ValueError(
            f"{step} has no method {name!r}; choose one of: {', '.join(sorted(methods))}."
        )
    complete = options_of(methods[name])
    for key, value in options.items():
        if key not in complete:
            known = ", ".join(sorted(complete)) or "none"
            raise ValueError(f"{step} by {name!r} has no option {key!r}; its options: {known}.")
        complete[key] = _as_type_of(complete[key], value, f"{step}: option {key!r} of {name!r}")
    return methods[name], complete


def _as_type_of(default: Any, value: Option, what: str) -> Any:
    """Return ``value`` in the type of ``default``, or raise with a sentence."""
    wanted = type(default)
    if default is None or type(value) is wanted:
        return value
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if wanted is tuple and isinstance(value, list):
        return tuple(value)
    if isinstance(default, Mapping) and isinstance(value, Mapping):
        return value
    raise ValueError(f"{what} must be of type {wanted.__name__}, got {value!r}.")
