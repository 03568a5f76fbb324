"""Published atlases, FreeSurfer's subjects and any labels with names, brought into the layout."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_qsm.anatomy.atlas_checks import inside_share
from bids_qsm.anatomy.atlas_files import NIFTI, read_description, read_table
from bids_qsm.anatomy.atlas_members import labels_from_space, make_member
from bids_qsm.anatomy.atlas_names import (
    check_names,
    matching_table,
    packaged_text,
    read_names,
    table_of,
)
from bids_qsm.anatomy.atlas_volumes import (
    as_labels,
    as_probabilities,
    likeliest,
    read_volume,
    two_sided,
)
from bids_qsm.anatomy.atlas_writing import (
    AtlasText,
    atlas_label,
    write_atlas_folder,
    write_members,
)
from bids_qsm.errors import CommandLineError, UnreadableInputError
from bids_qsm.images import Image
from bids_qsm.settings import TEMPLATE

LEAST_INSIDE = 0.5
FREESURFER_LABELS = ("aseg.mgz", "aparc+aseg.mgz", "aparc.a2009s+aseg.mgz")
LUTS = (".tsv", ".txt", ".lut")


@dataclass(frozen=True)
class ImportOptions:
    """What the user says of an atlas that comes in.

    Attributes
    ----------
    name : str or None
        In file names; the format's or the file's own if not given.
    table : Path or None
        Names of the labels: TSV, or a colour look-up table.
    t1w, chi : Path or None
        Of the person or template on which the labels lie.
    member : str or None
        What the person is called in the multi-atlas.
    space : str or None
    desc : str or None
        Of TemplateFlow's file names.
    license : str or None
    references : tuple of str
    """

    name: str | None = None
    table: Path | None = None
    t1w: Path | None = None
    chi: Path | None = None
    member: str | None = None
    space: str | None = None
    desc: str | None = None
    license: str | None = None
    references: tuple[str, ...] = ()


def import_atlas(kind: str, path: Path, parent: Path, options: ImportOptions) -> Path:
    """Write an atlas of another layout as a folder of ours, and return that folder.

    Parameters
    ----------
    kind : str
        One of :data:`FORMATS`.
    path : Path
        The label image, or the folder that holds what the format has.
    parent : Path
        The folder ``atlas-<name>`` is made in it; a FreeSurfer subject, and labels with a T1w
        image, are added as members where it is there.
    options : ImportOptions

    Raises
    ------
    CommandLineError
        If the words do not fit the format.
    UnreadableInputError
        If a file is missing or damaged, or the labels are not where they claim to be.
    UnwritableOutputError
        If the folder cannot be written.
    """
    if not path.exists():
        raise UnreadableInputError(f"{path}: there is no such file or folder.")
    return FORMATS[kind](path, parent, options)


def _cit168(path: Path, parent: Path, options: ImportOptions) -> Path:
    """Nuclei of the CIT168 atlas in MNI152NLin2009cAsym: labels, or (better) probabilities."""
    file = _the_file(path, ("*CIT168*prob*", "*CIT168*dseg*p50*", "*CIT168*dseg*"))
    text = _text(packaged_text("CIT168"), options)
    check_names(_names_beside(file, options, "*CIT168*labels*"), text.table, file)
    image = two_sided(read_volume(file), len(text.table), file)
    return _write_from_template_space(image, file, parent, text, options.space or TEMPLATE)


def _7tami(path: Path, parent: Path, options: ImportOptions) -> Path:
    """Deep-grey labels of 7TAMIbrain, whose grid is that of MNI152NLin2009bSym."""
    file = _the_file(path, ("*7T[Aa][Mm][Ii]*",))
    text = _text(packaged_text("7TAMI"), options)
    check_names(_names_beside(file, options, "*7TAMI*lut*"), text.table, file)
    space = options.space or "MNI152NLin2009bSym"
    return _write_from_template_space(read_volume(file), file, parent, text, space)


def _nifti(path: Path, parent: Path, options: ImportOptions) -> Path:
    """Any label image with names; in the template's space, or with its own T1w image."""
    file = _the_file(path, ("*",))
    stem = re.sub(r"\.(nii(\.gz)?|mgz|mgh)$", "", file.name)
    names = options.table or _first_existing(file, stem)
    if names is None:
        raise UnreadableInputError(
            f"{file}: there are no names of its labels; give them by --table (TSV with index and "
            f"name, or a colour look-up table), or put them in {stem}.tsv beside it."
        )
    image = read_volume(file)
    table = read_table(names) if names.suffix == ".tsv" else table_of(read_names(names))
    name = re.sub(r"^.*atlas-([A-Za-z0-9]+).*$", r"\1", stem).removesuffix("_dseg")
    description = read_description(file.with_name(f"{stem}.json"))
    text = AtlasText(
        name=name,
        title=str(description.get("Name", name)),
        license=str(description.get("License", "not stated")),
        references=tuple(description.get("ReferencesAndLinks", ())),
        table=table,
    )
    text = _text(text, options)
    if options.t1w is not None:
        return _write_member(image, file, parent, text, options, options.t1w)
    return _write_from_template_space(image, file, parent, text, options.space or TEMPLATE)


