"""What every output is called, and what its sidecar says: one table.

A new output is one row of :data:`OUTPUTS`.  The stem of a series' outputs is its name, such as
``sub-01_ses-2_acq-fine_run-1``; the entities of a row are put in where BIDS wants them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bids_qsm.settings import TEMPLATE

ENTITIES = {
    "sub": "subject",
    "ses": "session",
    "task": "task",
    "acq": "acquisition",
    "ce": "ceagent",
    "rec": "reconstruction",
    "dir": "direction",
    "run": "run",
    "mod": "modality",
    "echo": "echo",
    "flip": "flip",
    "inv": "inversion",
    "mt": "mtransfer",
    "part": "part",
    "space": "space",
    "chunk": "chunk",
    "atlas": "atlas",
    "seg": "segmentation",
    "res": "resolution",
    "label": "label",
    "desc": "description",
    "from": "from",
    "to": "to",
    "mode": "mode",
}
"""The entities in the order of BIDS: key in a file's name, and full name."""

TEMPLATE_RESOLUTION = ("1", "1 mm isotropic, the grid of the template image that was used")

_FIELD = ("coils", "phase", "offset", "unwrapping", "field")
_RELAXATION = (*_FIELD, "relaxometry")
_LOCAL = (*_FIELD, "mask", "background")
_CHI = (*_LOCAL, "inversion", "artefact_reduction", "reference")
_SEPARATED = (*_CHI, "relaxometry", "separation")
_TISSUES = {"GM": "grey matter", "WM": "white matter", "CSF": "cerebrospinal fluid"}
_MEASURED = (None, "T1w", TEMPLATE)
_LABELLED = ("orig", "T1w", TEMPLATE)


@dataclass(frozen=True)
class Output:
    """One row of the table.

    Attributes
    ----------
    suffix, extension : str
    description : str
        What the file holds, in a sentence.
    entities : tuple of (key, value)
        What the row adds to the stem.
    units : str or None
    spaces : tuple of str or None
        The spaces in which it is written; None is a series' own space, left out of the name.
    per_atlas : bool
        Whether the name carries an atlas.
    skull_stripped : bool or None
        None where BIDS does not ask.
    mask_type : str or None
        The ``Type`` that BIDS asks of a mask.
    steps : tuple of str
        The steps whose methods and parameters decide its values.
    referenced : bool
        Whether its values are relative to a reference region.
    in_schema : bool
        Whether BIDS has a name for it; else its suffix is listed in ``.bidsignore``.
    """

    suffix: str
    description: str
    entities: tuple[tuple[str, str], ...] = ()
    extension: str = ".nii.gz"
    units: str | None = None
    spaces: tuple[str | None, ...] = (None,)
    per_atlas: bool = False
    skull_stripped: bool | None = None
    mask_type: str | None = None
    steps: tuple[str, ...] = ()
    referenced: bool = False
    in_schema: bool = True


