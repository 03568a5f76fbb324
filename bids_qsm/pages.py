"""The pages of subjects and the methods texts, made anew where the records have changed.

Each ends in a line that says from which records it was made: no clock is needed to see that it is
old.  What belongs to one subject is made where that subject is processed, many at once.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from bids_qsm.bids.naming import (
    citations_folder,
    entities_of,
    record_path,
    report_path,
    tracking_record_path,
)
from bids_qsm.bids.publishing import write_text
from bids_qsm.errors import BidsQsmError
from bids_qsm.execution.locks import held
from bids_qsm.execution.steps import fingerprint
from bids_qsm.reading import LARGEST_JSON_BYTES, check_file
from bids_qsm.report.record import (
    SeriesRecord,
    SubjectRecord,
    record_from_json,
    subject_record_from_json,
)

Record = TypeVar("Record", SeriesRecord, SubjectRecord)

_ENDING = "_record.json"


def write_old_pages(
    subjects: Collection[str], output_dir: Path, *, anew: bool = False
) -> list[str]:
    """Write the page of each subject that is not made from its records as they are now.

    What a subject's page shows are all of its series, also those of other runs.

    Parameters
    ----------
    subjects : collection of str
    output_dir : Path
    anew : bool
        Whether to write all of them.

    Returns
    -------
    list of str
        A sentence for each page that could not be written: others are, all the same.
    """
    names, problems = names_with_records(output_dir), []
    for subject in sorted(subjects):
        paths = _records_of(subject, names.get(subject, ()), output_dir)
        if anew or not _ends_in(output_dir / report_path(subject), _made_from(paths)):
            try:
                write_page(subject, output_dir)
            except Exception as error:  # the last resort of a page: others must be made
                problems.append(_problem(output_dir / report_path(subject), error))
    return problems


def _problem(page: Path, error: Exception) -> str:
    if isinstance(error, BidsQsmError):
        return str(error)
    return (
        f"{page}: it cannot be made of the records in logs ({type(error).__name__}: {error}); "
        "remove those of the subject, and run again."
    )


def write_page(subject: str, output_dir: Path) -> None:
    """Write the page of a subject from all of its records."""
    from bids_qsm.report.pages import subject_page

    with held(output_dir, f"sub-{subject}_page"):  # two runs: the later one sees both records
        names = names_of(subject, output_dir)
        made_from = _made_from(_records_of(subject, names, output_dir))
        of_series = [read_record(name, output_dir) for name in names]
        records = [record for record in of_series if record is not None]
        across = read_subject_record(subject, output_dir)
        if records:
            page = subject_page(subject, records, output_dir, () if across is None else (across,))
            write_text(output_dir / report_path(subject), page + made_from)


def write_old_citations(output_dir: Path, *, anew: bool = False) -> list[str]:
    """Write the methods text of all series that there are, also those of other runs, if it is old.

    The page of methods is written last: a killed run leaves an old one.

    Returns
    -------
    list of str
        A sentence if they could not be written.
    """
    try:
        _write_old_citations(output_dir, anew)
    except Exception as error:  # as for the pages
        return [_problem(output_dir / citations_folder(), error)]
    return []


def _write_old_citations(output_dir: Path, anew: bool) -> None:
    with held(output_dir, "citations"):
        names = names_with_records(output_dir)
        paths = [path for s in sorted(names) for path in _records_of(s, names[s], output_dir)]
        made_from = _made_from(paths)
        page = output_dir / citations_folder() / "CITATION.html"
        if not paths or not (anew or not _ends_in(page, made_from)):
            return
        files = _citations([name for s in sorted(names) for name in names[s]], output_dir)
        last = files.pop(page.name, None)
        for name, text in files.items():
            write_text(output_dir / citations_folder() / name, text)
        if last is not None:
            write_text(page, last + made_from)


def _citations(names: Sequence[str], output_dir: Path) -> dict[str, str]:
    from bids_qsm.report.citations import citation_files, grouped
    from bids_qsm.report.methods import methods_body

    texts = {}
    for name in names:
        record = read_record(name, output_dir)
        if record is not None:
            texts[name] = methods_body(record.steps, version=record.version)
            across = read_subject_record(record.subject, output_dir)
            if across is not None:
                tracked = methods_body(across.steps, version=across.version)
                texts[f"sub-{record.subject}, {across.heading.lower()}"] = tracked
    return citation_files(grouped(texts)) if texts else {}


def names_with_records(output_dir: Path) -> dict[str, list[str]]:
    """Return the names of all series with a record, in order, by subject."""
    names: dict[str, list[str]] = {}
    for path in (output_dir / citations_folder()).glob(f"sub-*{_ENDING}"):
        name = path.name.removesuffix(_ENDING)
        names.setdefault(entities_of(name)["sub"], []).append(name)
    return {subject: in_order(own) for subject, own in names.items()}


def names_of(subject: str, output_dir: Path) -> list[str]:
    """Return the names of a subject's series with a record, in order."""
    folder = output_dir / citations_folder()
    paths = folder.glob(f"sub-{subject}_*{_ENDING[1:]}")
    return in_order(path.name.removesuffix(_ENDING) for path in paths)


def in_order(names: Iterable[str]) -> list[str]:
    """Return names sorted; 2 comes before 10."""
    return sorted(names, key=lambda name: [p.zfill(12) for p in re.split(r"(\d+)", name)])


def read_record(name: str, output_dir: Path) -> SeriesRecord | None:
    """Return the record of a series; None where there is none, or one of another version."""
    return _read(output_dir / record_path(name), record_from_json)


def read_subject_record(subject: str, output_dir: Path) -> SubjectRecord | None:
    """Return the record of what is made of a subject's series together, if there is one."""
    return _read(output_dir / tracking_record_path(subject), subject_record_from_json)


def _read(path: Path, parse: Callable[[str], Record]) -> Record | None:
    try:
        check_file(path, LARGEST_JSON_BYTES)
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # none, damaged or of another version: the series is processed again


def _records_of(subject: str, names: Iterable[str], output_dir: Path) -> list[Path]:
    paths = [*(record_path(name) for name in names), tracking_record_path(subject)]
    return [output_dir / path for path in paths]


def _made_from(paths: Sequence[Path]) -> str:
    """Return the line that says from which records something was made."""
    found = []
    for path in paths:
        try:
            check_file(path, LARGEST_JSON_BYTES)
            found.append((path.name, hashlib.blake2b(path.read_bytes()).hexdigest()))
        except (OSError, ValueError):
            continue
    return f"<!-- made from {fingerprint(found)} -->\n"


def _ends_in(path: Path, line: str) -> bool:
    end = line.encode()
    try:
        with path.open("rb") as page:
            page.seek(-len(end), os.SEEK_END)
            return page.read() == end
    except OSError:
        return False
