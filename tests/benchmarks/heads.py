"""Simulated heads with their truth: where it lies, and what each stage starts from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_qsm.bids.echoes import Echoes, load_echoes
from bids_qsm.bids.inputs import Series, find_series
from bids_qsm.errors import UnreadableInputError
from bids_qsm.images import load_image
from bids_qsm.numerics import field
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Bool, Float32, Geometry, hz_per_ppm
from bids_qsm.numerics.phase import wrap
from bids_qsm.settings import Processing, Settings
from tests.benchmarks import scores

TRUTH_FOLDERS = ("truth", "qsm-forward")
TRUTH_FILES = {
    "chi": ("Chimap",),
    "labels": ("dseg",),
    "mask": ("label-brain_mask", "mask"),
    # the shimmed field is what the phase was made of
    "total": ("desc-total_fieldmap", "desc-shimmed_fieldmap", "fieldmap"),
    "local": ("desc-local_fieldmap", "fieldmap-local"),
}
"""The ends of the names of each map, the best first."""
IN_HZ = ("desc-total_fieldmap", "desc-local_fieldmap")
"""Fields of bids-qsm-phantom; those of qsm-forward are in ppm."""

FREESURFER_NUCLEI = (10, 49, 11, 50, 12, 51, 13, 52)
"""Thalamus, caudate, putamen, pallidum."""
CHALLENGE_NUCLEI = (1, 2, 3, 4, 5, 6, 7)
"""Labels of the QSM challenge's head phantom (Marques 2021, 10.1002/mrm.28716)."""

NEEDS = {"background": {"total", "local"}, "inversion": {"local"}, "chain": set[str]()}
NOISE_SEED = 1


@dataclass(frozen=True)
class Head:
    """A series with its truth.

    Attributes
    ----------
    name : str
        The dataset's folder and the series.
    series : Series
    files : mapping of str to Path
        The true maps that there are, by the keys of ``TRUTH_FILES``.
    """

    name: str
    series: Series
    files: Mapping[str, Path]

    def allows(self, stage: str) -> bool:
        """Return whether the truth has what a stage needs."""
        return NEEDS[stage] <= self.files.keys()


def find_heads(dataset: Path, participants: Sequence[str] = ()) -> list[Head]:
    """Return the heads of a dataset.

    Raises
    ------
    UnreadableInputError
        If a series has no true susceptibility, mask and labels.
    """
    settings = Settings(dataset, dataset, participant_labels=tuple(participants))
    return [_head(dataset, series) for series in find_series(settings).series]


def _head(dataset: Path, series: Series) -> Head:
    files = {}
    for key, ends in TRUTH_FILES.items():
        found = [
            path
            for end in ends
            for folder in TRUTH_FOLDERS
            for path in sorted(
                (dataset / "derivatives" / folder).rglob(f"{series.name}_{end}.nii*")
            )
        ]
        if found:
            files[key] = found[0]
        elif key in ("chi", "labels", "mask"):
            raise UnreadableInputError(
                f"{dataset}: {series.name} has no true map that ends in {' or '.join(ends)} below "
                f"derivatives/{' or derivatives/'.join(TRUTH_FOLDERS)}."
            )
    return Head(f"{dataset.resolve().name}/{series.name}", series, files)


def load_truth(head: Head) -> scores.Truth:
    """Return the true susceptibility with its regions."""
    labels = load_image(head.files["labels"], np.int16).data
    there = set(np.unique(labels).tolist())
    nuclei = FREESURFER_NUCLEI if there >= {10, 49} else CHALLENGE_NUCLEI
    mask = load_mask(head)
    chi_ppm = np.where(mask, load_image(head.files["chi"]).data, np.float32(0))
    return scores.truth_of(chi_ppm, mask, labels, nuclei, geometry_of(head))


def load_mask(head: Head) -> Bool:
    return load_image(head.files["mask"], np.int16).data > 0


def geometry_of(head: Head) -> Geometry:
    return load_image(head.files["chi"]).geometry


def load_field_ppm(head: Head, key: str) -> Float32:
    """Return the true ``total`` or ``local`` field."""
    path = head.files[key]
    field = load_image(path).data
    in_hz = any(path.name.startswith(f"{head.series.name}_{end}.") for end in IN_HZ)
    return field / np.float32(hz_per_ppm(head.series.b0_t)) if in_hz else field


def write_inputs(head: Head, path: Path, tell: Callable[[str], None]) -> None:
    """Write what background removal and inversion start from: true fields with noise.

    The noise of each voxel is that of the program's own field fit, to the phase as it was acquired
    (unwrapped by the truth), and its draw is the same for both fields.
    """
    tell("inputs")
    mask, fields = load_mask(head), [key for key in ("total", "local") if key in head.files]
    true_ppm = {key: load_field_ppm(head, key) for key in fields}
    echoes = load_echoes(head.series, Processing())
    magnitude = np.sqrt(np.einsum("...e,...e->...", echoes.magnitude, echoes.magnitude))
    noise_ppm = _field_noise_ppm(echoes, true_ppm.get("total", true_ppm[fields[-1]]), mask)
    known = mask & np.isfinite(noise_ppm)
    error = np.random.default_rng(NOISE_SEED).standard_normal(mask.shape, np.float32)
    error = np.where(known, error * np.where(known, noise_ppm, 0), np.float32(0))
    noisy = {key: np.where(mask, true_ppm[key] + error, np.float32(0)) for key in fields}
    np.savez(path, noise=noise_ppm, magnitude=magnitude, mask=mask, **noisy)


def _field_noise_ppm(echoes: Echoes, total_ppm: Float32, mask: Bool) -> Float32:
    assert echoes.phase is not None
    scale = np.float32(hz_per_ppm(echoes.b0_t))
    unwrapped = np.empty_like(echoes.phase)
    offset = np.float32(0)
    for echo, te_s in enumerate(echoes.te_s):
        expected = total_ppm * np.float32(2 * np.pi * scale * te_s) + offset
        unwrapped[..., echo] = expected + wrap(echoes.phase[..., echo] - expected)
        if echo == 0:
            offset = unwrapped[..., 0] - expected
    fit = field.METHODS["nonlinear"]
    fitted = fit(unwrapped, echoes.magnitude, echoes.te_s, mask, echoes.geometry)
    return fitted.noise_hz / scale


def read_field_map(path: Path, key: str, geometry: Geometry) -> FieldMap:
    """Return the ``total`` or ``local`` field that :func:`write_inputs` wrote."""
    with np.load(path) as stored:
        parts = (stored[name] for name in (key, "noise", "magnitude", "mask"))
        return FieldMap(*parts, geometry)
