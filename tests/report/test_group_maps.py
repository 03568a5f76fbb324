from __future__ import annotations

import io
from xml.etree import ElementTree

import nibabel as nib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from bids_qsm.report.group_maps import (
    BRIGHTEST,
    COLD_HOT,
    StatisticScale,
    chosen_slices,
    statistic_map,
)
from bids_qsm.report.slices import AXIAL, CORONAL

SHAPE = (26, 30, 22)
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
AFFINE[:3, 3] = (-26, -30, -22)
T = StatisticScale("t", limit=5.0)

Volumes = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def scene() -> Volumes:
    """Return background, statistic, significant voxels, labels: raised left, lowered right."""
    rng = np.random.default_rng(2)
    background = rng.uniform(1, 2, SHAPE).astype(np.float32)
    labels = np.zeros(SHAPE, np.int16)
    labels[4:10, 8:22, 6:16], labels[16:22, 8:22, 6:16] = 1, 2
    statistic = np.where(labels > 0, 0.5, np.nan).astype(np.float32)
    statistic[5:9, 10:14, 9:12], statistic[17:21, 16:20, 9:12] = 5.0, -5.0
    return background, statistic, np.abs(np.nan_to_num(statistic)) > 4, labels


def turned(volume: np.ndarray, code: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the same volume with its axes stored along ``code``, and its affine."""
    way = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(code)
    )
    affine = AFFINE @ nib.orientations.inv_ornt_aff(way, SHAPE)
    return nib.orientations.apply_orientation(volume, way), affine


def figure_of(*args: object, **kwargs: object) -> Figure:
    return statistic_map.__wrapped__(*args, **kwargs)  # type: ignore[attr-defined]


def picture(figure: Figure, place: int) -> np.ndarray:
    return np.asarray(figure.axes[place].images[0].get_array()).astype(float) / 255


def near(pixels: np.ndarray, colour: tuple[float, ...] | str) -> np.ndarray:
    return np.abs(pixels - np.array(to_rgb(colour))).max(axis=-1) < 0.02


def test_same_bytes_in_any_orientation() -> None:
    background, statistic, significant, labels = scene()
    chart = statistic_map(background, statistic, significant, AFFINE, labels=labels, scale=T)
    for code in ("LPS", "SAR"):
        volumes = [turned(v, code)[0] for v in (background, statistic, significant, labels)]
        affine = turned(background, code)[1]
        assert statistic_map(*volumes[:3], affine, labels=volumes[3], scale=T) == chart
    assert Image.open(io.BytesIO(chart.png)).width == 1440
    assert ElementTree.fromstring(chart.svg).tag.endswith("svg")
    assert len(chart.svg) < 1_500_000
    assert b"dc:date" not in chart.svg


def test_sides_and_signs() -> None:
    background, statistic, significant, _ = scene()
    figure = figure_of(background, statistic, significant, AFFINE, scale=T, n_axial=1, n_coronal=1)
    axial, coronal = picture(figure, 0), picture(figure, 1)
    raised, lowered = near(axial, COLD_HOT(1.0)[:3]), near(axial, COLD_HOT(0.0)[:3])
    middle = axial.shape[1] / 2
    assert np.nonzero(raised)[1].max() < middle < np.nonzero(lowered)[1].min()
    in_coronal = near(coronal, COLD_HOT(1.0)[:3])  # the first of two slices that are as good
    assert in_coronal.sum() > 100
    assert np.nonzero(in_coronal)[1].max() < middle
    assert np.nonzero(lowered)[0].mean() < np.nonzero(raised)[0].mean()  # in front is on top
    letters = [text.get_text() for text in figure.axes[0].texts]
    assert letters[1:] == ["L", "R"]
    assert letters[0].startswith("z = ")


def test_what_is_not_significant_is_pale_and_the_rest_is_grey() -> None:
    background, statistic, significant, labels = scene()
    figure = figure_of(background * 0 + 1, statistic, significant, AFFINE, scale=T, n_coronal=0)
    pixels = picture(figure, 0)
    saturation = pixels.max(axis=-1) - pixels.min(axis=-1)
    assert ((saturation > 0) & (saturation < 0.1)).sum() > 500  # t = 0.5 of 5
    assert (saturation == 0).sum() > 500
    assert pixels[saturation == 0].max() <= BRIGHTEST + 0.01
    none = figure_of(background, statistic, labels < 0, AFFINE, scale=T, n_coronal=0)
    assert not near(picture(none, 0), COLD_HOT(1.0)[:3]).any()
    assert any("no voxel is significant" in text.get_text() for text in none.texts)


def test_the_slice_is_where_most_significant_voxels_are() -> None:
    significant, tested = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    tested[4:22, 4:26, 4:18] = True
    significant[10:12, 10:12, 5], significant[10:14, 10:14, 12] = True, True
    significant[10:14, 10:14, 13] = True
    assert chosen_slices(significant, tested, AXIAL, 1, AFFINE) == [12]
    assert chosen_slices(significant, tested, AXIAL, 2, AFFINE) == [5, 12]  # 13 is too near
    assert chosen_slices(significant, tested, CORONAL, 3, AFFINE)[1:] == [10, 13]
    empty = np.zeros(SHAPE, bool)
    chosen = chosen_slices(empty, tested, AXIAL, 3, AFFINE)
    assert len(chosen) == 3
    assert all(4 <= index < 18 for index in chosen)


def test_an_f_map_starts_at_zero() -> None:
    background, statistic, significant, _ = scene()
    scale = StatisticScale("F(2, 71)", limit=10, is_signed=False)
    figure = figure_of(background, np.abs(statistic), significant, AFFINE, scale=scale)
    bar = figure.axes[-1]
    assert bar.get_xlim() == (0.0, 10.0)
    assert any(text.get_text() == "F(2, 71)" for text in figure.texts)


def test_volumes_that_do_not_fit_are_refused() -> None:
    background, statistic, significant, labels = scene()
    with pytest.raises(ValueError, match="must have one shape"):
        statistic_map(background, statistic, significant, AFFINE, labels=labels[1:])
    with pytest.raises(ValueError, match="no tested voxel"):
        statistic_map(background, statistic * np.nan, significant, AFFINE)
