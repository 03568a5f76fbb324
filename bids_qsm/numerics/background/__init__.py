"""Background removal: from the total to the local field, one module for each method."""

from __future__ import annotations

from bids_qsm.numerics.background.ismv import ismv
from bids_qsm.numerics.background.joint import joint
from bids_qsm.numerics.background.lbv import lbv
from bids_qsm.numerics.background.pdf import pdf
from bids_qsm.numerics.background.resharp import resharp
from bids_qsm.numerics.background.sharp import sharp
from bids_qsm.numerics.background.vsharp import vsharp
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.registry import Methods


def none(total: FieldMap) -> FieldMap:
    """Return the total field as it is, for inversions that remove the background themselves."""
    return total


METHODS: Methods = {
    "joint": joint,
    "pdf": pdf,
    "vsharp": vsharp,
    "sharp": sharp,
    "resharp": resharp,
    "ismv": ismv,
    "lbv": lbv,
    "none": none,
}
