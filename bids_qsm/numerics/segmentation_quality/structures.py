"""The structures that checks know: which labels make them, and their voxels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_qsm.frames import pd

Labels = NDArray[np.integer]

PATTERNS = {
    "thalamus": r"^thalam|^tha?l?$",
    "caudate": r"caudate|^ca(u|ud)?$",
    "putamen": r"putamen|^put?$",
    "pallidum": r"pallid|^pal$|^gp[ei]?$",
    "accumbens": r"accumb|^nac$|^acc$",
    "hippocampus": r"^hippocamp|^hip$",
    "amygdala": r"^amygdala|^amy$",
    "lateral ventricle": r"^lateral[ _-]ventricle|^lv$",
}
"""What names of atlases mean; several labels may make one structure: both parts of the pallidum."""

DEEP_GREY = ("thalamus", "caudate", "putamen", "pallidum")


@dataclass(frozen=True)
class Structure:
    """One structure of one side (L, R or B): its voxels as indices into the flat volume."""

    name: str
    side: str
    voxels: NDArray[np.int64]

    @property
    def title(self) -> str:
        """Name with the side before it."""
        return f"{ {'L': 'Left ', 'R': 'Right '}.get(self.side, '') }{self.name}"

    @property
    def identity(self) -> tuple[str, str, str]:
        """Name, side and title."""
        return self.name, self.side, self.title


def find_structures(labels: Labels, table: pd.DataFrame) -> list[Structure]:
    """Return the known structures in a fixed order; absent ones have no voxels."""
    names = table["name"].astype(str).str.lower()
    bare = names.str.replace(r"^(left|right|lh|rh|l|r)[\s_.-]+", "", regex=True)
    bare = bare.str.replace(r"[\s_.-]+(left|right|lh|rh|l|r)$", "", regex=True)
    flat = labels.ravel()
    wanted = np.flatnonzero(flat)
    found = flat[wanted]
    structures = []
    for name, pattern in PATTERNS.items():
        rows = table[[bool(re.search(pattern, text)) for text in bare]]
        for side in ("L", "R", "B"):
            index = rows.loc[rows["hemisphere"] == side, "index"].to_numpy()
            if index.size:
                structures.append(Structure(name, side, wanted[np.isin(found, index)]))
    return structures


def pairs(structures: Sequence[Structure]) -> list[tuple[Structure, Structure]]:
    """Return left and right of the structures that have both."""
    by = {(s.name, s.side): s for s in structures}
    return [(by[n, "L"], by[n, "R"]) for n in PATTERNS if (n, "L") in by and (n, "R") in by]
