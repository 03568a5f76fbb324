"""Which coil, echo and part (magnitude, phase, real, imaginary) each image of a series holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from bids_qsm.bids.queries import InputFile
from bids_qsm.errors import UnreadableInputError

Form = Literal["phase", "complex", "magnitude"]
Parts = dict[str, dict[str, Path]]

PARTS: Mapping[Form, tuple[str, ...]] = {
    "phase": ("mag", "phase"),
    "complex": ("real", "imag"),
    "magnitude": ("mag",),
}
PART_NAMES = {"mag": "magnitude", "phase": "phase", "real": "real part", "imag": "imaginary part"}

COIL_ENTITIES = ("coil", "ch")
"""BIDS has no entity for single coils: that of its draft (BEP004), and that of heudiconv."""


def by_coil(group: Sequence[InputFile]) -> tuple[list[list[InputFile]], tuple[str, ...]]:
    """Return the files of each single coil, by number; where they are combined, those alone."""
    coils: dict[str, list[InputFile]] = defaultdict(list)
    for file in group:
        coils["".join(file.entities.get(entity, "") for entity in COIL_ENTITIES)].append(file)
    if "" in coils:
        note = "The images of single coils were left out: there are combined ones."
        return [coils[""]], (note,) if len(coils) > 1 else ()
    names = sorted(coils, key=lambda coil: (coil.zfill(9), coil))
    note = f"The {len(names)} coils are combined by MCPC-3D-S."
    return [coils[name] for name in names], (note,) if len(names) > 1 else ()


def check_coils(coils: Sequence[Parts], form: Form) -> None:
    """Refuse coils whose images differ in their echoes or parts."""
    wanted = {
        (part, echo): path
        for parts in coils
        for part in PARTS[form]
        for echo, path in parts[part].items()
    }
    for parts in coils:
        for (part, echo), path in sorted(wanted.items()):
            if echo not in parts[part]:
                own = next(path for echoes in parts.values() for path in echoes.values())
                of_echo = f" of echo {echo}" if echo else ""
                raise UnreadableInputError(
                    f"{own}: this coil has no {PART_NAMES[part]}{of_echo}, as {path.name} is for "
                    "another; every coil needs all echoes and parts."
                )
    if len(coils) > 1 and form == "magnitude":
        example = next(iter(wanted.values()))
        raise UnreadableInputError(f"{example}: single coils cannot be combined without phase.")


def by_part_and_echo(group: Sequence[InputFile]) -> tuple[Parts, tuple[str, ...]]:
    """Return the paths by part and echo; a file without a part is a magnitude."""
    parts: Parts = {part: {} for part in PART_NAMES}
    assumptions, unnamed = [], []
    numbered = any("echo" in file.entities for file in group)
    # files that name their part come first: they win over those that do not
    for file in sorted(group, key=lambda f: ("part" not in f.entities, f.path.name)):
        part, echo = file.entities.get("part", "mag"), file.entities.get("echo", "")
        if part not in parts:
            raise UnreadableInputError(f"{file.path}: part-{part} is none of {', '.join(parts)}.")
        if numbered and not echo:
            assumptions.append(f"{file.path.name} was left out: the other files have an echo.")
        elif echo not in parts[part]:
            parts[part][echo] = file.path
            if "part" not in file.entities:
                unnamed.append(file.path.name)
        elif "part" not in file.entities and parts[part][echo].name not in unnamed:
            assumptions.append(f"{file.path.name} was left out: there is also a part-mag.")
        else:
            other = parts[part][echo].name
            raise UnreadableInputError(f"{file.path}: {other} is there too; remove one of them.")
    if unnamed:
        assumptions.append(f"Images without part- are taken as magnitude: {', '.join(unnamed)}.")
    return parts, tuple(assumptions)


def form_of(parts: Parts) -> Form:
    """Return what the images hold; magnitude and phase come before real and imaginary."""
    if parts["phase"]:
        return "phase"
    return "complex" if parts["real"] or parts["imag"] else "magnitude"


def complete_echoes(parts: Parts, form: Form, example: Path) -> list[str]:
    """Return the echoes, each of which must have all parts of the form."""
    echoes = sorted({echo for part in PARTS[form] for echo in parts[part]})
    for echo in echoes:
        lacking = [PART_NAMES[part] for part in PARTS[form] if echo not in parts[part]]
        if lacking:
            present = next(part for part in PARTS[form] if echo in parts[part])
            raise UnreadableInputError(
                f"{parts[present][echo]}: the {PART_NAMES[present]} of this echo has no "
                f"{lacking[0]} beside it; every echo needs both."
            )
    if not echoes:
        raise UnreadableInputError(f"{example}: the series has no image that can be used.")
    return echoes


def form_assumptions(form: Form, parts: Parts) -> tuple[str, ...]:
    """Return what is lost or left unread."""
    if form == "magnitude":
        return ("There is no phase: R2* alone is computed, and no susceptibility.",)
    if form == "phase" and (parts["real"] or parts["imag"]):
        return ("Magnitude and phase are used; real and imaginary parts are left unread.",)
    return ()
