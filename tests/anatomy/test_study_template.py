"""A group's template."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bids_qsm.anatomy import study_template
from bids_qsm.anatomy.atlas_build import SubjectFiles
from bids_qsm.anatomy.grids import coarser
from bids_qsm.anatomy.study_template import (
    Aligned,
    displaced,
    group_mean,
    inverse_displacement,
    write_study_template,
)
from bids_qsm.anatomy.template import load_template
from bids_qsm.errors import CommandLineError, NothingToDoError
from bids_qsm.images import Image


def bump(grid: Image, amplitude_mm: float, axis: int) -> np.ndarray:
    """A smooth displacement of the world along one axis, largest in the middle."""
    centre = np.array(grid.shape) / 2
    away = np.indices(grid.shape) - centre[:, None, None, None]
    field = np.zeros((*grid.shape, 3), np.float32)
    field[..., axis] = amplitude_mm * np.exp(-(away**2).sum(axis=0) / (2 * 6.0**2))
    return field


@pytest.fixture(scope="module")
def grid(template_4mm) -> Image:
    return template_4mm


def test_there_and_back_is_where_it_was(grid):
    turned = grid.affine @ np.diag([-1, 1, 1, 1])  # the world's axes are not the voxels'
    image = Image(grid.data, turned)
    field = bump(image, 6.0, 0) + bump(image, -4.0, 2)
    back = inverse_displacement(field, image)
    there = np.stack([displaced(back[..., i], field, image) for i in range(3)], axis=-1)
    assert np.abs(field).max() > 5 and np.abs(field + there).max() < 0.1


def test_displacement_is_in_mm_of_the_world(grid):
    affine = np.diag([-4.0, 4.0, 4.0, 1.0])
    data = np.zeros((9, 9, 9), np.float32)
    data[3, 4, 4] = 1
    shift = np.zeros((9, 9, 9, 3), np.float32)
    shift[..., 0] = 8.0  # 8 mm to the right are two voxels down
    assert displaced(data, shift, Image(data, affine))[5, 4, 4] == pytest.approx(1)


@pytest.fixture(scope="module")
def coarse() -> Image:
    return coarser(load_template(), 6.0)


@pytest.fixture(scope="module")
def group(coarse, tmp_path_factory) -> list[Aligned]:
    return bent_both_ways(coarse, tmp_path_factory.mktemp("group"))


def bent_both_ways(grid: Image, folder: Path) -> list[Aligned]:
    """The template, bent one way and the opposite way; its bright voxels stand for χ."""
    truth = grid.data / np.median(grid.data[grid.data > 0])
    people = []
    for number, sign in enumerate((1, -1)):
        field = sign * bump(grid, 9.0, 1)
        t1w = displaced(truth.astype(np.float32), field, grid)
        chi = 0.1 * (t1w > 1.15).astype(np.float32)
        paths = []
        for what, data in (("t1w", t1w), ("chi", chi), ("known", (t1w > 0).astype(np.float32))):
            paths.append(folder / f"{number}.{what}.npy")
            np.save(paths[-1], data)
        people.append(Aligned(*paths))
    return people


def test_opposite_bends_meet_in_the_middle(coarse, group):
    truth = coarse.data / np.median(coarse.data[coarse.data > 0])
    inside = coarse.data > 0
    bent = inside & (bump(coarse, 9.0, 1)[..., 1] > 3)  # elsewhere interpolation rules

    def error(t1w: Image) -> float:
        return float(np.sqrt(np.mean((t1w.data - truth)[bent] ** 2)))

    start, _ = group_mean(group, coarse, 0)
    lines: list[str] = []
    t1w, chi = group_mean(group, coarse, 1, lines.append)
    assert lines == ["round 1 of 1"]
    assert error(t1w) < 0.8 * error(start)
    bright = truth > 1.25
    assert 0.05 < chi.data[bright & inside].mean() <= 0.1 and chi.data[0, 0, 0] == 0


def test_the_same_again(grid, tmp_path):
    tiny = coarser(grid, 8.0)
    people = bent_both_ways(tiny, tmp_path)
    start, _ = group_mean(people, tiny, 0)
    one, other = (group_mean(people, tiny, 1) for _ in range(2))
    assert (one[0].data != start.data).any()
    assert all((a.data == b.data).all() for a, b in zip(one, other, strict=True))


def test_files_of_a_template(coarse, group, tmp_path, monkeypatch):
    people = iter(group)
    monkeypatch.setattr(study_template, "_aligned", lambda *_: next(people))
    monkeypatch.setattr(study_template, "load_template", lambda: coarse)
    subjects = [SubjectFiles(n, tmp_path / n, None, None) for n in "ab"]
    folder = write_study_template(tmp_path, "Kids", subjects, iterations=0, voxel_mm=6)
    names = sorted(p.name for p in folder.iterdir())
    assert names == ["template_description.json", "tpl-Kids_Chimap.nii.gz", "tpl-Kids_T1w.nii.gz"]
    assert json.loads((folder / names[0]).read_text())["NumberOfSubjects"] == 2
    with pytest.raises(CommandLineError, match="there is such a template"):
        write_study_template(tmp_path, "Kids", subjects)
    with pytest.raises(NothingToDoError, match="two persons or more, found 1"):
        write_study_template(tmp_path, "Kids", subjects[:1])