OUTPUTS: Mapping[str, Output] = {
    "chi": Output(
        "Chimap",
        "Magnetic susceptibility; positive is paramagnetic.",
        units="ppm",
        spaces=_MEASURED,
        skull_stripped=True,
        steps=_CHI,
        referenced=True,
    ),
    "chi_sd": Output(
        "Chimap",
        "Standard deviation of the susceptibility that the noise of the field makes.",
        entities=(("desc", "sd"),),
        units="ppm",
        skull_stripped=True,
        steps=(*_CHI, "uncertainty"),
        referenced=True,
    ),
    "r2star": Output(
        "R2starmap",
        "Effective transverse relaxation rate R2*.",
        units="1/s",
        spaces=_MEASURED,
        skull_stripped=True,
        steps=_RELAXATION,
    ),
    "r2star_sd": Output(
        "R2starmap",
        "Standard deviation of R2*; 0 where it is not known.",
        entities=(("desc", "sd"),),
        units="1/s",
        skull_stripped=True,
        steps=_RELAXATION,
    ),
    "t2star": Output(
        "T2starmap",
        "Effective transverse relaxation time T2*.",
        units="s",
        skull_stripped=True,
        steps=_RELAXATION,
    ),
    "s0": Output(
        "S0map",
        "Signal of the gradient echo at an echo time of zero.",
        units="arbitrary",
        skull_stripped=True,
        steps=_RELAXATION,
    ),
    "paramagnetic": Output(
        "Chimap",
        "Susceptibility of the paramagnetic sources alone; experimental.",
        entities=(("desc", "paramagnetic"),),
        units="ppm",
        skull_stripped=True,
        steps=_SEPARATED,
        referenced=True,
    ),
    "diamagnetic": Output(
        "Chimap",
        "Susceptibility of the diamagnetic sources alone, zero or less; experimental.",
        entities=(("desc", "diamagnetic"),),
        units="ppm",
        skull_stripped=True,
        steps=_SEPARATED,
        referenced=True,
    ),
    "swi": Output(
        "swi",
        "Susceptibility-weighted image.",
        units="arbitrary",
        skull_stripped=False,
        steps=("coils", "phase", "swi"),
        in_schema=False,
    ),
    "minip": Output(
        "minIP",
        "Minimum intensity projection of the susceptibility-weighted image over a sliding slab.",
        units="arbitrary",
        skull_stripped=True,
        steps=("coils", "phase", "swi"),
        in_schema=False,
    ),
    "brain_mask": Output(
        "mask",
        "Voxels of the brain.",
        entities=(("label", "brain"),),
        spaces=_MEASURED,
        mask_type="Brain",
    ),
    "qsm_mask": Output(
        "mask",
        "Voxels in which susceptibility was computed.",
        entities=(("desc", "qsm"),),
        mask_type="ROI",
        steps=("mask", "background"),
    ),
    "vein_mask": Output(
        "mask",
        "Voxels of veins, left out of the values without veins.",
        entities=(("label", "vein"),),
        mask_type="ROI",
        steps=(*_CHI, "relaxometry", "veins"),
    ),
    "total_field": Output(
        "fieldmap",
        "Total field, relative to B0.",
        entities=(("desc", "total"),),
        units="Hz",
        skull_stripped=True,
        steps=_FIELD,
        in_schema=False,
    ),
    "local_field": Output(
        "fieldmap",
        "Local (tissue) field, after removal of the background field.",
        entities=(("desc", "local"),),
        units="Hz",
        skull_stripped=True,
        steps=_LOCAL,
        in_schema=False,
    ),
    "field_noise": Output(
        "fieldmap",
        "Standard deviation of the total field in each voxel.",
        entities=(("desc", "noise"),),
        units="Hz",
        skull_stripped=True,
        steps=_FIELD,
        in_schema=False,
    ),
    "phase_quality": Output(
        "phasequality",
        "Quality of the phase, from 0 (none) to 1 (best).",
        skull_stripped=False,
        steps=("coils", "phase"),
        in_schema=False,
    ),
    "t1w": Output(
        "T1w",
        "T1-weighted image, corrected for intensity non-uniformity.",
        entities=(("desc", "preproc"),),
        units="arbitrary",
        skull_stripped=False,
        steps=("t1w",),
    ),
    "flair": Output(
        "FLAIR",
        "FLAIR image on the T1w image's grid, as lesions are found in it.",
        entities=(("desc", "preproc"),),
        units="arbitrary",
        spaces=("T1w",),
        skull_stripped=False,
        steps=("lesions",),
    ),
    "hybrid": Output(
        "T1w",
        "Hybrid contrast: T1w image plus weighted susceptibility, in which the globus pallidus "
        "interna stands out.",
        entities=(("desc", "hybrid"),),
        units="arbitrary",
        spaces=("T1w",),
        skull_stripped=False,
        steps=("t1w", *_CHI, "registration", "atlas", "hybrid"),
        referenced=True,
    ),
    "ct": Output(
        "ct",
        "CT on the T1w image's grid; -1024 beyond its field of view.",
        units="HU",
        spaces=("T1w",),
        skull_stripped=False,
        steps=("ct",),
        in_schema=False,
    ),
    "lead_mask": Output(
        "mask",
        "Voxels of leads for deep brain stimulation: within 1 mm of their middle lines.",
        entities=(("label", "lead"),),
        spaces=("T1w",),
        mask_type="ROI",
        steps=("ct", "leads"),
    ),
    "dseg": Output(
        "dseg",
        "Structures of the atlas.",
        spaces=_LABELLED,
        per_atlas=True,
        steps=("registration", "template", "deep-grey", "atlas"),
    ),
    "probseg": Output(
        "probseg",
        "Probability of each structure of the deep grey matter, one volume for each, in the order "
        "of LabelMap.",
        spaces=("orig",),
        per_atlas=True,
        steps=("registration", "template", "deep-grey", "atlas"),
    ),
    "tissue_dseg": Output(
        "dseg",
        "Tissues: 1 grey matter, 2 white matter, 3 cerebrospinal fluid.",
        entities=(("desc", "tissues"),),
        spaces=("T1w",),
        steps=("tissues",),
    ),
    **{
        f"{tissue.lower()}_probseg": Output(
            "probseg",
            f"Share of {name} in each voxel.",
            entities=(("label", tissue),),
            spaces=("T1w",),
            steps=("tissues",),
        )
        for tissue, name in _TISSUES.items()
    },
    "thickness": Output(
        "thickness",
        "Thickness of the cortex.",
        units="mm",
        spaces=("T1w",),
        skull_stripped=True,
        steps=("tissues", "thickness"),
        in_schema=False,
    ),
    "lesion_mask": Output(
        "mask",
        "Voxels of T2 lesions.",
        entities=(("label", "lesion"),),
        spaces=(None, "T1w"),
        mask_type="Lesion",
        steps=("lesions",),
    ),
    "lesion_dseg": Output(
        "dseg",
        "Number of the T2 lesion, the largest first.",
        entities=(("desc", "lesions"),),
        spaces=(None, "T1w"),
        steps=("lesions",),
    ),
    "tracked_dseg": Output(
        "dseg",
        "Number of the lesion to follow, as this session alone has it.",
        entities=(("desc", "paramagnetic"),),
        steps=("paramagnetic",),
    ),
    "tracking_dseg": Output(
        "dseg",
        "Regions in which lesions were followed, the same ones in all sessions, by the number in "
        "the table of tracking.",
        entities=(("desc", "tracking"),),
        steps=("tracking",),
    ),
    "enhancing_mask": Output(
        "mask",
        "Voxels that enhance after contrast agent, in and beside T2 lesions.",
        entities=(("label", "enhancing"),),
        spaces=("T1w",),
        mask_type="Lesion",
        steps=("lesions", "enhancement"),
    ),
    "microbleed_dseg": Output(
        "dseg",
        "Number of the microbleed or calcification, the surest first.",
        entities=(("desc", "microbleeds"),),
        steps=(*_CHI, "microbleeds"),
    ),
    "microbleed_mask": Output(
        "mask",
        "Voxels of microbleeds.",
        entities=(("label", "microbleed"),),
        mask_type="Lesion",
        steps=(*_CHI, "microbleeds"),
    ),
    "stats": Output(
        "stats",
        "Values of the maps in each structure of the atlas.",
        entities=(("desc", "regions"),),
        extension=".tsv",
        per_atlas=True,
        steps=("reference", "regions"),
        in_schema=False,
    ),
    "quality": Output(
        "stats",
        "Checks of the labels of the atlas: what was found, what is expected, and whether it fits.",
        entities=(("desc", "quality"),),
        extension=".tsv",
        per_atlas=True,
        in_schema=False,
    ),
    "series_quality": Output(
        "stats",
        "Quality of the images, the field and the susceptibility of the series: what was found, "
        "what is expected, and whether it fits.",
        entities=(("desc", "quality"),),
        extension=".tsv",
        in_schema=False,
    ),
    "morphometry": Output(
        "stats",
        "Volumes of tissues and lesions, and thickness of the cortex.",
        entities=(("desc", "morphometry"),),
        extension=".tsv",
        steps=("tissues", "thickness", "lesions", "enhancement", "freesurfer"),
        in_schema=False,
    ),
    "contrast_to_noise": Output(
        "stats",
        "How well nuclei stand out on T1w, T2w, susceptibility and their hybrid, all on the T1w "
        "image's grid.",
        entities=(("desc", "contrast"),),
        extension=".tsv",
        steps=("hybrid", "t2w"),
        in_schema=False,
    ),
    "leads": Output(
        "stats",
        "Leads for deep brain stimulation: tip, entry, angles, and errors to a target.",
        entities=(("desc", "leads"),),
        extension=".tsv",
        steps=("ct", "leads"),
        in_schema=False,
    ),
    "contacts": Output(
        "stats",
        "Contacts of the leads: where they are, and what they lie in.",
        entities=(("desc", "contacts"),),
        extension=".tsv",
        steps=("ct", "leads"),
        in_schema=False,
    ),
    "contact_distances": Output(
        "stats",
        "Distances of the contacts to nuclei.",
        entities=(("desc", "distances"),),
        extension=".tsv",
        steps=("ct", "leads"),
        in_schema=False,
    ),
    "trajectories": Output(
        "stats",
        "Structures that trajectories cross: where, for how long, and how sure that is.",
        entities=(("desc", "trajectories"),),
        extension=".tsv",
        steps=("trajectories",),
        in_schema=False,
    ),
    "trajectory_profiles": Output(
        "stats",
        "Susceptibility and structures along trajectories.",
        entities=(("desc", "profiles"),),
        extension=".tsv",
        steps=("trajectories",),
        in_schema=False,
    ),
    "lesion_table": Output(
        "stats",
        "T2 lesions: volume, place, and values of the maps in each.",
        entities=(("desc", "lesions"),),
        extension=".tsv",
        steps=("lesions",),
        in_schema=False,
    ),
    "microbleeds": Output(
        "stats",
        "Microbleeds and calcifications: total susceptibility, size, place and confidence.",
        entities=(("desc", "microbleeds"),),
        extension=".tsv",
        steps=(*_CHI, "microbleeds"),
        in_schema=False,
    ),
    "rims": Output(
        "stats",
        "T2 lesions: susceptibility of core, border and surroundings, and how much this looks "
        "like a paramagnetic rim.",
        entities=(("desc", "rims"),),
        extension=".tsv",
        steps=(*_CHI, "lesions", "rims"),
        in_schema=False,
    ),
    "tracked_lesions": Output(
        "stats",
        "Lesions to follow, as this session alone has them: volume, place, and values of the maps.",
        entities=(("desc", "paramagnetic"),),
        extension=".tsv",
        steps=("paramagnetic",),
        in_schema=False,
    ),
    "tracking": Output(
        "stats",
        "Lesions followed over the sessions of a subject, and their change.",
        entities=(("desc", "tracking"),),
        extension=".tsv",
        steps=("tracking",),
        in_schema=False,
    ),
}

