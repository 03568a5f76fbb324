"""Tiny atlases that several test files write."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from bids_qsm.images import Image, encode_image

TABLE = (
    "index\tname\themisphere\tabbreviation\n1\tLeft putamen\tL\tPut_L\n2\tRight putamen\tR\tPut_R\n"
)
SPACE = "MNI152NLin2009cAsym"

# 2 mm voxels around the putamina of the template
AFFINE = np.array([[2.0, 0, 0, -40], [0, 2, 0, -16], [0, 0, 2, -16], [0, 0, 0, 1]])
SHAPE = (41, 17, 17)


def putamina() -> np.ndarray:
    """Two boxes at x = -26 and +26 mm, y and z about 0: labels 1 (left) and 2 (right)."""
    data = np.zeros(SHAPE, np.int16)
    data[5:10, 5:12, 5:12], data[31:36, 5:12, 5:12] = 1, 2
    return data


def save(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_image(Image(data, affine)))
    return path


def write_folder(parent: Path, name: str = "Tiny", data: np.ndarray | None = None) -> Path:
    """Write an atlas folder in the documented layout."""
    folder = parent / f"atlas-{name}"
    labels = putamina() if data is None else data
    save(folder / f"tpl-{SPACE}_res-2_atlas-{name}_dseg.nii.gz", labels)
    (folder / f"atlas-{name}_dseg.tsv").write_text(TABLE)
    text = {"Name": "A tiny one", "License": "CC0", "ReferencesAndLinks": ["Nobody 1999"]}
    description = json.dumps({**text, "Space": SPACE})
    (folder / f"atlas-{name}_description.json").write_text(description)
    return folder


def add_member(folder: Path, member: str = "01", chi: bool = True) -> Path:
    """Add a person to an atlas folder, on an oblique grid of its own."""
    name = folder.name.removeprefix("atlas-")
    own = folder / f"sub-{member}"
    turn = np.eye(4)
    turn[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    affine = turn @ AFFINE
    brain = np.zeros(SHAPE, np.float32)
    brain[3:38, 3:14, 3:14] = 100
    save(own / f"sub-{member}_T1w.nii.gz", brain, affine)
    save(own / f"sub-{member}_atlas-{name}_dseg.nii.gz", putamina(), affine)
    if chi:
        values = 0.05 * (putamina() > 0).astype(np.float32)
        save(own / f"sub-{member}_Chimap.nii.gz", values, affine)
    return own
