"""From the files of a dataset to one record for each series to process."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_qsm.bids.acquisition import (
    Grid,
    check_distinct,
    common_grid,
    echo_time_s,
    echo_times_of_stack_s,
    field_strength_t,
    read_grid,
)
from bids_qsm.bids.inheritance import Sidecars, sidecar_reader
from bids_qsm.bids.naming import ENTITIES, entities_of, stem_from
from bids_qsm.bids.parts import (
    COIL_ENTITIES,
    PARTS,
    Form,
    Parts,
    by_coil,
    by_part_and_echo,
    check_coils,
    complete_echoes,
    form_assumptions,
    form_of,
)
from bids_qsm.bids.queries import InputFile, Selection, select_files
from bids_qsm.errors import NothingToDoError, UnreadableInputError, printable
from bids_qsm.images import b0_direction
from bids_qsm.settings import Settings

Direction = tuple[float, float, float]

_LABEL = re.compile(r"[^\W_]+(?:[+-][^\W_]+)*")

_WITHIN_A_SERIES = ("echo", "part", *COIL_ENTITIES)


@dataclass(frozen=True)
class Series:
    """One gradient-echo series: where its files are and how it was acquired.

    Attributes
    ----------
    subject : str
    session : str or None
    entities : tuple of (name, value)
        The other entities that tell it apart, in BIDS order, such as ``("acquisition", "fine")``.
    form : {"phase", "complex", "magnitude"}
        Magnitude with phase, real with imaginary part, or magnitude alone.
    magnitude, phase, real, imaginary : tuple of Path
        In the order of the echo times, or one 4D image, for one coil after the other; empty where
        the form has none.
    stacked : bool
        Whether each part is one 4D image.
    te_s : tuple of float
        Echo times, rising.
    b0_t : float
    manufacturer : str or None
    affine : ndarray of float64, shape (4, 4)
    shape : tuple of int
        The three spatial sizes.
    b0_direction : tuple of float
        Unit vector of B0 in voxel axes.
    t1w, flair : Path or None
    assumptions : tuple of str
        Everything that was guessed, in sentences.
    t1w_after : Path or None
        T1w after contrast agent (``ce-``), where there is one before it too.
    t2w : Path or None
    n_coils : int
        Of uncombined coils; 1 where they are combined.
    sliced : bool
        Whether the third axis was encoded by slices (2D), by ``MRAcquisitionType``.
    """

    subject: str
    session: str | None
    entities: tuple[tuple[str, str], ...]
    form: Form
    magnitude: tuple[Path, ...]
    phase: tuple[Path, ...]
    real: tuple[Path, ...]
    imaginary: tuple[Path, ...]
    stacked: bool
    te_s: tuple[float, ...]
    b0_t: float
    manufacturer: str | None
    affine: NDArray[np.float64] = field(compare=False)
    shape: tuple[int, int, int]
    b0_direction: Direction
    t1w: Path | None
    flair: Path | None
    assumptions: tuple[str, ...]
    t1w_after: Path | None = None
    t2w: Path | None = None
    n_coils: int = 1
    sliced: bool = False

    @property
    def name(self) -> str:
        """Stem of the names of its outputs, such as ``sub-01_ses-2_acq-fine_run-1``."""
        keys = {long: short for short, long in ENTITIES.items()}
        pairs = {keys.get(name, name): value for name, value in self.entities}
        session = {} if self.session is None else {"ses": self.session}
        return stem_from({"sub": self.subject, **session, **pairs})

    @property
    def files(self) -> tuple[Path, ...]:
        """All images that hold its signal."""
        return (*self.magnitude, *self.phase, *self.real, *self.imaginary)

    @property
    def anatomical_files(self) -> tuple[Path, ...]:
        """The other images of the subject that belong to it."""
        return tuple(
            path for path in (self.t1w, self.flair, self.t1w_after, self.t2w) if path is not None
        )

    def of_coil(self, coil: int) -> Series:
        """Return the series of one of its uncombined coils, counted from 0."""

        def own(paths: tuple[Path, ...]) -> tuple[Path, ...]:
            n = len(paths) // self.n_coils
            return paths[coil * n : (coil + 1) * n]

        return replace(
            self,
            magnitude=own(self.magnitude),
            phase=own(self.phase),
            real=own(self.real),
            imaginary=own(self.imaginary),
            n_coils=1,
        )

    @property
    def summary(self) -> str:
        """What it is, in a line."""
        kinds = {"phase": "magnitude and phase", "complex": "real and imaginary part"}
        echoes = "1 echo" if len(self.te_s) == 1 else f"{len(self.te_s)} echoes"
        times = f"{1e3 * self.te_s[0]:.1f} to {1e3 * self.te_s[-1]:.1f} ms"
        coils = f" of {self.n_coils} coils" if self.n_coils > 1 else ""
        extra = [kind for kind, path in (("T1w", self.t1w), ("FLAIR", self.flair)) if path]
        return ", ".join(
            [
                f"{echoes} of {kinds.get(self.form, 'magnitude alone')}{coils} at {times}",
                "x".join(map(str, self.shape)),
                f"{self.b0_t:.2f} T",
                f"with {' and '.join(extra)}" if extra else "no T1w, no FLAIR",
            ]
        )


@dataclass(frozen=True)
class Refusal:
    """A series, or a participant, that cannot be processed, and why."""

    subject: str
    session: str | None
    name: str
    sentence: str


@dataclass(frozen=True)
class Found:
    """What there is to process, and what was refused; both in the order of their names."""

    series: tuple[Series, ...]
    refused: tuple[Refusal, ...]


def find_series(settings: Settings) -> Found:
    """Find the series that the settings ask for.

    A series that cannot be processed is returned as refused, so that the others go on.

    Raises
    ------
    NotBidsError
        If the folder is no BIDS dataset.
    NothingToDoError
        If nothing matches the filters.
    CommandLineError, UnreadableInputError
        If the filter file cannot be understood or read.
    """
    selection = select_files(settings)
    sidecars = sidecar_reader(settings.bids_dir.absolute())
    series: dict[str, Series] = {}
    refused: list[Refusal] = []
    for name, group in _grouped(selection.megre):
        first = group[0].entities
        try:
            if _is_one_weighted_image(group):
                continue
            if name in series:
                raise UnreadableInputError(
                    f"{group[0].path}: the outputs would have the same names as those of "
                    f"{series[name].files[0].name}; choose one with --bids-filter-file."
                )
            series[name] = _series_of(group, selection, sidecars, settings)
        except UnreadableInputError as error:
            refused.append(Refusal(first["sub"], first.get("ses"), name, str(error)))
    if not series and not refused:
        raise NothingToDoError(
            f"{settings.bids_dir}: there are only T2*-weighted images without echoes or phase, "
            f"such as {selection.megre[0].path.name}; a gradient echo with phase or several echoes "
            "is needed."
        )
    refused += _without_series(settings, selection, [*series.values(), *refused])
    refused.sort(key=lambda refusal: refusal.name)
    return Found(tuple(series[name] for name in sorted(series)), tuple(refused))


def _grouped(files: Iterable[InputFile]) -> list[tuple[str, list[InputFile]]]:
    """Return the files of each series, with its name; the order of ``files`` does not matter."""
    groups = defaultdict(list)
    for file in files:
        own = {k: v for k, v in file.entities.items() if k not in _WITHIN_A_SERIES}
        groups[stem_from(own), file.suffix].append(file)
    return [(name, groups[name, suffix]) for name, suffix in sorted(groups)]


def _is_one_weighted_image(group: Sequence[InputFile]) -> bool:
    """Return whether this is an ordinary T2*-weighted image: no echoes, magnitude only."""
    file = group[0]
    if len(group) > 1 or file.suffix != "T2starw" or file.entities.keys() & {"echo", "part"}:
        return False
    return read_grid(file.path).n_volumes == 1


def _without_series(
    settings: Settings, selection: Selection, seen: Iterable[Series | Refusal]
) -> list[Refusal]:
    """Return the participants that were asked for by name and have nothing to process."""
    if not settings.participant_labels:
        return []
    root, subjects = settings.bids_dir, {one.subject for one in seen}
    asked = sorted({label.removeprefix("sub-") for label in settings.participant_labels})
    return [
        Refusal(
            label,
            None,
            f"sub-{label}",
            f"{root}: the dataset has no participant sub-{label}."
            if label in selection.absent
            else f"{root}: no multi-echo gradient echo of sub-{label} matches the filters.",
        )
        for label in asked
        if label not in subjects
    ]


def _series_of(
    group: Sequence[InputFile], selection: Selection, sidecars: Sidecars, settings: Settings
) -> Series:
    """Return the record of one series, or raise UnreadableInputError with the reason."""
    for file in group:
        _check_labels(file)
    files_of_coils, coil_notes = by_coil(group)
    coils, notes = zip(*(by_part_and_echo(files) for files in files_of_coils), strict=True)
    parts = coils[0]
    form = min((form_of(coil) for coil in coils), key=list(PARTS).index)
    check_coils(coils, form)
    echoes = complete_echoes(parts, form, group[0].path)
    grid = common_grid([c[part][echo] for c in coils for part in PARTS[form] for echo in echoes])
    te_s, echoes = _echo_times(coils, form, echoes, grid, sidecars)
    first = parts[PARTS[form][0]][echoes[0]]
    fields = sidecars(first)
    b0_t, field_assumptions = field_strength_t(first, fields)
    direction, direction_assumptions = _direction(grid, settings)
    entities = group[0].entities
    subject = entities["sub"]
    t1w, t1w_assumptions = _anatomical(selection.t1w.get(subject, ()), entities, "T1w")
    flair, flair_assumptions = _anatomical(selection.flair.get(subject, ()), entities, "FLAIR")
    # no map depends on it: what is said of it belongs to the steps that use it
    t2w, _ = _anatomical(selection.t2w.get(subject, ()), entities, "T2w")
    in_order = {
        part: tuple(c[part][echo] for c in coils for echo in echoes) for part in PARTS[form]
    }
    return Series(
        subject=subject,
        session=entities.get("ses"),
        entities=_other_entities(entities),
        form=form,
        magnitude=in_order.get("mag", ()),
        phase=in_order.get("phase", ()),
        real=in_order.get("real", ()),
        imaginary=in_order.get("imag", ()),
        stacked=grid.n_volumes > 1,
        te_s=te_s,
        b0_t=b0_t,
        manufacturer=_short_text(fields.get("Manufacturer")),
        affine=grid.affine,
        shape=grid.shape,
        b0_direction=direction,
        t1w=t1w,
        flair=flair,
        assumptions=(
            *coil_notes,
            *dict.fromkeys(note for one in notes for note in one),
            *form_assumptions(form, parts),
            *field_assumptions,
            *direction_assumptions,
            *t1w_assumptions,
            *flair_assumptions,
        ),
        t1w_after=_after_contrast(selection.t1w.get(subject, ()), t1w, entities.get("ses")),
        t2w=t2w,
        n_coils=len(coils),
        sliced=fields.get("MRAcquisitionType") == "2D",
    )


def _check_labels(file: InputFile) -> None:
    """Refuse labels of which names of outputs cannot be made, or not safely."""
    for key, label in file.entities.items():
        if not (_LABEL.fullmatch(key) and _LABEL.fullmatch(label)):
            raise UnreadableInputError(
                f"{file.path}: {key}-{label} is no entity of BIDS, which has letters, digits and "
                "plus signs; rename the file."
            )


def _short_text(value: Any) -> str | None:
    return printable(value)[:100] if isinstance(value, str) and value else None


def _echo_times(
    coils: Sequence[Parts], form: Form, echoes: Sequence[str], grid: Grid, sidecars: Sidecars
) -> tuple[tuple[float, ...], list[str]]:
    """Return the echo times, rising, and the echoes in that order."""
    paths = [coils[0][part][echoes[0]] for part in PARTS[form]]
    if grid.n_volumes > 1:
        if echoes != [""]:
            raise UnreadableInputError(
                f"{paths[0]}: the image has {grid.n_volumes} volumes, but its name says that it "
                "holds one echo; coils must be combined or in files of their own (coil-1, coil-2 "
                "and so on), and echoes in one file have no echo-."
            )
        fields = {key: value for path in reversed(paths) for key, value in sidecars(path).items()}
        te_s = echo_times_of_stack_s(paths[0], fields, grid.n_volumes)
        order = [""]
    else:
        times = {
            echo: echo_time_s(
                {c[part][echo]: sidecars(c[part][echo]) for c in coils for part in PARTS[form]}
            )
            for echo in echoes
        }
        order = sorted(echoes, key=lambda echo: (times[echo], echo))
        te_s = tuple(times[echo] for echo in order)
    check_distinct(te_s, paths[0])
    if len(te_s) == 1 and len(coils) > 1:
        raise UnreadableInputError(
            f"{paths[0]}: the coils of a single echo cannot be combined; two echoes are needed."
        )
    if len(te_s) == 1 and form == "magnitude":
        raise UnreadableInputError(
            f"{paths[0]}: one echo without phase gives neither susceptibility nor R2*."
        )
    return te_s, order


def _direction(grid: Grid, settings: Settings) -> tuple[Direction, tuple[str, ...]]:
    given = settings.processing.phase.b0_direction
    if given is not None:
        return given, ("The direction of B0 is that of the settings, not of the image's header.",)
    if grid.is_oriented:
        return b0_direction(grid.affine), ()
    return b0_direction(grid.affine), (
        "The header does not say how the image lies in the scanner (sform and qform code 0): "
        "B0 is taken to be along the third axis of its affine.",
    )


def _other_entities(entities: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    order = list(ENTITIES)
    others = [key for key in entities if key not in ("sub", "ses", *_WITHIN_A_SERIES)]
    others.sort(key=lambda key: order.index(key) if key in order else len(order))
    return tuple((ENTITIES.get(key, key), entities[key]) for key in others)


def _anatomical(
    files: Iterable[InputFile], entities: Mapping[str, str], kind: str
) -> tuple[Path | None, tuple[str, ...]]:
    """Choose the subject's image of a kind: same session and no contrast agent come first."""
    session = entities.get("ses")

    def rank(file: InputFile) -> tuple[bool, bool]:
        return file.entities.get("ses") != session, "ce" in file.entities

    candidates = [file for file in files if file.entities.get("part", "mag") == "mag"]
    candidates.sort(key=lambda file: (rank(file), _natural(file)))
    notes = []
    for file in candidates:
        try:
            _check_labels(file)
            read_grid(file.path)
        except UnreadableInputError as error:
            notes.append(f"{error} This {kind} was left out.")
            continue
        if file.entities.get("ses") != session:
            notes.append(f"The {kind} is from another session: {file.path.name}.")
        if "ce" in file.entities:
            notes.append(f"The {kind} was acquired with a contrast agent: {file.path.name}.")
        equals = sum(rank(other) == rank(file) for other in candidates)
        if equals > 1:
            notes.append(f"Of {equals} equal {kind} images, {file.path.name} was chosen.")
        return file.path, tuple(notes)
    return None, tuple(notes)


def _after_contrast(
    files: Iterable[InputFile], before: Path | None, session: str | None
) -> Path | None:
    """Return the session's T1w after contrast agent; without one before it tells nothing."""
    if before is None or "ce" in entities_of(before.name):
        return None
    after = [f for f in files if "ce" in f.entities and f.entities.get("ses") == session]
    return min(after, key=_natural).path if after else None


def _natural(file: InputFile) -> list[tuple[int, str]]:
    """Return a key that puts run-2 before run-10."""
    return [(int(t or 0), s) for t, s in re.findall(r"(\d*)(\D*)", file.path.name)]
