"""Files are written whole or not at all: staging folder, atomic rename, deterministic bytes."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import scipy.fft

from bids_qsm.bids.naming import sidecar_path
from bids_qsm.errors import UnwritableOutputError
from bids_qsm.images import Image, encode_image
from bids_qsm.reading import read_json

if TYPE_CHECKING:  # the run's own process writes no table
    import pandas as pd

_PARTIAL = ".partial"
_A_DAY_S = 24 * 3600.0


class Staging:
    """The files of one unit of work, published together when all are there.

    Files are written below a hidden folder of the output folder and moved to their place when the
    context is left; if it is left by an exception, nothing is published.  What a killed run of
    the same unit left behind is removed at the start.  Images are packed and written by other
    threads: until the context is left they must not be changed.

    Parameters
    ----------
    output_dir : Path
    name : str
        The unit's name; two units that run at once must differ in it.
    """

    def __init__(self, output_dir: Path, name: str) -> None:
        self.output_dir = output_dir
        self.folder = staging_dir(output_dir, name)
        self._packers = ThreadPoolExecutor(scipy.fft.get_workers())
        self._packing: list[Future[None]] = []
        self._released: list[Path] = []

    def __enter__(self) -> Staging:
        try:
            if self.folder.exists():
                shutil.rmtree(self.folder)
            self.folder.mkdir(parents=True)
        except OSError as error:
            raise unwritable(self.folder, error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._publish()
        finally:
            self._packers.shutdown(cancel_futures=True)
            shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, relative: Path) -> Path:
        """Return where to write an output until it is published; its folder is made."""
        staged = self.folder / relative
        try:
            staged.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(staged, error) from error
        return staged

    def write(
        self, relative: Path, content: bytes | str, sidecar: Mapping[str, Any] | None = None
    ) -> None:
        """Write an output, given by its path in the output folder, and its JSON sidecar."""
        if isinstance(content, str):
            write_text(self.path(relative), content)
        else:
            write_bytes(self.path(relative), content)
        if sidecar is not None:
            write_text(self.path(sidecar_path(relative)), encode_json(sidecar))

    def write_image(
        self, relative: Path, image: Image, sidecar: Mapping[str, Any], slope: float = 1.0
    ) -> None:
        """Write an image as ``.nii.gz`` with its sidecar; true values are slope times stored."""
        self._packing.append(
            self._packers.submit(lambda: self.write(relative, encode_image(image, slope), sidecar))
        )

    def release(self) -> None:
        """Publish what is staged so far, for what takes long to follow it.

        Until the unit's record is published too, the unit counts as not done.
        """
        self._released += self._publish()

    def files(self) -> list[Path]:
        """Return what is staged or released, by path below the output folder; data come first."""
        return _in_order([*self._released, *self._staged()])

    def _staged(self) -> list[Path]:
        for packing in self._packing:
            packing.result()
        return [p.relative_to(self.folder) for p in self.folder.rglob("*") if p.is_file()]

    def _publish(self) -> list[Path]:
        published = _in_order(self._staged())
        for relative in published:
            target = self.output_dir / relative
            check_links(self.output_dir, target)
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                (self.folder / relative).replace(target)
            except OSError as error:
                raise unwritable(target, error) from error
        return published


def staging_dir(output_dir: Path, name: str) -> Path:
    """Return the hidden folder of a unit's files until they are published."""
    return output_dir / f".staging-{name}"


def _in_order(paths: Iterable[Path]) -> list[Path]:
    """Return data first, then sidecars, and last the record that makes the unit done."""
    return sorted(
        paths, key=lambda path: (path.suffix == ".json", path.parts[0] == "logs", path.as_posix())
    )


def withdraw(output_dir: Path, record: Path, folder: str, page: Path | None = None) -> None:
    """Remove a unit's earlier outputs, so that they are never mixed with new ones.

    Parameters
    ----------
    output_dir : Path
    record : Path
        Of the unit, below the output folder; it lists the outputs, and goes last.
    folder : str
        The only folder of the output folder in which outputs may lie, such as ``sub-01``.
    page : Path, optional
        Below the output folder, of what shows the outputs: it goes first.

    Raises
    ------
    UnwritableOutputError
    """
    path = output_dir / record
    try:
        outputs = read_json(path)["outputs"]
        listed = [Path(text) for text in outputs if isinstance(text, str)]
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError):
        listed = []
    if page is not None:
        _unlink(output_dir / page)
    for relative in listed:
        # what is listed elsewhere was not written by us
        if relative.parts[:1] == (folder,) and ".." not in relative.parts:
            check_links(output_dir, output_dir / relative)
            _unlink(output_dir / relative)
    _unlink(path)


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file as :func:`write_bytes` does; letters that UTF-8 has not are escaped."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file under a hidden name and rename it, so that it is never seen half-written.

    Raises
    ------
    UnwritableOutputError
    """
    # no other process has this name, also not one of another container with the same number
    hidden = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}{_PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden.write_bytes(content)
        hidden.replace(path)
    except OSError as error:
        with suppress(OSError):
            hidden.unlink(missing_ok=True)
        raise unwritable(path, error) from error


def remove_partial(folder: Path, new: Path) -> None:
    """Remove what killed runs left of files in a folder, a day after.

    Parameters
    ----------
    folder : Path
    new : Path
        A file that was just written there or beside it: its time is that of the file system.
    """
    with suppress(OSError):
        now = new.lstat().st_mtime
        for path in folder.iterdir():
            is_partial = path.name.startswith(".") and path.suffix == _PARTIAL
            if is_partial and path.lstat().st_mtime < now - _A_DAY_S:
                path.unlink(missing_ok=True)


def check_links(output_dir: Path, path: Path) -> None:
    """Refuse to write below a folder that is a link: it may lead out of the output folder.

    Raises
    ------
    UnwritableOutputError
    """
    for folder in path.relative_to(output_dir).parents:
        if (output_dir / folder).is_symlink() and folder != Path():
            raise UnwritableOutputError(
                f"{output_dir / folder}: this is a link, through which nothing is written; "
                "replace it by a folder, or give another output folder."
            )


def encode_json(fields: Mapping[str, Any]) -> str:
    """Return JSON text for people to read, in the order of the fields."""
    return json.dumps(fields, indent=2, ensure_ascii=False, default=str) + "\n"


def encode_table(table: pd.DataFrame) -> str:
    """Return a table as BIDS wants it: tabs, a header, ``n/a`` for what is missing."""
    return table.to_csv(
        sep="\t", index=False, na_rep="n/a", float_format="%.6g", lineterminator="\n"
    )


def unwritable(path: Path, error: OSError) -> UnwritableOutputError:
    """Return the error for a file or folder that cannot be written."""
    return UnwritableOutputError(
        f"{path}: it cannot be written ({error.strerror or error}); check free space and "
        "permissions of the output folder."
    )
