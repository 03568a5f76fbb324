"""Tables are sorted by their heads, in a real browser."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from bids_qsm.report.pages import subject_page
from bids_qsm.report.record import SeriesRecord, TableRecord
from tests.report.browser import CHROMIUM, Browser

STRUCTURES = """\
name,hemisphere,measure,units,reference,mean,sd,volume_mm3,coverage
b10,L,Chimap,ppm,x,-0.002,0.001,30,1
b10,R,Chimap,ppm,x,0.1,0.001,4,1
b9,L,Chimap,ppm,x,0.0101,0.001,200,1
b9,R,Chimap,ppm,x,n/a,n/a,0,n/a
a,B,Chimap,ppm,x,0.0099,0.001,1000,1
""".replace(",", "\t")

CLICK = """(() => {
const clicked = document.querySelectorAll("#s1-table th[data-column] button");
const orders = [];
for (const [column, times] of [[0, 1], [1, 1], [2, 1], [1, 2], [3, 2], [1, 3]]) {
  for (let n = 0; n < times; n += 1) clicked[column].click();
  const names = document.querySelectorAll("#s1-table tbody th");
  const sorted = document.querySelectorAll("#s1-table [aria-sort]");
  const how = Array.from(sorted, (head) => head.dataset.column + head.getAttribute("aria-sort"));
  orders.push(Array.from(names, (name) => name.textContent).join(" ") + " | " + how.join(" "));
  while (clicked[column].parentElement.hasAttribute("aria-sort")) clicked[column].click();
}
return orders;
})()
"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_click_on_a_head_sorts(
    series_record: SeriesRecord, output_dir: Path, tmp_path: Path
) -> None:
    (output_dir / "few.tsv").write_text(STRUCTURES, encoding="utf-8")
    record = dataclasses.replace(series_record, tables=(TableRecord("stats", "few.tsv", "A"),))
    (tmp_path / "page.html").write_text(subject_page("01", [record], output_dir), encoding="utf-8")
    with Browser(tmp_path / "browser") as browser:
        browser.open(tmp_path / "page.html")
        orders = browser.run(CLICK)
    assert orders == [
        "a b9 b10 | 0ascending",
        "b10 a b9 | 1ascending",
        "a b10 b9 | 2ascending",  # one cell of both sides counts for each; the unknown is last
        "b9 a b10 | 1descending",
        "a b9 b10 | 3descending",
        "b10 b9 a | ",
    ]
