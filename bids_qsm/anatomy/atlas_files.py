"""The files of an atlas: its table, its description, and the layout of its folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from bids_qsm.errors import UnreadableInputError
from bids_qsm.frames import pd
from bids_qsm.reading import check_table, read_json

REQUIRED_COLUMNS = ("index", "name")
HEMISPHERES = ("L", "R", "B")
NIFTI = (".nii.gz", ".nii")
LAYOUT = "docs/atlases.md shows the files of an atlas folder"


@dataclass(frozen=True)
class MemberPaths:
    """Where the images of one person of a multi-atlas lie."""

    name: str
    t1w: Path
    chi: Path | None
    labels: Path


@dataclass(frozen=True)
class AtlasFolder:
    """The files that a folder in the documented layout holds.

    Attributes
    ----------
    name : str
        Of the entity ``atlas-``.
    space : str
        Of the entity ``tpl-``.
    table, description, labels : Path
    probabilities, t1w, chi : Path or None
    members : tuple of MemberPaths
    """

    name: str
    space: str
    table: Path
    description: Path
    labels: Path
    probabilities: Path | None
    t1w: Path | None
    chi: Path | None
    members: tuple[MemberPaths, ...]


def is_atlas_folder(path: Path) -> bool:
    """Whether a folder claims the documented layout, however much of it is missing."""
    if not path.is_dir():
        return False
    described = any(path.glob("atlas-*_description.json"))
    return described or any(path.glob("tpl-*_atlas-*")) or any(path.glob("sub-*/sub-*_atlas-*"))


def find_atlas_folder(path: Path) -> AtlasFolder:
    """Return the files of an atlas folder.

    Raises
    ------
    UnreadableInputError
        If the layout is not the documented one; one sentence says what is missing.
    """
    name = _atlas_name(path)
    table = _needed(path / f"atlas-{name}_dseg.tsv", "the table of the labels' names")
    description = _needed(path / f"atlas-{name}_description.json", "the description")
    labels = _one_of(path, f"tpl-*_atlas-{name}*_dseg")
    if labels is None:
        raise UnreadableInputError(
            f"{path}: the atlas folder lacks labels on the template "
            f"(tpl-<space>_atlas-{name}_dseg.nii.gz); 'bids-qsm atlas build' makes them from "
            "members, 'bids-qsm atlas import nifti' from a label image."
        )
    space = labels.name.removeprefix("tpl-").split("_")[0]
    return AtlasFolder(
        name=name,
        space=space,
        table=table,
        description=description,
        labels=labels,
        probabilities=_one_of(path, f"tpl-{space}_*atlas-{name}*_probseg"),
        t1w=_one_of(path, f"tpl-{space}*_T1w"),
        chi=_one_of(path, f"tpl-{space}*_Chimap"),
        members=tuple(_member(p, name) for p in sorted(path.glob("sub-*")) if p.is_dir()),
    )


def _atlas_name(path: Path) -> str:
    """Return the name that the files of a folder carry, which must be one."""
    files = [p.name for p in path.iterdir()]
    files += [p.name for p in path.glob("sub-*/sub-*")]
    found = {m[1] for f in files if (m := re.search(r"(?:^|_)atlas-([A-Za-z0-9]+)_", f))}
    if len(found) != 1:
        names = ", ".join(sorted(found)) or "none"
        raise UnreadableInputError(
            f"{path}: the files of an atlas folder must carry one name 'atlas-<name>', found "
            f"{names}; {LAYOUT}."
        )
    return found.pop()


def _needed(path: Path, what: str) -> Path:
    if not path.is_file():
        raise UnreadableInputError(
            f"{path.parent}: the atlas folder lacks {path.name}, {what}; {LAYOUT}."
        )
    return path


def _one_of(folder: Path, stem: str) -> Path | None:
    """Return the one image of a pattern, or nothing."""
    found = [p for ending in NIFTI for p in sorted(folder.glob(f"{stem}{ending}"))]
    if len(found) > 1:
        raise UnreadableInputError(
            f"{folder}: expected one image {stem}.nii.gz, found {len(found)} "
            f"({', '.join(p.name for p in found)}); leave one there."
        )
    return found[0] if found else None


def _member(folder: Path, atlas: str) -> MemberPaths:
    name = folder.name.removeprefix("sub-")
    found = {
        what: _one_of(folder, f"{folder.name}_{stem}")
        for what, stem in (("t1w", "T1w"), ("chi", "Chimap"), ("labels", f"atlas-{atlas}_dseg"))
    }
    t1w, labels = found["t1w"], found["labels"]
    if t1w is None or labels is None:
        missing = "T1w" if t1w is None else f"atlas-{atlas}_dseg"
        raise UnreadableInputError(
            f"{folder}: the member of the multi-atlas lacks {folder.name}_{missing}.nii.gz; "
            f"{LAYOUT}."
        )
    return MemberPaths(name, t1w, found["chi"], labels)


def read_table(path: Path) -> pd.DataFrame:
    """Return an atlas' table: ``index, name, hemisphere, abbreviation`` and what else it has.

    The hemisphere is taken from the name where there is no such column; the background's row is
    left out.

    Raises
    ------
    UnreadableInputError
        If the table is missing, cannot be read, or breaks a rule.
    """
    try:
        check_table(path)
        table = pd.read_csv(path, sep="\t", na_values=["n/a"], keep_default_na=False)
    except FileNotFoundError:
        raise UnreadableInputError(
            f"{path}: the atlas has no table; put one with the columns index and name there."
        ) from None
    except (OSError, ValueError) as error:  # also what pandas and UTF-8 refuse
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
    return _completed(path, table[table["index"] > 0].reset_index(drop=True))


def _completed(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    table["name"] = table["name"].astype(str).str.strip()
    if "hemisphere" not in table:
        table["hemisphere"] = [hemisphere_in(name) for name in table["name"]]
    if not table["hemisphere"].isin(HEMISPHERES).all():
        raise UnreadableInputError(f"{path}: the column 'hemisphere' must hold L, R or B.")
    if "abbreviation" not in table:
        table["abbreviation"] = table["name"]
    if "freesurfer_id" in table:
        try:
            table["freesurfer_id"] = table["freesurfer_id"].astype("Int64")
        except (TypeError, ValueError):
            raise UnreadableInputError(
                f"{path}: the column 'freesurfer_id' must hold whole numbers or n/a."
            ) from None
    return table


def hemisphere_in(name: str) -> str:
    """Return the side that a structure's name tells: L, R, or B for neither."""
    words = re.split(r"[\s_.-]+", name.strip().lower())
    if {"left", "lh"} & set(words) or "l" in (words[0], words[-1]):
        return "L"
    return "R" if {"right", "rh"} & set(words) or "r" in (words[0], words[-1]) else "B"


def read_description(path: Path) -> dict:
    """Return an atlas' description; empty where there is none.

    Raises
    ------
    UnreadableInputError
        If it is not JSON with an object in it.
    """
    try:
        description = read_json(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UnreadableInputError(f"{path}: the description cannot be read ({error}).") from None
    if not isinstance(description, dict):
        raise UnreadableInputError(f"{path}: the description must be a JSON object ({{...}}).")
    return description
