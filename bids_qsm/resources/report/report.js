"use strict";
// Two images of one grid are shown in turn, so that the eye sees what moves.
// Without this script both are shown, one below the other.
const PERIOD_MS = 1100;
const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;

function button(text, action) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.addEventListener("click", action);
  return made;
}

function flicker(figure) {
  const frame = figure.querySelector(".frame");
  const images = frame.querySelectorAll("img");
  let timer = null;

  function change() {
    const first = figure.classList.toggle("first");
    images[0].setAttribute("aria-hidden", String(!first));
    images[1].setAttribute("aria-hidden", String(first));
  }
  function play(on) {
    clearInterval(timer);
    timer = on ? setInterval(change, PERIOD_MS) : null;
    playing.textContent = on ? "Pause" : "Play";
  }
  function changeByHand() {
    play(false);
    change();
  }

  const playing = button("Pause", () => play(timer === null));
  const controls = document.createElement("div");
  controls.className = "controls";
  controls.append(playing, button("Switch", changeByHand));
  frame.before(controls);

  frame.addEventListener("click", changeByHand);
  frame.addEventListener("keydown", (event) => {
    if (event.key === " " || event.key === "Enter") {
      event.preventDefault();
      changeByHand();
    }
  });
  figure.classList.add("live");
  change();
  play(!still);
}

document.querySelectorAll(".flicker").forEach(flicker);
