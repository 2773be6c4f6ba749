"""Every knob of the server in one frozen value, read from the environment and a `.env` file.

The environment wins over `.env`, and a command-line flag wins over both. A setting may always be
written with the prefix `ASSAY_`; the shorter name in the table works too. Only `cli` and `wiring`
read settings; everything else takes arguments.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec
from dotenv import dotenv_values
from msgspec import Meta

from assay.errors import Invalid

_PREFIX = "ASSAY_"
#: Bare names that other programs set for purposes of their own, so only the prefixed form counts.
_PREFIXED_ONLY = frozenset({"HOST", "WORKERS"})


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings in force. Each field's description says what it is for and when to change it."""

    host: Annotated[str, Meta(description="Address to listen on; `0.0.0.0`: the whole network.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, Meta(ge=0, le=65535, description="Port to listen on; 0 takes a free one.")] = 8000
    data_dir: Annotated[
        str,
        Meta(min_length=1, description="Data directory; made when absent. One process owns it at a time."),
    ] = "./assay-data"
    workers: Annotated[
        int,
        Meta(ge=1, le=64, description="Server processes. The embedded stores have one owner: 1."),
    ] = 1
    database_url: Annotated[
        str,
        Meta(
            description="Catalog and assignments: `sqlite:///path`. Empty: `assay.db` in the data directory. "
            "The file is opened by one server at a time."
        ),
    ] = ""
    api_token: Annotated[
        str, Meta(description="Admin keys, comma-separated, that exist only in the environment.")
    ] = ""
    admin_token: Annotated[str, Meta(description="One more admin key from the environment.")] = ""
    anonymous_role: Annotated[
        Literal["", "client", "viewer"],
        Meta(
            description="What calls without a key may do: nothing (empty), assign and record (`client`), "
            "or also read results (`viewer`). For closed networks only."
        ),
    ] = ""
    metrics_token: Annotated[
        str, Meta(description="Bearer token that `/metrics` asks for. Empty: it is open.")
    ] = ""
    cache_ttl: Annotated[
        float,
        Meta(
            gt=0,
            le=86400,
            description="Seconds between two looks for scheduled starts and ends and for changes made by "
            "another process; values above 0.5 are taken as 0.5, because both are promised within a second.",
        ),
    ] = 0.5
    cache_max_size: Annotated[
        int,
        Meta(ge=0, description="Assignments kept in memory for repeat answers, about 200 bytes each."),
    ] = 1_000_000
    max_ruleset_age: Annotated[
        float,
        Meta(gt=0, description="Seconds without a sight of the catalog after which `/ready` turns red."),
    ] = 60.0
    max_body_bytes: Annotated[
        int, Meta(ge=1024, description="Largest request body, after decompression.")
    ] = 8 * 1024 * 1024
    max_batch_events: Annotated[int, Meta(ge=1, le=65_535, description="Most events in one request.")] = (
        10_000
    )
    max_event_bytes: Annotated[int, Meta(ge=256, description="Largest single event.")] = 64 * 1024
    max_event_properties: Annotated[int, Meta(ge=0, description="Most properties of one event.")] = 100
    max_name_length: Annotated[
        int, Meta(ge=1, le=1000, description="Longest id, key, name or event type, in characters.")
    ] = 200
    max_bulk_pairs: Annotated[
        int, Meta(ge=1, description="Most unit-experiment pairs in one bulk assignment.")
    ] = 10_000
    report_memory: Annotated[
        str,
        Meta(
            pattern=r"^\d+(\.\d+)?\s?([KMGT]i?B|B)$", description="Most memory the analytical store may take."
        ),
    ] = "1GiB"
    report_threads: Annotated[
        int, Meta(ge=0, description="Threads of the analytical store; 0: one for each core.")
    ] = 0
    docs: Annotated[bool, Meta(description="Serve the API page at `/docs` and `/openapi.json`.")] = True
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Least severe line that is logged.")
    ] = "info"
    log_format: Annotated[
        Literal["auto", "console", "json"],
        Meta(description="`auto`: readable on a terminal, JSON elsewhere."),
    ] = "auto"
    unleash_url: Annotated[
        str, Meta(description="Base URL of an Unleash server; kept for its integration, unused when empty.")
    ] = ""
    plausible_url: Annotated[
        str, Meta(description="Base URL of a Plausible server; kept for its integration, unused when empty.")
    ] = ""

    @property
    def data(self) -> Path:
        """The data directory."""
        return Path(self.data_dir)

    @property
    def database_path(self) -> Path:
        """The SQLite file that `database_url` names."""
        if not self.database_url:
            return self.data / "assay.db"
        scheme, separator, rest = self.database_url.partition("://")
        if not separator or scheme.partition("+")[0] != "sqlite" or not rest.startswith("/") or len(rest) < 2:
            raise Invalid.field(
                "DATABASE_URL",
                f"{scheme}://… is not a database this version can open; write sqlite:///relative/path "
                "or sqlite:////absolute/path",
            )
        return Path(rest[1:])

    @property
    def admin_secrets(self) -> tuple[str, ...]:
        """Admin keys given by the environment, in the order written."""
        parts = [*self.api_token.split(","), self.admin_token]
        return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))

    @property
    def poll_seconds(self) -> float:
        """How often schedules and the catalog version are looked at."""
        return min(self.cache_ttl, 0.5)

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}={'***' if name.endswith('token') and value else value!r}"
            for name, value in msgspec.structs.asdict(self).items()
        )
        return f"Settings({shown})"


def load(
    environment: Mapping[str, str] | None = None, *, env_file: Path | None = None, **flags: Any
) -> Settings:
    """Read the settings: flags over the environment over `.env` over the defaults.

    Flags that are None were not given. Raises `Invalid` naming the setting, its value and what
    would be right. Names that are not settings are left alone: an environment is full of them.
    """
    environment = os.environ if environment is None else environment
    file = Path(".env") if env_file is None else env_file
    written = (
        {**dotenv_values(file, interpolate=False), **environment} if file.is_file() else dict(environment)
    )
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(Settings):
        name = field.name.upper()
        text = written.get(_PREFIX + name)
        if text is None and name not in _PREFIXED_ONLY:
            text = written.get(name)
        if text is not None and (text != "" or field.default == ""):
            values[field.name] = text.strip()
    for name, value in flags.items():
        if value is not None:
            values[name] = str(value)
    try:
        return msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$.")
        name = path.rstrip("`")
        raise Invalid.field(name.upper(), f"{message}, got {values.get(name)!r}") from error


def reference() -> str:
    """The settings as a Markdown table, for the reference page."""
    lines = ["| setting | default | what it is for |", "|---|---|---|"]
    hints = get_type_hints(Settings, include_extras=True)
    for field in msgspec.structs.fields(Settings):
        kind, meta = get_args(hints[field.name])
        name = field.name.upper()
        shown = f"`{_PREFIX}{name}`" if name in _PREFIXED_ONLY else f"`{name}`"
        default = "empty" if field.default == "" else f"`{field.default}`"
        choices = get_args(kind)
        allowed = f" One of {', '.join(f'`{choice}`' for choice in choices if choice)}." if choices else ""
        lines.append(f"| {shown} | {default} | {meta.description}{allowed} |")
    return "\n".join(lines) + "\n"
