"""Volumes and thickness that FreeSurfer has measured: its tables read from a derivative."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_qsm.anatomy.lobes import LOBES, SIDES
from bids_qsm.anatomy.tissues import Measure
from bids_qsm.errors import UnreadableInputError
from bids_qsm.reading import LARGEST_JSON_BYTES, check_file

TEMPLATE_HEAD_ML = 1948.106
"""Head of FreeSurfer's template: its own scale between an affine's determinant and eTIV."""

STRUCTURES = {
    "Thalamus": "thalamus",
    "Thalamus-Proper": "thalamus",
    "Caudate": "caudate",
    "Putamen": "putamen",
    "Pallidum": "pallidum",
    "Accumbens-area": "accumbens",
    "Hippocampus": "hippocampus",
    "Amygdala": "amygdala",
    "Lateral-Ventricle": "lateral ventricle",
}
# versions differ in the name: the first that is there counts
WHOLE = {
    "grey matter": ("TotalGrayVol",),
    "cerebral white matter": ("CerebralWhiteMatterVol", "CorticalWhiteMatterVol"),
    "intracranial": ("eTIV", "ICV"),
}
ANATOMICAL_SIDES = {"L": "Left-", "R": "Right-"}
SURFACES = {"L": "lh", "R": "rh"}


@dataclass(frozen=True)
class FreeSurferMeasures:
    """What FreeSurfer measured in one head.

    Attributes
    ----------
    folder : Path
        The subject's folder.
    measures : tuple of Measure
        Volumes of whole tissues and of structures; thickness of the cortex and of its lobes
        where the surfaces' tables are there.
    head_scale : float
        Volume of the head over that of FreeSurfer's template (estimated intracranial volume
        over 1948.106 mL).
    warnings : tuple of str
    """

    folder: Path
    measures: tuple[Measure, ...]
    head_scale: float
    warnings: tuple[str, ...] = ()


def find_freesurfer(root: Path, subject: str, session: str | None = None) -> Path | None:
    """Return a subject's folder in a FreeSurfer derivative, or None.

    Parameters
    ----------
    root : Path
        The derivative (``SUBJECTS_DIR``).
    subject, session : str
        Labels with or without ``sub-`` and ``ses-``.  Of several folders the one made from the
        session's place in a longitudinal stream is taken first, then the session's own, then
        that of all sessions.
    """
    sub = f"sub-{subject.removeprefix('sub-')}"
    names = [sub]
    if session:
        ses = f"ses-{session.removeprefix('ses-')}"
        names = [f"{sub}_{ses}.long.{sub}", f"{sub}/{ses}", f"{sub}_{ses}", sub]
    found = (root / name for name in names)
    return next((folder for folder in found if (folder / "stats").is_dir()), None)


def read_freesurfer(folder: Path) -> FreeSurferMeasures:
    """Read ``stats/aseg.stats`` and ``stats/{lh,rh}.aparc.stats`` of one subject.

    Raises
    ------
    UnreadableInputError
        If ``aseg.stats`` is missing, or a table is no such table or lacks what is needed.

    References
    ----------
    Fischl et al. 2002, 10.1016/S0896-6273(02)00569-X.  eTIV: Buckner et al. 2004,
    10.1016/j.neuroimage.2004.06.018.
    """
    aseg = _read(folder / "stats" / "aseg.stats")
    measures = _volumes(aseg)
    intracranial_ml = next(m.value for m in measures if m.name == "intracranial")
    paths = {side: folder / "stats" / f"{name}.aparc.stats" for side, name in SURFACES.items()}
    missing = [path.name for path in paths.values() if not path.is_file()]
    warnings = ()
    if missing:
        warnings = (
            f"{folder}: FreeSurfer's table stats/{missing[0]} is missing: its cortical thickness "
            "is not used.",
        )
    else:
        measures += _thickness({side: _read(path) for side, path in paths.items()})
    return FreeSurferMeasures(folder, measures, intracranial_ml / TEMPLATE_HEAD_ML, warnings)


@dataclass(frozen=True)
class _Stats:
    """A table of FreeSurfer: measures of the whole by short name, and rows by structure."""

    path: Path
    whole: Mapping[str, tuple[float, str]]
    rows: Mapping[str, Mapping[str, str]]

    def number(self, structure: str, column: str) -> float:
        """Return a number of a row."""
        try:
            return float(self.rows[structure][column])
        except KeyError as error:
            raise self.wrong(f"it has no column {column} for {structure}") from error
        except ValueError:
            raise self.wrong(f"{column} of {structure} is no number") from None

    def first(self, names: Sequence[str], units: str) -> float:
        """Return the first of several measures of the whole that is there."""
        for name in names:
            if name in self.whole:
                value, found = self.whole[name]
                if found != units:
                    raise self.wrong(f"{name} is in {found}, expected {units}")
                return value
        raise self.wrong(f"it has no line '# Measure' with {' or '.join(names)}")

    def wrong(self, what: str) -> UnreadableInputError:
        """Return the error that says what is wrong with the table."""
        return UnreadableInputError(
            f"{self.path}: this is not a complete table of FreeSurfer ({what}); run recon-all "
            "again for this subject, or leave the derivative out."
        )


def _read(path: Path) -> _Stats:
    try:
        check_file(path, LARGEST_JSON_BYTES)
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UnreadableInputError(
            f"{path}: there is no such file; FreeSurfer's recon-all writes it at its end: let it "
            "finish, or leave the derivative out."
        ) from None
    except (OSError, ValueError) as error:
        raise UnreadableInputError(f"{path}: the table cannot be read ({error}).") from error
    whole: dict[str, tuple[float, str]] = {}
    rows: dict[str, dict[str, str]] = {}
    columns: list[str] = []
    stats = _Stats(path, whole, rows)
    for line in lines:
        if line.startswith("# Measure "):
            short, value, units = _measure(line, stats)
            whole[short] = (value, units)
        elif line.startswith("# ColHeaders"):
            columns = line.split()[2:]
        elif line.strip() and not line.startswith("#"):
            row = dict(zip(columns, line.split(), strict=False))
            if "StructName" not in row or len(row) != len(columns):
                raise stats.wrong(f"a row does not fit its columns: {line.strip()[:60]!r}")
            rows[row["StructName"]] = row
    if not rows:
        raise stats.wrong("it has no rows")
    return stats


def _measure(line: str, stats: _Stats) -> tuple[str, float, str]:
    """Return short name, value and units of ``# Measure Long, Short, Words, 1.0, mm^3``."""
    parts = [part.strip() for part in line.split(",")]
    try:
        # the words may hold commas: value and units are counted from the end
        return parts[1], float(parts[-2]), parts[-1]
    except (IndexError, ValueError):
        raise stats.wrong(f"a line is cut: {line[:60]!r}") from None


