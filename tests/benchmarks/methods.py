"""Accuracy, time and memory of the methods on simulated heads: how defaults are chosen.

    python tests/benchmarks/methods.py DATASET ... --out DIR [--stage ...] [--combine ...] [--all]

A dataset is one of bids-qsm-phantom (or of qsm-forward), with its truth in derivatives.  Stages:
background (true total field with noise, scored against the true local field), inversion (true
local field with noise, scored against the true susceptibility), chain (raw phase to susceptibility,
with the program's own mask).  Written are methods.tsv and .md, kernels.tsv and .md, and a sheet of
pictures for each head and stage.  Examples:

    ... --stage chain --combine background=pdf,vsharp inversion=tv:regularisation=0.4,tkd
    ... --stage inversion --all
    ... --stage chain --toml mine.toml theirs.toml

Nothing is asserted: times are those of the machine, to be read beside its load.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # run as a script: `tests` is not a package that is installed
    sys.path.insert(0, str(ROOT))

from bids_qsm.errors import BidsQsmError  # noqa: E402
from bids_qsm.execution.environment import prepare_environment  # noqa: E402
from bids_qsm.limits import available_cpus  # noqa: E402

STAGES = ("background", "inversion", "chain")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = top.add_argument
    add("datasets", nargs="+", type=Path, metavar="DATASET", help="simulated heads with truth")
    add("--out", type=Path, required=True, metavar="DIR", help="where tables and pictures go")
    add("--participant-label", nargs="+", default=(), metavar="LABEL", help="only these heads")
    add("--stage", nargs="+", choices=STAGES, default=STAGES, help="default: all three")
    add("--combine", nargs="+", default=(), metavar="STEP=METHOD[:OPTION=VALUE...][,...]",
        help="methods that are crossed; steps that are not named keep their default")  # fmt: skip
    add("--all", nargs="?", const="one", choices=("one", "crossed"),
        help="every registered method, one step at a time around the defaults, or all crossed",
        )  # fmt: skip
    add("--toml", nargs="+", type=Path, default=(), metavar="FILE", help="settings files")
    add("--no-kernels", action="store_true", help="leave the table of kernels out")
    add("--threads", type=int, default=available_cpus(), metavar="N", help="default: all cores")
    return top


def main(words: Sequence[str] | None = None) -> int:
    """Run the tool; the status is 1 if a combination failed, 2 for words that make no sense."""
    arguments = parser().parse_args(words)
    prepare_environment(arguments.threads)
    from tests.benchmarks.runs import run  # only now: numba reads the environment once

    try:
        return run(arguments)
    except BidsQsmError as error:
        print(f"methods.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
