"""The gyri that FreeSurfer numbers, and the lobes that they make up."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

# in the order of the numbers that FreeSurfer adds to 1000 (left) or 2000 (right); 4 is unused
_PARCELS = (
    "unknown bankssts caudalanteriorcingulate caudalmiddlefrontal - cuneus entorhinal fusiform "
    "inferiorparietal inferiortemporal isthmuscingulate lateraloccipital lateralorbitofrontal "
    "lingual medialorbitofrontal middletemporal parahippocampal paracentral parsopercularis "
    "parsorbitalis parstriangularis pericalcarine postcentral posteriorcingulate precentral "
    "precuneus rostralanteriorcingulate rostralmiddlefrontal superiorfrontal superiorparietal "
    "superiortemporal supramarginal frontalpole temporalpole transversetemporal insula"
)
PARCELS = tuple(_PARCELS.split())
LOBES: Mapping[str, str] = {
    "frontal lobe": "caudalmiddlefrontal lateralorbitofrontal medialorbitofrontal paracentral "
    "parsopercularis parsorbitalis parstriangularis precentral rostralmiddlefrontal "
    "superiorfrontal frontalpole",
    "parietal lobe": "inferiorparietal postcentral precuneus superiorparietal supramarginal",
    "temporal lobe": "bankssts entorhinal fusiform inferiortemporal middletemporal "
    "parahippocampal superiortemporal temporalpole transversetemporal",
    "occipital lobe": "cuneus lateraloccipital lingual pericalcarine",
    "cingulate cortex": "caudalanteriorcingulate isthmuscingulate posteriorcingulate "
    "rostralanteriorcingulate",
    "insula": "insula",
}
"""Gyri of each lobe; the cingulate cortex is by itself, as in Desikan et al. 2006."""
LOBE_NUMBERS = {name: number for number, name in enumerate(LOBES, start=1)}
SIDES = {"L": 1000, "R": 2000}
RIGHT = 10
"""What the right side's numbers of lobes are higher by."""


def lobes_of(labels: NDArray[np.integer]) -> NDArray[np.int16]:
    """Return the lobe of each voxel of the cortex from FreeSurfer's numbers.

    1 to 6 on the left (see ``LOBE_NUMBERS``), 11 to 16 on the right; 0 elsewhere.

    References
    ----------
    Desikan et al. 2006, 10.1016/j.neuroimage.2006.01.021; Klein and Tourville 2012,
    10.3389/fnins.2012.00171.
    """
    end = SIDES["R"] + len(PARCELS)
    number = np.zeros(end, np.int16)
    for side, offset in SIDES.items():
        for lobe, members in LOBES.items():
            gyri = [offset + PARCELS.index(parcel) for parcel in members.split()]
            number[gyri] = LOBE_NUMBERS[lobe] + (RIGHT if side == "R" else 0)
    known = (labels >= 0) & (labels < end)
    return number[np.where(known, labels, 0)]
