"""The nuclei of stereotactic surgery, found in whatever atlas labels them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_qsm.frames import pd
from bids_qsm.labelling import Structures
from bids_qsm.numerics.geometry import Bool

GPI, GPE = "globus pallidus interna", "globus pallidus externa"
STN, SN, RN = "subthalamic nucleus", "substantia nigra", "red nucleus"
SIDES = ("L", "R")
ATLASES = "--atlas CIT168 or --atlas 7TAMI"
"""What to say of atlases that have all of these."""

_PALLIDUM = r"(globus[ _-]*pallidus|pallidum)"
PATTERNS: Mapping[str, re.Pattern[str]] = {
    name: re.compile(pattern, re.IGNORECASE)
    for name, pattern in {
        GPI: rf"{_PALLIDUM}[ _-]*(pars[ _-]*)?intern|intern\w*[ _-]*{_PALLIDUM}|\bgpi\b",
        GPE: rf"{_PALLIDUM}[ _-]*(pars[ _-]*)?extern|extern\w*[ _-]*{_PALLIDUM}|\bgpe\b",
        STN: r"\bsub-?thalamic(?!.*(fascic|zone))|\bstn\b",
        SN: r"substan[ct]ia[ _-]*nigra|\bsn[cr]?\b",
        RN: r"\bred[ _-]*nucleus|\brn\b",
    }.items()
}
"""What the nuclei are called in atlases."""

_IRON_RICH = (*PATTERNS.values(), re.compile(r"caudate|putamen|pallid|dentate", re.IGNORECASE))


@dataclass(frozen=True)
class Nuclei:
    """Labels of the nuclei in an atlas: by name and side; several where it parts one."""

    labels: Mapping[tuple[str, str], tuple[int, ...]]

    def of(self, name: str, side: str) -> tuple[int, ...]:
        """Return the labels of a nucleus on a side (``L`` or ``R``); none where it has none."""
        return self.labels.get((name, side), ())

    def has(self, name: str) -> bool:
        """Whether the atlas has the nucleus on any side."""
        return any(self.of(name, side) for side in SIDES)

    def mask(self, volume: NDArray[np.integer], name: str, side: str) -> Bool:
        """Return where a nucleus is in a volume of labels."""
        return np.isin(volume, self.of(name, side))


def nuclei_of(table: pd.DataFrame) -> Nuclei:
    """Return the nuclei of an atlas' table (columns ``index``, ``name``, ``hemisphere``)."""
    found: dict[tuple[str, str], list[int]] = {}
    for row in table.itertuples(index=False):
        name = next((n for n, p in PATTERNS.items() if p.search(str(row.name))), None)
        if name is not None and str(row.hemisphere) in SIDES:
            found.setdefault((name, str(row.hemisphere)), []).append(int(row.index))
    return Nuclei({key: tuple(indices) for key, indices in found.items()})


def iron_rich(structures: Iterable[Structures]) -> Bool | None:
    """Return the voxels of nuclei that are rich in iron, of all atlases; None without an atlas."""
    masks = []
    for of_atlas in structures:
        names, index = (of_atlas.atlas.table[column] for column in ("name", "index"))
        chosen = [any(p.search(str(name)) for p in _IRON_RICH) for name in names]
        masks.append(np.isin(of_atlas.labels.data, index[chosen]))
    return np.logical_or.reduce(masks) if masks else None


def structures_with(
    structures: Sequence[Structures], names: Iterable[str]
) -> tuple[Structures, Nuclei] | None:
    """Return the first atlas that has all of some nuclei; None where none has."""
    wanted = tuple(names)
    for of_atlas in structures:
        nuclei = nuclei_of(of_atlas.atlas.table)
        if all(nuclei.has(name) for name in wanted):
            return of_atlas, nuclei
    return None
