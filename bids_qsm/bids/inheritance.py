"""JSON sidecars of the input, with BIDS inheritance."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from bids_qsm.bids.naming import entities_of
from bids_qsm.errors import UnreadableInputError
from bids_qsm.reading import read_json

Sidecars = Callable[[Path], dict[str, Any]]


def sidecar_reader(root: Path) -> Sidecars:
    """Return a function from an image's path to its metadata; each JSON file is read once.

    A JSON file applies to the images at or below its folder that have its suffix and all of its
    entities; the nearer file wins, and in one folder the one with more entities.  (pybids can do
    this, but one unreadable file would end the run for all subjects.)

    Raises
    ------
    UnreadableInputError
        By the returned function, if a sidecar that applies cannot be read.
    """

    @cache
    def listing(folder: Path) -> list[Path]:
        found = [path for path in folder.glob("*.json") if not path.name.startswith(".")]
        return sorted(found, key=lambda path: (len(entities_of(path.name)), path.name))

    read = cache(_read)

    def metadata(image: Path) -> dict[str, Any]:
        suffix, entities = _suffix(image), entities_of(image.name).items()
        fields: dict[str, Any] = {}
        for folder in [p for p in reversed(image.parents) if p == root or root in p.parents]:
            for path in listing(folder):
                if _suffix(path) == suffix and entities_of(path.name).items() <= entities:
                    fields |= read(path)
        return fields

    return metadata


def _suffix(path: Path) -> str:
    return path.name.split(".")[0].split("_")[-1]


def _read(path: Path) -> dict[str, Any]:
    try:
        fields = read_json(path)
    except (OSError, ValueError) as error:
        raise UnreadableInputError(
            f"{path}: the sidecar cannot be read as JSON ({error})."
        ) from None
    if not isinstance(fields, dict):
        raise UnreadableInputError(f"{path}: the sidecar must hold a JSON object.")
    return fields
