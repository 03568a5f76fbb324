// Checks of a page as it is shown; each function returns what is wrong, in words.

// names an element so that it is found
function named(element) {
  const own = element.id ? `#${element.id}` : `.${[...element.classList].join(".")}`;
  const text = element.textContent.trim().slice(0, 40);
  return `${element.localName}${own === "." ? "" : own} "${text}"`;
}

function isShown(element) {
  return element.checkVisibility({ visibilityProperty: true, opacityProperty: true });
}

function imagesThatDoNotLoad() {
  return [...document.images]
    .filter((image) => !image.complete || !image.naturalWidth || !image.alt)
    .map(named);
}

// what is wider than the page, and does not scroll within something that is not
function tooWide() {
  const width = document.documentElement.clientWidth;
  const found = document.documentElement.scrollWidth > width ? ["the page itself"] : [];
  for (const element of document.body.querySelectorAll("*")) {
    const box = element.getBoundingClientRect();
    if (box.width && box.right > width + 0.5 && isShown(element) && !isHeld(element)) {
      found.push(`${named(element)} ends at ${box.right}`);
    }
  }
  return found;
}

function isHeld(element) {
  for (let at = element; at && at !== document.body; at = at.parentElement) {
    const { overflowX, position } = getComputedStyle(at);
    if (at !== element && overflowX !== "visible") return true;
    if (position === "absolute" && at.getBoundingClientRect().right < 0) return true;
  }
  return false;
}

function channels(colour) {
  const found = colour.match(/^rgba?\(([^)]*)\)$/);
  if (!found) throw new Error(`an unknown colour: ${colour}`);
  const [r, g, b, a = 1] = found[1].split(/[ ,/]+/).map(Number);
  return [r, g, b, a];
}

function over([r, g, b, a], below) {
  return [r, g, b].map((value, n) => a * value + (1 - a) * below[n]);
}

function backgroundOf(element) {
  const layers = [];
  for (let at = element; at; at = at.parentElement) {
    const colour = channels(getComputedStyle(at).backgroundColor);
    layers.push(colour);
    if (colour[3] === 1) break;
  }
  return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
}

// WCAG 2: relative luminance and contrast
function luminance(colour) {
  const [r, g, b] = colour.map((value) => {
    const part = value / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(one, other) {
  const [high, low] = [luminance(one), luminance(other)].sort((a, b) => b - a);
  return (high + 0.05) / (low + 0.05);
}

// text below AA: 4.5, or 3 where it is large
function faintTexts() {
  const found = new Map();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !isShown(element)) continue;
    if (element.closest("script, style, option, noscript, .hidden")) continue;
    const style = getComputedStyle(element);
    const size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const below = backgroundOf(element);
    const isSvg = element.namespaceURI.endsWith("svg");
    const colour = over(channels(isSvg ? style.fill : style.color), below);
    const ratio = contrast(colour, below);
    if (ratio < (isLarge ? 3 : 4.5)) found.set(named(element), ratio.toFixed(2));
    if (size < 11) found.set(named(element), `${size} px`);
  }
  return [...found].map(([name, ratio]) => `${name}: ${ratio}`);
}

// controls that have no edge that is seen: 3 against what is around them
function faintControls() {
  const found = [];
  for (const control of document.querySelectorAll("button, select, input")) {
    const { borderTopWidth, borderTopColor } = getComputedStyle(control);
    if (!isShown(control) || !parseFloat(borderTopWidth)) continue;
    const around = backgroundOf(control.parentElement);
    const ratio = contrast(over(channels(borderTopColor), around), around);
    if (ratio < 3) found.push(`${named(control)}: ${ratio.toFixed(2)}`);
  }
  return found;
}

// how the element that has the focus is seen
function focusNow() {
  const element = document.activeElement;
  const { outlineStyle, outlineWidth, outlineColor } = getComputedStyle(element);
  const box = element.getBoundingClientRect();
  const isIn = box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth;
  const around = backgroundOf(element.parentElement ?? element);
  const hasRing = outlineStyle !== "none" && parseFloat(outlineWidth) >= 2 &&
    contrast(over(channels(outlineColor), around), around) >= 3;
  const before = window.lastFocus;
  window.lastFocus = element;
  const order = before && before.compareDocumentPosition(element);
  return {
    name: named(element),
    isBody: element === document.body,
    isFirst: !before,
    follows: !before || Boolean(order & Node.DOCUMENT_POSITION_FOLLOWING),
    isSeen: isIn && hasRing,
  };
}

function focusables() {
  const all = "a[href], button, input, select, summary, [tabindex='0']";
  return [...document.querySelectorAll(all)].filter(isShown).length;
}

function openAll() {
  // but for viewers, which take long
  for (const details of document.querySelectorAll("details")) {
    details.open = !details.closest(".viewer");
  }
}
true;