def _freesurfer(path: Path, parent: Path, options: ImportOptions) -> Path:
    """Bring in a FreeSurfer subject, ``norm.mgz`` and a segmentation, as a member."""
    places = [path, path / "mri"] if path.is_dir() else [path.parent]
    found = [f for folder in places for n in FREESURFER_LABELS if (f := folder / n).is_file()]
    if path.is_dir() and not found:
        raise UnreadableInputError(
            f"{path}: there is no {', '.join(FREESURFER_LABELS)} in it or in its folder mri; give "
            "the label volume itself."
        )
    file = found[0] if path.is_dir() else path
    t1w = options.t1w or file.with_name("norm.mgz")
    image = read_volume(file)
    text = packaged_text("freesurfer")
    if options.table is not None:
        present = set(np.unique(image.data).astype(int).tolist()) - {0}
        names = read_names(options.table)
        names = {i: n for i, n in names.items() if i in present}
        table = table_of(names).assign(freesurfer_id=sorted(names))
        text = AtlasText(text.name, text.title, text.license, text.references, table)
    kept = np.isin(image.data, text.table["index"])
    image = image.like(np.where(kept, image.data, 0).astype(np.float32))
    subject = file.parent.parent.name if file.parent.name == "mri" else file.parent.name
    member = options.member or subject
    return _write_member(image, file, parent, _text(text, options), options, t1w, member)


def _templateflow(path: Path, parent: Path, options: ImportOptions) -> Path:
    """Bring in an atlas of a local TemplateFlow folder by its name; nothing is fetched."""
    if options.name is None:
        raise CommandLineError("import templateflow: say which atlas by --name, as in atlas-NAME_.")
    space = options.space or TEMPLATE
    folder = path if path.name == f"tpl-{space}" else path / f"tpl-{space}"
    labels = _templateflow_labels(folder, options)
    table = read_table(matching_table(labels, folder))
    template = read_description(folder / "template_description.json")
    own = read_description(labels.with_name(re.sub(r"\.nii(\.gz)?$", ".json", labels.name)))
    text = AtlasText(
        name=atlas_label(options.name),
        title=str(own.get("Name", options.name)),
        license=str(own.get("License", template.get("License", "not stated"))),
        references=tuple(own.get("ReferencesAndLinks", template.get("ReferencesAndLinks", ()))),
        table=table,
    )
    text, image = _text(text, options), read_volume(labels)
    if space == TEMPLATE:
        return _write_from_template_space(image, labels, parent, text, space)
    t1w = sorted(p for p in folder.glob(f"tpl-{space}_*T1w.nii.gz") if p.stat().st_size)
    if not t1w:
        raise UnreadableInputError(
            f"{folder}: the template has no T1w image here to register it by; fetch one with "
            "TemplateFlow's client."
        )
    _, on_template = make_member(space, read_volume(t1w[0]), None, as_labels(image, labels))
    return write_atlas_folder(parent, text, on_template)


