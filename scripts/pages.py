"""Takes the README's pictures of the dashboard: python scripts/pages.py docs/images

The result of `assay demo`, light and dark, as Chromium shows it.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

_WIDTH = 1280


def main() -> None:
    """Simulate the experiment, serve it, and take both pictures."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "assay", "demo", "--data", folder, "--no-serve"], check=True)  # noqa: S603 our own command
        serving = [sys.executable, "-m", "assay", "serve", "--data", folder, "--port", "0"]
        with (
            subprocess.Popen(serving, stdout=subprocess.PIPE, text=True) as server,  # noqa: S603 our own
            sync_playwright() as tool,
        ):
            try:
                said = iter(server.stdout or ())
                origin = next(line.split()[-1] for line in said if "listens on" in line)
                key = (Path(folder) / "admin.key").read_text(encoding="utf-8").strip()
                browser = tool.chromium.launch(
                    executable_path=shutil.which("chromium"), args=["--no-sandbox"]
                )
                for scheme, name in (("light", "dashboard.png"), ("dark", "dashboard-dark.png")):
                    _take(browser, origin, key, scheme, Path(sys.argv[1]) / name)
            finally:
                server.terminate()


def _take(browser: Browser, origin: str, key: str, scheme: str, to: Path) -> None:
    page = browser.new_page(base_url=origin, viewport={"width": _WIDTH, "height": 900})
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce")
    page.goto("/ui/sign-in")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/ui/experiments")
    page.goto("/ui/experiments/demo-checkout")
    drawn = page.locator("#charts .plot").first
    drawn.scroll_into_view_if_needed()
    drawn.wait_for()
    page.evaluate("scrollTo(0, 0)")
    end = page.evaluate("document.querySelector('#charts .plot').getBoundingClientRect().bottom")
    page.screenshot(path=to, full_page=True, clip={"x": 0, "y": 0, "width": _WIDTH, "height": end + 16})


if __name__ == "__main__":
    main()
