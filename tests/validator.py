"""The BIDS validator, as a package that the tests need brings it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path


def issues_of(folder: Path) -> list[dict[str, str]]:
    """Return what the validator says of a dataset, after a check that its exit status agrees."""
    beside = Path(sys.executable).parent  # not in PATH where the environment is not activated
    command = shutil.which("bids-validator-deno", path=f"{beside}{os.pathsep}{os.environ['PATH']}")
    assert command, "bids-validator-deno is not installed"
    done = subprocess.run(
        [command, "--json", str(folder)], capture_output=True, text=True, check=False
    )
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert (done.returncode == 0) == (not errors_among(issues))
    return issues


def errors_among(issues: list[dict[str, str]]) -> list[dict[str, str]]:
    return [issue for issue in issues if issue["severity"] == "error"]