TRANSFORM_SUFFIX = "xfm"
GROUP_STEM = "group_"
GROUP_FOLDER = "group"


def output_path(name: str, key: str, *, space: str | None = None, atlas: str | None = None) -> Path:
    """Return where an output goes, relative to the output folder.

    Parameters
    ----------
    name : str
        Name of the series (or stem of another image of the subject).
    key : str
        Row of :data:`OUTPUTS`.
    space : {"orig", "T1w", "MNI152NLin2009cAsym"} or None
        None is the space of the series itself (of ``t1w``: of the T1w image).
    atlas : str or None
        The atlas' name, for the rows that have one.
    """
    row = OUTPUTS[key]
    if space not in row.spaces:
        raise ValueError(f"{key} has no space {space!r}; it has {row.spaces}.")
    if row.per_atlas != (atlas is not None):
        raise ValueError(f"{key} {'needs an' if row.per_atlas else 'has no'} atlas.")
    added = dict(row.entities)
    if space is not None:
        added["space"] = space
    if space == TEMPLATE:
        added["res"] = TEMPLATE_RESOLUTION[0]
    if atlas is not None:
        added["atlas"] = atlas
    return _folder(name) / "anat" / (_stem(name, added) + f"_{row.suffix}{row.extension}")


def transform_path(name: str, start: str, end: str, extension: str) -> Path:
    """Return where the transform of images from space ``start`` to space ``end`` goes."""
    added = {"from": start, "to": end, "mode": "image"}
    return _folder(name) / "anat" / (_stem(name, added) + f"_{TRANSFORM_SUFFIX}{extension}")


