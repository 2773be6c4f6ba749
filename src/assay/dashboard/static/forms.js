// Small helps: send once, copy, print, and the live split. Every page works without them.
function once(within) {
  for (const form of within.querySelectorAll("form[data-once]")) {
    form.addEventListener("submit", (event) => {
      if (form.dataset.sent) {
        event.preventDefault();
        return;
      }
      form.dataset.sent = "1";
      // Disabled a moment later, so that the button's own name and value are still sent.
      setTimeout(() => form.querySelectorAll("button").forEach((each) => { each.disabled = true; }), 0);
    });
  }
}

function said(button, text) {
  const before = button.textContent;
  button.textContent = text;
  setTimeout(() => { button.textContent = before; }, 1500);
}

async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
    said(button, "Copied");
  } catch {
    said(button, "Select and copy by hand");
  }
}

function copiers(within) {
  for (const block of within.querySelectorAll("pre[data-copy]:not([data-ready])")) {
    block.dataset.ready = "";
    const button = document.createElement("button");
    button.type = "button";
    button.className = "small copy";
    button.textContent = "Copy";
    button.addEventListener("click", () => copy(button, block.querySelector("code").textContent));
    block.append(button);
  }
}

function split(form) {
  const bar = form.querySelector("[data-split]");
  if (!bar) return;
  const total = bar.querySelector("[data-total]");
  const parts = bar.querySelector("[data-parts]");
  const inputs = [...form.querySelectorAll("[data-share]")];
  let sum = 0;
  parts.replaceChildren();
  inputs.forEach((input, place) => {
    const share = Math.max(0, Number(input.value.replace(",", ".").replace("%", "")) || 0);
    const off = form.querySelector(`[name="${input.name.replace("share", "enabled")}"][type=checkbox]`)?.checked === false;
    const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    rect.setAttribute("class", `part s${place % 6}${off ? " off" : ""}`);
    rect.setAttribute("x", Math.min(sum, 100));
    rect.setAttribute("width", Math.max(0, Math.min(share, 100 - sum)));
    rect.setAttribute("height", 10);
    parts.append(rect);
    sum += share;
  });
  const shown = Math.round(sum * 100) / 100;
  const whole = Math.abs(sum - 100) < 0.0001;
  total.textContent = whole ? "100 %: all of the traffic" : `${shown} %: must be 100 % at the start`;
  total.className = whole ? "tone-good" : "tone-bad";
}

// A file of ids, read into the box that is sent.
for (const field of document.querySelectorAll("[data-file-for]")) {
  field.hidden = false;
  const about = field.querySelector(".help");
  field.querySelector("input").addEventListener("change", async (event) => {
    const file = event.target.files[0];
    if (!file) return;
    if (file.size > 6_000_000) {
      about.textContent = "This file is too long for a form: send it as a stream, as shown below.";
      return;
    }
    const lines = (await file.text()).split(/\r?\n/).map((each) => each.trim()).filter(Boolean);
    document.getElementById(field.dataset.fileFor).value = lines.join("\n");
    about.textContent = `${lines.length.toLocaleString("en")} ids were read.`;
  });
}

function prepare(within) {
  once(within);
  copiers(within);
  const form = document.querySelector("form[data-experiment]");
  if (form) split(form);
}

// Of a metric, only the fields that its type and role read.
function fit(metric) {
  const of = (name) => metric.querySelector(`[data-metric-${name}]`)?.value;
  for (const name of ["type", "role"]) {
    const chosen = of(name);
    if (chosen === undefined) continue;
    metric.querySelectorAll(`[data-${name}s]`).forEach((each) => {
      each.hidden = !each.dataset[`${name}s`].split(" ").includes(chosen);
    });
  }
}

// A guardrail that is read the wrong way lets harm pass: whoever makes one says which way is better.
function ask(metric) {
  const better = metric.querySelector("[data-metric-direction]");
  if (!better || "chosen" in better.dataset) return;
  const guards = metric.querySelector("[data-metric-role]").value === "guardrail";
  const blank = better.querySelector('option[value=""]');
  if (guards && !blank) better.prepend(new Option("choose …", "", false, true));
  if (!guards && blank) {
    blank.remove();
    better.value = "increase";
  }
  better.required = guards;
}

// Of the analysis, only the fields that the method chosen reads.
function suit(form) {
  const chosen = form.querySelector("[data-method]:checked")?.value;
  form.querySelectorAll("[data-methods]").forEach((each) => {
    const spends = form.querySelector("[name=analysis-spending]").value;
    const other = each.dataset.spending && each.dataset.spending !== spends;
    each.hidden = other || !each.dataset.methods.split(" ").includes(chosen);
  });
}

