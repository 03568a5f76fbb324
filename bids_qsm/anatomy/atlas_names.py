"""Names of labels: look-up tables read, compared, and those that come with the program."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import pandas as pd

from bids_qsm.anatomy.atlas_files import hemisphere_in, read_description, read_table
from bids_qsm.anatomy.atlas_writing import AtlasText
from bids_qsm.errors import UnreadableInputError

SIDES = {"l": "left", "lh": "left", "r": "right", "rh": "right"}


def packaged_text(name: str) -> AtlasText:
    """Return the table and description of a published atlas that come with the program."""
    folder = Path(str(resources.files("bids_qsm.resources") / "atlases")) / f"atlas-{name}"
    if not folder.is_dir():
        folder = folder.with_name(name)
    description = read_description(next(iter(folder.glob("*_description.json"))))
    return AtlasText(
        name=name,
        title=description["Name"],
        license=description["License"],
        references=tuple(description["ReferencesAndLinks"]),
        table=read_table(next(iter(folder.glob("*_dseg.tsv")))),
    )


def read_names(path: Path) -> dict[int, str]:
    """Return the names by label of a TSV table or of a colour look-up table.

    Look-up tables have a line for each label: number, name and colour (FreeSurfer), or number,
    colour and name.  Lines that begin with ``#`` are left out, and so is the background.

    Raises
    ------
    UnreadableInputError
        If the file is missing or a line is neither.
    """
    if path.suffix == ".tsv":
        table = read_table(path)
        return dict(zip(table["index"].tolist(), table["name"], strict=True))
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableInputError(f"{path}: the table cannot be read ({error}).") from None
    names: dict[int, str] = {}
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        name = " ".join(w for w in words[1:] if not re.fullmatch(r"[-+.\deE]+", w))
        if not words[0].isdigit() or not name or int(words[0]) in names:
            raise UnreadableInputError(
                f"{path}: line {number} is not 'number name red green blue', with each number once."
            )
        names[int(words[0])] = name
    names.pop(0, None)
    return names


def table_of(names: Mapping[int, str]) -> pd.DataFrame:
    """Return the table of an atlas from its labels' names."""
    rows = sorted(names.items())
    return pd.DataFrame(
        {
            "index": [index for index, _ in rows],
            "name": [name for _, name in rows],
            "hemisphere": [hemisphere_in(name) for _, name in rows],
            "abbreviation": [name for _, name in rows],
        }
    )


def check_names(names: Mapping[int, str], table: pd.DataFrame, file: Path) -> None:
    """Refuse a published atlas whose own names are in another order than those known.

    Raises
    ------
    UnreadableInputError
        At the first label that has another name.
    """
    for row in table.itertuples():
        given = names.get(row.index)
        if given is not None and _letters(given) != _letters(row.source_name):
            raise UnreadableInputError(
                f"{file}: its table calls the label {row.index} {given!r}, where the published "
                f"atlas has {row.source_name!r}: this is another version; use 'import nifti'."
            )


def matching_table(labels: Path, folder: Path) -> Path:
    """Return the table of a label image: its entities are among the image's, and the most so.

    Raises
    ------
    UnreadableInputError
        If there is none.
    """
    entities = set(_entities(labels.name))
    tables = [p for p in sorted(folder.glob("*_dseg.tsv")) if set(_entities(p.name)) <= entities]
    tables = [p for p in tables if "_atlas-" in p.name]
    if not tables:
        raise UnreadableInputError(
            f"{labels}: there is no table (.tsv) of its labels beside it; use 'import nifti' with "
            "--table."
        )
    return max(tables, key=lambda p: len(_entities(p.name)))


def _entities(name: str) -> list[str]:
    return [part for part in name.split(".")[0].split("_") if "-" in part]


def _letters(name: str) -> str:
    words = re.split(r"[^a-z]+", name.lower())
    return "".join(SIDES.get(w, w) for w in words)
