// What a pointer or finger is over, in front of the chart. Without scripts the browser shows the same titles itself.
const tip = document.getElementById("tip");

function prepare(within) {
  for (const title of within.querySelectorAll(".column > title, .allocation title")) {
    title.parentNode.dataset.tip = title.textContent;
    title.remove();
  }
}

function show(event) {
  const over = event.target.closest?.("[data-tip]");
  if (!over) {
    tip.hidden = true;
    return;
  }
  tip.textContent = over.dataset.tip;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const room = document.documentElement.clientWidth - box.width - 8;
  tip.style.left = `${Math.max(8, Math.min(event.clientX + 14, room))}px`;
  tip.style.top = `${Math.max(8, event.clientY - box.height - 14)}px`;
}

prepare(document);
document.addEventListener("htmx:load", (event) => prepare(event.detail.elt));
document.addEventListener("pointermove", show, { passive: true });
document.addEventListener("pointerdown", show, { passive: true });
document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });
