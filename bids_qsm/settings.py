"""What a run is asked to do: frozen dataclasses, their defaults, TOML in and out.

:class:`Processing` is what decides the values of the maps; :class:`Settings` adds where the data
are and how the run is carried out.  The defaults of a method's own options live in the signature
of its function (see ``numerics/registry.py``).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bids_qsm.errors import CommandLineError, UnreadableInputError
from bids_qsm.presets import PRESETS
from bids_qsm.reading import read_toml

TEMPLATE = "MNI152NLin2009cAsym"
OUTPUT_SPACES = ("orig", "T1w", TEMPLATE)
REFERENCES = ("auto", "whole-brain", "none")
EXTRA_STEPS = {
    "swi": ("swi",),
    "separation": ("separation",),
    "uncertainty": ("uncertainty",),
    "thickness": ("thickness",),
    "dbs": ("hybrid", "leads", "trajectories"),
    "lesion-tracking": ("paramagnetic", "tracking"),
    "microbleeds": ("microbleeds", "rims"),
}
"""Words of ``--with``, and the steps that are run only when they are asked for by these."""


@dataclass(frozen=True)
class Method:
    """A step's method by name, with the options that differ from its defaults."""

    name: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Phase:
    """How stored phase is read.

    Attributes
    ----------
    units_per_turn : float or None
        Stored units for 2 pi radians; None finds it among the known vendors' scales.
    sign : int
        -1 where the vendor's phase falls with a higher field.
    b0_direction : tuple of float or None
        Unit vector in voxel axes; None takes it from the affine.
    accept_filtered : bool
        Whether phase that looks high-pass filtered is processed all the same.
    """

    units_per_turn: float | None = None
    sign: int = 1
    b0_direction: tuple[float, float, float] | None = None
    accept_filtered: bool = False


@dataclass(frozen=True)
class Processing:
    """The methods of the participant level, in the order of its steps.

    Attributes
    ----------
    preset : str
        The name in :data:`bids_qsm.presets.PRESETS` that the methods started from.
    reference : str
        ``auto`` (CSF of the lateral ventricles where there are labels, else whole brain),
        ``whole-brain``, ``none``, or the name of a structure of the atlas.
    """

    preset: str = "default"
    phase: Phase = dataclasses.field(default_factory=Phase)
    offset: Method = dataclasses.field(default_factory=lambda: Method("mcpc3ds"))
    unwrapping: Method = dataclasses.field(default_factory=lambda: Method("romeo"))
    field: Method = dataclasses.field(default_factory=lambda: Method("nonlinear"))
    mask: Method = dataclasses.field(default_factory=lambda: Method("brain-and-quality"))
    background: Method = dataclasses.field(default_factory=lambda: Method("joint"))
    inversion: Method = dataclasses.field(default_factory=lambda: Method("tv"))
    artefact_reduction: Method = dataclasses.field(default_factory=lambda: Method("off"))
    relaxometry: Method = dataclasses.field(default_factory=lambda: Method("nonlinear"))
    veins: Method = dataclasses.field(default_factory=lambda: Method("vesselness"))
    swi: Method = dataclasses.field(default_factory=lambda: Method("clear"))
    separation: Method = dataclasses.field(default_factory=lambda: Method("gre"))
    uncertainty: Method = dataclasses.field(default_factory=lambda: Method("replay"))
    hybrid: Method = dataclasses.field(default_factory=lambda: Method("optimal"))
    leads: Method = dataclasses.field(default_factory=lambda: Method("artefact"))
    trajectories: Method = dataclasses.field(default_factory=lambda: Method("labels"))
    paramagnetic: Method = dataclasses.field(default_factory=lambda: Method("hysteresis"))
    tracking: Method = dataclasses.field(default_factory=lambda: Method("same-region"))
    microbleeds: Method = dataclasses.field(default_factory=lambda: Method("compact-sources"))
    rims: Method = dataclasses.field(default_factory=lambda: Method("shells"))
    reference: str = "auto"


@dataclass(frozen=True)
class Settings:
    """A whole run: the words of the command line.

    ``omp_nthreads`` and ``mem_gb`` are None where the program chooses.  ``executor`` is ``local``
    or ``dask:`` and a scheduler's address or file.  ``models_file``,
    ``rescan`` (two sessions) and ``exclude_file`` are of the group level.
    """

    bids_dir: Path
    output_dir: Path
    level: str = "participant"
    participant_labels: tuple[str, ...] = ()
    session_labels: tuple[str, ...] = ()
    bids_filter_file: Path | None = None
    derivatives: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    bids_database_dir: Path | None = None
    skip_bids_validation: bool = False
    work_dir: Path | None = None
    nprocs: int = 1
    omp_nthreads: int | None = None
    mem_gb: float | None = None
    executor: str = "local"
    output_spaces: tuple[str, ...] = OUTPUT_SPACES
    extra_steps: tuple[str, ...] = ()
    atlases: tuple[str, ...] = ("default",)
    reports_only: bool = False
    boilerplate_only: bool = False
    dry_run: bool = False
    stop_on_first_crash: bool = False
    random_seed: int = 1
    verbosity: int = 0
    processing: Processing = dataclasses.field(default_factory=Processing)
    models_file: Path | None = None
    rescan: tuple[str, ...] = ()
    exclude_file: Path | None = None


