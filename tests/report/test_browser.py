"""The pages in a real browser: what is drawn, read and used, by mouse and by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bids_qsm.report.citations import Part, citation_files
from bids_qsm.report.group_page import group_page
from bids_qsm.report.methods import methods_body
from bids_qsm.report.pages import subject_page
from bids_qsm.report.references import REFERENCES
from tests.report import records
from tests.report.browser import CHECKS, CHROMIUM, LOOKS, Browser
from tests.report.test_group_page import section, text

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

PAGES = ("subject", "group", "citation")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one page of each kind."""
    folder = records.fill_with_volumes(tmp_path_factory.mktemp("pages"))
    both = [records.record_with_volumes(), records.magnitude_record()]
    texts = {
        "subject": subject_page("01", both, folder),
        "group": group_page([section()], text(), references=REFERENCES),
        "citation": citation_files([Part("", methods_body(records.STEPS))])["CITATION.html"],
    }
    for name, html in texts.items():
        (folder / f"{name}.html").write_text(html, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def started(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser"), timeout_s=400.0) as browser:
        yield browser


@pytest.fixture
def browser(started: Browser) -> Browser:
    started.complaints.clear()
    started.look()
    return started


def opened(browser: Browser, folder: Path, name: str) -> None:
    browser.open(folder / f"{name}.html")
    browser.run(CHECKS)


def test_hidden_texts_of_the_contents_do_not_widen_the_page(browser: Browser, folder: Path) -> None:
    opened(browser, folder, "subject")
    browser.run("document.querySelector('nav ul .hidden').style.left = '3000px'")
    assert browser.run("document.querySelector('nav ul').scrollWidth") >= 3000
    assert browser.run("tooWide()") == []


FAULTS = """<title>Faults</title><style>:focus { outline: 0 } p { color: #777; margin: 0 }</style>
<p style="background: #777">a</p><p style="font-size: 8px; color: black">b</p>
<p style="color: rgba(0, 0, 0, 0.4)">c</p><p style="color: #767676">fine</p>
<div style="width: 2000px">d</div><div style="overflow: auto"><i style="padding: 999px">e</i></div>
<img alt="f" src="data:image/png;base64,AAAA"><button style="border: 1px solid #ddd">g</button>
"""


def test_the_checks_find_faults(browser: Browser, folder: Path) -> None:
    (folder / "faults.html").write_text(FAULTS, encoding="utf-8")
    opened(browser, folder, "faults")
    found = browser.run("faintTexts()")
    assert [text.split(":")[0] for text in found] == ['p "a"', 'p "b"', 'p "c"']
    assert [text.split(" ends")[0] for text in browser.run("tooWide()")] == [
        "the page itself",
        'div "d"',
    ]
    assert len(browser.run("imagesThatDoNotLoad()")) == 1
    assert [text.split(":")[0] for text in browser.run("faintControls()")] == ['button "g"']
    browser.press("Tab")
    browser.press("Tab")
    assert not browser.run("focusNow().isSeen")


@pytest.mark.parametrize("name", PAGES)
def test_pages_load_without_complaint(browser: Browser, folder: Path, name: str) -> None:
    opened(browser, folder, name)
    assert browser.run("document.images.length") == {"subject": 4, "group": 2, "citation": 0}[name]
    assert browser.run("imagesThatDoNotLoad()") == []
    assert browser.complaints == []


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_readable(browser: Browser, folder: Path, name: str) -> None:
    opened(browser, folder, name)
    browser.run("openAll()")
    backgrounds = set()
    for width, dark in LOOKS:
        browser.look(width, dark=dark)
        assert browser.run("tooWide()") == [], width
        assert browser.run("faintTexts()") == [], dark
        assert browser.run("faintControls()") == [], dark
        backgrounds.add(browser.run("getComputedStyle(document.body).backgroundColor"))
    assert len(backgrounds) == 2
    assert browser.complaints == []


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_used_by_keyboard(browser: Browser, folder: Path, name: str) -> None:
    opened(browser, folder, name)
    # the first stop leads past the menu
    browser.press("Tab")
    first = browser.run("focusNow()")
    assert first["name"] == 'a.skip "Skip to the report"'
    assert first["isSeen"]
    browser.press("Enter")
    assert browser.run("location.hash") == "#main"
    browser.press("Tab")
    assert browser.run("document.querySelector('main').contains(document.activeElement)")
    # all stops, in the order of the page
    opened(browser, folder, name)
    stops = browser.run("focusables()")
    seen = 0
    while seen <= stops:
        browser.press("Tab")
        now = browser.run("focusNow()")
        if now["isBody"] or (seen and not now["follows"]):
            break
        seen += 1
        assert now["isSeen"], now["name"]
    assert seen == stops


def test_tables_sort_by_mouse_and_keyboard(browser: Browser, folder: Path) -> None:
    opened(browser, folder, "group")
    names = (
        "Array.from(document.querySelectorAll('.sortable tbody th'), "
        "(cell) => cell.textContent).join()"
    )
    head = "document.querySelectorAll('.sort')[1]"
    assert browser.run(names) == "Putamen,Caudate"
    browser.click(head)
    assert browser.run(names) == "Caudate,Putamen"
    browser.run(f"{head}.focus()")
    browser.press("Enter")
    assert browser.run(names) == "Putamen,Caudate"
    assert browser.run(f"{head}.closest('th').getAttribute('aria-sort')") == "descending"


def test_pictures_in_turn_are_changed_by_keyboard(browser: Browser, folder: Path) -> None:
    opened(browser, folder, "subject")
    shown = (
        "Array.from(document.querySelectorAll('.flicker img'), "
        "(image) => getComputedStyle(image).visibility)"
    )
    assert browser.run(shown) == ["visible", "hidden"]  # it stands still for those who ask so
    browser.run("document.querySelector('.flicker .frame').focus()")
    browser.press("Enter")
    assert browser.run(shown) == ["hidden", "visible"]
