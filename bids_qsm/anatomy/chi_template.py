"""The χ side of a template: what susceptibility the structures of an atlas usually have."""

from __future__ import annotations

import re

import numpy as np
from scipy import ndimage

from bids_qsm.frames import pd
from bids_qsm.images import Image

# ppm, relative to water, of adults; the words are looked for in this order, and the first that
# begins a word of the structure's name tells it
USUAL_CHI_PPM = (
    ("white", -0.030),
    ("ventricle", 0.019),
    ("csf", 0.019),
    ("thalamus", 0.020),
    ("hypothalamus", 0.020),
    ("pulvinar", 0.020),
    ("subthalamic", 0.111),
    ("nigra", 0.111),
    ("sn", 0.111),
    ("stn", 0.111),
    ("red", 0.100),
    ("rn", 0.100),
    ("dentate", 0.152),
    ("pallid", 0.131),
    ("pallidus", 0.131),
    ("gp", 0.131),
    ("putamen", 0.038),
    ("caudate", 0.044),
    ("accumbens", 0.038),
    ("hippocamp", 0.020),
    ("amygdala", 0.020),
    ("cortex", 0.020),
)
WHITE_MATTER_PPM = -0.030
BLEND_MM = 0.7
RIM_MM = 3.0


def usual_chi_ppm(name: str) -> float | None:
    """Return the usual susceptibility of a structure by its name; None for a name unknown."""
    words = re.split(r"[\s_.,()/-]+", name.lower())
    for start, chi_ppm in USUAL_CHI_PPM:
        # short ones are abbreviations: GPe and GPi, SNc and SNr, but not a word like "rna"
        longest = 99 if len(start) > 3 else len(start) + 1
        if any(word.startswith(start) and len(word) <= longest for word in words):
            return chi_ppm
    return None


def chi_from_labels(labels: Image, table: pd.DataFrame, brain: Image) -> Image:
    """Return the susceptibility that an atlas' structures usually have, on a template's grid.

    Within 3 mm of a structure that is known, brain without a label is taken as white matter;
    farther away the map is zero and smooth, so that a local correlation finds nothing there.

    Parameters
    ----------
    labels : Image
        int, on the grid of ``brain``.
    table : pandas.DataFrame
        Columns ``index`` and ``name``.
    brain : Image
        The template, zero outside the brain.

    Returns
    -------
    Image
        float32, ppm; zero outside the brain.

    References
    ----------
    Values of the head phantom of the second QSM challenge, which are those of adults at 3 T and
    7 T: Marques et al. 2021, 10.1002/mrm.28716.  The order of the nuclei follows their iron:
    Hallgren & Sourander 1958, 10.1111/j.1471-4159.1958.tb12607.x.
    """
    voxel_mm = labels.geometry.voxel_mm
    values = np.zeros(labels.shape, np.float32)
    known = np.zeros(labels.shape, bool)
    for index, name in zip(table["index"], table["name"], strict=True):
        chi_ppm = usual_chi_ppm(str(name))
        if chi_ppm is not None:
            here = labels.data == index
            values[here] = chi_ppm
            known |= here
    distance_mm = ndimage.distance_transform_edt(~known, sampling=voxel_mm)
    unlabelled = ~known & (labels.data == 0)
    fading = np.clip(2 - distance_mm / RIM_MM, 0, 1) if known.any() else np.zeros(labels.shape)
    values[unlabelled] = (WHITE_MATTER_PPM * fading)[unlabelled]
    blended = ndimage.gaussian_filter(values, [BLEND_MM / v for v in voxel_mm])
    return labels.like(np.where(brain.data > 0, blended, 0).astype(np.float32))
