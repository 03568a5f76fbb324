"""Kernels along one row that the compiler can vectorise."""

from __future__ import annotations

from functools import partial

import numba
from numba.core.compiler import CompilerBase, DefaultPassBuilder


class _OfDisjointArrays(CompilerBase):
    """Numba's compiler, with the promise to LLVM that no two arguments overlap."""

    def define_pipelines(self):  # type: ignore[no-untyped-def]
        """Return the usual pipeline."""
        self.state.flags.noalias = True
        return [DefaultPassBuilder.define_nopython_pipeline(self.state)]


row_kernel = partial(
    numba.njit, pipeline_class=_OfDisjointArrays, forceinline=True, error_model="numpy"
)
"""Decorator of a loop over rows that is called from other kernels, and becomes part of them.

Its arrays must not overlap where one is written.  Numba does not promise that of itself, and LLVM
gives up a loop over more than a few arrays rather than compare all their places when it runs.  Nor
does it vectorise a division that may raise.  Each element is computed as before, in its own order:
results do not depend on how many the processor takes at a time.
"""
