"""Check the Dockerfile and compose.yaml where no container engine runs.

    python scripts/check_containers.py           what is quick: hadolint and `docker-compose config`
    python scripts/check_containers.py --build   also every stage built, one target served, another tested

`--build` needs root, Linux and debootstrap. It makes a Debian with Python, which stands for the base image,
copies it for each stage, performs COPY literally, and runs each RUN line in it with the stage's ENV, WORKDIR
and USER. Then the image's command serves from a read-only root until its own health check is content, and has
to end at its stop signal.
"""

import argparse
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
#: What a build may know of the machine around it: how to reach the network.
_PASSED_ON = (
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
)
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
#: The release of Debian whose Python is that of the base image, and what the base image has beside it.
_RELEASE = "trixie"
_PACKAGES = "python3,python3-venv,ca-certificates,netbase,tzdata"
_SEARCH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"


class Failed(Exception):  # noqa: N818 - a finding, not a fault of this program
    """A check did not pass; the text says which and why."""


class Instruction(NamedTuple):
    """One instruction of a Dockerfile: its line, its word, its --flags and the rest."""

    line: int
    word: str
    flags: dict[str, str]
    rest: str


@dataclass
class Stage:
    """One FROM and what follows it."""

    name: str
    base: str
    instructions: list[Instruction] = field(default_factory=list)


def instructions(text: str) -> Iterator[Instruction]:
    """Take a Dockerfile apart: comments dropped, continued lines joined, flags read."""
    gathered, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        start = start if gathered else number
        gathered += line.removesuffix("\\")
        if line.endswith("\\"):
            continue
        word, _, rest = gathered.strip().partition(" ")
        flags = {}
        while found := re.match(r"\s*--([a-z-]+)(?:=(\S+))?\s+", rest):
            flags[found[1]] = found[2] or ""
            rest = rest[found.end() :]
        yield Instruction(start, word.upper(), flags, rest.strip())
        gathered = ""


def stages(text: str) -> list[Stage]:
    """The stages of a Dockerfile in order; arguments take their defaults."""
    arguments: dict[str, str] = {}
    found: list[Stage] = []
    for each in instructions(text):
        if each.word == "FROM":
            base, _, name = re.sub(r"\s+as\s+", " ", each.rest, flags=re.IGNORECASE).partition(" ")
            found.append(Stage(name or str(len(found)), expand(base, arguments)))
        elif not found:
            name, _, default = each.rest.partition("=")
            arguments[name] = default
        else:
            found[-1].instructions.append(each)
    return found


def expand(text: str, values: Mapping[str, str]) -> str:
    """Put variables in, as the builder does; one that is not set is empty."""
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda found: values.get(found[1] or found[2], ""), text)


def needed(target: str, all_stages: Sequence[Stage]) -> list[Stage]:
    """The stages that a target is made from, itself last."""
    by_name = {stage.name: stage for stage in all_stages}
    wanted: set[str] = set()
    waiting = [target]
    while waiting:
        name = waiting.pop()
        if name in by_name and name not in wanted:
            wanted.add(name)
            waiting.append(by_name[name].base)
            waiting += [each.flags["from"] for each in by_name[name].instructions if "from" in each.flags]
    return [stage for stage in all_stages if stage.name in wanted]


def _pattern(text: str) -> re.Pattern[str]:
    """A line of .dockerignore as a pattern: `*` ends at a slash, `**/` is any depth."""
    forms = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    return re.compile(
        "".join(forms.get(part) or re.escape(part) for part in re.split(r"(\*\*/|\*|\?)", text))
    )