def figure_path(name: str, what: str, extension: str = ".png") -> Path:
    """Return where a picture of the report goes; ``what`` is one word of letters and digits."""
    return Path(f"sub-{entities_of(name)['sub']}") / "figures" / f"{name}_desc-{what}{extension}"


def report_path(subject: str) -> Path:
    """Return where the subject's report goes."""
    return Path(f"sub-{subject}.html")


def record_path(name: str) -> Path:
    """Return where the record of a series' run goes."""
    return Path("logs") / f"{name}_record.json"


def tracking_record_path(subject: str) -> Path:
    """Return where the record of the lesions that are followed in a subject goes."""
    return Path("logs") / f"sub-{subject}_tracking.json"


def citations_folder() -> Path:
    """Return where the methods text of all series goes, in several formats."""
    return Path("logs")


def atlas_table_path(atlas: str) -> Path:
    """Return where the table of an atlas' labels goes: every dseg of that atlas inherits it."""
    return Path(f"atlas-{atlas}_dseg.tsv")


def atlas_description_path(atlas: str) -> Path:
    """Return where the description of an atlas goes."""
    return Path(f"atlas-{atlas}_description.json")


def group_table_path(what: str) -> Path:
    """Return where a table over all subjects goes."""
    return Path(f"{GROUP_STEM}{what}.tsv")


