"""Restartable steps: a step whose inputs, parameters and code are unchanged is read back.

A step's result is a frozen dataclass whose fields are arrays, numbers, texts, tuples of these, or
dataclasses of the same kind.  What took long is kept as one ``.npz`` in a folder of the step; files
that the step makes itself (transforms) lie beside it.  ``result.npz`` appears by an atomic rename,
last: a step is either done or not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import math
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np

from bids_qsm.errors import UnwritableOutputError
from bids_qsm.execution.locks import NO_LOCKS
from bids_qsm.reading import check_file

Result = TypeVar("Result")
_RESULT = "result.npz"

KEEP_FROM_S = 2.0
"""What takes less is not kept: to write it and to read it back would take about as long."""


@dataclass(frozen=True)
class Timing:
    """How long a step took; ``reused`` where it was read back."""

    name: str
    seconds: float
    reused: bool


class Steps:
    """Runs the steps of one unit of work in a folder of its own.

    Parameters
    ----------
    folder : Path
        Where results are kept; it is made when the first step ends.
    inputs : str
        Fingerprint of the input files and of what else all steps depend on.
    tell : callable
        Is told each step's name when it starts.
    keep_from_s : float
        How long a step must take for its result to be kept.
    """

    def __init__(
        self,
        folder: Path,
        inputs: str,
        tell: Callable[[str], None],
        keep_from_s: float = KEEP_FROM_S,
    ) -> None:
        self.folder = folder
        self.timings: list[Timing] = []
        self._inputs = inputs
        self._keep_from_s = keep_from_s
        self.tell = tell
        self._keys: dict[str, str] = {}

    def run(
        self,
        name: str,
        result_type: type[Result],
        compute: Callable[[Path], Result],
        parameters: Mapping[str, Any],
        after: Sequence[str] = (),
    ) -> Result:
        """Return the step's result, computed or read back.

        Parameters
        ----------
        name : str
            Unique within the unit.
        result_type : type
            The frozen dataclass that ``compute`` returns.
        compute : callable
            Is given the step's folder for files of its own.
        parameters : mapping
            Everything but the inputs that decides the result.
        after : sequence of str
            Earlier steps whose results this one uses.
        """
        started = time.perf_counter()
        key = fingerprint(name, self._inputs, parameters, [self._keys[step] for step in after])
        self._keys[name] = key
        folder = self.folder / f"{name}-{key}"
        result = _read_result(folder / _RESULT, result_type)
        reused = result is not None
        if result is None:
            self.tell(name)
            with _writing(folder):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
            result = compute(folder)
            if time.perf_counter() - started >= self._keep_from_s:
                with _writing(folder):
                    _write_result(folder / _RESULT, result)
        self.timings.append(Timing(name, time.perf_counter() - started, reused))
        return result

    def folder_of(self, name: str) -> Path:
        """Return the folder of a step that was run, where its own files are."""
        return self.folder / f"{name}-{self._keys[name]}"

    def seconds(self, name: str) -> float:
        """Return how long a step took."""
        return next(t.seconds for t in self.timings if t.name == name)


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Say in a sentence that the work folder is full or cannot be written."""
    try:
        yield
    except OSError as error:
        raise UnwritableOutputError(
            f"{folder}: intermediate results cannot be written ({error.strerror or error}); check "
            "free space and permissions of the work folder, or give another with --work-dir."
        ) from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder against other processes of this machine: the second one waits."""
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / ".lock").open("w")
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield


def fingerprint(*parts: Any) -> str:
    """Return a short hash of anything that JSON can say, and of the program's own code."""
    text = json.dumps([code_fingerprint(), *parts], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def files_fingerprint(paths: Sequence[Path]) -> list[tuple[str, int, int]]:
    """Return name, size and time of change of each file: enough to see that one has changed."""
    return [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in paths]


@cache
def code_fingerprint() -> str:
    """Return a hash of the package's source: a changed program reuses nothing."""
    digest = hashlib.blake2b(digest_size=10)
    package = Path(__file__).parents[1]
    for source in sorted(package.rglob("*.py")):
        digest.update(source.relative_to(package).as_posix().encode())
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _write_result(path: Path, result: Any) -> None:
    fields = dict(_flattened(result))
    arrays = {name: value for name, value in fields.items() if isinstance(value, np.ndarray)}
    others = {name: value for name, value in fields.items() if name not in arrays}
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, allow_pickle=False, **arrays, _others=np.array(json.dumps(others)))
    partial.replace(path)


def _flattened(result: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(result):
        value = getattr(result, field.name)
        if dataclasses.is_dataclass(value):
            yield from _flattened(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, value


def _read_result(path: Path, result_type: type[Result]) -> Result | None:
    """Return the kept result, or None where there is none or it does not fit."""
    try:
        with load_arrays(path) as stored:
            fields = json.loads(str(stored["_others"]))
            fields |= {name: stored[name] for name in stored.files if name != "_others"}
        return _built(result_type, fields)
    except Exception:  # damaged on disk, in whatever way: the step is simply run again
        return None


def load_arrays(path: Path) -> Any:
    """Open an ``.npz`` file that holds arrays as they are, not packed: it cannot unpack to more.

    Raises
    ------
    OSError
        If there is no such file, or it cannot be read.
    ValueError
        If it is no ordinary file, or its arrays take more than the file has.
    Exception
        Of many kinds, from the modules that read archives, if it is damaged.
    """
    check_file(path, sys.maxsize)
    stored = np.load(path, allow_pickle=False)
    if not isinstance(stored, np.lib.npyio.NpzFile):
        raise ValueError("it is no archive of arrays")
    members = stored.zip.infolist()
    # an array takes what its header claims before a byte of it is read
    room, claims = path.stat().st_size, [_claim(stored.zip, member) for member in members]
    if sum(member.file_size for member in members) > room or sum(claims) > room:
        stored.close()
        raise ValueError("its arrays take more than the file has")
    return stored


def _claim(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    """Return how many bytes an array takes by its header."""
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
        shape, _, dtype = read[version[0]](stream)
    return math.prod(shape) * dtype.itemsize


def _built(result_type: Any, fields: Mapping[str, Any], prefix: str = "") -> Any:
    """Return the dataclass whose flattened fields are given."""
    hints = get_type_hints(result_type)
    values = {}
    for field in dataclasses.fields(result_type):
        name = prefix + field.name
        if dataclasses.is_dataclass(hints[field.name]):
            values[field.name] = _built(hints[field.name], fields, f"{name}.")
        else:
            value = fields[name]
            values[field.name] = tuple(value) if isinstance(value, list) else value
    return result_type(**values)