def context(root: Path = ROOT) -> list[str]:
    """The files that .dockerignore lets into a build, relative to the checkout."""
    lines = (root / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [
        (line.startswith("!"), _pattern(line.lstrip("!")))
        for line in lines
        if line and not line.startswith("#")
    ]

    def enters(path: str) -> bool:
        parts = path.split("/")
        parents = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
        kept = True
        for keeps, rule in rules:
            if any(rule.fullmatch(parent) for parent in parents):
                kept = keeps
        return kept

    files = []
    for folder, below, names in os.walk(root):
        here = Path(folder).relative_to(root)
        # Large, and no exception names anything in them.
        below[:] = [name for name in below if here != Path() or name not in {".git", ".venv"}]
        files += [path for path in ((here / name).as_posix() for name in names) if enters(path)]
    return sorted(files)


def _ended(argv: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """A program run to its end, with what it printed; the caller looks at its exit code."""
    given = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "check": False, **options}
    done: subprocess.CompletedProcess[str] = subprocess.run(argv, **given)  # noqa: S603, PLW1510
    return done


def program(name: str) -> str | None:
    """A program of the development tools: beside this Python, or on the path."""
    beside = Path(sys.executable).parent
    return shutil.which(name, path=f"{beside}{os.pathsep}{os.environ.get('PATH', os.defpath)}")


def _require(name: str) -> str:
    found = program(name)
    if found is None:
        raise Failed(f"{name} is not installed; `just setup` brings it where there is one for this machine")
    return found


def lint() -> None:
    """Let hadolint read the Dockerfile."""
    done = _ended([_require("hadolint"), "Dockerfile"], cwd=ROOT)
    if done.returncode:
        raise Failed(f"hadolint:\n{done.stdout}{done.stderr}")


def configuration(environment: Mapping[str, str] | None = None, root: Path = ROOT) -> dict[str, Any]:
    """What Docker Compose makes of compose.yaml, checked against its schema, variables put in."""
    done = _ended(
        [_require("docker-compose"), "-f", "compose.yaml", "config", "--format", "json"],
        cwd=root,
        env={"PATH": os.defpath, "HOME": tempfile.gettempdir(), **(environment or {})},
    )
    if done.returncode or done.stderr:
        raise Failed(f"docker-compose config: {done.stderr}")
    read: dict[str, Any] = json.loads(done.stdout)
    return read


@dataclass(frozen=True)
class Image:
    """A stage as built: its tree, and how a container of it starts."""

    tree: Path
    env: dict[str, str]
    workdir: str = "/"
    user: str = "0:0"
    command: tuple[str, ...] = ()
    health: tuple[str, ...] = ()
    stop_signal: str = "SIGTERM"
    volumes: tuple[str, ...] = ()

    def inside(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        data: Path | None = None,
    ) -> list[str]:
        """The command line that runs `argv` in the tree, in the same process that is started.

        With `data` as in a hardened container: read-only root, an empty /tmp, and `data` as the volume.
        """
        tree = shlex.quote(str(self.tree))
        script = [
            "set -e",
            f"mount --bind {tree} {tree}",
            f"mount --rbind /proc {tree}/proc",
            f"mount --rbind /dev {tree}/dev",
            f"mount --bind /etc/resolv.conf {tree}/etc/resolv.conf",
        ]
        if _CERTIFICATES.exists():
            script.append(f"mount --bind {_CERTIFICATES} {tree}{_CERTIFICATES}")
        if data is not None:
            script += [
                f"mount --bind {shlex.quote(str(data))} {tree}{self.volumes[0]}",
                f"mount -t tmpfs -o mode=1777 tmpfs {tree}/tmp",  # noqa: S108 - the tree's own
                f"mount -o remount,bind,ro {tree}",
            ]
        script.append('exec "$@"')
        pairs = [f"{name}={value}" for name, value in {**self.env, **(env or {})}.items()]
        chroot = [
            "chroot",
            f"--userspec={self.user}",
            str(self.tree),
            "/usr/bin/env",
            "-i",
            "-C",
            self.workdir,
        ]
        wrapped = ["/bin/sh", "-c", "\n".join(script), "sh", *chroot, *pairs, *argv]
        return ["unshare", "--mount", "--", *wrapped]

    def run(
        self, *argv: str, env: Mapping[str, str] | None = None, data: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in it to its end."""
        return _ended(self.inside(argv, env=env, data=data))


def cannot_build() -> str | None:
    """Why trees cannot be built here, or None where they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "changing roots needs Linux and root"
    if missing := [name for name in ("debootstrap", "unshare", "chroot") if shutil.which(name) is None]:
        return f"{', '.join(missing)} is not installed"
    if _ended(["unshare", "--mount", "true"]).returncode:
        return "this machine lets nobody mount"
    return None


def base_image(tree: Path) -> Image:
    """A Debian with Python in the place of the base image."""
    made = _ended(["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", _RELEASE, str(tree)])
    if made.returncode:
        raise Failed(f"debootstrap: {made.stdout[-2000:]}{made.stderr}")
    (tree / "usr/local/bin/python3").symlink_to("/usr/bin/python3")
    return Image(tree, {"PATH": _SEARCH})


class Builder:
    """Builds the stages of a Dockerfile below one folder, each once."""

    def __init__(self, folder: Path, base: Image) -> None:
        self.folder = folder
        self.base = base
        self.files = context()
        self.built: dict[str, Image] = {}
        self.passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}

    def build(self, target: str) -> Image:
        """The image of a target, and all that it needs."""
        for stage in needed(target, stages((ROOT / "Dockerfile").read_text(encoding="utf-8"))):
            if stage.name not in self.built:
                self.built[stage.name] = self._stage(stage)
        return self.built[target]

    def _stage(self, stage: Stage) -> Image:
        parent = self.built.get(stage.base, self.base)
        image = replace(parent, tree=self.folder / stage.name)
        print(f"== {stage.name}", flush=True)
        _ended(["cp", "-a", str(parent.tree), str(image.tree)], check=True)
        for each in stage.instructions:
            print(f"{each.line:4} {each.word} {each.rest[:100]}", flush=True)
            image = self._apply(image, each)
        return image

    def _apply(self, image: Image, each: Instruction) -> Image:
        text = expand(each.rest, image.env)
        match each.word:
            case "RUN":
                self._run(image, each)
                return image
            case "COPY":
                self._copy(image, each)
                return image
            case "ENV":
                return replace(
                    image, env={**image.env, **dict(pair.split("=", 1) for pair in shlex.split(text))}
                )
            case "WORKDIR":
                (image.tree / text.lstrip("/")).mkdir(parents=True, exist_ok=True)
                return replace(image, workdir=text)
            case "USER":
                return replace(image, user=text)
            case "VOLUME":
                return replace(image, volumes=(*image.volumes, *text.split()))
            case "STOPSIGNAL":
                return replace(image, stop_signal=text)
            case "HEALTHCHECK":
                return replace(image, health=tuple(json.loads(each.rest.removeprefix("CMD"))))
            case "CMD":
                return replace(image, command=tuple(json.loads(each.rest)))
            case "EXPOSE":
                return image
        raise Failed(f"Dockerfile:{each.line}: {each.word} is not known to this check")

    def _run(self, image: Image, each: Instruction) -> None:
        done = image.run("/bin/sh", "-c", each.rest, env=self.passed_on)
        if done.returncode:
            raise Failed(
                f"Dockerfile:{each.line}: exit {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
            )

    def _copy(self, image: Image, each: Instruction) -> None:
        *sources, to = expand(each.rest, image.env).split()
        target = image.tree / str(Path(image.workdir, to)).lstrip("/")
        into = to.endswith(("/", ".")) or len(sources) > 1 or target.is_dir()
        for source in sources:
            if "from" in each.flags:
                found = self.built[each.flags["from"]].tree / source.lstrip("/")
                if not found.exists():
                    raise Failed(f"Dockerfile:{each.line}: {each.flags['from']} has no {source}")
                whole = found.is_dir()
                (target if whole or into else target.parent).mkdir(parents=True, exist_ok=True)
                plain = ["cp", "-a", "--no-preserve=ownership"]
                _ended([*plain, f"{found}/." if whole else str(found), str(target)], check=True)
                continue
            for file in from_context(self.files, source, each.line):
                below = (
                    Path(file).name if file == source.removeprefix("./") else os.path.relpath(file, source)
                )
                goal = target / below if into or file != source else target
                goal.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / file, goal)