def group_quality_path() -> Path:
    """Return where the page of the quality of all scans goes."""
    return Path(f"{GROUP_STEM}quality.html")


def group_folder(analysis: str) -> Path:
    """Return where the files of an analysis over all subjects go."""
    return Path(GROUP_FOLDER) / analysis


def group_report_path() -> Path:
    """Return where the page of the group level goes."""
    return Path("group.html")


def sidecar_path(path: Path) -> Path:
    """Return where the JSON sidecar of an output goes."""
    return path.with_name(path.name.split(".")[0] + ".json")


def ignored_names() -> tuple[str, ...]:
    """Return the ``.bidsignore`` patterns of the outputs that BIDS has no name for."""
    suffixes = {row.suffix for row in OUTPUTS.values() if not row.in_schema} | {TRANSFORM_SUFFIX}
    # "figures/" with a slash is not understood by bids-validator-deno 3.0.2
    fixed = ("*.html", "CITATION.md", "figures", GROUP_FOLDER, f"{GROUP_STEM}*")
    return (*fixed, *(f"*_{suffix}.*" for suffix in sorted(suffixes)))


def entities_of(name: str) -> dict[str, str]:
    """Return the entities of a file's name or stem, such as ``sub-01_ses-2_acq-fine``."""
    pairs = (part.partition("-") for part in name.split(".")[0].split("_") if "-" in part)
    return {key: value for key, _, value in pairs}


def stem_from(entities: Mapping[str, str]) -> str:
    """Return the stem of some entities in the order of BIDS; those that it lacks come last."""
    order = {key: place for place, key in enumerate(ENTITIES)}
    keys = sorted(entities, key=lambda key: (order.get(key, len(order)), key))
    return "_".join(f"{key}-{entities[key]}" for key in keys)


def _folder(name: str) -> Path:
    entities = entities_of(name)
    folder = Path(f"sub-{entities['sub']}")
    return folder / f"ses-{entities['ses']}" if "ses" in entities else folder


def _stem(name: str, added: Mapping[str, str]) -> str:
    return stem_from({**entities_of(name), **added})
