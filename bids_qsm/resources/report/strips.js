"use strict";
// The points of a scan are marked in all strips when one of them, or the scan in the table, is
// pointed at or focused; the arrow keys go along a strip.  Without this script points are links.
const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
tip.setAttribute("aria-hidden", "true"); // the point itself is read out
document.body.append(tip);

const ofScan = new Map();
document.querySelectorAll(".points [data-s]").forEach((point) => {
  const { s } = point.dataset;
  ofScan.set(s, (ofScan.get(s) ?? []).concat(point));
});
let marked = [];
let told = null;

function leave() {
  told = null;
  marked.forEach((point) => point.classList.remove("same"));
  marked = [];
  tip.hidden = true;
}

function enter(link) {
  leave();
  marked = ofScan.get(link.dataset.s) ?? [];
  marked.forEach((point) => point.classList.add("same"));
  if (!link.closest(".points")) {
    return;
  }
  told = link;
  tip.textContent = link.getAttribute("aria-label");
  tip.hidden = false;
  put();
}

function put() {
  const at = told.getBoundingClientRect();
  const left = at.left + at.width / 2 - tip.offsetWidth / 2;
  const room = document.documentElement.clientWidth - tip.offsetWidth - 4;
  tip.style.left = `${Math.max(4, Math.min(room, left))}px`;
  const above = at.top - tip.offsetHeight - 8;
  tip.style.top = `${above > 60 ? above : at.bottom + 8}px`;
}

for (const [come, go] of [["mouseover", "mouseout"], ["focusin", "focusout"]]) {
  document.addEventListener(come, (event) => {
    const link = event.target.closest("[data-s]");
    if (link) {
      enter(link);
    }
  });
  document.addEventListener(go, (event) => event.target.closest("[data-s]") && leave());
}
document.addEventListener("scroll", () => told && put(), { passive: true });

function place(point) {
  const shape = point.firstElementChild;
  return Number.parseFloat(shape.getAttribute("cx") ?? shape.getAttribute("x"));
}

const STEPS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
document.querySelectorAll(".points").forEach((strip) => {
  let inOrder = null;
  strip.addEventListener("keydown", (event) => {
    const { key } = event;
    if (key === "Escape") {
      strip.focus();
    }
    if (!(key in STEPS || key === "Home" || key === "End")) {
      return;
    }
    event.preventDefault();
    inOrder ??= Array.from(strip.querySelectorAll("a")).sort((a, b) => place(a) - place(b));
    const last = inOrder.length - 1;
    const now = inOrder.indexOf(document.activeElement);
    let next = key === "End" ? last : 0;
    if (key in STEPS && now >= 0) {
      next = Math.max(0, Math.min(last, now + STEPS[key]));
    }
    inOrder[next].focus();
  });
});
