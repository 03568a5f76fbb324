"""What a run was given and what it ran with, without anything of the machine that it ran on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bids_qsm.report.record import InputRecord
from bids_qsm.settings import Settings

LIBRARIES = ("numpy", "scipy", "numba", "nibabel", "pybids", "antspyx")
PROGRAMS = ("bids-qsm", "__main__.py")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that decide numbers."""
    return {"Python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def command_words(words: Sequence[str], settings: Settings) -> tuple[str, ...]:
    """Return a command line without the folders of the machine.

    Parameters
    ----------
    words : sequence of str
        As in ``sys.argv``.
    settings : Settings
        What they were read as.

    Returns
    -------
    tuple of str
        The input and the output folder are ``BIDS_DIR`` and ``OUTPUT_DIR``, other paths their last
        parts; of a cluster it is only said that there was one.  Empty where the program was not
        called by a command line.
    """
    if not words or Path(words[0]).name not in PROGRAMS:
        return ()
    folders = {
        settings.bids_dir.absolute(): "BIDS_DIR",
        settings.output_dir.absolute(): "OUTPUT_DIR",
    }
    said = []
    for word in words[1:]:
        name, equals, value = word.rpartition("=")
        short = folders.get(Path(value).absolute()) or (Path(value).name if "/" in value else value)
        said.append(f"{name}{equals}{'dask' if value.startswith('dask:') else short}")
    return ("bids-qsm", *said)


def settings_record(settings: Settings) -> dict[str, Any]:
    """Return all settings that decide a series' outputs, as JSON can hold them."""
    methods = json.loads(json.dumps(dataclasses.asdict(settings.processing), default=str))
    return {
        "processing": methods,
        "output_spaces": settings.output_spaces,
        "with": settings.extra_steps,
        "atlases": tuple(Path(name).name for name in settings.atlases),
        "derivatives": tuple(settings.derivatives),
        "random_seed": settings.random_seed,
    }


def input_records(files: Mapping[str, Path]) -> tuple[InputRecord, ...]:
    """Return the fingerprints of files by the names that are given to them."""
    return tuple(_input(name, path) for name, path in files.items())


def _input(name: str, path: Path) -> InputRecord:
    with path.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256")
    return InputRecord(name, path.stat().st_size, digest.hexdigest())
