"""Which files of the dataset are asked for: labels of the user, and the filters of pybids.

Without a filter file and a kept index, what is asked for stands in the names of files: the folders
are listed, which is done before pybids would be imported.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import ModuleType
from typing import Any

from bids_qsm.bids.naming import entities_of
from bids_qsm.errors import (
    CommandLineError,
    NotBidsError,
    NothingToDoError,
    UnreadableInputError,
)
from bids_qsm.reading import read_json
from bids_qsm.settings import Settings

DEFAULT_FILTERS: Mapping[str, Mapping[str, Any]] = {
    "megre": {"suffix": ["MEGRE", "T2starw"], "extension": [".nii", ".nii.gz"]},
    "t1w": {"suffix": ["T1w"], "extension": [".nii", ".nii.gz"]},
    "flair": {"suffix": ["FLAIR"], "extension": [".nii", ".nii.gz"]},
    "t2w": {"suffix": ["T2w"], "extension": [".nii", ".nii.gz"]},
}


@dataclass(frozen=True)
class InputFile:
    """A file of the dataset with what its name says."""

    path: Path

    @cached_property
    def entities(self) -> dict[str, str]:
        """The entities by their short key, ``sub`` and so on."""
        return entities_of(self.path.name)

    @property
    def suffix(self) -> str:
        """``MEGRE``, ``T1w`` and so on."""
        return self.path.name.split(".")[0].split("_")[-1]


@dataclass(frozen=True)
class Selection:
    """The files that match the filters, in the order of their names.

    Attributes
    ----------
    megre : tuple of InputFile
    t1w, flair, t2w : mapping of str to list of InputFile
        By subject.
    absent : tuple of str
        Participants that were asked for by name and have no folder.
    """

    megre: tuple[InputFile, ...]
    t1w: Mapping[str, Sequence[InputFile]]
    flair: Mapping[str, Sequence[InputFile]]
    t2w: Mapping[str, Sequence[InputFile]]
    absent: tuple[str, ...]


def select_files(settings: Settings) -> Selection:
    """Find the images that the settings ask for.

    Sessions restrict the gradient echo only: a T1w may come from another session of the subject.

    Raises
    ------
    NotBidsError, NothingToDoError, CommandLineError, UnreadableInputError
    """
    try:
        return _select(settings)
    except PermissionError as error:
        raise UnreadableInputError(
            f"{error.filename}: this user (id {os.geteuid()}) may not read it; allow it, or run as "
            "one who may (docker run --user)."
        ) from None


def _select(settings: Settings) -> Selection:
    root = settings.bids_dir.absolute()
    check_dataset(root, settings.skip_bids_validation)
    filters = read_filters(settings.bids_filter_file)
    asked = without_prefix(settings.participant_labels, "sub-")
    sessions = without_prefix(settings.session_labels, "ses-")
    there = subjects_of(root)
    subjects = [label for label in there if not asked or label in asked]
    if not subjects:
        wanted = f"--participant-label {' '.join(asked)}" if asked else "any participant"
        raise NothingToDoError(f"{root}: nothing matches {wanted}; {_listing(there)}.")
    if sessions:
        filters["megre"] = {"session": list(sessions), **filters["megre"]}
    if settings.bids_filter_file is None and settings.bids_database_dir is None:
        files = tuple(_images(root, subjects))
        query = partial(_chosen, files)
    else:
        query = partial(_query, _layout(root, subjects, settings.bids_database_dir), subjects)
    found = {kind: query(kind, filters[kind]) for kind in DEFAULT_FILTERS}
    if not found["megre"]:
        everything = query("megre", {})
        raise NothingToDoError(_nothing_matches(root, asked, filters["megre"], everything))
    return Selection(
        found["megre"],
        _by_subject(found["t1w"]),
        _by_subject(found["flair"]),
        _by_subject(found["t2w"]),
        absent=tuple(label for label in asked if label not in there),
    )


def check_dataset(root: Path, skip_validation: bool) -> None:
    """Refuse a folder that is no BIDS dataset."""
    if not root.is_dir():
        raise NotBidsError(f"{root}: there is no such folder; give the folder of a BIDS dataset.")
    description = root / "dataset_description.json"
    if skip_validation:
        return
    if not description.is_file():
        raise NotBidsError(
            f"{root}: this is not a BIDS dataset, as it has no dataset_description.json; "
            "add one, or use --skip-bids-validation."
        )
    try:
        fields = read_json(description)
    except (OSError, ValueError) as error:
        raise NotBidsError(f"{description}: the file cannot be read as JSON ({error}).") from None
    if not isinstance(fields, dict):
        raise NotBidsError(f"{description}: the file must hold a JSON object.")


def read_filters(path: Path | None) -> dict[str, dict[str, Any]]:
    """Read a filter file such as ``{"megre": {"acquisition": "fine"}, "t1w": {"run": 1}}``.

    As in fMRIPrep, ``null`` asks that an entity be absent and ``"*"`` that it be there.
    """
    filters: dict[str, dict[str, Any]] = {kind: {} for kind in DEFAULT_FILTERS}
    if path is None:
        return filters
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise UnreadableInputError(f"{path}: the filter file cannot be read ({error}).") from None
    known = ", ".join(DEFAULT_FILTERS)
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise CommandLineError(f"{path}: the filter file must map {known} to filters.")
    for kind in content:
        if kind not in filters:
            raise CommandLineError(
                f"{path}: the filter file has no input {kind!r}; it has: {known}."
            )
    return filters | content


def without_prefix(labels: Sequence[str], prefix: str) -> tuple[str, ...]:
    """Return labels in order, each once, without their prefix."""
    return tuple(sorted({label.removeprefix(prefix) for label in labels}))


def subjects_of(root: Path) -> list[str]:
    """Return the participants of a dataset by its folders (pybids takes long to list them)."""
    return sorted(path.name[4:] for path in root.glob("sub-*") if path.is_dir())


def _images(root: Path, subjects: Sequence[str]) -> Iterator[InputFile]:
    """Yield the files in the subjects' ``anat`` folders, of all sessions."""
    for subject in subjects:
        folder = root / f"sub-{subject}"
        for anat in (folder / "anat", *sorted(folder.glob("ses-*/anat"))):
            if anat.is_dir():
                files = (InputFile(path) for path in sorted(anat.iterdir()) if not path.is_dir())
                yield from (file for file in files if file.entities.get("sub") == subject)


