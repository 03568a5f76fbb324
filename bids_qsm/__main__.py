"""``python -m bids_qsm``."""

import sys

from bids_qsm.cli import main

if __name__ == "__main__":
    sys.exit(main())
