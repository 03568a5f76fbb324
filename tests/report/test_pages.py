from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import io
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from bids_qsm.report.pages import duration, subject_page
from bids_qsm.report.record import (
    FigureRecord,
    ReferenceRecord,
    SeriesRecord,
    StepRecord,
    TableRecord,
)

VOID = {"meta", "img", "br", "link", "input", "hr"}
TSV: dict[str, str] = {"delimiter": "\t", "lineterminator": "\n"}
HOSTILE = "\"'><img src=x onerror=alert(1)><script>alert(2)</script>{{ 7*7 }}&amp;"


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


def page_of(*records: SeriesRecord, output_dir: Path) -> Page:
    return Page(subject_page("01", records, output_dir))


def test_nothing_is_fetched(
    series_record: SeriesRecord, bare_record: SeriesRecord, output_dir: Path
) -> None:
    text = subject_page("01", [series_record, bare_record], output_dir)
    page = Page(text)
    for tag, attributes in page.elements:
        for name in ("src", "href", "data", "poster", "srcset", "action"):
            value = attributes.get(name)
            if value is None:
                continue
            is_reference = tag == "a" and value.startswith("https://doi.org/")
            assert is_reference or value.startswith(("#", "data:image/png;base64,"))
    assert not re.search(r"@import|url\(", text)
    assert not page.all("link")
    policy = next(m for m in page.all("meta") if "http-equiv" in m)
    assert policy["content"] is not None
    assert policy["content"].startswith("default-src 'none'; img-src data:")


def test_only_scripts_of_the_page_itself_may_run(
    series_record: SeriesRecord, output_dir: Path
) -> None:
    text = subject_page("01", [series_record], output_dir)
    policy = next(m["content"] for m in Page(text).all("meta") if "http-equiv" in m)
    assert policy is not None
    allowed = policy.partition("script-src ")[2].split()
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digests = [hashlib.sha256(script.encode()).digest() for script in scripts]
    assert allowed == [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]
    assert len(scripts) == 1


def test_all_pictures_are_embedded_and_described(
    series_record: SeriesRecord, output_dir: Path
) -> None:
    images = page_of(series_record, output_dir=output_dir).all("img")
    assert len(images) == 4
    for image in images:
        assert image["src"] is not None
        content = base64.b64decode(image["src"].partition(",")[2], validate=True)
        Image.open(io.BytesIO(content)).load()
        assert image["alt"]


def test_two_pictures_flicker_and_one_does_not(
    series_record: SeriesRecord, output_dir: Path
) -> None:
    figures = page_of(series_record, output_dir=output_dir).all("figure")
    assert [figure.get("class") for figure in figures] == [None, None, "flicker"]


def test_links_within_the_page_lead_somewhere(
    series_record: SeriesRecord, bare_record: SeriesRecord, output_dir: Path
) -> None:
    page = page_of(series_record, bare_record, output_dir=output_dir)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    targets = {a["href"][1:] for a in page.all("a") if a["href"] and a["href"].startswith("#")}
    assert targets <= set(ids)
    assert {"s1", "s2", "s1-table", "s2-methods", "ref-bilgic2024"} <= targets
    named = {a["aria-labelledby"] for _, a in page.elements if "aria-labelledby" in a}
    assert named <= set(ids)


def test_headings_descend_one_level_at_a_time(
    series_record: SeriesRecord, output_dir: Path
) -> None:
    page = page_of(series_record, output_dir=output_dir)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_names_from_data_are_escaped(series_record: SeriesRecord, output_dir: Path) -> None:
    tables = []
    for table in series_record.tables:
        rows = list(csv.DictReader((output_dir / table.path).open(encoding="utf-8"), **TSV))
        texts = ("name", "location", "lobe", "check", "sentence", "reference", "source")
        with (output_dir / f"hostile-{table.path}").open("w", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), **TSV)
            writer.writeheader()
            for row in rows:
                writer.writerow(row | {key: HOSTILE for key in texts if key in row})
        tables.append(TableRecord(table.key, f"hostile-{table.path}", HOSTILE))
    record = dataclasses.replace(
        series_record,
        name=HOSTILE,
        facts={HOSTILE: HOSTILE},
        steps=(*series_record.steps, StepRecord(HOSTILE, HOSTILE, {HOSTILE: HOSTILE})),
        warnings=(HOSTILE,),
        figures=(
            FigureRecord(HOSTILE, HOSTILE, HOSTILE, (HOSTILE,)),
            FigureRecord(HOSTILE, HOSTILE, HOSTILE, ("figures/chi.png",)),
        ),
        reference=ReferenceRecord(HOSTILE, 0.0, 0.0, 1),
        tables=tuple(tables),
        outputs=(HOSTILE,),
    )
    page = Page(subject_page(HOSTILE, [record, series_record], output_dir))
    assert len(page.all("script")) == 1
    assert len(page.all("img")) == 5
    assert not [a for _, a in page.elements if any(name.startswith("on") for name in a)]
    assert page.text.count("<script>alert(2)</script>{{ 7*7 }}&amp;") > 40
    assert "49" not in page.text
    # in what is named after them, too
    assert f"Table: Regional values, {HOSTILE}" in [a.get("aria-label") for _, a in page.elements]


def test_what_is_missing_is_said(
    series_record: SeriesRecord, bare_record: SeriesRecord, output_dir: Path
) -> None:
    text = page_of(bare_record, output_dir=output_dir).text
    assert "This series has no phase" in text
    assert "No T1w image was found" in text
    assert "There are no values of single structures." in text
    assert "This series has no pictures." in text
    assert "No warnings" in text

    (output_dir / "figures" / "chi.png").unlink()
    (output_dir / "stats.tsv").unlink()
    text = page_of(series_record, output_dir=output_dir).text
    assert "The picture figures/chi.png is missing." in text
    assert "The table stats.tsv is missing." in text


