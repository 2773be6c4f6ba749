"""The image and the compose file, as far as they can be checked without a container engine."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx2
import pytest

from live import Server, environment

ROOT = Path(__file__).parents[2]
HEALTHCHECK = ROOT / "deploy" / "healthcheck.py"


def load() -> ModuleType:
    """The checking script as a module."""
    spec = importlib.util.spec_from_file_location(
        "check_containers", ROOT / "scripts" / "check_containers.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_containers"] = module
    spec.loader.exec_module(module)
    return module


check = load()
needs_compose = pytest.mark.skipif(
    check.program("docker-compose") is None, reason="docker-compose is not installed"
)


def stage(name: str) -> dict[str, list[Any]]:
    """What a target is told, by instruction, its bases included."""
    by_name = {each.name: each for each in check.stages((ROOT / "Dockerfile").read_text(encoding="utf-8"))}
    said: dict[str, list[Any]] = {}
    chain = []
    while name in by_name:
        chain.append(by_name[name])
        name = by_name[name].base
    for each in reversed(chain):
        for instruction in each.instructions:
            said.setdefault(instruction.word, []).append(instruction)
    return said


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Makes the configuration of compose.yaml, with a `.env-docker` and with variables in the environment."""

    def compose(settings: str | None = None, **variables: str) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp("compose")
        for name in ("compose.yaml", "Dockerfile", "deploy"):
            (folder / name).symlink_to(ROOT / name)
        if settings is not None:
            (folder / ".env-docker").write_text(settings)
        services: dict[str, Any] = check.configuration(variables, folder)["services"]
        return services

    return compose


@pytest.mark.skipif(check.program("hadolint") is None, reason="hadolint is not installed")
def test_dockerfile__the_linter_has_nothing_to_say() -> None:
    check.lint()


@pytest.mark.parametrize("target", ["runtime", "dev"])
def test_target__runs_as_a_fixed_user_that_is_not_root(target: str) -> None:
    said = stage(target)
    assert said["USER"][-1].rest == "10001:10001"
    made = said["RUN"][0].rest
    assert "--uid 10001" in made
    assert "--gid 10001" in made
    assert "--owner 10001" in made


@pytest.mark.parametrize("target", ["runtime", "dev"])
def test_target__serves_the_volume_to_the_network_until_sigterm(target: str) -> None:
    said = stage(target)
    assert json.loads(said["CMD"][-1].rest) == ["assay", "serve", "--host", "0.0.0.0"]
    assert said["VOLUME"][-1].rest == "/data"
    assert said["EXPOSE"][-1].rest == "8000"
    assert said["STOPSIGNAL"][-1].rest == "SIGTERM"
    assert any("DATA_DIR=/data" in each.rest for each in said["ENV"])


def test_default_target__is_the_one_that_only_serves() -> None:
    stages = check.stages((ROOT / "Dockerfile").read_text(encoding="utf-8"))
    assert stages[-1].name == "runtime"
    needed = {each.name for each in check.needed("runtime", stages)}
    assert {"runtime", "packages", "wheel"} <= needed
    assert not {"dev", "dev-packages"} & needed
    copied = [each.rest for each in stage("runtime")["COPY"]]
    assert copied == ["deploy/healthcheck.py /opt/", "/opt/assay /opt/assay"]


def test_sources__are_in_the_build_context() -> None:
    files = check.context()
    here = "ASSAY_TEST_INSTALLED" not in os.environ  # the source archive is tested without its sources
    for each in check.stages((ROOT / "Dockerfile").read_text(encoding="utf-8")):
        for instruction in each.instructions:
            if instruction.word == "COPY" and "from" not in instruction.flags:
                for source in instruction.rest.split()[:-1]:
                    if here or source != "src":
                        assert check.from_context(files, source), source


