"""What is run to see whether results drift: each case gives outputs by name.

The data are data_examples, whose bytes are fixed, a small field that is computed here, and a tiny
cohort.  Nothing of them depends on how a library draws normal numbers.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bids_qsm.anatomy import warp
from bids_qsm.anatomy.appearance import fit_to_appearance
from bids_qsm.anatomy.itk import read_matrix
from bids_qsm.bids.echoes import Echoes, load_echoes
from bids_qsm.bids.inputs import find_series
from bids_qsm.choices import METHODS
from bids_qsm.cli import main
from bids_qsm.images import Image, load_image
from bids_qsm.numerics import masking
from bids_qsm.numerics.convolution import convolve
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Bool, Float32, Geometry, dipole_kernel
from bids_qsm.numerics.registry import options_of
from bids_qsm.settings import Processing, Settings
from tests.analyses.tiny import cohort_of, made, make, small_pictures
from tests.golden.drift import LOOSE, REGISTERED, STRICT, Output, Tolerances
from tests.golden.store import load_made_in
from tests.golden.surroundings import surroundings
from tests.one_process import one_process

Outputs = dict[str, Output]

EXAMPLES = Path(__file__).resolve().parents[2] / "data_examples" / "bids"
FEWER_ITERATIONS = {"WHOLE_SEARCH": "40x40x10", "DEEP_SEARCH_BY_BOTH": "3"}
EXTRA = "swi,separation,uncertainty,microbleeds"
ANALYSES: Mapping[str, Mapping[str, Any]] = {
    "regions": {"covariates": ["age"]},
    "voxelwise": {"measures": ["Chimap"], "covariates": ["age"], "permutations": 20},
    "regression": {
        "outcomes": ["thalamus_Chimap"],
        "predictors": ["age", "group"],
        "covariates": ["sex"],
    },
    "longitudinal": {"measures": ["Chimap"]},
    "reliability": {"measures": ["Chimap"]},
    "power": {},
}


def job(folder: Path, preset: str, *words: str, echoes: int = 4) -> Outputs:
    """Process the examples' second subject, without its T1w, from files to files."""
    bids, out = _example(folder / "bids", echoes), folder / "out"
    with one_process(pictures=False):
        status = main([str(bids), str(out), "participant", "--preset", preset, *words])
    assert status == 0, f"the run ended with status {status}"
    return outputs_below(out)


def anatomy(folder: Path) -> Outputs:
    """Process the examples' second subject with its T1w; registrations take fewer steps.

    The methods before are those that pass on a last digit as it is.
    """
    out = folder / "out"
    words = ("--participant-label", "02", "--preset", "consensus", "--reference", "auto")
    with one_process(pictures=False), pytest.MonkeyPatch.context() as patch:
        for name, iterations in FEWER_ITERATIONS.items():
            patch.setattr(warp, name, replace(getattr(warp, name), iterations=iterations))
        status = main([str(EXAMPLES), str(out), "participant", *words])
    assert status == 0, f"the run ended with status {status}"
    return {
        "searches": searches(),
        **outputs_below(out),
        **{path.name: corners(path) for path in sorted(out.glob("sub-*/**/*_xfm.txt"))},
    }


def searches() -> pd.DataFrame:
    """Tell the options of what makes labels: as users run it, not as the case does."""
    rows = [(name, str(getattr(warp, name))) for name in dir(warp) if "_SEARCH" in name]
    fit = ("fit_to_appearance", _words(options_of(fit_to_appearance)))
    return pd.DataFrame([*rows, fit], columns=["name", "options"])


def corners(transform: Path) -> pd.DataFrame:
    """Return where a transform takes the corners of a cube as large as a head, in mm."""
    cube = np.stack(np.meshgrid(*3 * [[-80.0, 80.0]]), axis=-1).reshape(-1, 3)
    matrix = read_matrix(transform)
    return pd.DataFrame(cube @ matrix[:3, :3].T + matrix[:3, 3], columns=["x", "y", "z"])


