// Events as they arrive, put in front of those that are there.
import { localise } from "./times.js";

const rows = document.getElementById("live");
const state = document.getElementById("live-state");
const pause = document.getElementById("live-pause");
const empty = document.getElementById("live-empty");
const MOST = 200;
let source = null;

function say(text, tone) {
  state.textContent = text;
  state.className = `live-state tone-${tone}`;
}

function add(html) {
  const piece = document.createElement("template");
  piece.innerHTML = html;
  const row = piece.content.firstElementChild;
  if (rows.querySelector(`[data-seq="${row.dataset.seq}"]`)) return;
  row.classList.add("fresh");
  localise(piece.content);
  rows.prepend(piece.content);
  empty.hidden = true;
  while (rows.children.length > MOST) rows.lastElementChild.remove();
}

function open() {
  say("Connecting …", "quiet");
  source = new EventSource(rows.dataset.stream);
  source.addEventListener("open", () => say("Live", "good"));
  source.addEventListener("seen", (event) => add(JSON.parse(event.data)));
  source.addEventListener("error", () => {
    // A stream ends now and then on purpose; only what lasts is worth a word.
    if (source && source.readyState === EventSource.CLOSED) setTimeout(() => { if (source) { close(); open(); } }, 3000);
    setTimeout(() => { if (source && source.readyState !== EventSource.OPEN) say("Connecting again …", "careful"); }, 3000);
  });
}

function close() {
  source?.close();
  source = null;
}

pause.hidden = false;
pause.addEventListener("click", () => {
  const paused = pause.getAttribute("aria-pressed") === "true";
  pause.setAttribute("aria-pressed", String(!paused));
  pause.textContent = paused ? "Pause" : "Go on";
  if (paused) open();
  else {
    close();
    say("Paused", "careful");
  }
});
addEventListener("pagehide", close);
open();