def test_context__holds_what_is_named_and_no_secret(tmp_path: Path) -> None:
    shutil.copy(ROOT / ".dockerignore", tmp_path)
    for name in (
        ".env", ".env-docker", ".git/config", "assay-data/admin.key", "notes.txt", "src/.env", "src/a/b.pyc",
        "src/a/b.py", "src/a/__pycache__/b.py", "tests/conftest.py", "pyproject.toml", ".ci/run",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert check.context(tmp_path) == [
        ".ci/run", ".dockerignore", "pyproject.toml", "src/a/b.py", "tests/conftest.py",
    ]  # fmt: skip


def test_installs__take_only_what_has_a_known_hash() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    fetching = [each for each in text.split("RUN ") if re.search(r"(pip|uv) .*(install|sync|build) ", each)]
    assert len(fetching) == 7
    for each in fetching:
        assert "--require-hashes" in each or "--no-deps /dist/*.whl" in each, each
    pins = (ROOT / "deploy" / "uv.txt").read_text(encoding="utf-8")
    assert re.findall(r"^(\w+)==", pins, re.MULTILINE) == ["uv"]
    assert pins.count("--hash=sha256:") > 5


class TestHealthcheck:
    """The command of HEALTHCHECK, against a real server."""

    @staticmethod
    def ask(path: str, **settings: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", str(HEALTHCHECK), path]
        # A proxy that does not answer must not stand between a container and itself.
        proxied = {"http_proxy": "http://127.0.0.1:9", **settings}
        return subprocess.run(command, env=environment(proxied), capture_output=True, text=True, timeout=120)

    def test_command__is_this_script(self) -> None:
        [said] = stage("runtime")["HEALTHCHECK"]
        command = json.loads(said.rest.removeprefix("CMD"))
        assert command == ["python3", "-I", "/opt/healthcheck.py", "/health"]
        assert said.flags["interval"] == "10s"

    @pytest.mark.parametrize("path", ["/health", "/ready"])
    @pytest.mark.parametrize("name", ["PORT", "ASSAY_PORT"])
    def test_running_server__is_well(self, shared_server: Server, path: str, name: str) -> None:
        port = shared_server.url.rpartition(":")[2]
        asked = self.ask(path, **{name: port})
        assert asked.returncode == 0, asked.stderr
        assert asked.stderr.startswith("200 ")

    def test_other_answer__is_not_well_and_is_shown(self, shared_server: Server) -> None:
        asked = self.ask("/api/v1/experiments/1/assignment/ann", PORT=shared_server.url.rpartition(":")[2])
        assert asked.returncode == 1
        assert asked.stderr.startswith("401 {"), asked.stderr

    def test_no_server__is_not_well(self) -> None:
        asked = self.ask("/health", PORT="1")
        assert asked.returncode == 1
        assert "no answer on port 1" in asked.stderr


@needs_compose
class TestCompose:
    """What Docker Compose makes of compose.yaml."""

    def test_services__start_in_order_once_the_one_before_is_well(self, composed: Any) -> None:
        services = composed()
        assert set(services) == {"fastapi", "migrate", "pgadmin", "postgres"}
        conditions = {
            name: {on: each["condition"] for on, each in service.get("depends_on", {}).items()}
            for name, service in services.items()
        }
        assert conditions == {
            "postgres": {},
            "migrate": {"postgres": "service_healthy"},
            "fastapi": {"postgres": "service_healthy", "migrate": "service_completed_successfully"},
            "pgadmin": {"postgres": "service_healthy"},
        }
        assert services["migrate"]["command"] == ["assay", "migrate"]
        assert services["migrate"]["restart"] == "no"
        assert services["fastapi"].get("command") is None
        assert services["fastapi"]["healthcheck"]["test"][-2:] == ["/opt/healthcheck.py", "/ready"]

    def test_ports__are_open_to_this_machine_only(self, composed: Any) -> None:
        published = {
            name: [(port["host_ip"], port["published"], port["target"]) for port in service.get("ports", [])]
            for name, service in composed().items()
        }
        assert published == {
            "fastapi": [("127.0.0.1", "8000", 8000)],
            "pgadmin": [("127.0.0.1", "5050", 5050)],
            "postgres": [],
            "migrate": [],
        }

    def test_published_address__is_one_variable(self, composed: Any) -> None:
        [port] = composed(ASSAY_PUBLISH="0.0.0.0:80")["fastapi"]["ports"]
        assert (port["host_ip"], port["published"], port["target"]) == ("0.0.0.0", "80", 8000)

    def test_containers__may_do_no_more_than_they_need(self, composed: Any) -> None:
        services = composed()
        for service in services.values():
            assert service["cap_drop"] == ["ALL"]
            assert service["security_opt"] == ["no-new-privileges:true"]
        for name in ("fastapi", "migrate"):
            assert services[name]["read_only"] is True
            assert services[name]["init"] is True
            assert "cap_add" not in services[name]
        assert services["fastapi"]["tmpfs"] == ["/tmp"]
        assert [(each["source"], each["target"]) for each in services["fastapi"]["volumes"]] == [
            ("data", "/data")
        ]
        assert services["fastapi"]["stop_grace_period"] == "45s"

    def test_database__keeps_its_files_where_the_image_has_them(self, composed: Any) -> None:
        postgres = composed()["postgres"]
        assert postgres["image"] == "postgres:18"
        assert [(each["source"], each["target"]) for each in postgres["volumes"]] == [
            ("postgres", "/var/lib/postgresql")
        ]

    @pytest.mark.parametrize(("target", "variables"), [("dev", {}), ("runtime", {"ASSAY_TARGET": "runtime"})])
    def test_target__has_the_tests_unless_told_otherwise(
        self, composed: Any, target: str, variables: dict[str, str]
    ) -> None:
        services = composed(**variables)
        assert {services[name]["build"]["target"] for name in ("fastapi", "migrate")} == {target}
        assert target in {
            each.name for each in check.stages((ROOT / "Dockerfile").read_text(encoding="utf-8"))
        }

    def test_settings__have_defaults_for_one_machine(self, composed: Any) -> None:
        settings = composed()["fastapi"]["environment"]
        assert settings["DATABASE_URL"] == "postgresql://assay:assay@postgres:5432/assay"
        assert settings["DATA_DIR"] == "/data"
        assert settings["ASSAY_WORKERS"] == "2"

    def test_password__from_the_environment_reaches_both_sides(self, composed: Any) -> None:
        services = composed(POSTGRES_PASSWORD="s3cret")
        assert services["postgres"]["environment"]["POSTGRES_PASSWORD"] == "s3cret"
        assert services["fastapi"]["environment"]["DATABASE_URL"].startswith("postgresql://assay:s3cret@")

    def test_example__uncommented_and_changed_counts(self, composed: Any) -> None:
        example = (ROOT / ".env-docker.example").read_text(encoding="utf-8")
        text = re.sub(r"^#([A-Z_]+=)", r"\1", example, flags=re.MULTILINE)
        text = text.replace("POSTGRES_PASSWORD=assay", "POSTGRES_PASSWORD=s3cret").replace(
            "ADMIN_TOKEN=", "ADMIN_TOKEN=mine"
        )
        services = composed(text + "PORT=9000\nASSAY_PORT=9000\n")
        settings = services["fastapi"]["environment"]
        assert settings["DATABASE_URL"] == "postgresql://assay:s3cret@postgres:5432/assay"
        assert services["migrate"]["environment"]["DATABASE_URL"] == settings["DATABASE_URL"]
        assert services["postgres"]["environment"]["POSTGRES_PASSWORD"] == "s3cret"
        assert settings["ADMIN_TOKEN"] == "mine"
        assert settings["ASSAY_PORT"] == "8000"

    def test_pgadmin__knows_the_database(self, composed: Any) -> None:
        services = composed()
        [server] = json.loads((ROOT / "deploy" / "servers.json").read_text(encoding="utf-8"))[
            "Servers"
        ].values()
        assert server["Host"] in services
        assert server["Username"] == services["postgres"]["environment"]["POSTGRES_USER"]
        assert server["MaintenanceDB"] == services["postgres"]["environment"]["POSTGRES_DB"]
        mounted = {each["target"] for each in services["pgadmin"]["volumes"]}
        assert "/pgadmin4/servers.json" in mounted


@pytest.fixture(scope="module")
def builder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Builds stages in trees of their own: minutes, so only when asked for."""
    if "nightly" not in (request.config.option.markexpr or ""):
        pytest.skip("minutes; runs when asked for: pytest -m nightly tests/project")
    if "ASSAY_TEST_INSTALLED" in os.environ:
        pytest.skip("an image is built from a checkout, with its sources")
    if reason := check.cannot_build():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("image")
    yield check.Builder(folder, check.base_image(folder / "debian"))
    shutil.rmtree(folder)


@pytest.mark.nightly
class TestBuilt:
    """Every stage built as the Dockerfile says, and what came out of it run."""

    def test_runtime__serves_on_sqlite_keeps_its_data_and_writes_nowhere_else(self, builder: Any) -> None:
        image = builder.build("runtime")
        data = check.volume(image, builder.folder / "data")
        with check.serving(image, data) as url:
            key = (data / "admin.key").read_text().strip()
            made = httpx2.post(
                f"{url}/api/v1/experiments",
                headers={"Authorization": f"Bearer {key}"},
                json={"name": "Kept", "variants": [{"name": "a"}, {"name": "b"}]},
            )
            assert made.status_code == 201, made.text
        with check.serving(image, data) as url:
            listed = httpx2.get(f"{url}/api/v1/experiments", headers={"Authorization": f"Bearer {key}"})
            assert "Kept" in listed.text
        assert {path.stat().st_uid for path in data.iterdir()} == {10001}
        for place in ("/", "/opt", "/opt/assay", "/etc", "/usr/local", "/home"):
            refused = image.run("/bin/touch", f"{place}/written", data=data)
            assert refused.returncode == 1
            assert "Read-only file system" in refused.stderr

    def test_runtime__holds_nothing_but_the_package_and_what_it_needs(self, builder: Any) -> None:
        tree = builder.build("runtime").tree
        assert not [name for name in ("app", "build", "dist", "src", "opt/uv") if (tree / name).exists()]
        assert {path.name for path in (tree / "opt").iterdir()} == {"assay", "healthcheck.py"}
        [installed] = (tree / "opt/assay/lib").glob("python3*/site-packages")
        names = {path.name for path in installed.iterdir()}
        assert "assay" in names
        assert not names & {"pytest", "hypothesis", "mypy", "pandas", "hatchling", "pip", "uv"}
        assert not list(installed.glob("assay/**/test*"))

    def test_dev__runs_tests_as_its_own_user_on_a_read_only_root(self, builder: Any) -> None:
        image = builder.build("dev")
        data = check.volume(image, builder.folder / "dev-data")
        # The settings of compose.yaml must not reach what is tested.
        env = {"DATABASE_URL": "postgresql://assay:assay@postgres:5432/assay", "ASSAY_WORKERS": "2"}
        ran = image.run("pytest", "-q", "tests/events", "tests/project", "tests/settings", env=env, data=data)
        assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-2000:]
