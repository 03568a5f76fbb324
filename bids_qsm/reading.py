"""Files of unknown origin: what they may take of memory is known before they are read.

A dataset is not trusted.  A sidecar may be of any size and depth, a header may claim any number of
voxels, and a name may be that of a pipe or a device, which has no end.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bids_qsm.limits import memory_bytes

LARGEST_JSON_BYTES = 16 * 2**20
LARGEST_TABLE_BYTES = 256 * 2**20

MOST_COLUMNS = 10_000
_LONGEST_HEAD = 2**20


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises
    ------
    OSError
        If there is no such file, or it cannot be read.
    ValueError
        If it is no text, no JSON, too large or nested too deeply, or no ordinary file.
    """
    return _parsed(path, json.loads)


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a TOML file holds.

    Raises
    ------
    OSError
        If there is no such file, or it cannot be read.
    ValueError
        If it is no text, no TOML, too large or nested too deeply, or no ordinary file.
    """
    settings: dict[str, Any] = _parsed(path, tomllib.loads)
    return settings


def _parsed(path: Path, parse: Callable[[str], Any]) -> Any:
    check_file(path, LARGEST_JSON_BYTES)
    try:
        return parse(path.read_text(encoding="utf-8-sig"))  # some editors begin with a mark
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def check_file(path: Path, largest_bytes: int) -> None:
    """Refuse what is no ordinary file, or too large.

    Raises
    ------
    OSError, ValueError
    """
    size = path.stat().st_size
    if not path.is_file():
        raise ValueError("it is no ordinary file")
    if size > largest_bytes:
        raise ValueError(f"it is larger than {largest_bytes / 2**20:.0f} MiB")


def check_table(path: Path) -> None:
    """Refuse a table that is no ordinary file, too large, or of too many columns.

    Raises
    ------
    OSError, ValueError
    """
    check_file(path, LARGEST_TABLE_BYTES)
    with path.open("rb") as lines:
        head = lines.readline(_LONGEST_HEAD)
    if len(head) == _LONGEST_HEAD or max(map(head.count, b"\t,;")) >= MOST_COLUMNS:
        raise ValueError(f"it has more than {MOST_COLUMNS} columns")


def check_claim(n_bytes: int) -> None:
    """Refuse an image that is larger than the memory, by what its header claims.

    Raises
    ------
    ValueError
    """
    if n_bytes > memory_bytes():
        claimed, there = n_bytes / 2**30, memory_bytes() / 2**30
        raise ValueError(
            f"its header claims {claimed:.4g} GiB of voxels, and the memory has {there:.4g} GiB"
        )
