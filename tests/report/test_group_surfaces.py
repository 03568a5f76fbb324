from __future__ import annotations

import io

import nibabel as nib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from bids_qsm.report.group_surfaces import PIXELS_PER_MM, VIEWS, cluster_views
from bids_qsm.report.surfaces import View

SHAPE = (30, 26, 22)
AFFINE = np.diag([1.0, 1.0, 1.5, 1.0])
BEHIND = (View("from behind", 0.0, 0.0),)
NAMES = {1: "Putamen", 2: "Putamen"}


def ball(centre: tuple[float, float, float], radius_mm: float) -> np.ndarray:
    place = np.stack(np.indices(SHAPE), axis=-1) * [1.0, 1.0, 1.5]
    return np.linalg.norm(place - np.array(centre) * [1.0, 1.0, 1.5], axis=-1) <= radius_mm


def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return two nuclei, a raised cluster within the left one, a lowered one within the right."""
    labels = np.zeros(SHAPE, np.int16)
    labels[ball((8, 13, 11), 6)], labels[ball((22, 13, 11), 6)] = 1, 2
    raised, lowered = ball((8, 13, 11), 3), ball((22, 13, 11), 3)
    return raised | lowered, labels, np.where(lowered, -1.0, 1.0)


def figure_of(*args: object, **kwargs: object) -> Figure:
    return cluster_views.__wrapped__(*args, **kwargs)  # type: ignore[attr-defined]


def pixels_of(figure: Figure, place: int = 0) -> np.ndarray:
    return np.asarray(figure.axes[place].images[0].get_array()).astype(int)


def is_red(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., 0] > 1.6 * pixels[..., 2]


def is_blue(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., 2] > 1.6 * pixels[..., 0]


def turned(volume: np.ndarray, code: str) -> tuple[np.ndarray, np.ndarray]:
    way = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(code)
    )
    affine = AFFINE @ nib.orientations.inv_ornt_aff(way, SHAPE)
    return nib.orientations.apply_orientation(volume, way), affine


def test_same_picture_in_any_orientation() -> None:
    significant, labels, statistic = scene()
    expected = pixels_of(
        figure_of(significant, labels, AFFINE, names=NAMES, statistic=statistic, views=VIEWS[3:])
    )
    for code in ("LPS", "SAR"):
        parts = [turned(v, code)[0] for v in (significant, labels, statistic)]
        affine = turned(labels, code)[1]
        figure = figure_of(*parts[:2], affine, names=NAMES, statistic=parts[2], views=VIEWS[3:])
        np.testing.assert_array_equal(pixels_of(figure), expected)


def test_bytes_repeat_and_can_be_read() -> None:
    significant, labels, statistic = scene()
    charts = [
        cluster_views(significant, labels, AFFINE, names=NAMES, statistic=statistic, views=BEHIND)
        for _ in range(2)
    ]
    assert charts[0] == charts[1]
    assert Image.open(io.BytesIO(charts[0].png)).width == 1440
    assert len(charts[0].svg) < 500_000


def test_sides_and_signs_from_behind_and_from_the_front() -> None:
    significant, labels, statistic = scene()
    views = (*BEHIND, View("from the front", 180.0, 0.0))
    figure = figure_of(significant, labels, AFFINE, names=NAMES, statistic=statistic, views=views)
    for place, (left, right) in enumerate((("L", "R"), ("R", "L"))):
        pixels = pixels_of(figure, place)
        red, blue = np.nonzero(is_red(pixels))[1].mean(), np.nonzero(is_blue(pixels))[1].mean()
        assert (red < blue) == (left == "L")
        letters = {text.get_text(): text.get_position()[0] for text in figure.axes[place].texts}
        assert letters[left] < 0.5 < letters[right]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["significant, above zero", "significant, below zero", "Putamen"]


def test_a_ball_is_as_large_as_it_is() -> None:
    _, labels, _ = scene()
    labels[labels == 2] = 0
    figure = figure_of(labels < 0, labels, AFFINE, names=NAMES, views=BEHIND)
    area_mm2 = (pixels_of(figure).max(axis=-1) > 0).sum() / PIXELS_PER_MM**2
    assert area_mm2 == pytest.approx(np.pi * 6**2, rel=0.1)
    assert any("no voxel is significant" in text.get_text() for text in figure.texts)


def test_a_cluster_hides_what_is_behind_it_and_is_veiled_by_what_is_before_it() -> None:
    labels = np.zeros(SHAPE, np.int16)
    labels[10:20, 10:16, 6:16] = 1
    before, behind = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    before[12:18, 4:7, 8:14], behind[12:18, 20:23, 8:14] = True, True

    def centre(significant: np.ndarray) -> np.ndarray:
        figure = figure_of(significant, labels, AFFINE, names=NAMES, views=BEHIND)
        pixels = pixels_of(figure)
        return pixels[pixels.shape[0] // 2, pixels.shape[1] // 2]

    alone, nearer, farther = centre(before & behind), centre(before), centre(behind)
    assert nearer[0] > 2 * nearer[2]  # nothing of the nucleus' blue
    assert farther[0] > alone[0]  # the cluster shines through
    assert farther[2] > nearer[2]


def test_the_smallest_cluster_is_seen() -> None:
    _, labels, _ = scene()
    one = np.zeros(SHAPE, bool)
    one[8:10, 13, 11] = True
    figure = figure_of(one, labels, AFFINE, names=NAMES, views=BEHIND)
    assert is_red(pixels_of(figure)).sum() > 5


@pytest.mark.parametrize("view", VIEWS, ids=[view.name for view in VIEWS])
def test_axes_of_views(view: View) -> None:
    np.testing.assert_allclose(view.axes @ view.axes.T, np.eye(3), atol=1e-12)
    right, up, forward = view.axes
    np.testing.assert_allclose(np.cross(right, up), -forward, atol=1e-12)


def test_edges_are_named() -> None:
    significant, labels, _ = scene()
    figure = figure_of(significant, labels, AFFINE, names=NAMES)
    letters = [[text.get_text() for text in ax.texts][1:] for ax in figure.axes]
    assert letters[0] == ["R", "L", "A", "P"]
    assert letters[1] == ["R", "L", "S", "I"]
    assert letters[2] == ["P", "A", "S", "I"]


def test_what_cannot_be_drawn_is_said() -> None:
    significant, labels, _ = scene()
    with pytest.raises(ValueError, match="must have one shape"):
        cluster_views(significant, labels[1:], AFFINE, names=NAMES)
    with pytest.raises(ValueError, match="none of the named labels"):
        cluster_views(significant, labels, AFFINE, names={7: "Caudate"})
    with pytest.raises(ValueError, match="one side or more"):
        cluster_views(significant, labels, AFFINE, names=NAMES, views=())
