"""What each label of a head is made of: one frozen table.

Susceptibility is relative to water.  Sources: brain susceptibility and R2* at 3 T from the QSM
challenge's head phantom (Marques 2021, 10.1002/mrm.28716); R1 at 3 T from Wansapura 1999
(10.1002/(SICI)1522-2586(199904)9:4<531::AID-JMRI4>3.0.CO;2-L) and Stanisz 2005
(10.1002/mrm.20605); air, bone and fat from Schenck 1996 (10.1118/1.597854).  T1w and FLAIR
intensities are relative to white matter on T1w, as in typical images at 3 T.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

AIR_CHI_PPM = 9.4
LESION_LABEL = 77
VEIN_LABEL = 30
LATERAL_VENTRICLES = (4, 43)
CHOROID_PLEXUS = (31, 63)
BLEED_LABEL, CALCIFICATION_LABEL = 985, 986
WHITE_MATTER = (2, 41)
FIRST_EXTRACEREBRAL, LAST_EXTRACEREBRAL = 500, 599


@dataclass(frozen=True)
class Tissue:
    """A tissue and the labels that it has.

    Attributes
    ----------
    name : str
    labels : tuple of int
        FreeSurfer's ids; 500 to 599 outside the brain; 981 to 986 as the names say.
    chi_ppm : float
        Susceptibility relative to water.
    m0 : float
        Proton density relative to water.
    r1_per_s, r2star_per_s : float
        At 3 T.
    t1w, flair : float
        Image intensity.
    """

    name: str
    labels: tuple[int, ...]
    chi_ppm: float
    m0: float
    r1_per_s: float
    r2star_per_s: float
    t1w: float
    flair: float


CORPUS_CALLOSUM = (251, 252, 253, 254, 255)
TISSUES = (
    #       name             labels                       chi    M0   R1    R2*   T1w  FLAIR
    Tissue("white matter", (2, 41, 7, 46, 85, 192), -0.030, 0.70, 1.15, 21.0, 1.00, 0.62),
    Tissue("corpus callosum", CORPUS_CALLOSUM, -0.035, 0.70, 1.20, 21.0, 1.02, 0.60),
    Tissue("grey matter", (3, 42, 8, 47, 17, 53, 18, 54), 0.020, 0.82, 0.72, 17.0, 0.66, 0.88),
    Tissue("CSF", (4, 43, 5, 44, 14, 15, 24, 72), 0.019, 1.00, 0.25, 2.5, 0.22, 0.12),
    Tissue("thalamus", (10, 49), 0.015, 0.78, 0.88, 22.0, 0.82, 0.78),
    Tissue("caudate", (11, 50), 0.045, 0.80, 0.80, 24.0, 0.72, 0.80),
    Tissue("putamen", (12, 51), 0.055, 0.80, 0.84, 27.0, 0.76, 0.76),
    Tissue("pallidum", (13, 52), 0.125, 0.72, 1.00, 42.0, 0.92, 0.60),
    Tissue("accumbens", (26, 58), 0.030, 0.80, 0.78, 22.0, 0.70, 0.82),
    Tissue("substantia nigra", (27, 59), 0.108, 0.74, 1.00, 38.0, 0.90, 0.62),
    Tissue("red nucleus", (981, 982), 0.100, 0.75, 1.00, 38.0, 0.90, 0.64),
    Tissue("dentate nucleus", (983, 984), 0.120, 0.75, 0.95, 36.0, 0.90, 0.66),
    Tissue("ventral diencephalon", (28, 60), 0.020, 0.75, 1.00, 25.0, 0.92, 0.66),
    Tissue("brain stem", (16,), -0.010, 0.74, 1.00, 22.0, 0.90, 0.66),
    Tissue("choroid plexus", CHOROID_PLEXUS, 0.030, 0.95, 0.45, 12.0, 0.40, 0.45),
    Tissue("lesion", (25, 57, 77, 78, 79, 80, 81, 82), 0.010, 0.88, 0.60, 14.0, 0.72, 1.25),
    Tissue("vein", (30, 62), 0.300, 0.85, 0.55, 55.0, 0.50, 0.40),
    # what they hold above the tissue around is drawn for each: see bleeds.py
    Tissue("microbleed", (BLEED_LABEL,), 0.000, 0.60, 0.90, 21.0, 0.85, 0.60),
    Tissue("calcification", (CALCIFICATION_LABEL,), 0.000, 0.35, 0.90, 21.0, 0.60, 0.40),
    Tissue("vessel wall", (136, 137, 163, 164), 0.040, 0.90, 0.40, 15.0, 0.40, 0.40),
    Tissue("artery", (502,), -0.010, 0.85, 0.60, 14.0, 0.35, 0.25),
    Tissue("eye and spinal fluid", (506, 513), 0.020, 1.00, 0.25, 3.0, 0.20, 0.15),
    Tissue("muscle", (507, 508), 0.000, 0.65, 0.90, 30.0, 0.52, 0.42),
    Tissue("mucosa", (509,), 0.000, 0.70, 0.90, 30.0, 0.50, 0.60),
    Tissue("fat and skin", (511,), 0.600, 0.75, 2.50, 25.0, 1.30, 0.60),
    Tissue("spinal cord and optic nerve", (512, 530), -0.020, 0.72, 1.05, 22.0, 0.90, 0.62),
    Tissue("dura", (514,), 0.000, 0.50, 1.20, 40.0, 0.45, 0.45),
    Tissue("cortical bone", (515,), -2.100, 0.03, 2.00, 300.0, 0.05, 0.05),
    Tissue("spongy bone", (516,), -1.000, 0.40, 2.00, 80.0, 0.85, 0.50),
)
SOFT_TISSUE = next(tissue for tissue in TISSUES if tissue.name == "muscle")
CAVERNOMA = Tissue(
    "cavernoma", (991, 992, 993, 994, 995, 996, 997, 998, 999), 0.450, 0.80, 0.90, 80.0, 0.60, 0.60
)
"""One label for each; susceptibility and R2* are those of the single one."""
AIR = Tissue("air", (0,), AIR_CHI_PPM, 0.0, 1.0, 0.0, 0.0, 0.0)

DEEP_NUCLEI = tuple(
    tissue
    for tissue in TISSUES
    if tissue.name
    in (
        "thalamus",
        "caudate",
        "putamen",
        "pallidum",
        "accumbens",
        "substantia nigra",
        "red nucleus",
        "dentate nucleus",
    )
)


@dataclass(frozen=True)
class Effect:
    """How much more susceptibility and R2* a nucleus has in patients."""

    chi_ppm: float
    r2star_per_s: float


PATIENT_EFFECTS = {
    # mean differences of 37 relapsing-remitting MS patients from 37 controls at 4.7 T
    "thalamus": Effect(0.007, 1.3),
    "caudate": Effect(0.013, 1.0),
    "putamen": Effect(0.015, 1.6),
    "pallidum": Effect(0.021, 2.8),
}


def is_brain(labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return where a label map has brain (CSF within the skull included)."""
    outside = (labels >= FIRST_EXTRACEREBRAL) & (labels <= LAST_EXTRACEREBRAL)
    return (labels > 0) & ~outside


def tissues_of(
    labels: Sequence[int], tissues: Sequence[Tissue] = TISSUES
) -> tuple[list[Tissue], tuple[str, ...]]:
    """Return the tissue of each label, and warnings on labels that the table does not have.

    Parcellated cortex (1000 to 2999) and white matter (3000 to 4999) are known; a label that is
    not known is taken for muscle.
    """
    table = {label: tissue for tissue in tissues for label in tissue.labels} | {0: AIR}
    found: list[Tissue] = []
    unknown: list[int] = []
    for label in labels:
        parcel = 3 if 1000 <= label < 3000 else 2 if 3000 <= label < 5000 else label
        if parcel not in table:
            unknown.append(int(label))
        found.append(table.get(parcel, SOFT_TISSUE))
    if not unknown:
        return found, ()
    text = ", ".join(str(label) for label in unknown)
    return found, (f"The label map has labels without a tissue, taken for muscle: {text}.",)
