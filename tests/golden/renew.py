"""Renew the golden values, or check them.

    python -m tests.golden.renew                   write the values of all cases anew
    python -m tests.golden.renew inversion fast    only of these
    python -m tests.golden.renew --check           compare instead

Run from the root of the repository.  A check says for each case how near its outputs are to the
limit, and ends with status 1 where one is beyond it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bids_qsm.execution.environment import prepare_environment


def parser() -> argparse.ArgumentParser:
    """Return what the command line takes."""
    top = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("cases", nargs="*", metavar="CASE", help="default: all")
    top.add_argument("--check", action="store_true", help="write nothing, compare")
    top.add_argument("--threads", type=int, default=2, metavar="N", help="default: 2")
    return top


def main(words: Sequence[str] | None = None) -> int:
    """Run the tool; the status is 1 if a check found a drift."""
    arguments = parser().parse_args(words)
    prepare_environment(arguments.threads)
    from tests.golden.cases import CASES, wider  # only now: numba reads the environment once
    from tests.golden.drift import drifts, kept, report
    from tests.golden.store import load, load_made_in, save, save_made_in
    from tests.golden.surroundings import surroundings

    names = arguments.cases or [*CASES]
    unknown = [name for name in names if name not in CASES]
    if unknown:
        print(f"there is no case {unknown[0]!r}; there are: {', '.join(CASES)}.", file=sys.stderr)
        return 2
    values, status = load(), 0
    for name in names:
        started = time.process_time()
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            outputs = CASES[name](Path(folder))
        took = f"{time.process_time() - started:.1f} s of CPU"
        found = drifts(values.get(name, {}), outputs, wider(name))
        wrong = [drift for drift in found if drift.is_too_large]
        if not arguments.check:
            values[name] = {output: kept(value) for output, value in outputs.items()}
            print(
                f"{name}: {len(outputs)} outputs, {len(wrong)} values were beyond the limit, {took}"
            )
            save(values)
            save_made_in({**load_made_in(), name: surroundings()})
            continue
        nearest = max(found, key=lambda drift: drift.share / (drift.allowed or 1e-9), default=None)
        print(f"{name}: {len(outputs)} outputs, {took}; nearest to its limit: {nearest}")
        if wrong:
            status = 1
            print(report(name, wrong))
    return status


if __name__ == "__main__":
    sys.exit(main())
