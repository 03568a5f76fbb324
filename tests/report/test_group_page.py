from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from itertools import pairwise

import pandas as pd
import pytest
from PIL import Image

from bids_qsm.report.data_tables import LARGEST
from bids_qsm.report.group_page import (
    FigureView,
    LeftOut,
    PageText,
    Section,
    TableView,
    group_page,
    relative_address,
)
from bids_qsm.report.references import REFERENCES

VOID = {"meta", "img", "br", "link", "input", "hr"}
HOSTILE = "\"'><img src=x onerror=alert(1)><script>alert(2)</script>{{ 7*7 }}&amp;"
KEY = next(iter(REFERENCES))


class Page(HTMLParser):
    """Collects the elements of a page and checks that they are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("style", "script"):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def picture(width: int = 320, height: int = 160) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "white").save(buffer, "PNG")
    return buffer.getvalue()


def table() -> pd.DataFrame:
    return pd.DataFrame(
        {"structure": ["Putamen", "Caudate"], "mean": [10.5, 9.5], "p": [0.01, 0.2]}
    )


def section() -> Section:
    return Section(
        "Regions",
        "Means were compared.",
        notes=("age is a covariate.",),
        warnings=("Two have no age.",),
        tables=(TableView("Means", table(), "By structure.", "tables/means of all.tsv"),),
        figures=(
            FigureView("Violins", picture(), "All points.", paths={"SVG": "figures/v.svg"}),
            FigureView("Map", picture(), alt="Clusters", is_dark=True),
        ),
    )


def text() -> PageText:
    return PageText(
        "1.2.3",
        subtitle="a cohort",
        counts={"participants": "74"},
        facts={"Models file": "none"},
        warnings=("No models file was given.",),
        left_out=(LeftOut("sub-07", "it has no group"),),
        methods=f"## Regions\n\nBy `welch` tests [@{KEY}].",
    )


def test_nothing_is_fetched() -> None:
    html = group_page([section()], text())
    page = Page(html)
    for tag, attributes in page.elements:
        for name in ("src", "href", "data", "poster", "srcset", "action"):
            value = attributes.get(name)
            if value is None:
                continue
            is_reference = tag == "a" and value.startswith("https://doi.org/")
            assert is_reference or value.startswith(("#", "./", "data:image/png;base64,"))
    assert not re.search(r"@import|url\(", html)
    assert not page.all("link")
    policy = next(m for m in page.all("meta") if "http-equiv" in m)
    assert str(policy["content"]).startswith("default-src 'none'; img-src data:")


def test_pictures_are_embedded_described_and_linked() -> None:
    page = Page(group_page([section()], text()))
    images = page.all("img")
    assert [image["alt"] for image in images] == ["Violins. All points.", "Clusters"]
    for image in images:
        content = base64.b64decode(str(image["src"]).partition(",")[2], validate=True)
        assert content == picture()
        assert (image["width"], image["height"]) == ("200", "100")
    frames = [a["class"] for _, a in page.elements if str(a.get("class")).startswith("frame")]
    assert frames == ["frame paper", "frame"]
    links = {a["href"] for a in page.all("a")}
    assert {"./figures/v.svg", "./tables/means%20of%20all.tsv"} <= links


def test_all_that_was_given_is_said() -> None:
    said = Page(group_page([section()], text())).text
    for expected in (
        "Group level",
        "a cohort · 1 analysis · bids_qsm 1.2.3",
        "Models file",
        "No models file was given.",
        "Means were compared.",
        "age is a covariate.",
        "Two have no age.",
        "By structure.",
        "Caudate",
        "0.200",
        "sub-07",
        "it has no group",
        REFERENCES[KEY].title,
    ):
        assert expected in said
    assert "2warnings" in re.sub(r"\s+", "", said)


def test_text_from_data_is_escaped() -> None:
    hostile = pd.DataFrame({HOSTILE: [HOSTILE], "group": [HOSTILE]})
    page = Page(
        group_page(
            [
                Section(
                    HOSTILE,
                    HOSTILE,
                    notes=(HOSTILE,),
                    warnings=(HOSTILE,),
                    tables=(
                        TableView(
                            HOSTILE, hostile, HOSTILE, HOSTILE, {HOSTILE: "", "group": HOSTILE}
                        ),
                        TableView(HOSTILE, hostile.iloc[:0], empty=HOSTILE),
                    ),
                    figures=(FigureView(HOSTILE, picture(), HOSTILE, paths={HOSTILE: HOSTILE}),),
                )
            ],
            PageText(
                HOSTILE,
                HOSTILE,
                HOSTILE,
                {HOSTILE: HOSTILE},
                {HOSTILE: HOSTILE},
                (HOSTILE,),
                (LeftOut(HOSTILE, HOSTILE),),
                f"## {HOSTILE}\n\n{HOSTILE}",
            ),
        )
    )
    assert len(page.all("script")) == 1
    assert len(page.all("img")) == 1
    assert not [a for _, a in page.elements if any(name.startswith("on") for name in a)]
    assert page.text.count("<script>alert(2)</script>{{ 7*7 }}&amp;") > 20
    assert "49" not in page.text


@pytest.mark.parametrize(
    "path", ["javascript:alert(1)", "//example.org/x", "https://example.org", "/etc/passwd"]
)
def test_links_to_files_stay_below_the_page(path: str) -> None:
    address = relative_address(path)
    assert address.startswith("./")
    assert not address.startswith(".//")
    assert ":" not in address


def test_links_within_the_page_lead_somewhere() -> None:
    page = Page(group_page([section(), section()], text()))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    targets = {str(a["href"])[1:] for a in page.all("a") if str(a["href"]).startswith("#")}
    assert targets <= set(ids)
    assert {"a1", "a2", "methods", "left-out", f"ref-{KEY}"} <= targets
    assert {a["aria-labelledby"] for _, a in page.elements if "aria-labelledby" in a} <= set(ids)


def test_headings_descend_one_level_at_a_time() -> None:
    page = Page(group_page([section()], text()))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_what_scrolls_is_reached_by_keyboard() -> None:
    page = Page(group_page([section()], text()))
    scrolling = [
        a for _, a in page.elements if str(a.get("class", "")).startswith(("scroll", "frame"))
    ]
    assert len(scrolling) == 4  # two tables, two figures
    assert all(a["tabindex"] == "0" and a["aria-label"] for a in scrolling)
    sortable = [a for a in page.all("th") if "data-column" in a]
    assert [a["data-column"] for a in sortable] == ["0", "1", "2"]


def test_an_empty_page_says_so() -> None:
    said = Page(group_page([], PageText("1"))).text
    assert "No analysis was done." in said
    assert "Nothing was left out." in said
    assert "No methods were recorded." in said


def test_an_empty_table_and_a_long_one() -> None:
    long = pd.DataFrame({"structure": [f"s{i}" for i in range(LARGEST + 2)]})
    tables = (
        TableView("Clusters", table().iloc[:0], empty="No cluster is significant."),
        TableView("All", long, path="all.tsv", is_folded=True),
    )
    page = Page(group_page([Section("a", "b", tables=tables)], PageText("1")))
    assert "No cluster is significant." in page.text
    assert "2 more rows are in the file alone." in page.text
    assert f"s{LARGEST - 1}" in page.text
    assert f"s{LARGEST}" not in page.text
    assert f"Show the table ({LARGEST} rows)" in page.text


def test_the_page_is_the_same_each_time() -> None:
    assert len({group_page([section()], text()) for _ in range(2)}) == 1
