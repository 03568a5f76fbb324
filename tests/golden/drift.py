"""What is kept of an output to know it again, and how far another one is from that.

Of an image: its shape, type and affine, how many voxels are known (finite and not 0), their mean
and root mean square (rms), four sums of all voxels with fixed random signs, divided by the root of
the number of known voxels, and the values of some voxels.  A difference in any voxels changes each
sum by about its rms over the known voxels.  Values of a hundred times the usual size and more are
cut there: a few voxels without decay have a T2* of hours.  Of a table: every value, to six digits.

Differences of an image are told in shares of its rms, those of a number in a table in shares of
that number; ``STRICT`` and ``LOOSE`` hold what is allowed.  How they were found is told in
docs/reproducibility.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_qsm.images import Image

Output = Image | pd.DataFrame
Stored = Mapping[str, Any]

N_SUMS, N_PROBES = 4, 6
SEED = 20261122
CAP = 100.0
AFFINE_MM = 1e-4


@dataclass(frozen=True)
class Tolerances:
    """What two runs of the same program may differ by, on another processor or other versions.

    Attributes
    ----------
    level : float
        Of an image's mean and rms, in shares of the rms.
    sums : float
        Of the sums with random signs, likewise.
    voxel : float
        Of a single voxel, likewise.
    count : float
        Of the number of known voxels, in shares of it.
    number : float
        Of a number in a table, in shares of it.
    by_column : bool
        Whether numbers in tables that are smaller than is usual for their measure in their column
        (the rms) are told in shares of that: the others are what they are differences of.
    """

    level: float = 2e-4
    sums: float = 5e-4
    voxel: float = 5e-3
    count: float = 3e-4
    number: float = 5e-4
    by_column: bool = False


STRICT = Tolerances()
LOOSE = Tolerances(level=1e-2, sums=5e-2, voxel=0.5, number=2e-2)
"""Where the last digit of the input is multiplied by ten thousand and more."""
REGISTERED = Tolerances(level=2e-3, sums=0.4, voxel=0.15, count=5e-3, number=0.5, by_column=True)
"""After registrations: on the example's coarse grid single voxels of a structure come and go."""

MEASURE_COLUMNS = ("measure", "check")
SMALLEST_NUMBER = 1e-6
"""Of this size and below, numbers in tables count as 0."""


@dataclass(frozen=True)
class Drift:
    """By how much one quantity of an output differs, and by how much it may."""

    output: str
    quantity: str
    was: str
    now: str
    share: float
    allowed: float

    @property
    def is_too_large(self) -> bool:
        """Whether the tolerance is passed; what is no number is never near enough."""
        return not self.share <= self.allowed

    def __str__(self) -> str:
        how = "" if math.isinf(self.share) else f": off by {self.share:.1e}"
        allowed = f" (allowed: {self.allowed:.1e})" if how and self.allowed else ""
        return f"{self.output}: {self.quantity} was {self.was}, is {self.now}{how}{allowed}"


def kept(output: Output) -> dict[str, Any]:
    """Return what is stored of an output, ready for JSON."""
    if isinstance(output, pd.DataFrame):
        return {"table": ["\t".join(row) for row in _cells(output)]}
    cap = _cap(output.data)
    voxels = np.argwhere(_known(output.data))
    chosen = np.linspace(0, len(voxels) - 1, N_PROBES + 2)[1:-1].astype(int) if len(voxels) else []
    return {
        "shape": list(output.data.shape),
        "type": output.data.dtype.name,
        "affine": [_short(number, 10) for number in output.affine[:3].ravel()],
        "cap": cap,
        **_measured(output.data, cap),
        "voxels": [
            [*place, _short(output.data[tuple(place)])] for place in voxels[chosen].tolist()
        ],
    }


def drifts(
    stored: Mapping[str, Stored],
    found: Mapping[str, Output],
    wider: Mapping[str, Tolerances] = MappingProxyType({}),
) -> list[Drift]:
    """Return how far the outputs of a case are from the stored ones, quantity by quantity.

    The tolerances in ``wider`` are for outputs that have that word in their names, the first one
    where there are several; all others have the usual ones.
    """
    missing = [
        Drift(name, "the output", "there", "missing", math.inf, 0) for name in stored.keys() - found
    ]
    new = [
        Drift(name, "the output", "unknown", "there", math.inf, 0) for name in found.keys() - stored
    ]
    both = [name for name in found if name in stored]
    return [
        *sorted(missing + new, key=lambda drift: drift.output),
        *(
            drift
            for name in both
            for drift in _compared(
                name,
                stored[name],
                found[name],
                next((wider[word] for word in wider if word in name), STRICT),
            )
        ),
    ]


def report(case: str, wrong: list[Drift], longest: int = 12) -> str:
    """Return what is said when outputs have drifted: which, by how much, and what to do."""
    lines = [f"{len(wrong)} values of the case {case!r} are not those of tests/golden/values.json:"]
    lines += [f"  {drift}" for drift in wrong[:longest]]
    if len(wrong) > longest:
        lines.append(f"  ... and {len(wrong) - longest} more")
    lines += [
        "Differences of images are in shares of their root mean square, those of numbers in shares",
        "of the number.  If the change is meant, say in CHANGES.md what changes by how much, and",
        f"renew the values: python -m tests.golden.renew {case}",
    ]
    return "\n".join(lines)


