// Light and dark: the system's choice unless the reader makes one, which a cookie keeps so that no page flashes.
const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");
for (const button of document.querySelectorAll("[data-theme-toggle]")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    const now = root.dataset.theme || (dark.matches ? "dark" : "light");
    const next = now === "dark" ? "light" : "dark";
    root.dataset.theme = next;
    const secure = location.protocol === "https:" ? ";secure" : "";
    document.cookie = `assay_theme=${next};path=/ui;max-age=31536000;samesite=lax${secure}`;
  });
}
