"""The kinds of analysis of the group level: a new one is one module, and one line here."""

from bids_qsm.analyses.regions import regions
from bids_qsm.analyses.reliability import reliability
from bids_qsm.analyses.voxelwise import voxelwise

KINDS = {
    "regions": regions,
    "voxelwise": voxelwise,
    "reliability": reliability,
}
"""Each takes a cohort and its options by name, and returns a result."""