document.addEventListener("change", (event) => {
  if (event.target.matches?.("[data-method], [name=analysis-spending]")) suit(event.target.form);
  event.target.closest?.("[data-fold]")?.querySelector(".changed")?.removeAttribute("hidden");
  const metric = event.target.closest?.("[data-metric]");
  if (metric) fit(metric);
  if (event.target.matches?.("[data-metric-direction]")) event.target.dataset.chosen = "";
  if (event.target.matches?.("[data-metric-role]")) ask(metric);
  if (event.target.matches?.("select[data-operator]")) {
    const value = event.target.closest(".test-line").querySelector("input[name$=-value]");
    value.disabled = ["exists", "not_exists", "missing"].includes(event.target.value);
  }
});

// What the calculator reads; other fields do not ask it again.
const PLANNED = /^(calc-|significance_level$|power$|analysis-(method|alternative|looks|look_dates|spending|spending_power)$)/;
document.addEventListener("input", (event) => {
  const form = event.target.closest?.("form[data-experiment]");
  if (!form) return;
  split(form);
  if (PLANNED.test(event.target.name) || event.target.matches("[data-share]")) {
    form.querySelector("[data-calculator]").dispatchEvent(new Event("planned"));
  }
});
for (const button of document.querySelectorAll("[data-copy-link]")) {
  button.hidden = false;
  button.addEventListener("click", () => copy(button, location.href));
}
for (const button of document.querySelectorAll("[data-print]")) {
  button.hidden = false;
  button.addEventListener("click", () => print());
}
// What takes its time says so, and for how long already, until the next page is there.
function slow(text) {
  const note = document.createElement("div");
  note.className = "slow";
  note.setAttribute("role", "status");
  const words = document.createElement("span");
  note.append(document.createElement("progress"), words);
  document.body.append(note);
  const begun = performance.now();
  const tell = () => {
    const seconds = Math.round((performance.now() - begun) / 1000);
    words.textContent = `${text} …${seconds ? ` ${seconds} s` : ""}`;
  };
  tell();
  setInterval(tell, 1000);
}
for (const link of document.querySelectorAll("a[data-slow]")) {
  link.addEventListener("click", (event) => {
    if (!event.ctrlKey && !event.metaKey && !event.shiftKey) slow(link.dataset.slow);
  });
}
for (const form of document.querySelectorAll("form[data-slow]")) {
  form.addEventListener("submit", (event) => { if (!event.defaultPrevented) slow(form.dataset.slow); });
}
for (const form of document.querySelectorAll("form[data-at-once]")) {
  form.addEventListener("change", () => { slow("Computing"); form.requestSubmit(); });
}
// A page that comes back from the browser's memory may have a form that was sent before.
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
// On a narrow screen the bar of pages is wider than the window: the present one is brought into view.
const bar = document.querySelector(".top nav");
const here = bar?.querySelector("[aria-current]");
if (here) bar.scrollLeft = here.offsetLeft - bar.offsetLeft - (bar.clientWidth - here.offsetWidth) / 2;

// What is wrong in a folded part is unfolded by the server; what the browser finds wrong, here.
document.addEventListener("invalid", (event) => {
  for (let fold = event.target.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
}, true);
document.documentElement.classList.add("scripted");
prepare(document);
document.addEventListener("htmx:load", (event) => { if (event.detail.elt !== document.body) prepare(event.detail.elt); });

// The calculator's answer, taken over into the plan.
document.addEventListener("click", (event) => {
  const use = event.target.closest?.("[data-use-sample]");
  if (!use) return;
  const target = document.getElementById("target_sample_size");
  const effect = document.getElementById("minimum_detectable_effect");
  target.value = use.dataset.useSample;
  effect.value = document.getElementById("calc-lift").value || effect.value;
  target.focus();
});
function kinds() {
  const kind = document.getElementById("calc-kind");
  if (!kind) return;
  const mean = kind.value === "mean";
  document.querySelectorAll("[data-for-mean]").forEach((each) => { each.hidden = !mean; });
  document.querySelectorAll("[data-for-share]").forEach((each) => { each.hidden = mean; });
}
document.addEventListener("change", kinds);
document.addEventListener("htmx:load", () => {
  document.querySelectorAll("[data-use-sample]").forEach((each) => { each.hidden = false; });
});
kinds();
document.getElementById("failed")?.focus();
