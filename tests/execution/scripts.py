"""The scripts for clusters, filled in as a user does it."""

from __future__ import annotations

import re
from pathlib import Path

from bids_qsm.cluster_cli import copy_scripts


def filled_in(folder: Path, name: str, **values: str) -> Path:
    """Write a script into a folder, with other values of its variables and of sbatch's options.

    Options of sbatch are named with underscores: ``cpus_per_task="1"``.
    """
    script = folder / name
    if not script.exists():
        copy_scripts(folder)
    text = script.read_text()
    for variable, value in values.items():
        option = variable.replace("_", "-")
        for pattern, line in (
            (rf"^#SBATCH --{option}=\S+", f"#SBATCH --{option}={value}"),
            (rf"^{variable}=[^ \n]*", f"{variable}={value}"),
            (rf"^{variable} = .*", f"{variable} = {value}"),
        ):
            text, count = re.subn(pattern, line, text, count=1, flags=re.MULTILINE)
            if count:
                break
        else:
            raise ValueError(f"{name} has no {variable}")
    script.write_text(text)
    return script