def as_json(value: Any) -> str:
    """Return a dataclass as JSON with sorted keys: equal settings give equal text."""
    return json.dumps(dataclasses.asdict(value), sort_keys=True, default=str)


def read_processing(path: Path, preset: str | None = None) -> Processing:
    """Read the methods from a TOML file; what it does not name is as in the preset.

    Parameters
    ----------
    path : Path
    preset : str, optional
        Stands before the file's own.

    Raises
    ------
    UnreadableInputError
        If the file cannot be read.
    CommandLineError
        If it is not TOML, or has a table, key or preset that does not exist.
    """
    try:
        return processing_from(read_toml(path), preset)
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableInputError(f"{path}: the settings file cannot be read ({error}).") from None
    except (ValueError, CommandLineError) as error:
        raise CommandLineError(f"{path}: {error}") from None


def processing_from(tables: Mapping[str, Any], preset: str | None = None) -> Processing:
    """Return the methods that TOML tables ask for.

    A method's table holds ``method`` and the method's options side by side::

        preset = "fast"
        reference = "whole-brain"
        [inversion]
        method = "tkd"
        threshold = 0.15

    Parameters
    ----------
    tables : mapping
        Where a table keeps the preset's method, the preset's other options stay.
    preset : str, optional
        Stands before the tables' own.

    Raises
    ------
    CommandLineError
        If a table, key or preset does not exist.
    """
    own = _checked("preset", tables.get("preset", "default"), str)
    name = own if preset is None else preset
    if name not in PRESETS:
        raise CommandLineError(f"there is no preset {name!r}; choose one of: {', '.join(PRESETS)}.")
    started = _changed(Processing(preset=name), PRESETS[name].tables)
    return _changed(started, {key: table for key, table in tables.items() if key != "preset"})


def changed_from_preset(processing: Processing) -> tuple[str, ...]:
    """Return the names of what is not as in the preset that the methods started from."""
    started = processing_from({}, processing.preset)
    names = (f.name for f in dataclasses.fields(Processing))
    return tuple(name for name in names if getattr(processing, name) != getattr(started, name))


def _changed(started: Processing, tables: Mapping[str, Any]) -> Processing:
    known = [f.name for f in dataclasses.fields(Processing)]
    chosen: dict[str, Any] = {}
    for name, table in tables.items():
        if name not in known:
            raise CommandLineError(
                f"the settings have no table or key {name!r}; they know: {', '.join(known)}."
            )
        if name == "reference":
            chosen[name] = _checked(name, table, str)
        else:
            change = _phase_from if name == "phase" else _method_from
            chosen[name] = change(_checked(name, table, dict), getattr(started, name))
    return dataclasses.replace(started, **chosen)


def _checked(name: str, value: Any, wanted: type) -> Any:
    if not isinstance(value, wanted):
        kind = "a table" if wanted is dict else "a text"
        raise CommandLineError(f"{name!r} must be {kind}, got {value!r}.")
    return value


def _method_from(table: Mapping[str, Any], started: Method) -> Method:
    name = str(table.get("method", started.name))
    options = {key: value for key, value in table.items() if key != "method"}
    return Method(name, {**started.options, **options} if name == started.name else options)


def _phase_from(table: Mapping[str, Any], started: Phase) -> Phase:
    known = [f.name for f in dataclasses.fields(Phase)]
    for key in table:
        if key not in known:
            raise CommandLineError(f"'phase' has no key {key!r}; it knows: {', '.join(known)}.")
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in table.items()}
    phase = dataclasses.replace(started, **values)
    if phase.sign not in (1, -1):
        raise CommandLineError(f"'phase.sign' must be 1 or -1, got {phase.sign!r}.")
    if phase.units_per_turn is not None and not _is_positive(phase.units_per_turn):
        raise CommandLineError(
            f"'phase.units_per_turn' must be a positive number, got {phase.units_per_turn!r}."
        )
    if not isinstance(phase.accept_filtered, bool):
        raise CommandLineError(
            f"'phase.accept_filtered' must be true or false, got {phase.accept_filtered!r}."
        )
    return dataclasses.replace(phase, b0_direction=_unit_vector(phase.b0_direction))


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def _unit_vector(value: Any) -> tuple[float, float, float] | None:
    if value is None:
        return None
    numbers = isinstance(value, tuple) and all(isinstance(v, (int, float)) for v in value)
    length = sum(v * v for v in value) ** 0.5 if numbers else 0.0
    if not numbers or len(value) != 3 or length == 0:
        raise CommandLineError(f"'phase.b0_direction' must be three numbers, got {value!r}.")
    x, y, z = (v / length for v in value)
    return x, y, z
