"""An atlas made from persons whose structures somebody has drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bids_qsm.anatomy.atlas_files import read_table
from bids_qsm.anatomy.atlas_members import make_member
from bids_qsm.anatomy.atlas_writing import AtlasText, atlas_label, partial_folder, write_members
from bids_qsm.anatomy.atlases import check_labels
from bids_qsm.errors import CommandLineError, NothingToDoError, UnreadableInputError
from bids_qsm.images import load_image

# in the order in which they are looked for
USUAL_FILES = {
    "t1w": ("*_desc-preproc_T1w.nii.gz", "*_T1w.nii.gz"),
    "chi": ("*_space-T1w*_Chimap.nii.gz", "*_Chimap.nii.gz"),
    "labels": (
        "*_space-T1w*_desc-manual_dseg.nii.gz",
        "*_desc-manual_dseg.nii.gz",
        "*_space-T1w*_dseg.nii.gz",
        "*_dseg.nii.gz",
    ),
}


@dataclass(frozen=True)
class SubjectFiles:
    """The images of one person of a dataset; None where there is none."""

    name: str
    t1w: Path
    chi: Path | None
    labels: Path | None


def find_subjects(
    datasets: Sequence[Path],
    names: Sequence[str] = (),
    patterns: dict[str, str] | None = None,
) -> list[SubjectFiles]:
    """Return the persons who have a T1w image in one of some datasets, raw or derived.

    Parameters
    ----------
    datasets : sequence of Path
        Folders that hold ``sub-<name>`` folders.
    names : sequence of str, optional
        Only these, without ``sub-``.
    patterns : dict, optional
        For ``t1w``, ``chi`` or ``labels``: the files to take, such as ``*_desc-me_dseg.nii.gz``;
        otherwise images in the space of the T1w image come before others.

    Raises
    ------
    NothingToDoError
        If nobody has a T1w image.
    CommandLineError
        If somebody has several images that fit.
    """
    for dataset in datasets:
        if not dataset.is_dir():
            raise UnreadableInputError(f"{dataset}: there is no such folder.")
    there = {p.name.removeprefix("sub-") for d in datasets for p in d.glob("sub-*") if p.is_dir()}
    missing = sorted(set(names) - there)
    if missing:
        raise NothingToDoError(f"{datasets[0]}: there is no sub-{missing[0]}.")
    found = []
    for name in sorted(names or there):
        files = {what: _file_of(datasets, name, what, patterns or {}) for what in USUAL_FILES}
        if files["t1w"] is not None:
            found.append(SubjectFiles(name, files["t1w"], files["chi"], files["labels"]))
    if not found:
        raise NothingToDoError(f"{datasets[0]}: nobody there has a T1w image.")
    return found


def _file_of(
    datasets: Sequence[Path], name: str, what: str, patterns: dict[str, str]
) -> Path | None:
    asked = patterns.get(what)
    for pattern in (asked,) if asked else USUAL_FILES[what]:
        found = [p for d in datasets for p in sorted(d.glob(f"sub-{name}/**/{pattern}"))]
        if not asked:  # a pattern without an entity means files without it
            found = [
                p
                for p in found
                if all(e in pattern or e not in p.name for e in ("_space-", "_desc-"))
            ]
        if len(found) > 1:
            raise CommandLineError(
                f"{found[0].parent}: sub-{name} has {len(found)} images that may be its {what} "
                f"({', '.join(p.name for p in found)}); choose by --{what} PATTERN."
            )
        if found:
            return found[0]
    return None


def find_table(datasets: Sequence[Path]) -> Path:
    """Return the one table of labels that lies at the top of some datasets.

    Raises
    ------
    CommandLineError
        If there is none, or several.
    """
    found = [p for d in datasets for p in sorted(d.glob("*dseg.tsv"))]
    if len(found) != 1:
        raise CommandLineError(
            f"{datasets[0]}: expected one table of the labels' names (..._dseg.tsv) at the top of "
            f"the datasets, found {len(found)}; give it by --table."
        )
    return found[0]


def build_atlas(
    parent: Path,
    text: AtlasText,
    subjects: Sequence[SubjectFiles],
    table_path: Path,
    tell: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write persons with labels as a multi-atlas and return its folder.

    Each takes one to three minutes, most of it for the registration to the template, on which the
    majority's labels are written.

    Parameters
    ----------
    parent : Path
        The folder ``atlas-<name>`` is made in it.
    text : AtlasText
    subjects : sequence of SubjectFiles
        Those without labels are left out.
    table_path : Path
        Where the table comes from, for messages.
    tell : callable, optional
        Is given a line for each person.

    Raises
    ------
    NothingToDoError
        If nobody has labels.
    UnreadableInputError
        If images cannot be read, or have labels that the table does not name.
    """
    labelled = [(s, s.labels) for s in subjects if s.labels is not None]
    if not labelled:
        raise NothingToDoError("Nobody there has labels (..._dseg.nii.gz) beside a T1w image.")
    for _, path in labelled:  # all bad ones are said before the first long step
        check_labels(path, load_image(path, np.int16), table_path, text.table)
    final = parent / f"atlas-{text.name}"
    if final.exists():
        raise CommandLineError(
            f"{final}: there is such an atlas already; remove it or choose another --name."
        )
    with partial_folder(parent) as work:
        for number, (subject, path) in enumerate(labelled, 1):
            tell(f"sub-{subject.name} ({number} of {len(labelled)})")
            chi = None if subject.chi is None else load_image(subject.chi)
            t1w, labels = load_image(subject.t1w), load_image(path, np.int16)
            made = make_member(atlas_label(subject.name), t1w, chi, labels)
            folder = write_members(work, text, [made])
        return folder.rename(final)


def text_for_build(
    name: str, table_path: Path, license_text: str | None, references: Sequence[str]
) -> AtlasText:
    """Return what a new atlas says of itself."""
    table: pd.DataFrame = read_table(table_path)
    return AtlasText(
        name=atlas_label(name),
        title=name,
        license=license_text or "not stated",
        references=tuple(references),
        table=table,
    )
