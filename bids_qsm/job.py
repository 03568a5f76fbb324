"""What every step of a series needs: what to do, how, and where to note it."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_qsm.bids.derivatives import given_files
from bids_qsm.bids.inputs import Series
from bids_qsm.errors import UnreadableInputError
from bids_qsm.execution.local import peak_memory_mib
from bids_qsm.execution.steps import Steps, files_fingerprint
from bids_qsm.report.record import StepRecord
from bids_qsm.settings import Settings

LOG = logging.getLogger(__name__)


class Journal:
    """Collects the steps as they were run and every warning, each once."""

    def __init__(self) -> None:
        self._steps: list[StepRecord] = []
        self._warnings: list[str] = []

    @property
    def steps(self) -> tuple[StepRecord, ...]:
        """The steps in the order in which they were run."""
        return tuple(self._steps)

    @property
    def warnings(self) -> tuple[str, ...]:
        """All warnings so far."""
        return tuple(self._warnings)

    def warn(self, *texts: str) -> None:
        """Note what was guessed, substituted or left out."""
        for text in texts:
            if text not in self._warnings:
                self._warnings.append(text)
                LOG.warning(text)

    def step(self, name: str, method: str, parameters: Mapping[str, Any], seconds: float) -> None:
        """Note a step that was run."""
        LOG.info("%s (%s) took %.1f s", name, method, seconds)
        peak_mib = round(peak_memory_mib(), 1)
        self._steps.append(StepRecord(name, method, dict(parameters), round(seconds, 3), peak_mib))


@dataclass(frozen=True)
class Job:
    """One series being processed."""

    series: Series
    settings: Settings
    steps: Steps
    journal: Journal


def inputs_fingerprint(series: Series, settings: Settings) -> str:
    """Return a short hash of name, size and time of change of each file that a series is made of.

    Raises
    ------
    OSError
        If one has vanished.
    """
    paths = [*series.files, *series.anatomical_files, *given_files(settings, series)]
    text = json.dumps(files_fingerprint(paths))
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def check_inputs(series: Series, settings: Settings, key: str) -> None:
    """Refuse a series whose files are others than when the run found them.

    Parameters
    ----------
    series : Series
    settings : Settings
    key : str
        Begins with the fingerprint that the files had.

    Raises
    ------
    UnreadableInputError
    """
    try:
        is_same = key.startswith(inputs_fingerprint(series, settings))
    except OSError as error:
        raise UnreadableInputError(
            f"{error.filename}: the file was there when the run began, and has vanished; run again."
        ) from None
    if not is_same:
        raise UnreadableInputError(
            f"{series.files[0]}: this file, or another one of its series, has changed since the "
            "run began; run again."
        )


def work_dir(settings: Settings) -> Path:
    """Return the folder of intermediate results."""
    return settings.work_dir or settings.output_dir / ".work"


def digest(array: NDArray) -> str:
    """Return a short hash of an array's values."""
    return hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=10).hexdigest()
