"""The kinds of analysis of the group level: a new one is one module, and one line here."""

from bids_qsm.analyses.agreement import agreement
from bids_qsm.analyses.contrasts import contrast
from bids_qsm.analyses.longitudinal import longitudinal
from bids_qsm.analyses.power import power, trial
from bids_qsm.analyses.regions import regions
from bids_qsm.analyses.regression import correlations, nested, regression
from bids_qsm.analyses.reliability import reliability
from bids_qsm.analyses.voxelwise import voxelwise

KINDS = {
    "regions": regions,
    "voxelwise": voxelwise,
    "regression": regression,
    "nested": nested,
    "correlations": correlations,
    "reliability": reliability,
    "agreement": agreement,
    "contrast": contrast,
    "longitudinal": longitudinal,
    "power": power,
    "trial": trial,
}
"""Each takes a cohort and its options by name, and returns a result."""
