"""The live viewer in a real browser, on a page opened as a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bids_qsm.report.pages import subject_page
from tests.report import records
from tests.report.browser import CHECKS, CHROMIUM, LOOKS, Browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

HELPERS = """
const viewer = document.querySelector("#s1-viewer");
const part = (name) => viewer.querySelector(`[data-part="${name}"]`);
const canvas = part("canvas");
const told = () => part("readout").textContent;
function choose(name, value) {
  part(name).value = value;
  for (const type of ["input", "change"]) part(name).dispatchEvent(new Event(type));
}
// what is drawn can be read in the task that has drawn it
function pixels() {
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d");
  copy.drawImage(canvas, 0, 0);
  return copy.getImageData(0, 0, canvas.width, canvas.height).data;
}
function look(name, value) {
  choose(name, value);
  const data = pixels();
  let sum = 0, lit = 0;
  for (let n = 0; n < data.length; n += 4) {
    lit += data[n] + data[n + 1] + data[n + 2] > 60;
    sum = (31 * sum + data[n] + 7 * data[n + 1] + 13 * data[n + 2]) % 1000003;
  }
  return { sum, lit: lit / (data.length / 4) };
}
function press(key) {
  canvas.focus();
  canvas.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  return told();
}
function where() {
  return told().replaceAll("\\u2212", "-").split(" mm")[0].split(", ").map(Number);
}
true;
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = records.fill_with_volumes(tmp_path_factory.mktemp("viewer"))
    path = folder / "page.html"
    path.write_text(subject_page("01", [records.record_with_volumes()], folder), encoding="utf-8")
    with Browser(tmp_path_factory.mktemp("browser"), timeout_s=400.0) as browser:
        browser.look()
        browser.open(path)
        browser.run(CHECKS)
        browser.run(HELPERS)
        # nothing is unpacked before it is opened
        assert browser.run("typeof window.niivue") == "undefined"
        browser.click("viewer.querySelector('summary')")
        browser.wait("told() !== ''")
        yield browser


def test_the_viewer_draws_and_reacts(page: Browser) -> None:
    assert page.run("part('state').textContent") == ""
    first = page.run("look('view', 3)")
    assert first["lit"] > 0.1
    seen = [first["sum"]]
    for name, value in [
        ("structure", "0 2"),
        ("map", 1),
        ("map", 2),
        ("map", 3),
        ("colours", "viridis"),
        ("high", 400),
        ("opacity", 0.9),
        ("labels", -1),
        ("view", 0),
        ("view", 4),
    ]:
        shown = page.run(f"look('{name}', {value!r})")
        assert shown["lit"] > 0.005, name
        assert shown["sum"] not in seen, name
        seen.append(shown["sum"])
    assert page.complaints == []


def test_rows_of_tables_move_the_crosshair_and_left_is_left(page: Browser) -> None:
    page.run("""
        const rows = document.querySelectorAll("#s1-table tbody tr");
        const row = Array.from(rows).find((r) => r.textContent.includes("Caudate"));
        row.querySelector("th button").click()
    """)
    page.wait("told().includes('Left Caudate')")
    assert page.run("document.activeElement === canvas")
    assert page.run("where()[0]") < -5
    page.run("row.querySelector('th button').click()")
    page.wait("told().includes('Right Caudate')")
    assert page.run("where()[0]") > 5
    # the first column is that of the left, the second that of the right
    page.run("row.cells[1].click()")
    page.wait("told().includes('Left Caudate')")
    page.run("row.cells[2].click()")
    page.wait("told().includes('Right Caudate')")
    page.run("document.querySelectorAll('#s1-lesions tbody th button')[1].click()")
    page.wait("told().includes('lesion 2')")
    assert page.complaints == []


def test_keys_move_the_crosshair_by_a_voxel(page: Browser) -> None:
    page.run("choose('view', 3); choose('structure', '0 0')")
    for axis, keys in enumerate(
        [("ArrowLeft", "ArrowRight"), ("ArrowDown", "ArrowUp"), ("PageDown", "PageUp")]
    ):
        start = page.run("where()")
        assert page.run(f"press('{keys[0]}'); where()")[axis] == pytest.approx(
            start[axis] - 3, abs=0.15
        )
        assert page.run(f"press('{keys[1]}'); where()") == pytest.approx(start, abs=0.15)
    assert page.complaints == []


def test_a_click_moves_the_crosshair_and_the_keyboard_goes_on(page: Browser) -> None:
    page.run("choose('view', 3)")
    places = []
    for across in (0.15, 0.2):
        page.click("canvas", across, 0.3)
        places.append(page.run("where()"))
    assert places[0] != places[1]
    assert page.run("document.activeElement === canvas")
    page.press("Tab")
    assert not page.run("viewer.contains(document.activeElement)")
    assert page.complaints == []


def test_the_viewer_is_readable_and_used_by_keyboard(page: Browser) -> None:
    for width, dark in LOOKS:
        page.look(width, dark=dark)
        for check in ("tooWide", "faintTexts", "faintControls"):
            assert page.run(f"{check}()") == [], (check, width, dark)
    page.look()
    page.run("viewer.querySelector('summary').focus(); window.lastFocus = null")
    stops = page.run("[...viewer.querySelectorAll('input, select, button')].filter(isShown).length")
    for _ in range(stops + 1):  # and the canvas
        page.press("Tab")
        now = page.run("focusNow()")
        assert now["follows"] and now["isSeen"], now["name"]
    assert page.run("document.activeElement === canvas")


def test_every_control_has_a_name(page: Browser) -> None:
    nodes = page.ask("Accessibility.getFullAXTree")["nodes"]
    roles = {"combobox", "slider", "spinbutton", "checkbox", "button", "application"}
    names: dict[str, list[str]] = {role: [] for role in roles}
    for node in nodes:
        role = node.get("role", {}).get("value")
        if role in roles and not node.get("ignored"):
            names[role].append(node.get("name", {}).get("value", ""))
    assert all(all(found) for found in names.values())
    assert {"Map", "Colours", "Labels", "Structure", "View"} <= set(names["combobox"])
    assert names["application"] == ["Slices of sub-01_ses-1"]
    assert names["slider"] == ["Opacity"]
