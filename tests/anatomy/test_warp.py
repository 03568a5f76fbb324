from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from bids_qsm.anatomy.brain import PreparedT1w
from bids_qsm.anatomy.deep_grey import SeriesChi
from bids_qsm.anatomy.grids import near
from bids_qsm.anatomy.resampling import apply_transforms
from bids_qsm.anatomy.warp import Warp, refit_deep_grey, register_to_template
from bids_qsm.images import Image

REGISTER = """
import sys
from pathlib import Path
import numpy as np
from bids_qsm.anatomy.brain import PreparedT1w
from bids_qsm.anatomy.warp import register_to_template
from bids_qsm.images import Image
file = np.load(sys.argv[1])
image = Image(file["image"], file["affine"])
t1w = PreparedT1w(image, image.like(file["brain"]), np.eye(4))
register_to_template(t1w, Path(sys.argv[2]), Image(file["template"], file["affine"]))
"""


@pytest.fixture(scope="module")
def bent(template_4mm: Image) -> tuple[PreparedT1w, np.ndarray]:
    """The template, bent by some 8 mm around the ventricles, and its bright half bent alike."""
    voxels = np.indices(template_4mm.shape).astype(np.float32)
    centre = np.array(template_4mm.shape) / 2
    away = voxels - centre[:, None, None, None]
    swell = 0.45 * np.exp(-(away**2).sum(axis=0) / (2 * 7.0**2))
    where = voxels - swell * away

    def bend(data: np.ndarray, order: int) -> np.ndarray:
        return ndimage.map_coordinates(data, where, order=order)

    image = template_4mm.like(bend(template_4mm.data, 1))
    brain = image.like(near(image.data > 0, 4.0, (4.0, 4.0, 4.0)))
    return PreparedT1w(image, brain, np.eye(4)), bend(_grey(template_4mm), 0)


def _grey(template: Image) -> np.ndarray:
    inside = template.data[template.data > 0]
    return ((template.data > np.percentile(inside, 60)) & (template.data > 0)).astype(np.int16)


@pytest.fixture(scope="module")
def warp(bent, template_4mm, tmp_path_factory) -> Warp:
    return register_to_template(bent[0], tmp_path_factory.mktemp("warp"), template_4mm)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * ((a > 0) & (b > 0)).sum() / ((a > 0).sum() + (b > 0).sum())


def test_labels_follow_the_bend(bent, warp, template_4mm):
    t1w, truth = bent
    labels = template_4mm.like(_grey(template_4mm))
    before = dice(labels.data, truth)
    after = dice(apply_transforms(labels, t1w.image, warp.t1w_to_template, "label").data, truth)
    assert before < 0.92
    assert after > before + 0.5 * (1 - before)


def test_there_and_back(bent, warp, template_4mm):
    """The chain and its inverse cancel: a smooth image returns."""
    x, y, z = np.indices(template_4mm.shape)
    ramp = template_4mm.like((x + 2 * y - z).astype(np.float32))
    there = apply_transforms(ramp, template_4mm, warp.t1w_to_template)
    back = apply_transforms(there, template_4mm, warp.template_to_t1w).data
    inner = ndimage.binary_erosion(template_4mm.data > 0, iterations=3)
    assert np.abs(back - ramp.data)[inner].mean() < 0.25  # voxels of 4 mm


def test_restart_takes_what_is_there(bent, warp, template_4mm):
    made = {path.name: path.stat().st_mtime_ns for path in warp.folder.iterdir()}
    again = register_to_template(bent[0], warp.folder, template_4mm)
    assert again == warp and again.is_complete
    assert {path.name: path.stat().st_mtime_ns for path in warp.folder.iterdir()} == made
    assert sorted(made) == [
        "deep_inverse.nii.gz",
        "deep_warp.nii.gz",
        "template_to_t1w.txt",
        "whole_inverse.nii.gz",
        "whole_warp.nii.gz",
    ]


def test_susceptibility_moves_what_the_t1w_does_not_show(
    warp, bent, template_4mm, tmp_path, rigid_matrix
):
    """A nucleus that only χ shows lies 6 mm from where the T1w's warp expects it."""
    world = template_4mm.affine[:3, :3] @ np.indices(template_4mm.shape).reshape(3, -1)
    world += template_4mm.affine[:3, 3:]

    def nucleus(y_mm: float) -> Image:
        near_it = ((world - np.array([[24.0], [y_mm], [0.0]])) ** 2).sum(axis=0) < 14.0**2
        return template_4mm.like(near_it.reshape(template_4mm.shape).astype(np.int16))

    def chi_of(labels: Image) -> Image:
        return labels.like(ndimage.gaussian_filter(0.1 * labels.data.astype(np.float32), 0.5))

    labels = nucleus(-6.0)
    truth = apply_transforms(nucleus(0.0), bent[0].image, warp.t1w_to_template, "label")
    to_gre = rigid_matrix((0.0, 0.0, 5.0), (3.0, 0.0, 0.0))
    chi = Image(chi_of(truth).data, to_gre @ truth.affine)
    series = SeriesChi(chi, chi.like(np.ones(chi.shape, bool)), to_gre)
    refitted = refit_deep_grey(warp, bent[0], tmp_path, series, chi_of(labels), template_4mm)
    before, after = (
        dice(apply_transforms(labels, truth, w.t1w_to_template, "label").data, truth.data)
        for w in (warp, refitted)
    )
    assert before < 0.75 < 0.85 < after
    assert refitted.is_complete and not Warp(tmp_path).is_complete
    made = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    refit_deep_grey(warp, bent[0], tmp_path, series, chi_of(labels), template_4mm)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == made


def test_same_bytes_again_and_for_any_number_of_threads(bent, warp, template_4mm, tmp_path):
    """This process, on one thread, and a fresh one whose surroundings ask for three."""
    t1w = bent[0]
    arrays = {"image": t1w.image.data, "brain": t1w.brain.data, "template": template_4mm.data}
    np.savez(tmp_path / "in.npz", affine=t1w.image.affine, **arrays)
    folder, temporary = tmp_path / "out", tmp_path / "tmp"
    temporary.mkdir()
    environment = {
        **os.environ,
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "3",
        "OMP_NUM_THREADS": "3",
        "TMPDIR": str(temporary),
    }
    command = [sys.executable, "-c", REGISTER, str(tmp_path / "in.npz"), str(folder)]
    subprocess.run(command, check=True, env=environment, timeout=300)
    assert not list(temporary.iterdir())
    digests = [
        [(f.name, hashlib.sha256(f.read_bytes()).hexdigest()) for f in sorted(made.iterdir())]
        for made in (warp.folder, folder)
    ]
    assert len(digests[0]) == 5 and digests[0] == digests[1]


def test_no_file_is_left_when_it_fails(bent, template_4mm, tmp_path, monkeypatch):
    from bids_qsm.anatomy import warp as module

    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(module, "run_registration", fail)
    with pytest.raises(RuntimeError, match="broken"):
        register_to_template(bent[0], tmp_path / "work", template_4mm)
    assert not list(Path(tmp_path / "temporary").iterdir())
    assert not Warp(tmp_path / "work").is_complete
