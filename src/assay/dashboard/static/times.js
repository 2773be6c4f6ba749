// Times in the reader's own zone; UTC stays in the title.
const forms = {
  day: { day: "numeric", month: "short", year: "numeric" },
  minute: { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" },
  second: { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit" },
};
const made = Object.fromEntries(
  Object.entries(forms).map(([name, form]) => [name, new Intl.DateTimeFormat("en-GB", form)]),
);

export function localise(within) {
  for (const each of within.querySelectorAll("time[data-form]:not([data-local])")) {
    const when = new Date(each.dateTime);
    if (Number.isNaN(when.getTime())) continue;
    each.textContent = (made[each.dataset.form] || made.minute).format(when);
    each.dataset.local = "";
  }
}

localise(document);
document.addEventListener("htmx:load", (event) => localise(event.detail.elt));
