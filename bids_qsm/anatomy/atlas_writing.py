"""Atlas folders written in the documented layout."""

from __future__ import annotations

import dataclasses
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bids_qsm.anatomy.atlas_files import read_table
from bids_qsm.anatomy.atlas_members import cropped, majority
from bids_qsm.anatomy.atlases import AtlasMember, check_labels
from bids_qsm.anatomy.grids import on_grid
from bids_qsm.anatomy.template import load_template
from bids_qsm.errors import CommandLineError, UnreadableInputError, UnwritableOutputError
from bids_qsm.images import Image, encode_image, load_image, voxel_sizes_mm
from bids_qsm.settings import TEMPLATE

MARGIN_VOXELS = 2
FINER_MM = 0.95


@dataclass(frozen=True)
class AtlasText:
    """What an atlas says of itself: its name in file names, title, licence, sources, table."""

    name: str
    title: str
    license: str
    references: tuple[str, ...]
    table: pd.DataFrame


def write_atlas_folder(
    parent: Path, text: AtlasText, labels: Image, probabilities: Image | None = None
) -> Path:
    """Write an atlas of one set of labels in the template's space, and return its folder.

    Parameters
    ----------
    parent : Path
        The folder ``atlas-<name>`` is made in it.
    text : AtlasText
    labels : Image
        Labels finer than the template keep their grid; others come to the template's.
    probabilities : Image, optional
        4D, 0 to 1, one volume for each row of the table.

    Raises
    ------
    CommandLineError
        If there is such a folder already.
    UnwritableOutputError
        If it cannot be written.
    """
    check_labels(parent, labels, parent, text.table)
    folder = _new_folder(parent, text.name)
    fine = min(voxel_sizes_mm(labels.affine)) < FINER_MM
    placed = cropped(labels, MARGIN_VOXELS) if fine else on_grid(labels, load_template(), 0)
    stem = f"tpl-{TEMPLATE}_{'' if fine else 'res-1_'}atlas-{text.name}"
    _write(folder / f"{stem}_dseg.nii.gz", _packed(placed))
    if probabilities is not None:
        percent = np.rint(255 * np.clip(probabilities.data, 0, 1)).astype(np.uint8)
        content = encode_image(probabilities.like(percent), slope=1 / 255, compresslevel=9)
        _write(folder / f"tpl-{TEMPLATE}_atlas-{text.name}_probseg.nii.gz", content)
    _write_text(folder, text)
    return folder


def write_members(
    parent: Path, text: AtlasText, members: Sequence[tuple[AtlasMember, Image]]
) -> Path:
    """Write persons with labels as a multi-atlas, or add them to one, and return its folder.

    Each member's labels on the template are kept too, so that a further member needs no second
    registration of the others.

    Raises
    ------
    CommandLineError
        If the atlas that is there has other labels, or such a member.
    UnwritableOutputError
        If it cannot be written.
    """
    folder = parent / f"atlas-{text.name}"
    if folder.exists():
        text = _joined(folder, text, [member.name for member, _ in members])
    else:
        _new_folder(parent, text.name)
    for member, on_template in members:
        own = folder / f"sub-{member.name}"
        _make(own)
        stem = f"{own.name}_atlas-{text.name}_dseg.nii.gz"
        _write(own / f"{own.name}_T1w.nii.gz", encode_image(member.t1w))
        if member.chi is not None:
            _write(own / f"{own.name}_Chimap.nii.gz", encode_image(member.chi))
        _write(own / stem, _packed(member.labels))
        _write(own / f"{own.name}_space-{TEMPLATE}_atlas-{text.name}_dseg.nii.gz",
               _packed(on_template))  # fmt: skip
    votes = [
        load_image(path, np.int16)
        for path in sorted(folder.glob(f"sub-*/sub-*_space-{TEMPLATE}_atlas-{text.name}_dseg.*"))
    ]
    labels = majority(votes)
    _write(folder / f"tpl-{TEMPLATE}_res-1_atlas-{text.name}_dseg.nii.gz", _packed(labels))
    _write_text(folder, text)
    return folder


@contextmanager
def partial_folder(parent: Path) -> Iterator[Path]:
    """Give a folder below ``parent`` for what is not whole yet; it is removed at the end.

    Raises
    ------
    UnwritableOutputError
        If ``parent`` cannot be written.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=parent, prefix=".partial-")
    except OSError as error:
        raise UnwritableOutputError(f"{parent}: cannot be written ({error.strerror}).") from None
    with folder as name:
        yield Path(name)


def atlas_label(text: str) -> str:
    """Return a name with letters and digits alone.

    Raises
    ------
    CommandLineError
        If none is left.
    """
    label = re.sub(r"[^A-Za-z0-9]", "", text)
    if not label:
        raise CommandLineError(f"{text!r}: a name must have letters or digits.")
    return label


def _new_folder(parent: Path, name: str) -> Path:
    folder = parent / f"atlas-{name}"
    if folder.exists():
        raise CommandLineError(
            f"{folder}: there is such an atlas already; remove it or choose another --name."
        )
    _make(folder)
    return folder


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UnwritableOutputError(
            f"{folder}: the folder cannot be made ({error.strerror})."
        ) from None


def _joined(folder: Path, text: AtlasText, names: Sequence[str]) -> AtlasText:
    """Return what a multi-atlas says of itself once members with this table are added."""
    taken = [name for name in names if (folder / f"sub-{name}").exists()]
    if taken or not any(folder.glob("sub-*")):
        what = f"has a member {taken[0]!r} already" if taken else "has no members to add to"
        raise CommandLineError(f"{folder}: the atlas that is there {what}; choose another name.")
    there = read_table(folder / f"atlas-{text.name}_dseg.tsv")
    both = there.merge(text.table, on="index", suffixes=("", "_new"))
    changed = both[both["name"] != both["name_new"]]
    if len(changed):
        row = changed.iloc[0]
        raise UnreadableInputError(
            f"{folder}: the label {row['index']} is {row['name']!r} in the atlas that is there and "
            f"{row['name_new']!r} in what is to be added; choose another --name."
        )
    new = text.table[~text.table["index"].isin(there["index"])]
    table = pd.concat([there, new], ignore_index=True).sort_values("index", ignore_index=True)
    return dataclasses.replace(text, table=table)


def _packed(labels: Image) -> bytes:
    small = labels.data.min() >= 0 and labels.data.max() <= 255
    return encode_image(labels.like(labels.data.astype(np.uint8 if small else np.int16)), 1, 0, 9)


def _write_text(folder: Path, text: AtlasText) -> None:
    content = text.table.to_csv(sep="\t", index=False, na_rep="n/a", lineterminator="\n")
    _write(folder / f"atlas-{text.name}_dseg.tsv", content.encode())
    description = {
        "Name": text.title,
        "License": text.license,
        "ReferencesAndLinks": list(text.references),
        "Space": TEMPLATE,
    }
    lines = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
    _write(folder / f"atlas-{text.name}_description.json", lines.encode())


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise UnwritableOutputError(f"{path}: cannot be written ({error.strerror}).") from None
