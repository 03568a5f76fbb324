"""What is wrong with an atlas: sentences for whoever made it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_qsm.anatomy.atlas_files import (
    AtlasFolder,
    find_atlas_folder,
    hemisphere_in,
    is_atlas_folder,
    read_description,
)
from bids_qsm.anatomy.atlases import Atlas, load_atlas, named_atlases
from bids_qsm.anatomy.grids import on_grid
from bids_qsm.anatomy.template import load_template
from bids_qsm.errors import UnreadableInputError
from bids_qsm.images import Image, load_image

INSIDE_SHARE = 0.8
NEAR_MM = 12.0
MIDLINE_MM = 1.0
LEAST_T1W_CORRELATION = 0.6
GREATEST_PPM = 3.0

# centres of left structures in MNI152NLin2009cAsym (mm, as in the Harvard-Oxford, CIT168 and 7TAMI
# atlases); the right ones lie mirrored
CENTRES_MM = {
    "accumbens": (-10, 10, -9),
    "amygdala": (-23, -5, -18),
    "caudate": (-14, 8, 9),
    "dentate": (-16, -57, -34),
    "globus pallidus externa": (-19, -1, 0),
    "globus pallidus interna": (-17, -5, -4),
    "hippocampus": (-25, -23, -14),
    "pallidum": (-19, -4, -1),
    "putamen": (-26, 1, 0),
    "red": (-5, -19, -9),
    "substantia nigra": (-9, -18, -14),
    "subthalamic": (-11, -13, -7),
    "thalamus": (-11, -18, 7),
}
NOT_TELLING = {"left", "right", "l", "r", "lh", "rh", "nucleus", "nuclei", "proper"}


def atlas_problems(name_or_path: str) -> list[str]:
    """Return what is wrong with an atlas, a sentence each; nothing where all is well.

    Beside what :func:`~bids_qsm.anatomy.atlases.load_atlas` asks for: a licence, labels that are
    whole numbers and none missing, left on the left, structures where a brain has them, T1w and
    susceptibility that are such, and members that can be read.
    """
    try:
        atlas = load_atlas(name_or_path)
    except UnreadableInputError as error:
        return [str(error)]
    path = named_atlases().get(name_or_path, Path(name_or_path))
    folder = find_atlas_folder(path) if is_atlas_folder(path) else None
    found = list(_label_problems(atlas))
    if folder is not None:
        found += _folder_problems(folder, atlas)
    found += _side_problems(atlas.table, atlas.labels)
    found += _place_problems(atlas)
    found += _member_problems(atlas)
    return found


def whole_numbers_problem(labels: Image, path: Path) -> str | None:
    """Return what is wrong with the values of a label image read as float32, if something is."""
    values = labels.data
    if not np.isfinite(values).all() or (values != np.rint(values)).any():
        return (
            f"{path}: the labels are not whole numbers, so the image was interpolated; resample it "
            "by nearest neighbour."
        )
    if values.min() < 0 or values.max() > np.iinfo(np.int16).max:
        return f"{path}: labels must lie between 0 and {np.iinfo(np.int16).max}."
    return None


def _label_problems(atlas: Atlas) -> Iterator[str]:
    if atlas.license.strip().lower() in ("", "not stated"):
        yield f"{atlas.name}: no licence is stated; add 'License' to the description."
    counts = np.bincount(np.maximum(atlas.labels.data, 0).ravel())
    for row in atlas.table.itertuples():
        if row.index >= len(counts) or counts[row.index] == 0:
            yield f"{atlas.name}: the label {row.index} ({row.name}) of the table has no voxel."
    for row in atlas.table.itertuples():
        told = hemisphere_in(row.name)
        if told not in ("B", row.hemisphere):
            yield (
                f"{atlas.name}: the table says hemisphere {row.hemisphere} for {row.name!r} (label "
                f"{row.index}); correct one of them."
            )


def _folder_problems(folder: AtlasFolder, atlas: Atlas) -> Iterator[str]:
    problem = whole_numbers_problem(load_image(folder.labels), folder.labels)
    if problem:
        yield problem
    space = read_description(folder.description).get("Space")
    if space != folder.space:
        yield (
            f"{folder.description}: 'Space' is {space!r}, and the labels are named "
            f"tpl-{folder.space}; they must agree."
        )
    if folder.probabilities is not None:
        yield from _probability_problems(folder.probabilities, atlas)
    if folder.t1w is not None:
        yield from _t1w_problems(folder.t1w)
    if atlas.chi is not None and folder.chi is not None:
        yield from _chi_problems(folder.chi, atlas.chi.data)


def _probability_problems(path: Path, atlas: Atlas) -> Iterator[str]:
    data = load_image(path, np.float32).data
    if data.ndim != 4 or data.shape[3] != len(atlas.table):
        yield (
            f"{path}: expected one volume for each of the {len(atlas.table)} rows of the table, "
            f"got the shape {data.shape}."
        )
    elif data.min() < 0 or data.max() > 1.001:
        yield f"{path}: probabilities must lie between 0 and 1, got up to {data.max():g}."


def _t1w_problems(path: Path) -> Iterator[str]:
    template = load_template()
    values = on_grid(load_image(path, np.float32), template).data
    both = (values > 0) & (template.data > 0)
    shared = both.sum() > 0.5 * (template.data > 0).sum()
    correlation = np.corrcoef(values[both], template.data[both])[0, 1] if shared else 0.0
    if correlation < LEAST_T1W_CORRELATION:
        yield (
            f"{path}: the T1w image does not look like the template's (correlation "
            f"{correlation:.2f}): it is in another space, or moved."
        )


def _chi_problems(path: Path, chi_ppm: NDArray[np.float32]) -> Iterator[str]:
    greatest = float(np.percentile(np.abs(chi_ppm[chi_ppm != 0]), 99)) if chi_ppm.any() else 0.0
    if not 0 < greatest < GREATEST_PPM:
        yield (
            f"{path}: susceptibility must be in ppm, and 99 % of its values lie below "
            f"{greatest:.3g}; convert it (ppb / 1000)."
        )
    if np.count_nonzero(chi_ppm) > 0.9 * chi_ppm.size:
        yield f"{path}: the susceptibility must be zero outside the brain, and it is not."


def _side_problems(table: pd.DataFrame, labels: Image) -> list[str]:
    """Return the structures on the wrong side; one sentence where all are."""
    sided = table[table["hemisphere"].isin(["L", "R"])]
    wrong, n_seen = [], 0
    for row in sided.itertuples():
        centre = centre_mm(labels, row.index)
        if centre is None:
            continue
        n_seen += 1
        to_left = -centre[0] if row.hemisphere == "L" else centre[0]
        if to_left < -MIDLINE_MM:
            wrong.append((row.name, row.index, centre[0]))
    if len(wrong) > 1 and len(wrong) == n_seen:
        return [
            "Every structure lies on the wrong side (left must have negative x): the image was "
            "flipped, or left and right are swapped in the table."
        ]
    return [
        f"{name} (label {index}) lies on the wrong side, at x = {x:+.0f} mm: the table's names are "
        "in another order than the labels, or left and right are swapped."
        for name, index, x in wrong
    ]


def centre_mm(labels: Image, index: int) -> NDArray[np.float64] | None:
    """Return the centre of a label in the image's world; nothing where it has no voxel."""
    where = np.argwhere(labels.data == index)
    if len(where) == 0:
        return None
    return labels.affine[:3, :3] @ where.mean(axis=0) + labels.affine[:3, 3]


