"""Leads among the nuclei of a small head: tables, pictures, and what is said of bad input."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from bids_qsm.anatomy.ct import CtRegistration
from bids_qsm.bids.naming import OUTPUTS
from bids_qsm.bids.sidecars import TABLE_COLUMNS
from bids_qsm.clinical import leads as module
from bids_qsm.clinical.leads import find_leads, read_targets
from bids_qsm.errors import UnreadableInputError
from bids_qsm.images import Image, encode_image
from bids_qsm.numerics.lead_models import lead_model
from bids_qsm.phantom.metal import SimulatedLead, add_points, bowed_path, lead_density, tube
from bids_qsm.report.clinical_tables import LAYOUTS
from bids_qsm.settings import Method, Processing
from tests.clinical.brainstem import BOXES, SHAPE, case, job

TIP, TOP = np.array([-9.0, -3.0, -9.0]), np.array([-13.0, 3.0, 26.0])
SHIFT = np.array([2.0, -3.0, 1.5])
"""The head lies so much elsewhere in the CT."""
CORNER = np.array([-24.0, -20, -16])
GOOD = CtRegistration(np.eye(4) + np.eye(4, k=3) * 0, 0.8, 0.99, 0.4, 1.0)
GOOD.t1w_to_ct[:3, 3] = SHIFT
TRUE = SimulatedLead("L", lead_model("3389"), bowed_path(TIP, TOP, 0.0, np.array([1.0, 0, 0])))


def scan(*leads: SimulatedLead, soft_hu: float = 35.0) -> Image:
    """Return a CT with leads, which are given in the world of the T1w image."""
    rng = np.random.default_rng(2)
    affine = np.diag([0.5, 0.5, 1.0, 1.0])
    affine[:3, 3] = CORNER + SHIFT
    volume = (soft_hu + 10 * rng.standard_normal((96, 80, 40))).astype(np.float32)
    volume[:3] = -1000
    move = np.eye(4)
    move[:3, 3] = SHIFT
    for lead in leads:
        moved = lead.moved(move)
        add_points(volume, affine, *tube(moved.path_mm, lead_density(moved, rng), 0.63), 0.4)
    volume[-2:, :4] = 1200  # some bone
    return Image(np.rint(np.clip(volume, -1024, 3071)).astype(np.int16), affine)


def run(folder, monkeypatch, ct: Image | None, *, registration=GOOD, targets=None, **changes):
    """Return what is found, and the job."""
    monkeypatch.setattr(module, "register_ct", lambda t1w, image: registration)
    task = job(folder)
    derivatives = {}
    if ct is not None:
        path = folder / "sub-aa" / "ct" / "sub-aa_ct.nii.gz"
        path.parent.mkdir(parents=True)
        path.write_bytes(encode_image(ct))
    if targets is not None:
        derivatives["targets"] = folder / "targets"
        derivatives["targets"].mkdir()
        (derivatives["targets"] / "sub-aa_targets.tsv").write_text(targets)
    settings = replace(task.settings, derivatives=derivatives, **changes)
    task = replace(task, settings=settings)
    return find_leads(task, head()), task


def head():
    found = case(noise=0.1)
    brain = np.zeros(SHAPE, bool)
    brain[1:-1, 1:-1, 1:-1] = True
    found.anatomy.t1w.brain = found.anatomy.t1w.image.like(brain)
    found.anatomy.warp = SimpleNamespace(t1w_to_template=(np.diag([2.0, 2, 2, 1]),))
    return found


def test_a_lead_is_placed_among_the_nuclei(tmp_path, monkeypatch) -> None:
    along = (TRUE.path_mm[-1] - TIP) / np.linalg.norm(TRUE.path_mm[-1] - TIP)
    aside = np.cross(along, [1.0, 0, 0])
    target = TIP + 3 * along + 1.2 * aside / np.linalg.norm(aside)
    text = "hemisphere\tx_mm\ty_mm\tz_mm\tname\nR\t9\t0\t0\tother\nleft\t"
    text += "\t".join(f"{v:.4f}" for v in target) + "\tSTN\n"
    processing = Processing(leads=Method("artefact", {"model": "3389"}))
    found, task = run(tmp_path, monkeypatch, scan(TRUE), targets=text, processing=processing)
    assert task.journal.warnings == ()
    assert [step.name for step in task.journal.steps] == ["ct", "leads"]
    tables = {named.key: named.table for named in found.tables}
    for key, table in tables.items():
        assert set(table.columns) <= set(TABLE_COLUMNS[key])
    (row,) = tables["leads"].to_dict("records")
    assert (row["lead"], row["hemisphere"], row["model_from"]) == (1, "L", "given")
    np.testing.assert_allclose([row[f"tip_{a}_mm"] for a in "xyz"], TIP, atol=0.25)
    assert row["target"] == "STN"
    assert row["radial_error_mm"] == pytest.approx(1.2, abs=0.15)
    assert row["depth_error_mm"] == pytest.approx(3.0, abs=0.25)
    assert row["nearest_contact"] == 0
    assert row["coronal_deg"] == pytest.approx(np.degrees(np.arctan2(4, 35)), abs=1)
    assert row["sagittal_deg"] == pytest.approx(np.degrees(np.arctan2(6, 35)), abs=1)
    contacts = tables["contacts"].set_index("contact")
    places = contacts[["x_mm", "y_mm", "z_mm"]].to_numpy()
    np.testing.assert_allclose(places, TRUE.contacts_mm(), atol=0.25)
    np.testing.assert_allclose(contacts[["mni_x_mm", "mni_y_mm", "mni_z_mm"]], 2 * places)
    # the first contact is at z = -6.8, in the subthalamic nucleus' box of -8.5 to -3.5
    for number, z in enumerate(places[:, 2]):
        expected = [
            index
            for index, (_, _, box) in BOXES.items()
            if all(s.start - 0.5 <= v < s.stop - 0.5 for s, v in zip(
                box, places[number] - CORNER, strict=True))
        ]  # fmt: skip
        assert contacts.loc[number, "index"] == (expected[0] if expected else 0), z
    distances = tables["contact_distances"]
    stn = distances[distances["index"] == 31].set_index("contact")
    inside = contacts["name"] == "Left subthalamic nucleus"
    assert inside.any() and ((stn["surface_mm"] < 0) == inside).all()
    assert set(distances["name"].str.partition(" ")[0]) == {"Left"}
    above = stn.index[~inside & (places[:, 2] > -3)]
    for number in above:  # straight above the box, whose top is at -3.5
        assert stn.loc[number, "surface_mm"] == pytest.approx(places[number, 2] + 3.5, abs=0.3)
    images = {named.key: named.image for named in found.images}
    assert images["ct"].data.dtype == np.int16
    voxel = np.rint(places[1] - CORNER).astype(int)
    assert images["lead_mask"].data[tuple(voxel)] and images["ct"].data[tuple(voxel)] > 1000
    assert found.facts["Leads"].startswith("L: 3389 (given), tip at (")
    from bids_qsm.clinical import lead_pictures

    png = b"\x89PNG"
    monkeypatch.setattr(lead_pictures, "registration_pair", lambda *_, **__: (png, png))
    pictures = list(found.draw())
    assert [picture.what for picture in pictures] == ["ct", "lead1"]
    for picture in pictures:
        assert all(png.startswith(b"\x89PNG") and len(png) < 3e5 for _, png in picture.images)


def test_models_that_look_alike_are_named(tmp_path, monkeypatch) -> None:
    found, task = run(tmp_path, monkeypatch, scan(TRUE))
    (warning,) = task.journal.warnings
    assert "lead 1 (L) is one of 3389, B33005, 6172, DB-2202" in warning
    assert found.tables[0].table.loc[0, "model_from"] == "estimated"


def test_a_ct_without_leads_says_why(tmp_path, monkeypatch) -> None:
    found, task = run(tmp_path / "a", monkeypatch, scan())
    assert "the CT shows no metal: is it the one after the operation?" in task.journal.warnings[0]
    assert found.facts == {"Leads": "none found"} and found.tables[0].table.empty
    outside = scan()
    outside.data[88:90, 10:30, 5] = 3071
    _, task = run(tmp_path / "b", monkeypatch, outside)
    assert (
        "there is no metal in the brain; what the CT shows lies outside"
        in (task.journal.warnings[0])
    )
    clip = scan()
    clip.data[40:48, 30:38, 18:22] = 3071
    _, task = run(tmp_path / "c", monkeypatch, clip)
    assert "but nothing as long and thin as a lead" in task.journal.warnings[0]


@pytest.mark.parametrize(
    ("registration", "soft_hu", "sentence"),
    [
        (replace(GOOD, overlap=0.4), 35, "could not be registered to the T1w image: 40 % of"),
        (GOOD, 1500, "the CT is not in HU"),
    ],
)
def test_bad_cts_are_one_sentence(tmp_path, monkeypatch, registration, soft_hu, sentence) -> None:
    image = scan(soft_hu=soft_hu)
    if soft_hu > 100:
        image = image.like(np.maximum(image.data, 0))
    found, task = run(tmp_path, monkeypatch, image, registration=registration)
    (warning,) = task.journal.warnings
    assert found is None and sentence in warning
    assert warning.endswith(". No leads were looked for.") and ".." not in warning.split(": ", 1)[1]


def test_what_is_not_there_is_said(tmp_path, monkeypatch) -> None:
    found, task = run(tmp_path / "none", monkeypatch, None)
    assert found is None and task.journal.warnings == ()
    settings = replace(task.settings, derivatives={"ct": tmp_path / "none"})
    task = replace(task, settings=settings)
    assert find_leads(task, head()) is None
    assert "there is no CT of sub-aa; it is named sub-aa..._ct.nii.gz" in task.journal.warnings[0]
    _, task = run(tmp_path / "two", monkeypatch, scan())
    task = replace(task, journal=type(task.journal)())
    assert find_leads(task, replace(head(), anatomy=None)) is None
    assert "the CT was not used, as it needs a T1w image" in task.journal.warnings[0]
    first = next((tmp_path / "two").rglob("*_ct.nii.gz"))
    first.with_name("sub-aa_run-2_ct.nii.gz").write_bytes(b"")
    task = replace(task, journal=type(task.journal)())
    assert find_leads(task, head()) is None
    assert "leave one. No leads were looked for." in task.journal.warnings[0]


def test_an_unknown_model_and_a_small_field_of_view_are_said(tmp_path, monkeypatch) -> None:
    processing = Processing(leads=Method("artefact", {"model": "12"}))
    part = replace(GOOD, covered=0.7)
    found, task = run(tmp_path, monkeypatch, scan(), registration=part, processing=processing)
    assert found is None
    assert "covers 70 % of the brain alone" in task.journal.warnings[0]
    assert "there is no lead model '12'; choose one of: 3389, " in task.journal.warnings[1]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the targets cannot be read"),
        ("side\tx_mm\ty_mm\tz_mm\n", "lacks the column 'hemisphere'; it needs hemisphere, x_mm"),
        ("hemisphere\tx_mm\ty_mm\tz_mm\nB\t1\t2\t3\n", "row 1 of the targets needs a hemisphere"),
        ("hemisphere\tx_mm\ty_mm\tz_mm\nL\t1\t2\t\n", "row 1 of the targets needs a hemisphere"),
    ],
)
def test_targets_that_cannot_be_used_are_one_sentence(tmp_path, text, sentence) -> None:
    path = tmp_path / "sub-aa_targets.tsv"
    path.write_text(text)
    with pytest.raises(UnreadableInputError, match=sentence):
        read_targets(path)


def test_every_table_and_image_has_its_row() -> None:
    for key in ("ct", "lead_mask", "leads", "contacts", "contact_distances"):
        assert key in OUTPUTS
    for key in ("leads", "contacts"):
        assert {LAYOUTS[key].corner[0], *LAYOUTS[key].columns} <= set(TABLE_COLUMNS[key])