def _chosen(
    files: Sequence[InputFile], kind: str, chosen: Mapping[str, Any]
) -> tuple[InputFile, ...]:
    """Return the images of a kind, of the sessions that ``chosen`` may name."""
    wanted = DEFAULT_FILTERS[kind]
    suffixes, extensions = wanted["suffix"], tuple(wanted["extension"])
    sessions = chosen.get("session")
    return tuple(
        file
        for file in files
        if file.path.name.endswith(extensions)
        and file.suffix in suffixes
        and (sessions is None or file.entities.get("ses") in sessions)
    )


def _layout(root: Path, subjects: Sequence[str], database: Path | None) -> Any:
    bids = _import_pybids()
    from sqlalchemy.exc import SQLAlchemyError

    everyone = database is not None  # a database is kept for other runs
    labels = "" if everyone else rf"(?:{'|'.join(map(re.escape, subjects))})(?:/|$)"
    ignore = [
        re.compile(rf"^/(?!sub-{labels}).+"),
        re.compile(r"^/sub-[^/]+/(?:ses-[^/]+/)?(?!ses-|anat(?:/|$)).+"),
    ]
    indexer = bids.BIDSLayoutIndexer(validate=False, index_metadata=False, ignore=ignore)
    try:
        layout = bids.BIDSLayout(
            root,
            validate=False,
            config=_entities_of_file_names(Path(bids.config.get_option("config_paths")["bids"])),
            indexer=indexer,
            database_path=database,
        )
    except (OSError, ValueError, SQLAlchemyError) as error:
        reason = str(error).splitlines()[0]
        raise UnreadableInputError(
            f"{database or root}: it cannot be indexed ({reason})."
        ) from None
    if Path(str(layout.root)) != root:
        raise UnreadableInputError(
            f"{database}: this is the index of another dataset, {layout.root}; give another folder."
        )
    return layout


def _entities_of_file_names(config: Path) -> dict[str, Any]:
    """Return pybids' configuration, made to look for entities in a file's name alone.

    Its own patterns search the whole path: below a folder ``/study/ses-1`` every file would be of
    session 1.
    """
    fields = json.loads(config.read_text(encoding="utf-8"))
    for entity in fields["entities"]:
        if "-(" in entity["pattern"]:
            entity["pattern"] += r"(?=[^/\\]*$)"
    return fields


def _import_pybids() -> ModuleType:
    """Import pybids, which asks for a home folder: some containers have none."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = tempfile.gettempdir()
    import bids

    return bids


def _query(
    layout: Any, subjects: Sequence[str], kind: str, chosen: Mapping[str, Any]
) -> tuple[InputFile, ...]:
    query = _import_pybids().layout.Query
    words = {"null": query.NONE, '"*"': query.ANY}  # as JSON has them
    meant = {key: words.get(json.dumps(value), value) for key, value in chosen.items()}
    filters = {"subject": list(subjects), **DEFAULT_FILTERS[kind], **meant}
    try:
        paths = layout.get(return_type="filename", **filters)
    except (ValueError, TypeError) as error:
        raise CommandLineError(f"The filter of {kind!r} cannot be used: {error}") from None
    return tuple(InputFile(Path(path)) for path in sorted(paths))


def _by_subject(files: Sequence[InputFile]) -> dict[str, list[InputFile]]:
    by_subject: dict[str, list[InputFile]] = {}
    for file in files:
        by_subject.setdefault(file.entities["sub"], []).append(file)
    return by_subject


def _nothing_matches(
    root: Path, asked: Sequence[str], chosen: Mapping[str, Any], files: Sequence[InputFile]
) -> str:
    wanted = [f"--participant-label {' '.join(asked)}"] if asked else []
    wanted += [f"{key} {value}" for key, value in chosen.items()]
    what = "no multi-echo gradient echo (suffix MEGRE or T2starw)"
    if not wanted:
        return f"{root}: {what} was found in any anat folder."
    example = f"{files[0].path.name} and {len(files) - 1} more" if files else "none at all"
    return f"{root}: {what} matches {', '.join(wanted)}; there is {example}."


def _listing(labels: Sequence[str], limit: int = 20) -> str:
    if not labels:
        return "the dataset has no sub- folder"
    more = f" and {len(labels) - limit} more" if len(labels) > limit else ""
    return f"the dataset has: {', '.join(labels[:limit])}{more}"
