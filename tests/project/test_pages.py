"""The project's pages agree with the code and with each other."""

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import assay
from assay.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def test_reference_pages__are_what_the_code_says() -> None:
    checked = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "reference.py"), "--check"], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links__lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^\w\- ]", "", line.lstrip("# ")).replace(" ", "-").lower() for line in text.splitlines()
    }
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        if file:
            assert (page.parent / file).exists(), target
        elif anchor:
            assert anchor in headings, target


def test_decisions__are_all_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(r"\((\d{4}-[\w-]+\.md)\)", (folder / "README.md").read_text(encoding="utf-8"))
    assert listed == sorted(path.name for path in folder.glob("[0-9]*.md"))


def test_environment_example__names_settings_only() -> None:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    named = [name.removeprefix("ASSAY_").lower() for name in re.findall(r"^#([A-Z_]+)=", text, re.MULTILINE)]
    assert len(named) >= 8
    assert set(named) <= {field.name for field in msgspec.structs.fields(Settings)}


def test_changelog__has_the_version_or_what_leads_to_it() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.findall(r"^## \[([^\]]+)\]", text, re.MULTILINE)[0]
    assert newest in {"Unreleased", assay.__version__}


def test_contributing__is_short() -> None:
    assert len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split()) <= 600


def test_readme__its_test_command_is_what_the_build_runs() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.partition("\n## Test\n")[2]
    [command] = re.findall(r"```bash\n(.*?)\n```", section, re.DOTALL)
    build = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert command == build[-1]


def test_recipes__fit_on_a_screen() -> None:
    recipes = re.findall(
        r"^[a-z]+(?: \*\w+)?:$", (ROOT / "justfile").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert 5 <= len(recipes) <= 15
