"use strict";
// The live viewer of a series.  Nothing is decoded before it is opened; all that it needs lies in
// the page.  A structure is picked from the viewer's list or from a row of a table.
const RENDER = 4; // the view in 3D, of the structures alone
const ZOOM = 1.6;
const MINUS = "\u2212";

function bytesOf(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

// NiiVue is unpacked and run once, by the first viewer that is opened
let library = null;
function loadLibrary() {
  library ??= (async () => {
    const packed = new Blob([bytesOf(document.getElementById("niivue-packed").textContent.trim())]);
    const stream = packed.stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    return window.niivue;
  })();
  return library;
}

function tableOf(structures) {
  const places = structures.map((_, n) => n);
  const part = (n) => [0, ...structures.map(({ colour }) => colour[n])];
  return {
    R: part(0),
    G: part(1),
    B: part(2),
    A: [0, ...structures.map(() => 255)],
    I: [0, ...places.map((n) => n + 1)],
    labels: ["", ...structures.map(({ name }) => name)],
  };
}

function spoken(value, step) {
  const digits = step >= 1 ? 0 : Math.min(3, Math.ceil(-Math.log10(step)));
  return value.toFixed(digits).replace(/^-(0(\.0*)?)$/, "$1").replace("-", MINUS);
}

function makeViewer(section) {
  const article = section.closest("article");
  const details = section.querySelector("details");
  const part = (name) => section.querySelector(`[data-part="${name}"]`);
  const canvas = part("canvas");
  const readout = part("readout");
  const said = part("state");
  const data = () => JSON.parse(section.querySelector("script").textContent);
  let opened = null; // a promise: whether all that is below is there
  let nv, content, images, labelImages, lesionImage;

  async function decode(nifti, name, colours, window_ = [NaN, NaN]) {
    return await globalThis.niivue.NVImage.loadFromBase64({
      base64: nifti, name: `${name}.nii.gz`, colormap: colours, cal_min: window_[0],
      cal_max: window_[1],
    });
  }

  async function start() {
    said.textContent = "Unpacking the volumes…";
    const { Niivue } = await loadLibrary();
    content = data();
    nv = new Niivue({
      backColor: [0, 0, 0, 1],
      crosshairColor: [1, 0.85, 0.2, 0.9],
      crosshairGap: 6,
      crosshairWidth: 0.6,
      dragAndDropEnabled: false,
      isColorbar: true,
      isOrientationTextVisible: true,
      isRadiologicalConvention: false,
      loadingText: "",
      logLevel: "error",
      multiplanarShowRender: 0,
      show3Dcrosshair: true,
      scrollRequiresFocus: true,
      fontColor: [0.9, 0.9, 0.9, 1],
    });
    await nv.attachToCanvas(canvas);
    images = [];
    for (const map of content.maps) {
      images.push(await decode(map.nifti, map.title, map.colours, map.window));
    }
    labelImages = [];
    for (const { atlas, nifti, structures } of content.labels) {
      const image = await decode(nifti, atlas, "gray", [0, structures.length]);
      image.setColormapLabel(tableOf(structures));
      image.colorbarVisible = false;
      labelImages.push(image);
    }
    if (content.lesions) {
      lesionImage = await decode(content.lesions.nifti, "lesions", "red", [0, 1]);
      lesionImage.colorbarVisible = false;
    }
    nv.onLocationChange = tell;
    fill();
    listen();
    showMap();
    look();
    said.textContent = "";
    const first = content.labels[0]?.structures[0];
    if (first) {
      goTo(first.mm);
    }
  }

  function choices(select, names) {
    select.replaceChildren(...names.map(([value, text]) => new Option(text, value)));
  }

  function fill() {
    choices(part("map"), content.maps.map(({ title }, n) => [n, title]));
    choices(part("labels"), [
      ...content.labels.map(({ atlas }, n) => [n, atlas]),
      [-1, "none"],
    ]);
    part("structure").replaceChildren(new Option("–", ""));
    content.labels.forEach(({ atlas, structures }, n) => {
      const group = document.createElement("optgroup");
      group.label = atlas;
      group.append(...structures.map(({ name }, place) => new Option(name, `${n} ${place}`)));
      part("structure").append(group);
    });
    for (const name of ["labels", "opacity", "structure"]) {
      part(name).closest("label").hidden = !content.labels.length;
    }
    part("lesions").closest("label").hidden = !lesionImage;
  }

  const base = () => Number(part("map").value);
  const atlas = () => Number(part("labels").value);
  const isRendered = () => Number(part("view").value) === RENDER;

  // which volumes are drawn, the lowest first
  function compose() {
    const overlays = [];
    if (atlas() >= 0) {
      overlays.push(labelImages[atlas()]);
      labelImages[atlas()].opacity = isRendered() ? 1 : Number(part("opacity").value);
    }
    if (lesionImage && part("lesions").checked) {
      overlays.push(lesionImage);
      lesionImage.opacity = isRendered() ? 1 : Math.max(0.2, Number(part("opacity").value));
    }
    const image = images[base()];
    image.opacity = isRendered() && overlays.length ? 0 : 1;
    nv.volumes = [image, ...overlays];
    nv.back = image;
    nv.overlays = overlays;
    nv.updateGLVolume();
  }

  function showMap() {
    const { window: [low, high], step, unit, colours } = content.maps[base()];
    for (const [name, value] of [["low", low], ["high", high]]) {
      part(name).value = Number(value.toPrecision(4));
      part(name).step = Math.max(step, Number(((high - low) / 100).toPrecision(1)));
    }
    section.querySelectorAll("[data-part='unit']").forEach((place) => {
      place.textContent = unit ? ` (${unit})` : "";
    });
    part("colours").value = colours;
    change();
  }

  function change() {
    const image = images[base()];
    const low = Number(part("low").value);
    const high = Number(part("high").value);
    image.colormap = part("colours").value; // which resets the window
    if (low < high) {
      image.cal_min = low;
      image.cal_max = high;
    }
    compose();
    tell();
  }

  function look() {
    nv.opts.isColorbar = !isRendered();
    nv.scene.volScaleMultiplier = isRendered() ? ZOOM : 1;
    nv.setSliceType(Number(part("view").value));
    compose();
  }

  // where the crosshair is: true scanner coordinates, also of an oblique volume
  function tell() {
    const mm = Array.from(nv.frac2mm(nv.scene.crosshairPos, 0, true)).slice(0, 3);
    const voxel = images[0].mm2vox(mm);
    const at = (image) => image.getValue(voxel[0], voxel[1], voxel[2]);
    const words = [mm.map((v) => spoken(v, 0.1)).join(", ") + " mm"];
    content.maps.forEach(({ title, unit, step }, n) => {
      const value = at(images[n]);
      const isKnown = Math.round(value / step) !== content.unknown;
      words.push(isKnown ? `${title} ${spoken(value, step)} ${unit}`.trim() : `${title} –`);
    });
    content.labels.forEach(({ structures }, n) => {
      const structure = structures[at(labelImages[n]) - 1];
      if (structure && (n === atlas() || atlas() < 0)) {
        words.push(structure.name);
      }
    });
    if (lesionImage && at(lesionImage) > 0) {
      words.push(`lesion ${at(lesionImage)}`);
    }
    readout.textContent = words.join(" · ");
  }

  function goTo(mm) {
    nv.scene.crosshairPos = nv.mm2frac(mm, 0, true);
    nv.drawScene();
    tell();
  }

  // arrows and page keys move the crosshair; NiiVue's own keys are not used, as most are not seen
  const MOVES = {
    ArrowLeft: [-1, 0, 0], ArrowRight: [1, 0, 0], ArrowUp: [0, 1, 0], ArrowDown: [0, -1, 0],
    PageUp: [0, 0, 1], PageDown: [0, 0, -1],
  };
  function press(event) {
    if (event.key in MOVES) {
      event.preventDefault();
      event.stopPropagation();
      const [x, y, z] = MOVES[event.key];
      if (isRendered()) {
        nv.setRenderAzimuthElevation(
          nv.scene.renderAzimuth + 5 * x, nv.scene.renderElevation + 5 * y);
      } else {
        nv.moveCrosshairInVox(x, y, z);
        tell();
      }
    } else if (event.key !== "Tab" && event.key !== "Escape") {
      event.stopPropagation();
    }
  }

  function listen() {
    part("map").addEventListener("change", showMap);
    for (const name of ["colours", "low", "high"]) {
      part(name).addEventListener("input", change);
    }
    for (const name of ["labels", "lesions", "opacity"]) {
      part(name).addEventListener("input", () => {
        compose();
        tell();
      });
    }
    part("view").addEventListener("change", look);
    part("structure").addEventListener("change", (event) => {
      if (event.target.value) {
        const [n, place] = event.target.value.split(" ").map(Number);
        showStructure(n, content.labels[n].structures[place]);
      }
    });
    part("reset").addEventListener("click", () => {
      showMap();
      nv.setPan2Dxyzmm([0, 0, 0, 1]);
    });
    // the wheel scrolls the page unless the viewer has the focus
    const frame = canvas.parentElement;
    frame.addEventListener("keydown", press, { capture: true });
    frame.addEventListener("keyup", (event) => event.stopPropagation(), { capture: true });
    frame.addEventListener("wheel", (event) => {
      if (document.activeElement !== canvas) {
        event.stopPropagation();
      }
    }, { capture: true, passive: true });
    canvas.addEventListener("pointerdown", () => canvas.focus({ preventScroll: true }));
  }

  function open() {
    opened ??= start().then(() => true, (error) => {
      said.textContent = `The viewer does not work in this browser: ${error.message.replace(/\.*$/, "")}.`;
      return false;
    });
    return opened;
  }

  function showStructure(n, structure) {
    if (atlas() >= 0 && atlas() !== n) {
      part("labels").value = n;
      compose();
    }
    part("structure").value = `${n} ${content.labels[n].structures.indexOf(structure)}`;
    goTo(structure.mm);
  }

  async function fromTable(how) {
    details.open = true;
    section.scrollIntoView({ block: "start" });
    if (await open()) {
      canvas.focus({ preventScroll: true }); // the arrow keys are what comes next
      how();
    }
  }

  details.addEventListener("toggle", () => details.open && open());

  // the names of the rows become buttons; a click on a number of one side goes to that side
  function link(row, how) {
    const head = row.cells[0];
    const control = document.createElement("button");
    control.type = "button";
    control.className = "pick";
    control.title = "Show in the viewer";
    control.append(...head.childNodes);
    head.append(control);
    control.addEventListener("click", () => fromTable(() => how("")));
    row.classList.add("picks");
    row.addEventListener("click", (event) => {
      const cell = event.target.closest("td");
      if (cell && !window.getSelection().toString()) {
        fromTable(() => how(sideOf(cell)));
      }
    });
  }

  function sideOf(cell) {
    let column = 0;
    for (let other = cell.previousElementSibling; other; other = other.previousElementSibling) {
      column += other.colSpan;
    }
    const head = cell.closest("table").querySelector(`th[data-column="${column}"]`);
    const words = cell.colSpan === 1 && head ? head.textContent.trim() : "";
    return words.endsWith("right") ? "R" : words.endsWith("left") ? "L" : "";
  }

  // clicks on the name go from the left one to the right one and back
  function pick(n, name, side) {
    const found = content.labels[n].structures.filter(({ row }) => row === name);
    const shown = part("structure").value;
    const place = (structure) => `${n} ${content.labels[n].structures.indexOf(structure)}`;
    const next = found.find((structure) => structure.side === side) ??
      found[(found.findIndex((structure) => place(structure) === shown) + 1) % found.length];
    if (next) {
      showStructure(n, next);
    } else {
      said.textContent = `${name} has no voxels on this grid.`;
    }
  }

  function linkTables() {
    const tables = article.querySelectorAll("[role='region'][aria-label^='Table: ']");
    const names = JSON.parse(section.dataset.atlases);
    for (const table of tables) {
      const label = table.getAttribute("aria-label").slice("Table: ".length);
      const n = names.findIndex((name) => label === `Regional values, ${name}`);
      for (const row of table.querySelectorAll("tbody tr")) {
        const name = row.cells[0].textContent.trim();
        if (n >= 0) {
          link(row, (side) => pick(n, name, side));
        } else if (label === "Lesions, Each lesion" && "lesions" in section.dataset) {
          link(row, () => content.lesions.places[name] && goTo(content.lesions.places[name]));
        }
      }
    }
  }

  linkTables();
}

document.querySelectorAll("section.viewer").forEach(makeViewer);
