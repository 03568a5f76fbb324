"""Files of other derivatives that the user hands over with ``--derivatives NAME=PATH``."""

from __future__ import annotations

from pathlib import Path

from bids_qsm.bids.inputs import Series
from bids_qsm.bids.naming import entities_of
from bids_qsm.errors import CommandLineError, UnreadableInputError
from bids_qsm.settings import Settings

KNOWN = (
    "mask",
    "r2map",
    "lesions",
    "lesion-points",
    "freesurfer",
    "ct",
    "targets",
    "trajectories",
    "tracked-lesions",
)


def check_derivatives(settings: Settings) -> None:
    """Refuse derivatives that nothing uses or that are not there.

    Raises
    ------
    CommandLineError, UnreadableInputError
    """
    for name, folder in settings.derivatives.items():
        if name not in KNOWN:
            raise CommandLineError(
                f"--derivatives {name}={folder}: {name!r} is not used; known: {', '.join(KNOWN)}."
            )
        if not folder.is_dir():
            raise UnreadableInputError(f"--derivatives {name}={folder}: there is no such folder.")


def given_files(settings: Settings, series: Series) -> list[Path]:
    """Return the user's files that may decide a series' outputs: an edited one has them made anew.

    FreeSurfer's tables are not among them.
    """
    return [
        *(_cts(settings, series) if "dbs" in settings.extra_steps else ()),
        *(
            path
            for name, folder in settings.derivatives.items()
            if name not in ("freesurfer", "ct")
            for path in sorted(_below(folder, series).rglob(f"sub-{series.subject}_*"))
            if path.is_file()
        ),
    ]


def find_r2map(settings: Settings, series: Series) -> Path | None:
    """Return the user's R2 map of a series (1/s), None where there is none.

    It is named ``<series>_R2map.nii.gz``, anywhere below the given folder.

    Raises
    ------
    UnreadableInputError
        If there is more than one.
    """
    folder = settings.derivatives.get("r2map")
    if folder is None:
        return None
    return _only(sorted(_below(folder, series).rglob(f"{series.name}_R2map.nii.gz")), series)


def find_mask(settings: Settings, series: Series) -> Path | None:
    """Return the user's brain mask of a series, None where there is none.

    It is named ``<series>_label-brain_mask.nii.gz`` or ``<series>_desc-brain_mask.nii.gz``,
    anywhere below the given folder.

    Raises
    ------
    UnreadableInputError
        If there is more than one.
    """
    folder = settings.derivatives.get("mask")
    if folder is None:
        return None
    found = sorted(_below(folder, series).rglob(f"{series.name}_*-brain_mask.nii.gz"))
    n_entities = series.name.count("_") + 2
    return _only([path for path in found if path.name.count("_") == n_entities], series)


def find_lesion_mask(settings: Settings, series: Series) -> Path | None:
    """Return the user's lesion mask of a subject's session, None where there is none.

    It is named ``sub-X[_ses-Y]..._label-lesion_mask.nii.gz``, anywhere below the given folder,
    and has the grid of the T1w or of the FLAIR image.

    Raises
    ------
    UnreadableInputError
        If there is more than one.
    """
    return _of_session(settings, series, "lesions", "label-lesion_mask.nii.gz")


def find_lesion_points(settings: Settings, series: Series) -> Path | None:
    """Return the user's points from which lesions grow, None where there are none.

    The table is named ``sub-X[_ses-Y]..._points.tsv``, anywhere below the given folder.

    Raises
    ------
    UnreadableInputError
        If there is more than one.
    """
    return _of_session(settings, series, "lesion-points", "points.tsv")


def find_ct(settings: Settings, series: Series) -> Path | None:
    """Return the subject's CT, None where there is none.

    It is named ``sub-X..._ct.nii.gz`` and lies anywhere below the given folder or, as BIDS has no
    CT yet, in the subject's ``ct`` folder of the dataset.  That of the same session wins.

    Raises
    ------
    UnreadableInputError
        If more than one is left.
    """
    return _only(_cts(settings, series), series)


def _cts(settings: Settings, series: Series) -> list[Path]:
    """Return the CTs that may be meant."""
    given = settings.derivatives.get("ct")
    if given is not None:
        paths = _below(given, series).rglob(f"sub-{series.subject}_*ct.nii*")
    else:
        paths = (settings.bids_dir / f"sub-{series.subject}").glob("**/ct/*ct.nii*")
    found = sorted(path for path in paths if path.name.split(".")[0].endswith("_ct"))
    own = [path for path in found if entities_of(path.name).get("ses") == series.session]
    return own or found


def find_targets(settings: Settings, series: Series) -> Path | None:
    """Return the user's targets, a table ``sub-X[_ses-Y]..._targets.tsv``; None without one.

    Raises
    ------
    UnreadableInputError
        If there is more than one.
    """
    return _of_session(settings, series, "targets", "targets.tsv")


def find_trajectories(settings: Settings, series: Series) -> Path | None:
    """Return the user's trajectories, ``sub-X[_ses-Y]..._trajectories.tsv`` or ``.csv``.

    Raises
    ------
    UnreadableInputError
        If there is more than one.
    """
    return _of_session(settings, series, "trajectories", "trajectories.[ct]sv")


def find_tracked_lesions(settings: Settings, series: Series) -> Path | None:
    """Return the user's mask or labels of lesions to follow; None where there is none.

    It is named ``sub-X[_ses-Y]..._label-lesion_mask.nii.gz`` (or ``..._dseg.nii.gz``).

    Raises
    ------
    UnreadableInputError
        If there is more than one.
    """
    found = [
        path
        for ending in ("label-lesion_mask.nii.gz", "dseg.nii.gz")
        if (path := _of_session(settings, series, "tracked-lesions", ending)) is not None
    ]
    return _only(found, series)


def _of_session(settings: Settings, series: Series, name: str, ending: str) -> Path | None:
    folder = settings.derivatives.get(name)
    if folder is None:
        return None
    found = [
        path
        for path in sorted(_below(folder, series).rglob(f"sub-{series.subject}_*{ending}"))
        if entities_of(path.name).get("ses") in (None, series.session)
    ]
    return _only(found, series)


def _below(folder: Path, series: Series) -> Path:
    """Return the subject's folder, or all of it where subjects have none."""
    subject = folder / f"sub-{series.subject}"
    return subject if subject.is_dir() else folder


def _only(found: list[Path], series: Series) -> Path | None:
    if len(found) > 1:
        raise UnreadableInputError(
            f"{found[0]}: there is another one for {series.name} ({found[1]}); leave one."
        )
    return found[0] if found else None