def _place_problems(atlas: Atlas) -> Iterator[str]:
    share = inside_share(atlas.labels)
    if share < INSIDE_SHARE:
        yield (
            f"{atlas.name}: only {100 * share:.0f} % of the labels' voxels lie in the template's "
            f"brain: the image is not in the space {atlas.space}, or its affine is wrong."
        )
        return
    for row in atlas.table.itertuples():
        usual = CENTRES_MM.get(_plain(row.name))
        centre = centre_mm(atlas.labels, row.index)
        if usual is None or centre is None or row.hemisphere == "B":
            continue
        expected = np.array(usual) * ((1, 1, 1) if row.hemisphere == "L" else (-1, 1, 1))
        distance_mm = float(np.linalg.norm(centre - expected))
        # one that is on the wrong side is said already
        if distance_mm > NEAR_MM and centre[0] * expected[0] > 0:
            yield (
                f"{row.name} (label {row.index}) lies {distance_mm:.0f} mm from where the template "
                "has it: the table's names are in another order than the labels, or the image is "
                "in another space."
            )


def inside_share(labels: Image) -> float:
    """Return which part of the labels' voxels lies in the template's brain."""
    template = load_template()
    where = np.argwhere(labels.data > 0)
    to_voxel = np.linalg.inv(template.affine) @ labels.affine
    voxels = np.rint(where @ to_voxel[:3, :3].T + to_voxel[:3, 3]).astype(int)
    within = ((voxels >= 0) & (voxels < template.shape)).all(axis=1)
    inside = template.data[tuple(voxels[within].T)] > 0
    return float(inside.sum() / max(1, len(where)))


def _plain(name: str) -> str:
    words = [w for w in re.split(r"[^a-z]+", name.lower()) if w and w not in NOT_TELLING]
    return " ".join(words)


def _member_problems(atlas: Atlas) -> Iterator[str]:
    known = set(atlas.table["index"])
    for files in atlas.members:
        problem = whole_numbers_problem(load_image(files.labels), files.labels)
        if problem:
            yield problem
            continue
        try:
            member = files.load()
        except UnreadableInputError as error:
            yield str(error)
            continue
        unnamed = sorted(set(np.unique(member.labels.data).tolist()) - known - {0})
        if unnamed:
            yield f"{files.labels}: the table has no row for the label {unnamed[0]}; add it."
        if np.count_nonzero(member.t1w.data) > 0.9 * member.t1w.data.size:
            yield f"{files.t1w}: the T1w image of a member must be zero outside the brain."
        if member.chi is not None and files.chi is not None:
            yield from _chi_problems(files.chi, member.chi.data)
        yield from (
            f"{files.labels}: {text}" for text in _order_problems(atlas.table, member.labels)
        )


def _order_problems(table: pd.DataFrame, labels: Image) -> Iterator[str]:
    """Say where left structures do not lie left of right ones; the middle is not known here."""
    centres = {
        side: [
            centre[0]
            for index in table.loc[table["hemisphere"] == side, "index"]
            if (centre := centre_mm(labels, index)) is not None
        ]
        for side in "LR"
    }
    if centres["L"] and centres["R"] and np.mean(centres["L"]) >= np.mean(centres["R"]):
        yield "left structures lie to the right of right ones: the image was flipped."
