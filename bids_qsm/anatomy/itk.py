"""The bridge to ITK through ants: threads and seed, images, matrices, registrations.

ITK counts its axes to the left, back and top (LPS) where NIfTI's world has right, front and top
(RAS), and maps points from the fixed image's world to the moving image's.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_qsm.errors import UnreadableInputError, UnwritableOutputError
from bids_qsm.images import Image, load_image, voxel_sizes_mm

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

# ITK's sums depend on how it splits them among threads: one thread, always, keeps every result
# the same to the byte.  Cores are used by working on several series at once.
THREADS = {"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"}


def load_ants() -> ModuleType:
    """Import ants (seconds) with one ITK thread and a fixed seed; ITK reads the threads once."""
    os.environ.update(THREADS)
    os.environ.setdefault("ANTS_RANDOM_SEED", "1")
    import ants

    return ants


def to_itk(image: Image) -> Any:
    """Return a 3D image as a float32 ants image in the same place; masks become 0 and 1.

    Integers up to 2^24 are kept exactly.  Oblique, flipped and sheared affines are kept.
    """
    spacing = voxel_sizes_mm(image.affine)
    lps = RAS_TO_LPS @ image.affine
    return load_ants().from_numpy(
        np.ascontiguousarray(image.data, np.float32),
        origin=tuple(lps[:3, 3]),
        spacing=spacing,
        direction=lps[:3, :3] / spacing,
    )


def from_itk(image: Any) -> Image:
    """Return an ants image with its affine: the inverse of :func:`to_itk`."""
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(image.direction) * image.spacing
    affine[:3, 3] = image.origin
    return Image(np.ascontiguousarray(image.numpy()), RAS_TO_LPS @ affine)


def write_matrix(matrix: NDArray[np.float64], path: Path) -> None:
    """Write a point mapping between RAS worlds as an ITK text transform (``.txt``, ``.tfm``)."""
    lps = RAS_TO_LPS @ matrix @ RAS_TO_LPS
    parameters = " ".join(repr(float(v)) for v in (*lps[:3, :3].ravel(), *lps[:3, 3]))
    path.write_text(
        "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
        f"Parameters: {parameters}\nFixedParameters: 0 0 0\n",
        encoding="ascii",
    )


def read_matrix(path: Path) -> NDArray[np.float64]:
    """Return the RAS matrix (4, 4) of an ITK file with one linear transform."""
    transform = load_ants().read_transform(str(path))
    numbers = np.asarray(transform.parameters, np.float64)
    centre = np.asarray(transform.fixed_parameters, np.float64)
    lps = np.eye(4)
    lps[:3, :3] = numbers[:9].reshape(3, 3)
    lps[:3, 3] = numbers[9:] + centre - lps[:3, :3] @ centre
    return RAS_TO_LPS @ lps @ RAS_TO_LPS


def metric(name: str, fixed: Any, moving: Any, *parameters: str) -> str:
    """Return antsRegistration's text for a metric between two ants images."""
    from ants.internal import get_pointer_string

    return (
        f"{name}[{','.join([get_pointer_string(fixed), get_pointer_string(moving), *parameters])}]"
    )


def run_registration(stages: Sequence[str], folder: Path, mask: Any = None) -> None:
    """Run antsRegistration; its transforms are written below ``folder`` as ``0...``, ``1...``.

    Parameters
    ----------
    stages : sequence of str
        The arguments from ``--initial-moving-transform`` to the last stage.
    folder : Path
    mask : ants image, optional
        Where in the fixed image the metric counts.

    Raises
    ------
    UnwritableOutputError
        If a file was not written whole, of which ITK says nothing.
    """
    # masks are read as bytes, whatever their type
    masks = [] if mask is None else ["--masks", mask.clone("unsigned char")]
    general = ["--dimensionality", "3", "--output", f"{folder}/", "--float", "1"]
    load_ants().registration([*general, *masks, *stages], None)
    for path in folder.glob("0*"):
        _check_whole(path)


def _check_whole(path: Path) -> None:
    try:
        if path.suffix == ".gz":
            load_image(path)  # tests the checksum
        else:
            read_matrix(path)
    except (UnreadableInputError, RuntimeError, ValueError):
        raise UnwritableOutputError(
            f"{path}: the registration's result was not written whole; free some space in "
            f"{path.parent.parent}, or point TMPDIR to another folder."
        ) from None


def register_linearly(
    fixed: Image,
    moving: Image,
    kinds: Sequence[str],
    *,
    start: NDArray[np.float64],
    shrink: str,
    mask: Image | None = None,
    share: float = 0.5,
) -> NDArray[np.float64]:
    """Return the RAS point mapping (4, 4) from ``fixed`` to ``moving`` by mutual information.

    Parameters
    ----------
    fixed, moving : Image
    kinds : sequence of str
        ITK's transforms in turn: ``Rigid``, ``Affine``.
    start : ndarray, shape (4, 4)
        First guess.
    shrink : str
        Factors by level, for example ``4x2x1``; images are smoothed by half of each.
    mask : Image, optional
        Where in the fixed image the metric counts.
    share : float
        Of the fixed image's voxels that are compared.
    """
    images = [to_itk(fixed), to_itk(moving)]
    factors = [int(f) for f in shrink.split("x")]
    iterations = "x".join(["500", "250", "100", "50"][: len(factors)])
    smoothing = "x".join(f"{f / 2:g}" for f in factors)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_matrix(start, folder / "start.txt")
        stages = ["--initial-moving-transform", f"{folder}/start.txt"]
        for kind in kinds:
            stages += ["--transform", f"{kind}[0.1]"]
            stages += ["--metric", metric("MI", *images, "1", "32", "Regular", f"{share:g}")]
            stages += ["--convergence", f"[{iterations},1e-6,10]"]
            stages += ["--shrink-factors", shrink, "--smoothing-sigmas", f"{smoothing}vox"]
        run_registration(stages, folder, None if mask is None else to_itk(mask))
        return read_matrix(folder / "0GenericAffine.mat")
