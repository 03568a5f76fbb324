"""The page of the quality of all scans, read and used in a real browser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bids_qsm.report.group_quality import MOST_LABEL_STRIPS, QualityText, quality_page
from tests.report.browser import CHROMIUM, Browser
from tests.report.test_group_page import HOSTILE, Page

TEXT = QualityText(
    "1.0",
    "group.html",
    "group_quality.tsv",
    "group_exclusions.tsv",
    "",
    ("A note.",),
    "Text.",
    False,
)
N = 12


def metrics_of(checks: dict[str, tuple[str, np.ndarray]]) -> pd.DataFrame:
    tables = []
    for check, (atlas, values) in checks.items():
        table = pd.DataFrame({"series": [f"sub-{n:02d}" for n in range(N)], "value": values})
        table = table.assign(atlas=atlas, check=check, name="part", hemisphere="n/a", low=np.nan)
        table = table.assign(high=10.0, units="Hz", comparable="all", median=np.median(values))
        table = table.assign(robust_z=0.0, is_out_of_range=values > 10, is_outlier=values > 10)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def scans_of(**columns: object) -> pd.DataFrame:
    names = [f"sub-{n:02d}" for n in range(N)]
    table = pd.DataFrame({"series": names, "page": [f"{name}.html" for name in names]})
    table = table.assign(n_out_of_range=0, n_outliers=0, n_failed_labels=0, distance=np.nan)
    table = table.assign(distance_cutoff=np.nan, is_flagged=False, is_proposed=False, reasons="")
    table = table.assign(is_excluded=False, excluded_for="")
    for name, values in columns.items():
        for place, value in values.items():
            table.loc[place, name] = value
    return table


VALUES = np.arange(N, dtype=float) + 0.5


@pytest.fixture(scope="module")
def page() -> str:
    scans = scans_of(
        is_flagged={10: True, 11: True, 2: True},
        is_proposed={11: True},
        n_outliers={10: 1, 11: 2, 2: 1},
        is_excluded={3: True},
        excluded_for={3: HOSTILE},
        reasons={11: "worst", 10: "bad"},
        distance={11: 9.0},
        distance_cutoff={11: 3.0},
    )
    metrics = metrics_of({"noise": ("n/a", VALUES), "ghost": ("n/a", VALUES[::-1].copy())})
    return quality_page(metrics, scans, TEXT)


def test_every_scan_is_a_point_that_leads_to_its_page(page) -> None:
    points = [a for a in Page(page).all("a") if "aria-label" in a]
    assert len(points) == 2 * N
    assert {a["href"] for a in points} == {f"./sub-{n:02d}.html" for n in range(N)}
    first = points[0]
    assert (first["aria-label"], first["data-s"]) == ("sub-00: 0.5 Hz, robust z 0.0", "0")
    out = [a["aria-label"] for a in points if "out" in (a.get("class") or "")]
    assert out == [
        "sub-10: 10.5 Hz, robust z 0.0, out of range, outlier",
        "sub-11: 11.5 Hz, robust z 0.0, out of range, outlier",
        "sub-01: 10.5 Hz, robust z 0.0, out of range, outlier",
        "sub-00: 11.5 Hz, robust z 0.0, out of range, outlier",
    ]
    assert sum("gone" in (a.get("class") or "") for a in points) == 2


def test_flagged_scans_stand_in_a_table_the_excluded_and_the_worst_first(page) -> None:
    read = Page(page)
    rows = [a for a in read.all("a") if "data-s" in a and "aria-label" not in a]
    assert [a["href"] for a in rows] == [f"./sub-{n}.html" for n in ("03", "11", "02", "10")]
    assert "exclude?" in read.text
    assert "You: " + HOSTILE in read.text
    assert "<img src=x" not in page
    for name in ("group.html", "group_quality.tsv", "group_exclusions.tsv"):
        assert f'href="./{name}"' in page


def test_only_checks_of_labels_that_fail_are_shown_and_not_too_many() -> None:
    good = {f"good {n}": ("A", VALUES / 2) for n in range(3)}
    bad = {f"bad {n}": ("A", VALUES * (1 + n)) for n in range(MOST_LABEL_STRIPS + 2)}
    read = Page(quality_page(metrics_of({**good, **bad}), scans_of(), TEXT))
    assert "26 of 29 checks are out of their range in some scan; the 24 that find the" in read.text
    assert "good 1, part" not in read.text
    assert "bad 25, part" in read.text
    assert "bad 1, part" not in read.text
    assert "No scan stands out." in read.text


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_page_is_used_by_mouse_and_keyboard(page: str, tmp_path: Path) -> None:
    (tmp_path / "group_quality.html").write_text(page, encoding="utf-8")
    (tmp_path / "sub-11.html").write_text("<title>there</title>", encoding="utf-8")
    with Browser(tmp_path / "profile") as browser:
        size = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        browser.ask("Emulation.setDeviceMetricsOverride", **size)
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        browser.ask("Emulation.setEmulatedMedia", features=[still])
        browser.open(tmp_path / "group_quality.html")
        assert browser.run("document.documentElement.scrollWidth") <= 400

        def press(key: str) -> str:
            browser.ask("Input.dispatchKeyEvent", type="keyDown", key=key, code=key)
            browser.ask("Input.dispatchKeyEvent", type="keyUp", key=key, code=key)
            return browser.run("document.activeElement.getAttribute('aria-label')")

        browser.run("document.querySelector('.points').focus()")
        said = [press(key) for key in ("ArrowRight", "ArrowRight", "Home", "End", "ArrowLeft")]
        assert [text.split(":")[0] for text in said] == [f"sub-{n}" for n in (
            "00", "01", "00", "11", "10",
        )]  # fmt: skip
        tip = "document.querySelector('.tip')"
        assert browser.run(f"{tip}.textContent") == said[-1]
        same = "Array.from(document.querySelectorAll('.same'), (p) => p.dataset.s).join()"
        assert browser.run(same) == "10,10"  # the same scan is marked in both strips
        press("Escape")
        assert browser.run(f"{tip}.hidden")
        point = "document.querySelector('.points a[data-s=\"11\"]')"
        browser.run(f"{point}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        at = browser.run(
            f"(() => {{ const r = {point}.getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        where = {"x": at[0], "y": at[1], "button": "left", "clickCount": 1}
        browser.ask("Input.dispatchMouseEvent", type="mouseMoved", **where)
        assert browser.run(f"{tip}.textContent").startswith("sub-11: 11.5 Hz")
        for kind in ("mousePressed", "mouseReleased"):
            browser.ask("Input.dispatchMouseEvent", type=kind, **where)
        browser.wait("document.title === 'there'")
        assert browser.complaints == []
