"""Leads for deep brain stimulation: where their contacts are.

Dimensions are the manufacturers' published ones: Medtronic, *DBS lead 3387/3389* and *3391 implant
manuals*, *SenSight B33005/B33015 implant manual*; Abbott, *Infinity DBS system, directional leads
6172/6173, clinician's manual*; Boston Scientific, *Vercise DBS systems, surgical implant manual
92495783 (DB-2201, DB-2202)*; as also collected by the leads' models of OSS-DBS (Butenko et al.
2020, 10.1371/journal.pcbi.1008023).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LeadModel:
    """A kind of lead; lengths along it in mm.

    Attributes
    ----------
    maker, name : str
    n_levels : int
        Contacts along the lead; one that is parted into three segments counts once.
    contact_mm, gap_mm : float
        Length of a contact, and of the insulation between two.
    tip_mm : float
        From the lead's end to the lowest contact; 0 where the end itself is a contact.
    diameter_mm : float
    segmented : tuple of int
        Levels, from the lowest 0, that are three segments around the lead.
    """

    maker: str
    name: str
    n_levels: int
    contact_mm: float
    gap_mm: float
    tip_mm: float
    diameter_mm: float
    segmented: tuple[int, ...] = ()

    @property
    def centres_mm(self) -> NDArray[np.floating]:
        """Where the contacts' middles are, from the lead's end, the lowest first."""
        pitch = self.contact_mm + self.gap_mm
        return self.tip_mm + self.contact_mm / 2 + pitch * np.arange(self.n_levels)

    @property
    def pattern(self) -> tuple[int, float, float]:
        """What metal shows of the model: number, length and gaps of the contacts."""
        return self.n_levels, self.contact_mm, self.gap_mm


_MODELS = (
    #         maker                name     n  contact gap tip diameter
    LeadModel("Medtronic", "3389", 4, 1.5, 0.5, 1.5, 1.27),
    LeadModel("Medtronic", "3387", 4, 1.5, 1.5, 1.5, 1.27),
    LeadModel("Medtronic", "3391", 4, 3.0, 4.0, 1.5, 1.27),
    LeadModel("Medtronic", "B33005", 4, 1.5, 0.5, 0.9, 1.36, (1, 2)),
    LeadModel("Medtronic", "B33015", 4, 1.5, 1.5, 0.9, 1.36, (1, 2)),
    LeadModel("Abbott", "6172", 4, 1.5, 0.5, 1.0, 1.29, (1, 2)),
    LeadModel("Abbott", "6173", 4, 1.5, 1.5, 1.0, 1.29, (1, 2)),
    LeadModel("Boston Scientific", "DB-2201", 8, 1.5, 0.5, 1.1, 1.30),
    LeadModel("Boston Scientific", "DB-2202", 4, 1.5, 0.5, 0.0, 1.30, (1, 2)),
)
LEAD_MODELS: Mapping[str, LeadModel] = {model.name: model for model in _MODELS}
"""By the model's number; of models with the same contacts the first stands for all."""
ASSUMED = "3389"


def lead_model(name: str) -> LeadModel:
    """Return a model by its number, however its case and dashes are written.

    Raises
    ------
    ValueError
        If it is not known.
    """
    plain = {key.replace("-", "").lower(): model for key, model in LEAD_MODELS.items()}
    try:
        return plain[name.replace("-", "").strip().lower()]
    except KeyError:
        raise ValueError(
            f"there is no lead model {name!r}; choose one of: {', '.join(LEAD_MODELS)}."
        ) from None
