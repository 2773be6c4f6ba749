"""What is shipped: the wheel holds the package whole, the source archive everything else."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

import assay

ROOT = Path(__file__).parents[2]
PACKAGE = Path(assay.__file__).parent


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one wheel and one source archive."""
    given = os.environ.get("ASSAY_TEST_DIST")
    if given:
        return Path(given)
    folder = tmp_path_factory.mktemp("dist")
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    [path] = built.glob("*.whl")
    return zipfile.ZipFile(path)


def package_files() -> set[str]:
    """Every file of the package as it is imported here."""
    return {
        f"assay/{path.relative_to(PACKAGE).as_posix()}"
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_wheel__holds_every_file_of_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == package_files()
    assert "assay/py.typed" in held
    assert any(name.startswith("assay/catalog/migrations/versions/0001_") for name in held)
    assert any(name.endswith(".sql") for name in held)


def test_wheel__says_what_it_is(wheel: zipfile.ZipFile) -> None:
    [name] = [name for name in wheel.namelist() if name.endswith("/METADATA")]
    about = message_from_string(wheel.read(name).decode())
    assert about["Name"] == "assay"
    assert about["Version"] == assay.__version__
    assert about["Requires-Python"] == ">=3.11"
    assert about["License-Expression"] == "MIT"
    assert "fastapi>=0.115" in about.get_all("Requires-Dist")
    assert not [
        line for line in about.get_all("Requires-Dist") if line.startswith(("pytest", "hatchling", "ruff"))
    ]
    [entry] = [name for name in wheel.namelist() if name.endswith("/entry_points.txt")]
    assert "assay = assay.cli:main" in wheel.read(entry).decode()


def test_source_archive__holds_what_is_needed_to_build_test_and_read(built: Path) -> None:
    [path] = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    for name in (
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        ".env.example",
        ".ci/run",
        "example.py",
        "justfile",
        "pyproject.toml",
        "requirements.lock",
        "scripts/test",
        "docs/architecture.md",
        "tests/live.py",
        "src/assay/__init__.py",
    ):
        assert name in held


@pytest.mark.skipif("ASSAY_TEST_INSTALLED" not in os.environ, reason="the tests run on a checkout")
def test_tests__run_on_the_installed_wheel() -> None:
    assert "site-packages" in PACKAGE.parts
    assert not (ROOT / "src").exists()


def test_command__is_installed() -> None:
    command = shutil.which("assay", path=str(Path(sys.executable).parent))
    assert command is not None
    shown = subprocess.run([command, "version"], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == assay.__version__