def _templateflow_labels(folder: Path, options: ImportOptions) -> Path:
    """Return the one label image that the words mean: the finest, where only ``res`` differs."""
    if not folder.is_dir():
        raise UnreadableInputError(
            f"{folder}: there is no such folder; give the folder that TemplateFlow keeps its "
            "templates in (TEMPLATEFLOW_HOME)."
        )
    desc = f"_desc-{options.desc}" if options.desc else ""
    found = sorted(folder.glob(f"{folder.name}_*atlas-{options.name}{desc}*_dseg.nii.gz"))
    alike = {re.sub(r"_res-[^_]+", "", p.name) for p in found}
    if not found:
        names = {m[1] for p in folder.iterdir() if (m := re.search(r"_atlas-([^_]+)_", p.name))}
        raise UnreadableInputError(
            f"{folder}: there are no labels of atlas-{options.name}{desc}; there is: "
            f"{', '.join(sorted(names)) or 'none'}."
        )
    if len(alike) > 1:
        descs = sorted({m[1] for p in found if (m := re.search(r"_desc-([^_]+)_", p.name))})
        raise CommandLineError(
            f"{folder}: atlas-{options.name} comes in several kinds; choose by --desc: "
            f"{', '.join(descs)}."
        )
    if not found[0].is_file() or found[0].stat().st_size == 0:
        raise UnreadableInputError(
            f"{found[0]}: TemplateFlow has not fetched this file yet; fetch it with its client."
        )
    return found[0]


def _write_from_template_space(
    image: Image, file: Path, parent: Path, text: AtlasText, space: str
) -> Path:
    """Write labels or probabilities of a known space."""
    likely = None
    if image.data.ndim == 4:
        if image.data.shape[3] != len(text.table):
            raise UnreadableInputError(
                f"{file}: the image has {image.data.shape[3]} volumes, and the table has "
                f"{len(text.table)} rows; they must correspond."
            )
        image = as_probabilities(image)
        likely = image if space == TEMPLATE else None
        labels = likeliest(image, text.table)
    else:
        labels = as_labels(image, file)
    share = inside_share(labels)
    if share < LEAST_INSIDE:
        raise UnreadableInputError(
            f"{file}: only {100 * share:.0f} % of the labels lie in the brain of {TEMPLATE}, so it "
            "is not in that space; give the T1w image that it was drawn on by --t1w."
        )
    return write_atlas_folder(parent, text, labels_from_space(labels, space), likely)


def _write_member(
    image: Image,
    file: Path,
    parent: Path,
    text: AtlasText,
    options: ImportOptions,
    t1w: Path,
    member: str | None = None,
) -> Path:
    if not t1w.is_file():
        raise UnreadableInputError(f"{t1w}: there is no such T1w image; give it by --t1w.")
    name = atlas_label(options.member or member or text.name)
    chi = None if options.chi is None else read_volume(options.chi)
    made = make_member(name, read_volume(t1w), chi, as_labels(image, file))
    return write_members(parent, text, [made])


def _the_file(path: Path, patterns: tuple[str, ...]) -> Path:
    """Return the image: the path itself, or what the first pattern that fits finds in a folder."""
    if path.is_file():
        return path
    for pattern in patterns:
        found = [p for p in sorted(path.glob(pattern)) if p.name.endswith(NIFTI)]
        found = [p for p in found if "T1w" not in p.name]
        if len(found) == 1:
            return found[0]
        if found:
            break
    raise UnreadableInputError(
        f"{path}: expected one label image in the folder, found {len(found)}; give its own path."
    )


def _names_beside(file: Path, options: ImportOptions, pattern: str) -> Mapping[int, str]:
    """Return the names that came with a published atlas; none where there is no such file."""
    if options.table is not None:
        return read_names(options.table)
    found = [p for p in sorted(file.parent.glob(pattern)) if p.suffix in LUTS]
    return read_names(found[0]) if found else {}


def _first_existing(file: Path, stem: str) -> Path | None:
    places = [file.with_name(f"{stem}{ending}") for ending in LUTS]
    return next((p for p in places if p.is_file()), None)


def _text(text: AtlasText, options: ImportOptions) -> AtlasText:
    """Return the text with what the user says in place of the format's own."""
    name = atlas_label(options.name or text.name)
    return AtlasText(
        name=name,
        title=text.title,
        license=options.license or text.license,
        references=options.references or text.references,
        table=text.table,
    )


FORMATS: Mapping[str, Callable[[Path, Path, ImportOptions], Path]] = {
    "cit168": _cit168,
    "7tami": _7tami,
    "freesurfer": _freesurfer,
    "nifti": _nifti,
    "templateflow": _templateflow,
}
