"""``bids-qsm cluster-scripts``: the scripts for clusters, copied out of the installation."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from bids_qsm.errors import BidsQsmError, UnwritableOutputError

DESCRIPTION = """\
Write the scripts for clusters into a folder, to be filled in and submitted:
  slurm-array.sh   SLURM: an array of jobs over the subjects, then the group level
  slurm-dask.sh    SLURM: one job with a Dask scheduler and its workers
  Snakefile        Snakemake: a job for each subject, then the group level"""

EXIT_STATUS = """\
exit status: 0 done; 2 bad command line; 73 a script cannot be written, or is there already"""


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    a = _parser().parse_args(words)
    try:
        for path in copy_scripts(a.folder):
            print(path)  # noqa: T201 - the shell's own words
    except BidsQsmError as error:
        print(f"bids-qsm cluster-scripts: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_status
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bids-qsm cluster-scripts",
        description=DESCRIPTION,
        epilog=EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder, made if it is not there")
    return parser


def copy_scripts(folder: Path) -> list[Path]:
    """Copy the scripts into a folder and return where they are; none is written over.

    Raises
    ------
    UnwritableOutputError
        If the folder has a file of a script's name, or cannot be written.
    """
    scripts = sorted(Path(str(resources.files("bids_qsm.resources") / "cluster")).iterdir())
    copies = [folder / script.name for script in scripts]
    for copy in copies:
        if copy.exists():
            raise UnwritableOutputError(
                f"{copy}: it is there, and may have been filled in; move it away, or name another "
                "folder."
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for script, copy in zip(scripts, copies, strict=True):
            shutil.copyfile(script, copy)
    except OSError as error:
        raise UnwritableOutputError(
            f"{folder}: it cannot be written ({error.strerror}); name another folder."
        ) from None
    return copies
