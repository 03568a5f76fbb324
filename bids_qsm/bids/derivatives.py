"""Files of other derivatives that the user hands over with ``--derivatives NAME=PATH``."""

from __future__ import annotations

from pathlib import Path

from bids_qsm.bids.inputs import Series
from bids_qsm.errors import CommandLineError, UnreadableInputError
from bids_qsm.settings import Settings

KNOWN = ("mask",)


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
    subject = folder / f"sub-{series.subject}"
    below = subject if subject.is_dir() else folder
    found = sorted(below.rglob(f"{series.name}_*-brain_mask.nii.gz"))
    named = [path for path in found if path.name.count("_") == series.name.count("_") + 2]
    if len(named) > 1:
        raise UnreadableInputError(
            f"{named[0]}: there is another mask of {series.name} ({named[1]}); leave one."
        )
    return named[0] if named else None
