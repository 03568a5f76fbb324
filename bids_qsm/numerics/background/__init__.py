"""Background removal: from the total to the local field, one module for each method."""

from __future__ import annotations

from bids_qsm.numerics.background.pdf import pdf
from bids_qsm.numerics.background.vsharp import vsharp
from bids_qsm.numerics.registry import Methods

METHODS: Methods = {"pdf": pdf, "vsharp": vsharp}