def outputs_below(out: Path) -> Outputs:
    """Return images and tables of subjects, and what the records say of methods.

    T2* is left out: it is 1/R2*, which is a rounding error in voxels without decay.
    """
    found: Outputs = {}
    images = (path for path in out.glob("sub-*/**/*.nii.gz") if "_T2starmap" not in path.name)
    for path in sorted(images):
        dtype = np.int16 if path.name.endswith(("_mask.nii.gz", "_dseg.nii.gz")) else np.float32
        found[path.name.removesuffix(".nii.gz")] = load_image(path, dtype)
    for path in sorted(out.glob("sub-*/**/*.tsv")):
        table = pd.read_csv(path, sep="\t", keep_default_na=False)
        found[path.name] = table.drop(columns="sentence", errors="ignore")  # it says the values
    for path in sorted(out.glob("logs/*_record.json")):
        steps = json.loads(path.read_text())["steps"]
        rows = [(step["name"], step["method"], _words(step["parameters"])) for step in steps]
        found[f"{path.name}: steps"] = pd.DataFrame(rows, columns=["step", "method", "options"])
    return found


def defaults(folder: Path) -> Outputs:
    """Tell the options of every method of every step."""
    rows = [
        (step, name, _words(options_of(function)))
        for step, methods in METHODS.items()
        for name, function in methods.items()
    ]
    return {"methods": pd.DataFrame(rows, columns=["step", "method", "options"])}


def background(folder: Path) -> Outputs:
    """Remove the background of the small field by every method."""
    return {name: without_background(name) for name in METHODS["background"]}


def without_background(name: str, **options: Any) -> Image:
    """Remove the background of the small field."""
    total, _ = small_fields()
    return _image(METHODS["background"][name](total, **options).field_ppm, total.geometry)


def inversion(folder: Path) -> Outputs:
    """Invert the small field by every method."""
    return {name: inverted(name) for name in METHODS["inversion"]}


def inverted(name: str, **options: Any) -> Image:
    """Invert the small field."""
    _, local = small_fields()
    return _image(METHODS["inversion"][name](local, **options), local.geometry)


def field(folder: Path) -> Outputs:
    """Unwrap, fit and mask the example's phase by every method of each of these steps."""
    echoes, brain = _example_echoes()
    geometry, te_s, magnitude = echoes.geometry, echoes.te_s, echoes.magnitude
    given = (magnitude, te_s, brain)
    phase = METHODS["offset"]["mcpc3ds"](echoes.phase.copy(), *given, geometry).phase
    found: Outputs = {"mcpc3ds": Image(phase, echoes.affine)}
    for name, unwrap in METHODS["unwrapping"].items():
        values = unwrap(phase.copy(), *given)
        found[f"unwrapping {name}"] = Image(values, echoes.affine)
    unwrapped = found["unwrapping romeo"].data
    for name, fit in METHODS["field"].items():
        fitted = fit(unwrapped.copy(), *given, geometry)
        for what in ("field_hz", "noise_hz", "residual"):
            found[f"field {name} {what}"] = Image(getattr(fitted, what), echoes.affine)
    return found


def relaxometry(folder: Path) -> Outputs:
    """Map R2* of the example by every method, a field's gradient in mind."""
    echoes, brain = _example_echoes()
    x, y, z = np.indices(brain.shape, np.float32)
    field_hz = (0.02 * (x - 20) ** 2 - 1.5 * y + 3 * z).astype(np.float32)
    found: Outputs = {}
    for name, fit in METHODS["relaxometry"].items():
        fitted = fit(echoes.magnitude, echoes.te_s, brain, field_hz, True)
        for what in ("r2star_per_s", "s0", "r2star_sd_per_s"):
            found[f"{name} {what}"] = Image(getattr(fitted, what), echoes.affine)
    return found


def group(folder: Path) -> Outputs:
    """Make the analyses of the group level of a tiny cohort."""
    tiny, work = make(folder / "tiny", n_each=5), folder / "work"
    work.mkdir()
    cohort = cohort_of(tiny, work)
    found: Outputs = {"scans": cohort.scans.drop(columns="path", errors="ignore")}
    for kind, words in ANALYSES.items():
        with small_pictures():
            result = made(cohort, kind, **words)
        found |= {f"{kind}: {table.name}": table.table for table in result.tables}
        found |= {f"{kind}: {m.name}": m.image for m in result.maps}
    return found