def test_a_broken_table_is_said(series_record: SeriesRecord, output_dir: Path) -> None:
    (output_dir / "stats.tsv").write_text("nonsense\n1\n", encoding="utf-8")
    text = page_of(series_record, output_dir=output_dir).text
    assert "The table stats.tsv cannot be read: it has no column 'name'." in text


def test_summary_warnings_values_and_parameters_are_shown(
    series_record: SeriesRecord, output_dir: Path
) -> None:
    text = page_of(series_record, output_dir=output_dir).text
    for expected in (
        "Field strength",
        "4, 8, 12 ms",
        "1 warning",
        "The phase scale was guessed.",
        "45.6 ± 12.3",
        "χ is relative to lateral ventricles: 4.1 ± 18.3 ppb over 8120 voxels",
        "7 of 7",
        "quality_threshold = 0.37",
        "1 min 05 s",
        "Eckstein et al. 2018",
        "doi:10.1002/mrm.30006",
    ):
        assert expected in text


def test_cells_hold_what_they_are_sorted_by(series_record: SeriesRecord, output_dir: Path) -> None:
    text = subject_page("01", [series_record], output_dir)
    tables = re.findall(r"<table class=\"values sortable\">.*?</table>", text, re.DOTALL)
    assert len(tables) == 6
    heads = [re.findall(r'data-column="(\d)"', table) for table in tables]
    assert [sorted(map(int, head)) for head in heads] == [
        list(range(n)) for n in (7, 8, 4, 5, 4, 5)
    ]
    regions, lesions, load, volumes, thickness, checks = tables
    assert '<td data-value="21.44">21.4 ± 2.0</td>' in regions
    assert '<td>–<sup title="measured in part">†</sup></td>' in regions
    assert '<td colspan="2" class="both" data-value="20.0">20.0 ± 2.0<sup' in regions
    assert '<td class="text">periventricular</td>' in lesions
    assert '<td data-value="1.333">1.33</td>' in load
    assert '<td data-value="701.5">701.5</td>' in volumes
    assert '<td data-value="2.512">2.51</td>' in thickness
    assert '<td class="text"><span class="verdict failed">failed</span></td>' in checks


def test_every_part_of_the_page_is_in_the_navigation_in_its_order(
    series_record: SeriesRecord, output_dir: Path
) -> None:
    page = page_of(series_record, output_dir=output_dir)
    places = [a["id"] for tag, a in page.elements if tag == "section"]
    links = [
        a["href"] for a in page.all("a") if (a["href"] or "").startswith(("#s1", "#references"))
    ]
    assert links == [f"#{place}" for place in places]
    assert places[3:8] == ["s1-table", "s1-lesions", "s1-tissues", "s1-checks", "s1-consensus"]


def test_pictures_stand_with_the_tables_of_their_heading(
    series_record: SeriesRecord, output_dir: Path
) -> None:
    headings = list(dict.fromkeys(figure.section for figure in series_record.figures))
    figures = tuple(
        dataclasses.replace(figure, section="Tissues") if figure.section == headings[-1] else figure
        for figure in series_record.figures
    )
    moved = dataclasses.replace(series_record, figures=figures)
    pages = [page_of(record, output_dir=output_dir) for record in (series_record, moved)]
    sections = [[a["id"] for tag, a in page.elements if tag == "section"] for page in pages]
    assert len(sections[1]) == len(sections[0]) - 1
    assert pages[1].text.count("Tissues") == pages[0].text.count("Tissues")
    assert len(pages[1].all("img")) == len(pages[0].all("img")) > 0
    within = [tag for tag, a in pages[1].elements if tag in ("section", "figure")]
    place = (
        1 + [i for i, tag in enumerate(within) if tag == "section"][sections[1].index("s1-tissues")]
    )
    assert within[place] == "figure"


def test_several_series_are_listed_in_the_navigation(
    series_record: SeriesRecord, bare_record: SeriesRecord, output_dir: Path
) -> None:
    page = page_of(series_record, bare_record, output_dir=output_dir)
    labels = [nav.get("aria-label") for nav in page.all("nav")]
    assert labels == ["Series", "Sections of sub-01_ses-1", "Sections of sub-01_ses-2"]
    assert page_of(series_record, output_dir=output_dir).all("nav") == [{"aria-label": "Sections"}]


def test_the_page_is_the_same_each_time(series_record: SeriesRecord, output_dir: Path) -> None:
    pages = {subject_page("01", [series_record], output_dir) for _ in range(2)}
    assert len(pages) == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.3, "300 ms"), (8.14, "8.1 s"), (59.99, "1 min 00 s"), (141.2, "2 min 21 s")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_colours_have_enough_contrast(series_record: SeriesRecord, output_dir: Path) -> None:
    style = subject_page("01", [series_record], output_dir).partition("</style>")[0]
    light, dark = (
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", part))
        for part in style.split("prefers-color-scheme: dark")
    )
    pairs = [(ink, paper) for ink in ("text", "muted", "link") for paper in ("page", "card")]
    pairs += [(c, f"{c}-page") for c in ("amber", "green", "red")]
    pairs += [("text", "amber-page"), ("text", "code"), ("link", "amber-page"), ("accent", "card")]
    for colours in (light, dark):
        for ink, paper in pairs:
            assert _contrast(colours[ink], colours[paper]) >= 4.5, (ink, paper)


def _contrast(one: str, other: str) -> float:
    """Return the contrast ratio of the Web Content Accessibility Guidelines 2.2."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)
