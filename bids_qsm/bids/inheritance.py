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
    def candidates(folder: Path) -> list[tuple[str, dict[str, str], Path]]:
        """Return suffix, entities and path of what may apply in a folder; what wins comes last."""
        if folder != root and root not in folder.parents:
            return []
        found = [path for path in folder.glob("*.json") if not path.name.startswith(".")]
        named = [(_suffix(path), entities_of(path.name), path) for path in found]
        named.sort(key=lambda file: (len(file[1]), file[2].name))
        return [*candidates(folder.parent), *named]

    read = cache(_read)

    def metadata(image: Path) -> dict[str, Any]:
        suffix, entities = _suffix(image), entities_of(image.name).items()
        fields: dict[str, Any] = {}
        for own_suffix, own, path in candidates(image.parent):
            if own_suffix == suffix and own.items() <= entities:
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
