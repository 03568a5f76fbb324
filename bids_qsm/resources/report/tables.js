"use strict";
// A table of the class "sortable" is sorted by its heads that have data-column: up, then down, then
// as it was.  Without this script it stands as it is.
const NEXT_ORDER = { none: "ascending", ascending: "descending", descending: "none" };

function cellAt(row, column) {
  let end = 0;
  return Array.from(row.cells).find((cell) => (end += cell.colSpan) > column);
}

// what has no value comes last, whatever the direction
function inOrder(rows, column, sign) {
  const cells = new Map(rows.map((row) => [row, cellAt(row, column)]));
  const isNumeric = rows.some((row) => "value" in cells.get(row).dataset);
  const text = (row) => cells.get(row).textContent.trim();
  const value = (row) => Number(cells.get(row).dataset.value);
  const isKnown = (row) => (isNumeric ? "value" in cells.get(row).dataset : text(row) !== "–");
  const compare = isNumeric
    ? (a, b) => value(a) - value(b)
    : (a, b) => text(a).localeCompare(text(b), "en", { numeric: true });
  const known = rows.filter(isKnown).sort((a, b) => sign * compare(a, b));
  return known.concat(rows.filter((row) => !isKnown(row)));
}

function makeSortable(table) {
  const body = table.tBodies[0];
  const asWritten = Array.from(body.rows);
  const heads = Array.from(table.tHead.querySelectorAll("th[data-column]"));

  function sortBy(head) {
    const order = NEXT_ORDER[head.getAttribute("aria-sort") ?? "none"];
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    if (order !== "none") {
      head.setAttribute("aria-sort", order);
    }
    const sign = order === "descending" ? -1 : 1;
    const column = Number(head.dataset.column);
    body.append(...(order === "none" ? asWritten : inOrder(asWritten, column, sign)));
  }

  heads.forEach((head) => {
    const control = document.createElement("button");
    control.type = "button";
    control.className = "sort";
    control.append(...head.childNodes);
    control.addEventListener("click", () => sortBy(head));
    head.append(control);
  });
}

document.querySelectorAll("table.sortable").forEach(makeSortable);