def _volumes(aseg: _Stats) -> tuple[Measure, ...]:
    measures = [
        Measure(name, "B", "volume", aseg.first(shorts, "mm^3") / 1000)
        for name, shorts in WHOLE.items()
    ]
    for side, prefix in ANATOMICAL_SIDES.items():
        for structure, name in STRUCTURES.items():
            if prefix + structure in aseg.rows:
                volume_ml = aseg.number(prefix + structure, "Volume_mm3") / 1000
                measures.append(Measure(name, side, "volume", volume_ml))
        if not any(m.name == "thalamus" and m.hemisphere == side for m in measures):
            raise aseg.wrong(f"it has no row {prefix}Thalamus")
    return tuple(measures)


def _thickness(surfaces: Mapping[str, _Stats]) -> tuple[Measure, ...]:
    """Return mean thickness: of a lobe the mean of its parcels, weighted by their area."""
    means = [surfaces[side].first(("MeanThickness",), "mm") for side in SIDES]
    areas = [surfaces[side].first(("WhiteSurfArea",), "mm^2") for side in SIDES]
    both = float(np.average(means, weights=areas))
    measures = [Measure("cortex", "B", "thickness", both)]
    measures += [
        Measure("cortex", side, "thickness", mean) for side, mean in zip(SIDES, means, strict=True)
    ]
    for side in SIDES:
        for lobe, members in LOBES.items():
            value = _lobe_thickness(surfaces[side], members.split())
            measures.append(Measure(lobe, side, "thickness", value))
    return tuple(measures)


def _lobe_thickness(surface: _Stats, parcels: Sequence[str]) -> float:
    """Return the mean over the parcels that are there; small ones are absent in some heads."""
    present = [parcel for parcel in parcels if parcel in surface.rows]
    areas = [surface.number(parcel, "SurfArea") for parcel in present]
    if not sum(areas) > 0:
        return float("nan")
    values = [surface.number(parcel, "ThickAvg") for parcel in present]
    return float(np.average(values, weights=areas))