def _compared(name: str, stored: Stored, found: Output, tolerances: Tolerances) -> Iterator[Drift]:
    if isinstance(found, pd.DataFrame):
        rows = [row.split("\t") for row in stored.get("table", [])]
        yield from _compared_tables(name, rows, _cells(found), tolerances)
    else:
        yield from _compared_images(name, stored, found, tolerances)


def _compared_images(
    name: str, stored: Stored, found: Image, tolerances: Tolerances
) -> Iterator[Drift]:
    for quantity, is_now in (("shape", list(found.data.shape)), ("type", found.data.dtype.name)):
        if stored.get(quantity) != is_now:
            yield Drift(name, quantity, str(stored.get(quantity)), str(is_now), math.inf, 0)
            return
    now = _measured(found.data, stored["cap"])

    def share(quantity: str, was: float, value: float, allowed: float) -> Drift:
        size = abs(was - value) / (stored["rms"] or 1.0)
        return Drift(name, quantity, str(was), str(value), size, allowed)

    off_mm = np.abs(np.subtract(stored["affine"], found.affine[:3].ravel())).max()
    yield Drift(name, "affine", "another", f"{off_mm:.1e} mm off", float(off_mm), AFFINE_MM)
    known = abs(stored["known"] - now["known"]) / max(stored["known"], 1)
    counts = str(stored["known"]), str(now["known"])
    yield Drift(name, "number of known voxels", *counts, known, tolerances.count)
    for quantity in ("mean", "rms"):
        yield share(quantity, stored[quantity], now[quantity], tolerances.level)
    for number, pair in enumerate(zip(stored["sums"], now["sums"], strict=True), start=1):
        yield share(f"signed sum {number}", *pair, tolerances.sums)
    for *place, was in stored["voxels"]:
        value = _short(found.data[tuple(place)])
        yield share(f"voxel {tuple(place)}", was, value, tolerances.voxel)


def _compared_tables(
    name: str, stored: list[list[str]], found: list[list[str]], tolerances: Tolerances
) -> Iterator[Drift]:
    shapes = [f"{len(rows) - 1} rows of {', '.join(rows[0])}" for rows in (stored or [[]], found)]
    is_other = shapes[0] != shapes[1]
    yield Drift(name, "table", *shapes, math.inf if is_other else 0.0, 0)
    if is_other:
        return
    usual = _usual_sizes(stored) if tolerances.by_column else {}
    kinds = _kinds(stored)
    for place, rows in enumerate(zip(stored, found, strict=True)):
        for column, was, now in zip(stored[0], *rows, strict=True):
            if was != now:
                off = _off(was, now, usual.get((kinds[place], column), 0))
                yield Drift(name, f"{column} of row {place}", was, now, off, tolerances.number)


def _kinds(rows: list[list[str]]) -> list[str]:
    """Return for each row, the header too, what was measured."""
    column = next((rows[0].index(name) for name in MEASURE_COLUMNS if name in rows[0]), None)
    return ["" if column is None else row[column] for row in rows]


def _usual_sizes(rows: list[list[str]]) -> dict[tuple[str, str], float]:
    """Return the rms of the numbers of each measure in each column."""
    table = pd.DataFrame(rows[1:], columns=rows[0]).apply(pd.to_numeric, errors="coerce")
    squares = (table**2).groupby(_kinds(rows)[1:]).mean()
    return {
        (str(kind), str(column)): math.sqrt(square)
        for column, of_column in squares.items()
        for kind, square in of_column.items()
        if math.isfinite(square)
    }


def _off(was: str, now: str, usual: float = 0) -> float:
    """Return by how much two cells differ, in shares of the first or of what is usual, if larger.

    Texts are infinitely far from each other.
    """
    try:
        one, other = float(was), float(now)
    except ValueError:
        return math.inf
    if not (math.isfinite(one) and math.isfinite(other)):
        return math.inf
    if max(abs(one), abs(other)) <= SMALLEST_NUMBER:
        return 0.0
    return abs(one - other) / max(abs(one), usual, SMALLEST_NUMBER)


def _cells(table: pd.DataFrame) -> list[list[str]]:
    columns = [[str(name), *map(_cell, table[name])] for name in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def _cell(value: Any) -> str:
    if isinstance(value, (bool, np.bool_, str)):
        return " ".join(str(value).split())
    if isinstance(value, (int, float, np.number)):
        return f"{float(value):.6g}"
    return "n/a" if pd.isna(value) else str(value)


def _known(data: NDArray) -> NDArray[np.bool_]:
    return np.isfinite(data) & (data != 0)


def _cap(data: NDArray) -> float | int:
    known = _known(data)
    return _short(CAP * np.median(np.abs(data[known]))) if known.any() else 0


def _measured(data: NDArray, cap: float) -> dict[str, Any]:
    known = _known(data)
    n = max(int(known.sum()), 1)
    values = np.where(known, np.clip(data, -cap, cap), 0).astype(np.float64).ravel()
    bits = np.random.PCG64(SEED).random_raw(values.size)
    sums = (
        np.where((bits >> np.uint64(63 - k)) & np.uint64(1), values, -values).sum() / math.sqrt(n)
        for k in range(N_SUMS)
    )
    return {
        "known": int(known.sum()),
        "mean": _short(values.sum() / n),
        "rms": _short(math.sqrt((values**2).sum() / n)),
        "sums": [_short(number) for number in sums],
    }


def _short(number: Any, digits: int = 7) -> float | int:
    """Return a number to some digits; one without fraction as an integer."""
    value = float(f"{float(number):.{digits}g}")
    return int(value) if value.is_integer() else value
