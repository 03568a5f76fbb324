from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from bids_qsm.report.figures import (
    CHI,
    EDGES,
    LABEL_COLOURS,
    MAGNITUDE,
    MAX_BYTES,
    OUTLINE,
    PHASE,
    R2STAR,
    TOTAL_FIELD,
    Labels,
    Scale,
    mosaic,
    registration_pair,
)
from bids_qsm.report.slices import AXIAL, CORONAL, SAGITTAL, Cell, lay_out

GREY = Scale("test", 0.0, 1.0)
SHAPE = (50, 44, 40)
WIDTH_PX = 1200


def pixels_of(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def tile(pixels: np.ndarray, cell: Cell) -> np.ndarray:
    return pixels[cell.top : cell.top + cell.height, cell.left : cell.left + cell.width]


def world_mm(affine: np.ndarray) -> np.ndarray:
    voxels = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), axis=-1)
    return voxels @ affine[:3, :3].T + affine[:3, 3]


def head_at(affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a head with a bright ball on its left, in front, above; and its mask."""
    place = world_mm(affine)
    head = np.linalg.norm(place, axis=-1) < 38
    marker = np.linalg.norm(place - np.array([-16.0, 14.0, 12.0]), axis=-1) < 7
    return np.where(marker, 1.0, 0.3 * head).astype(np.float32), head


def affine_with(columns: list[tuple[float, float, float]]) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = 2 * np.array(columns).T
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    return affine


C, S = np.cos(0.3), np.sin(0.3)
AFFINES = {
    "RAS": affine_with([(1, 0, 0), (0, 1, 0), (0, 0, 1)]),
    "LAS": affine_with([(-1, 0, 0), (0, 1, 0), (0, 0, 1)]),
    "LPS": affine_with([(-1, 0, 0), (0, -1, 0), (0, 0, 1)]),
    "PSR": affine_with([(0, -1, 0), (0, 0, 1), (1, 0, 0)]),
    "SLP": affine_with([(0, 0, 1), (-1, 0, 0), (0, -1, 0)]),
    "oblique": affine_with([(-C, 0, S), (0, 1, 0), (S, 0, C)]),
}


@pytest.mark.parametrize("name", AFFINES)
def test_the_marker_is_on_its_side(name: str) -> None:
    affine = AFFINES[name]
    volume, head = head_at(affine)
    pixels = pixels_of(mosaic(volume, affine, GREY, region=head))
    seen = set()
    for cell in lay_out(head, affine, WIDTH_PX).cells:
        shown = tile(pixels, cell).min(axis=-1) == 255  # letters are not as white
        if shown.sum() < 30:
            continue
        seen.add(cell.axis)
        row, column = (places.mean() for places in np.nonzero(shown))
        assert row < cell.height / 2, "front or top is up"
        if cell.axis == SAGITTAL:
            assert column > cell.width / 2, "the front is on the right, at the A"
        else:
            assert column < cell.width / 2, "the subject's left is on the left, at the L"
    assert seen == {AXIAL, CORONAL, SAGITTAL}


def test_all_orientations_of_a_volume_give_one_picture() -> None:
    volume, head = head_at(AFFINES["RAS"])
    flipped = AFFINES["RAS"].copy()
    flipped[:3, 0] *= -1
    flipped[0, 3] *= -1
    one = mosaic(volume, AFFINES["RAS"], GREY, region=head)
    other = mosaic(volume[::-1], flipped, GREY, region=head[::-1])
    assert one == other


def test_bytes_are_the_same_each_time_and_say_no_date() -> None:
    volume, head = head_at(AFFINES["oblique"])
    pngs = {
        mosaic(volume.copy(), AFFINES["oblique"], CHI, region=head.copy(), outline=head)
        for _ in range(2)
    }
    assert len(pngs) == 1
    image = Image.open(io.BytesIO(pngs.pop()))
    assert image.info.keys() <= {"transparency", "gamma"}


def test_values_have_the_grey_of_the_colour_bar() -> None:
    volume = np.full(SHAPE, 0.5, np.float32)
    pixels = pixels_of(mosaic(volume, np.eye(4), GREY))
    cell = lay_out(np.ones(SHAPE, bool), np.eye(4), WIDTH_PX).cells[0]
    centre = tile(pixels, cell)[cell.height // 2, cell.width // 2]
    assert np.abs(centre.astype(int) - 128).max() <= 3  # 64 shades


def test_not_a_number_and_outside_the_support_are_black() -> None:
    volume = np.ones(SHAPE, np.float32)
    volume[:25] = np.nan
    support = np.ones(SHAPE, bool)
    support[:, 22:] = False
    region = np.ones(SHAPE, bool)
    pixels = pixels_of(mosaic(volume, np.eye(4), GREY, region=region, support=support))
    cell = lay_out(region, np.eye(4), WIDTH_PX).cells[3]
    shown = tile(pixels, cell)
    height, width = cell.height, cell.width
    assert shown[height * 3 // 4, width * 3 // 4].min() == 255  # right, back
    assert shown[height * 3 // 4, width // 4].max() == 0  # left: not a number
    assert shown[height // 4, width * 3 // 4].max() == 0  # front: no support


@pytest.mark.parametrize("scale", [CHI, TOTAL_FIELD, R2STAR])
def test_maps_are_black_outside_the_brain(scale: Scale) -> None:
    volume, head = head_at(AFFINES["RAS"])
    pixels = pixels_of(mosaic(volume * 0 + 0.1, AFFINES["RAS"], scale, region=head))
    cell = lay_out(head, AFFINES["RAS"], WIDTH_PX).cells[3]
    assert tile(pixels, cell)[cell.height // 2, 1].max() == 0
    assert tile(pixels, cell)[cell.height // 2, cell.width // 2].max() > 50


def test_phase_does_not_pass_through_zero_at_a_wrap() -> None:
    x = np.arange(SHAPE[0])
    phase = np.where(x < 25, np.pi - 0.01, -np.pi + 0.01)[:, None, None] + np.zeros(SHAPE)
    pixels = pixels_of(mosaic(phase.astype(np.float32), np.eye(4), PHASE))
    cell = lay_out(np.ones(SHAPE, bool), np.eye(4), WIDTH_PX).cells[3]
    middle = tile(pixels, cell)[cell.height // 2]
    assert middle.min() > 180  # both ends of the map are pale, its middle is dark


def test_outline_and_labels_are_drawn_with_their_colours() -> None:
    volume, head = head_at(AFFINES["RAS"])
    labels = np.where(volume == 1, 7, 0)
    names = {7: "Left-Ball", 8: "absent"}
    pixels = pixels_of(
        mosaic(
            volume * 0.2,
            AFFINES["RAS"],
            GREY,
            region=head,
            outline=head,
            labels=Labels(labels, names),
        )
    )

    def has(colour: tuple[int, int, int]) -> int:
        return int((pixels == np.array(colour)).all(axis=-1).sum())

    assert has(OUTLINE) > 2000
    assert has(LABEL_COLOURS[0]) > 300
    assert has(LABEL_COLOURS[1]) == 0


def test_left_and_right_share_a_colour_and_absent_names_have_none() -> None:
    volume = np.zeros(SHAPE, np.int16)
    volume[:5], volume[5:10], volume[10:15] = 1, 2, 3
    labels = Labels(volume, {1: "Thalamus", 2: "Caudate", 3: "Thalamus", 9: "Red nucleus"})
    assert list(labels.colours) == ["Thalamus", "Caudate"]
    assert len(set(labels.colours.values())) == 2


def test_noise_still_gives_a_small_file(rng: np.random.Generator) -> None:
    volume = rng.uniform(size=(160, 160, 60)).astype(np.float32)
    assert len(mosaic(volume, np.diag([1.0, 1.0, 2.0, 1.0]), GREY)) < 250_000
    assert MAX_BYTES < 250_000


@pytest.mark.parametrize("value", [0.0, 5.0, np.nan])
@pytest.mark.parametrize("scale", [MAGNITUDE, TOTAL_FIELD, R2STAR])
def test_a_volume_without_contrast_is_drawn(value: float, scale: Scale) -> None:
    png = mosaic(np.full(SHAPE, value, np.float32), np.eye(4), scale)
    assert pixels_of(png).shape[1] == WIDTH_PX


def test_other_shapes_are_refused() -> None:
    volume = np.zeros(SHAPE, np.float32)
    with pytest.raises(ValueError, match=r"one shape, got \(50, 44, 40\) and \(3, 3, 3\)"):
        mosaic(volume, np.eye(4), CHI, region=np.ones((3, 3, 3), bool))


def test_registration_pair_has_the_same_lines_on_both() -> None:
    volume, head = head_at(AFFINES["oblique"])
    pair = registration_pair(
        volume, 1 - volume, AFFINES["oblique"], region=head, names=("GRE", "T1w")
    )
    one, two = (pixels_of(png) for png in pair)
    assert one.shape == two.shape
    bottom = lay_out(head, AFFINES["oblique"], WIDTH_PX).height
    lines = [(p[:bottom] == np.array(EDGES)).all(axis=-1) for p in (one, two)]
    np.testing.assert_array_equal(*lines)
    assert lines[0].sum() > 500
    assert (one != two).any(axis=-1).sum() > 10_000


def test_registration_pair_of_a_noisy_and_a_smooth_image_has_one_size(
    rng: np.random.Generator,
) -> None:
    smooth = np.ones((160, 160, 60), np.float32)
    noisy = rng.uniform(size=smooth.shape).astype(np.float32)
    region = np.ones(smooth.shape, bool)
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    pair = registration_pair(noisy, smooth, affine, region=region, names=("a", "b"))
    one, two = (pixels_of(png) for png in pair)
    assert one.shape == two.shape
    assert one.shape[1] < WIDTH_PX


def test_edges_lie_on_the_border_of_a_ball() -> None:
    place = world_mm(AFFINES["RAS"])
    ball = np.linalg.norm(place, axis=-1) < 20
    region = np.linalg.norm(place, axis=-1) < 36
    png, _ = registration_pair(
        ball.astype(np.float32),
        ball.astype(np.float32),
        AFFINES["RAS"],
        region=region,
        names=("a", "b"),
    )
    layout = lay_out(region, AFFINES["RAS"], WIDTH_PX)
    cell = min((c for c in layout.cells if c.axis == AXIAL), key=lambda c: abs(c.position_mm))
    rows, columns = np.nonzero((tile(pixels_of(png), cell) == np.array(EDGES)).all(axis=-1))
    centre = ((cell.height - 1) / 2, (cell.width - 1) / 2)
    radius_mm = np.hypot(rows - centre[0], columns - centre[1]) / layout.pixels_per_mm
    expected = np.sqrt(20**2 - cell.position_mm**2)
    assert np.median(np.abs(radius_mm - expected)) < 1.5
