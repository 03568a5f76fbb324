"""pandas, imported when it is first used: that takes a quarter of a second, and χ needs none of it.

Modules that a series needs take it from here (``from bids_qsm.frames import pd``); what only the
group level needs imports it itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
else:
    from importlib import import_module

    class _Pandas:
        def __getattr__(self, name: str) -> Any:
            return getattr(import_module("pandas"), name)

    pd = _Pandas()

__all__ = ["pd"]
