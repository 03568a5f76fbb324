from __future__ import annotations

import subprocess
import sys

import pandas as pd

from bids_qsm import frames


def test_pandas_is_not_imported_before_it_is_used() -> None:
    """All of the processing, to its last step."""
    code = (
        "import sys, bids_qsm.participant, bids_qsm.publication;"
        "before = 'pandas' in sys.modules;"
        "from bids_qsm.frames import pd; pd.DataFrame();"
        "print(before, 'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_it_is_pandas() -> None:
    assert frames.pd.DataFrame is pd.DataFrame
    assert frames.pd.api is pd.api