@cache
def small_fields() -> tuple[FieldMap, FieldMap]:
    """Return total and local field (ppm) of an ellipsoid with nuclei, in a tilted grid."""
    wide = Geometry((44, 50, 40), (2.5, 2.5, 3.0), (0.2, -0.1, np.sqrt(1 - 0.05)))
    axes = zip(wide.shape, wide.voxel_mm, strict=True)
    x, y, z = np.ix_(*((np.arange(n) - (n - 1) / 2) * v for n, v in axes))
    brain = (x / 36) ** 2 + (y / 42) ** 2 + (z / 38) ** 2 < 1
    chi = np.zeros(wide.shape, np.float32)
    for centre, radius, value in (
        ((-14, 4, 2), 8, 0.12), ((13, 3, 3), 8, 0.10), ((0, -16, -6), 7, -0.05),
        ((6, 20, 8), 5, 0.20), ((-8, -4, 16), 5, 0.06),
    ):  # fmt: skip
        a, b, c = centre
        chi += value * np.exp(-((((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / radius**2) ** 2))
    air = np.where((x / 40) ** 2 + (y / 46) ** 2 + (z / 42) ** 2 < 1, 0, 9.4).astype(np.float32)
    kernel = dipole_kernel(wide)
    magnitude = np.where(brain, 800 - 2000 * chi + 3 * x - 2 * y, 5).astype(np.float32)
    noise_ppm = np.where(brain, 2.0 / magnitude, np.inf).astype(np.float32)
    error = np.where(brain, noise_ppm, 0) * _noise(wide.shape)
    decay = np.where(brain, 18 + 120 * np.abs(chi), 0).astype(np.float32)

    def field_of(sources: Float32) -> FieldMap:
        values = np.where(brain, convolve(sources, kernel) + error, 0).astype(np.float32)
        return FieldMap(values, noise_ppm, magnitude, brain, wide, decay)

    return field_of(chi + air), field_of(chi * brain)


def _noise(shape: tuple[int, ...]) -> Float32:
    """Return nearly normal numbers, made of the generator's own integers alone."""
    raw = np.random.PCG64(7).random_raw(12 * int(np.prod(shape)))
    uniform = (raw >> np.uint64(40)).astype(np.float64) / 2**24
    return (uniform.reshape(12, *shape).sum(axis=0) - 6).astype(np.float32)


@cache
def _example_echoes() -> tuple[Echoes, Bool]:
    settings = Settings(EXAMPLES, Path("out"), participant_labels=("02",))
    echoes = load_echoes(find_series(settings).series[0], Processing())
    magnitude = np.sqrt(np.einsum("...e,...e->...", echoes.magnitude, echoes.magnitude))
    return echoes, masking.brain_mask(magnitude, echoes.geometry.voxel_mm)


def _example(bids: Path, n_echoes: int) -> Path:
    folder = bids / "sub-02" / "anat"
    folder.mkdir(parents=True)
    shutil.copy(EXAMPLES / "dataset_description.json", bids)
    for source in sorted((EXAMPLES / "sub-02" / "anat").glob("*MEGRE*")):
        if n_echoes > 1 or "_echo-3_" in source.name:
            shutil.copy(source, folder)
    return bids


def _image(data: Float32, geometry: Geometry) -> Image:
    return Image(data, np.diag([*geometry.voxel_mm, 1.0]))


def _words(options: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(options.items()))


Case = Callable[[Path], Outputs]

CASES: Mapping[str, Case] = {
    "default": lambda folder: job(folder, "default"),
    "fast": lambda folder: job(folder, "fast"),
    "consensus": lambda folder: job(folder, "consensus", "--with", EXTRA),
    "seed-medi": lambda folder: job(folder, "seed-medi"),
    "single-echo": lambda folder: job(folder, "single-echo", echoes=1),
    "defaults": defaults,
    "background": background,
    "inversion": inversion,
    "field": field,
    "relaxometry": relaxometry,
    "group": group,
    "anatomy": anatomy,
}
"""What the tests run."""

_AFTER_BACKGROUND = dict.fromkeys(("_Chimap", "local_fieldmap", "quality_stats"), LOOSE)
WIDER: Mapping[str, Mapping[str, Tolerances]] = {
    "default": _AFTER_BACKGROUND,
    "fast": _AFTER_BACKGROUND,
    "seed-medi": _AFTER_BACKGROUND,
    "background": dict.fromkeys(("joint", "pdf"), LOOSE),
    "inversion": {"ilsqr": LOOSE},
    "anatomy": {"searches": STRICT, "steps": STRICT, "": REGISTERED},
}
"""What follows the last digit of its input far too closely for the usual tolerance."""


def wider(case: str) -> Mapping[str, Tolerances]:
    """Return the wider tolerances of a case; none where every last digit should be the same."""
    is_same = load_made_in().get(case) == surroundings()
    return {} if is_same else WIDER.get(case, {})