def from_context(files: Sequence[str], source: str, line: int = 0) -> list[str]:
    """The files that one source of a COPY takes from the context."""
    name = source.strip("/").removeprefix("./")
    found = [file for file in files if name in {".", file} or file.startswith(f"{name}/")]
    if not found:
        raise Failed(f"Dockerfile:{line}: {source} is not in the build context, see .dockerignore")
    return found


@contextlib.contextmanager
def serving(image: Image, data: Path, seconds: float = 60) -> Iterator[str]:
    """Run the image's command as a hardened container does, until its health check is content; its URL.

    Raises `Failed` if that takes too long, or if it does not end by itself at the stop signal.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {"PORT": str(port)}
    log = data.with_name(f"{data.name}.log")
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            image.inside(image.command, env=env, data=data),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + seconds
        while (asked := image.run(*image.health, env=env, data=data)).returncode:
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"not healthy: {asked.stderr}\n{log.read_text(errors='replace')}")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
        process.send_signal(signal.Signals[image.stop_signal])
        try:
            code = process.wait(40)
        except subprocess.TimeoutExpired:
            raise Failed(f"{image.stop_signal} did not end it within 40 s") from None
        if code not in {0, -signal.Signals[image.stop_signal]}:
            raise Failed(f"exit {code} after {image.stop_signal}:\n{log.read_text(errors='replace')}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def volume(image: Image, folder: Path) -> Path:
    """An empty volume with the owner that the image gives it."""
    like = (image.tree / image.volumes[0].lstrip("/")).stat()
    folder.mkdir(mode=like.st_mode & 0o777)
    os.chown(folder, like.st_uid, like.st_gid)
    return folder


def build(folder: Path) -> None:
    """Build both targets, serve from the first, and run tests in the second."""
    if reason := cannot_build():
        raise Failed(f"nothing was built: {reason}")
    builder = Builder(folder, base_image(folder / "debian"))
    runtime = builder.build("runtime")
    with serving(runtime, volume(runtime, folder / "data")) as url:
        print(f"runtime: healthy at {url}")
    dev = builder.build("dev")
    done = dev.run("pytest", "-q", "tests/durable", "tests/project", data=volume(dev, folder / "dev-data"))
    print(done.stdout[-2000:])
    if done.returncode:
        raise Failed(f"tests in the dev target: exit {done.returncode}\n{done.stderr}")


def main() -> int:
    """Do the checks that were asked for; the first that fails ends it."""
    parser = argparse.ArgumentParser(description="Check the Dockerfile and compose.yaml.")
    parser.add_argument("--build", action="store_true", help="also build both targets in trees of their own")
    wanted = parser.parse_args()
    try:
        lint()
        services = configuration()["services"]
        print(f"Dockerfile: hadolint is content. compose.yaml: {', '.join(services)}.")
        if wanted.build:
            with tempfile.TemporaryDirectory(prefix="assay-image-") as folder:
                build(Path(folder))
    except Failed as failure:
        print(failure, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
