from __future__ import annotations

import io
from collections.abc import Callable

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from bids_qsm.report import scenes
from bids_qsm.report.figures import Labels
from bids_qsm.report.scenes import VIEWS, lesions_scene, structures_scene

SHAPE = (44, 48, 40)
AFFINE = np.diag([1.0, 1.0, 1.2, 1.0])
COLOURS = {"putamen": (255, 90, 110), "caudate": (80, 220, 120), "unseen": (9, 9, 9)}
NAMES = {1: "putamen", 2: "putamen", 3: "caudate", 4: "unseen"}


Draw = Callable[..., bytes]
Look = Callable[..., list[np.ndarray]]


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Look:
    """Return the views of a scene one by one, without what is written at their rims."""

    def seen(draw: Draw, *args: object) -> list[np.ndarray]:
        tiles = []
        for view in VIEWS:
            monkeypatch.setattr(scenes, "VIEWS", (view,))
            picture = Image.open(io.BytesIO(draw(*args))).convert("RGB")
            tiles.append(np.asarray(picture).astype(int)[20:-90, 20:-20])
        return tiles

    monkeypatch.setattr(scenes, "WIDTH_PX", 200)
    monkeypatch.setattr(scenes, "COLUMNS", 1)
    return seen


def ball(*centre_mm: float, radius_mm: float) -> np.ndarray:
    mm = np.moveaxis(np.indices(SHAPE), 0, -1) * [1.0, 1.0, 1.2]
    return np.linalg.norm(mm - np.array(centre_mm), axis=-1) < radius_mm


def nuclei() -> np.ndarray:
    """Return two putamina and, before the left one, a caudate."""
    labels = np.zeros(SHAPE, np.int16)
    labels[ball(10, 20, 24, radius_mm=7)] = 1
    labels[ball(32, 20, 24, radius_mm=7)] = 2
    labels[ball(10, 36, 24, radius_mm=4)] = 3
    return labels


def red(tile: np.ndarray) -> np.ndarray:
    return tile[..., 0] > 1.7 * tile[..., 1] + 20


def green(tile: np.ndarray) -> np.ndarray:
    return tile[..., 1] > 1.7 * tile[..., 0] + 20


def test_nuclei_are_seen_from_their_sides(look: Look) -> None:
    scene = (structures_scene, Labels(nuclei(), NAMES), AFFINE, COLOURS)
    front, left, above, oblique = look(*scene)
    assert [view.sides.get("left") for view in VIEWS[:3]] == ["R", "A", "L"]
    middle = front.shape[1] / 2
    # from the front the left is on the right, and the caudate covers the middle of its putamen
    assert np.nonzero(green(front))[1].min() > middle
    assert red(front)[:, : int(middle)].sum() > 1.3 * red(front)[:, int(middle) :].sum()
    # from the left the caudate is before (left of) the putamen
    assert np.nonzero(green(left))[1].max() < np.nonzero(red(left))[1].min() + 3
    # from above the left is on the left, and the front at the top
    assert np.nonzero(green(above))[1].max() < above.shape[1] / 2
    assert np.nonzero(green(above))[0].mean() < np.nonzero(red(above))[0].min()
    assert green(oblique).any() and red(oblique).any()


def test_same_picture_in_any_orientation_and_at_each_time() -> None:
    expected = structures_scene(Labels(nuclei(), NAMES), AFFINE, COLOURS)
    way = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt("PIL")
    )
    turned = nib.orientations.apply_orientation(nuclei(), way)
    affine = AFFINE @ nib.orientations.inv_ornt_aff(way, SHAPE)
    assert structures_scene(Labels(turned, NAMES), affine, COLOURS) == expected


def test_lesions_shine_through_the_brain(look: Look) -> None:
    brain = ball(22, 24, 24, radius_mm=20)
    lesions = 1 * ball(12, 24, 24, radius_mm=4) + 2 * ball(32, 24, 24, radius_mm=2.5)
    enhancing = 1 * ball(12, 24, 24, radius_mm=2)
    kinds = {"T2 lesion": lesions, "enhancing": enhancing, "none of these": 0 * lesions}
    colours = {"T2 lesion": (80, 220, 120), "enhancing": (255, 90, 110)}
    front, left, above, _ = look(lesions_scene, brain, kinds, AFFINE, colours)
    for tile in (front, left, above):
        glass = tile[tile.max(axis=-1) > 0]
        assert len(glass) > 0.4 * tile.shape[0] * tile.shape[1]
        assert np.median(glass) < 100
    # from above: the large one on the left, around the enhancing part, which is drawn before it
    middle = above.shape[1] // 2
    assert green(above)[:, :middle].sum() > green(above)[:, middle:].sum() > 10
    assert red(above)[:, :middle].sum() > 20
    assert not red(above)[:, middle:].any()
    without = look(lesions_scene, brain, {"enhancing": lesions}, AFFINE, {})[2]
    assert not (green(without) | red(without)).any()


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(ValueError, match="None of the structures"):
        structures_scene(Labels(nuclei(), {9: "caudate"}), AFFINE, COLOURS)
    with pytest.raises(ValueError, match="has no voxel"):
        lesions_scene(np.zeros(SHAPE, bool), {}, AFFINE, {})
