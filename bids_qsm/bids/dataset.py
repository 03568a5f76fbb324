"""The files that make the output folder a BIDS dataset."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from bids_qsm import __version__
from bids_qsm.bids.naming import (
    OUTPUTS,
    TRANSFORM_SUFFIX,
    Output,
    atlas_description_path,
    atlas_table_path,
    ignored_names,
    sidecar_path,
)
from bids_qsm.bids.publishing import (
    check_links,
    encode_json,
    encode_table,
    remove_partial,
    unwritable,
    write_text,
)
from bids_qsm.errors import CommandLineError, UnwritableOutputError
from bids_qsm.reading import read_json
from bids_qsm.settings import TEMPLATE, Settings, changed_from_preset

PIPELINE = "bids-qsm"
BIDS_VERSION = "1.10.0"


@dataclass(frozen=True)
class AtlasLabel:
    """A row of an atlas' table: the voxel value, the structure, and its side (L, R or B)."""

    index: int
    name: str
    hemisphere: str


def check_output_dir(settings: Settings) -> None:
    """Refuse an output folder that holds something else; nothing is written.

    Raises
    ------
    CommandLineError
        If it is the input folder.
    UnwritableOutputError
        If another pipeline's dataset is in it.
    """
    _check_links(settings.output_dir)
    if settings.output_dir.resolve() == settings.bids_dir.resolve():
        raise CommandLineError(
            f"{settings.output_dir}: the output folder must not be the input folder; "
            f"give another, such as {settings.bids_dir / 'derivatives' / PIPELINE}."
        )
    description = settings.output_dir / "dataset_description.json"
    try:
        fields = read_json(description)
        makers = [maker["Name"] for maker in fields["GeneratedBy"]]
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise unwritable(settings.output_dir, error) from None
    except (OSError, ValueError, KeyError, TypeError):
        makers = []
    if PIPELINE not in makers:
        found = f"a dataset made by {', '.join(makers)}" if makers else "another dataset"
        raise UnwritableOutputError(
            f"{description}: the output folder holds {found}; give a folder of its own."
        )


def _check_links(output_dir: Path) -> None:
    """Refuse folders in the output folder that are links, which may lead out of it."""
    try:
        entries = list(os.scandir(output_dir))
    except OSError:  # there is none yet, or it will be said that it cannot be written
        return
    for entry in entries:
        if entry.is_symlink() and entry.is_dir():
            check_links(output_dir, output_dir / entry.name / "any")


def prepare_output_dir(settings: Settings) -> None:
    """Make the output folder a BIDS derivative dataset.

    Raises
    ------
    CommandLineError, UnwritableOutputError
    """
    check_output_dir(settings)
    folder, words = settings.output_dir, {"pipeline": PIPELINE, "version": __version__}
    rows = "\n".join(_readme_row(row) for row in OUTPUTS.values())
    readme = _text("README.md").format(**words, rows=rows, xfm=TRANSFORM_SUFFIX, template=TEMPLATE)
    # first of all: a folder that holds our files must say that it is ours
    write_text(folder / "dataset_description.json", encode_json(_description(settings)))
    write_text(folder / ".bidsignore", "\n".join(ignored_names()) + "\n")
    write_text(folder / "README.md", readme)
    write_text(folder / "CITATION.md", _text("CITATION.md").format(**words))
    for written in (folder, folder / "logs"):
        remove_partial(written, new=folder / "CITATION.md")


def write_atlas(
    output_dir: Path, atlas: str, labels: Iterable[AtlasLabel], description: Mapping[str, Any]
) -> None:
    """Write an atlas' table of labels and its description.

    Parameters
    ----------
    output_dir : Path
    atlas : str
        The atlas' name in file names.
    labels : iterable of AtlasLabel
    description : mapping
        Fields of a BIDS atlas description, such as ``Name``, ``License``, ``ReferencesAndLinks``.
    """
    import pandas as pd  # the run's own process has no use for it

    from bids_qsm.bids.sidecars import STATISTICS_COLUMNS

    table = pd.DataFrame(
        [(label.index, label.name, label.hemisphere) for label in labels],
        columns=["index", "name", "hemisphere"],
    )
    path = output_dir / atlas_table_path(atlas)
    write_text(path, encode_table(table))
    columns = {name: {"Description": STATISTICS_COLUMNS[name]} for name in table.columns}
    columns["index"]["Format"] = "integer"  # as in BIDS, which takes silence for another one
    write_text(output_dir / sidecar_path(path), encode_json(columns))
    write_text(output_dir / atlas_description_path(atlas), encode_json(description))


def _text(name: str) -> str:
    folder = resources.files("bids_qsm.resources") / "dataset"
    return (folder / name).read_text(encoding="utf-8")


def _description(settings: Settings) -> dict[str, Any]:
    generator: dict[str, Any] = {"Name": PIPELINE, "Version": __version__}
    changed = ", ".join(changed_from_preset(settings.processing))
    generator["Description"] = f"Preset {settings.processing.preset}" + (
        f"; changed: {changed}." if changed else "."
    )
    container = _container()
    if container is not None:
        generator["Container"] = container
    # walk_up of Path.relative_to is not in Python 3.11
    raw = os.path.relpath(settings.bids_dir.resolve(), settings.output_dir.resolve())
    return {
        "Name": "Susceptibility and R2* maps",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [generator],
        "DatasetLinks": {"raw": Path(raw).as_posix()},
        "HowToAcknowledge": "See CITATION.md.",
    }


def _container() -> dict[str, str] | None:
    """Return the container that this runs in, as far as the environment tells."""
    singularity = os.environ.get("APPTAINER_CONTAINER") or os.environ.get("SINGULARITY_CONTAINER")
    if singularity:
        return {"Type": "singularity", "Tag": Path(singularity).name}
    tag = os.environ.get("BIDS_QSM_IMAGE")
    return {"Type": "docker", "Tag": tag} if tag else None


def _readme_row(row: Output) -> str:
    entities = [f"{key}-{value}" for key, value in row.entities]
    middle = "_".join([*(["atlas-<name>"] if row.per_atlas else []), *entities, row.suffix])
    spaces = ", ".join(space or "own" for space in row.spaces)
    return f"| `{middle}{row.extension}` | {row.description} | {row.units or ''} | {spaces} |"
