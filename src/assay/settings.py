"""Every knob of the server in one frozen value, read from the environment and a `.env` file.

The environment wins over `.env`, and a command-line flag wins over both. A setting may always be
written with the prefix `ASSAY_`; the shorter name in the table works too. Only `cli` and `wiring`
read settings; everything else takes arguments.
"""

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints
from urllib.parse import quote, unquote

import msgspec
from dotenv import dotenv_values
from msgspec import Meta

from assay.errors import Invalid

_PREFIX = "ASSAY_"
#: Bare names that other programs set for purposes of their own, so only the prefixed form counts.
_PREFIXED_ONLY = frozenset({"HOST", "WORKERS"})

_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
#: What `ssl=` may say beside the modes of `sslmode=`.
_TLS = {"true": "require", "1": "require", "false": "disable", "0": "disable"}
_FILES = ("sslrootcert", "sslcert", "sslkey")
#: Parameters of a PostgreSQL URL that both drivers get as they are.
_PASSED = ("application_name", "options", "target_session_attrs")
#: How other programs say in a URL that there is a pooler which cannot keep prepared statements.
_POOLED = {"pgbouncer": "true", "statement_cache_size": "0", "prepared_statement_cache_size": "0"}
_PLACE = ("host", "port", "user", "password", "dbname")
_PARAMETERS = (*_PLACE, "connect_timeout", "sslmode", "ssl", *_FILES, *_PASSED, *_POOLED)
_PGBOUNCER_PORT = "6432"
_CONNECT_SECONDS = 5
_FORM = (
    "must be postgresql://user:password@host:port/database; signs such as @ : / ? # in a password are "
    "written %40 %3A %2F %3F %23, and a port is a number from 1 to 65535"
)
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


class PostgresUrl(msgspec.Struct, frozen=True):
    """Where a PostgreSQL is, in one spelling that each driver reads.

    Attributes:
        url: for psycopg and every other program that uses libpq; holds the password.
        shown: the same without password and parameters, for messages.
        pooled: whether the URL says, or its port or host name suggests, that a pooler stands before it.
        connect_seconds: how long making a connection may take.
    """

    url: str
    shown: str
    pooled: bool
    connect_seconds: int

    @property
    def asyncpg(self) -> dict[str, Any]:
        """Keyword arguments of `asyncpg.connect` and `asyncpg.create_pool`, TLS included."""
        address, _, parameters = self.url.partition("?")
        # This driver would take the name of libpq's timeout for a setting of the server.
        kept = "&".join(each for each in parameters.split("&") if not each.startswith("connect_timeout="))
        return {"dsn": f"{address}?{kept}" if kept else address, "timeout": float(self.connect_seconds)}

    def __repr__(self) -> str:
        return f"PostgresUrl({self.shown})"


def postgres_url(setting: str, text: str) -> PostgresUrl:
    """Read a PostgreSQL URL in any of the spellings in use: `postgres://`, `postgresql+driver://`, libpq's.

    Raises `Invalid` naming `setting`, never the password.
    """
    rest = text.partition("://")[2]
    if "#" in rest:
        raise Invalid.field(setting, _FORM)
    address, _, written = rest.partition("?")
    netloc, _, path = address.partition("/")
    login, _, hosts = netloc.rpartition("@")
    user, _, password = login.partition(":")
    said = _parameters(setting, written)
    in_front = {"host": hosts, "user": unquote(user), "password": unquote(password), "dbname": unquote(path)}
    for name, value in in_front.items():
        if value and said.get(name, value) != value:
            raise Invalid.field(setting, f"gives {name} twice, before the ? and after it")
    place = {name: said.get(name, "") or value for name, value in in_front.items()}
    if not place["dbname"]:
        raise Invalid.field(
            setting, "names no database: write its name at the end, postgresql://user:password@host/database"
        )
    places = _places(setting, place["host"], said.get("port", ""))
    socket = place["host"] if unquote(place["host"]).startswith("/") else ""
    seconds = _seconds(setting, said.get("connect_timeout", ""))
    parameters = _transport(setting, said) | {"connect_timeout": str(seconds)}
    parameters |= {name: said[name] for name in _PASSED if said.get(name)}
    if socket:
        parameters |= {"host": unquote(socket)} | ({"port": said["port"]} if said.get("port") else {})
        places = ""
    name = quote(place["user"], safe="")
    login = (
        f"{name}:{quote(place['password'], safe='')}@" if place["password"] else f"{name}@" if name else ""
    )
    database = quote(place["dbname"], safe="")
    query = "&".join(f"{key}={quote(value, safe='')}" for key, value in parameters.items())
    return PostgresUrl(
        url=f"postgresql://{login}{places}/{database}?{query}",
        shown=f"postgresql://{name}{'@' if name else ''}{unquote(socket) or places}/{database}",
        pooled=any(said.get(key, "").lower() == value for key, value in _POOLED.items())
        or f":{_PGBOUNCER_PORT}" in places
        or parameters.get("port") == _PGBOUNCER_PORT
        or "pgbouncer" in places
        or "-pooler." in places,
        connect_seconds=seconds,
    )


def _parameters(setting: str, written: str) -> dict[str, str]:
    """What stands after the question mark; each name known, and given once."""
    said: dict[str, str] = {}
    for part in filter(None, written.split("&")):
        name, _, value = part.partition("=")
        if name in said:
            raise Invalid.field(setting, f"gives the parameter {name} twice")
        said[name] = unquote(value)
    unknown = [name for name in said if name not in _PARAMETERS]
    if not all(re.fullmatch(r"\w+", name) for name in unknown):
        raise Invalid.field(setting, _FORM)  # more likely half of a password, which is not for messages
    if unknown:
        raise Invalid.field(
            setting,
            f"has parameters that are not known: {', '.join(unknown)}; there are {', '.join(_PARAMETERS)}",
        )
    return said


def _places(setting: str, hosts: str, port: str) -> str:
    """`host:port`, several separated by commas; every port a number."""
    places = []
    for each in hosts.split(","):
        found = re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*)(?::(\d*))?", each)
        number = (found[2] or port) if found else ""
        if found is None or (
            number and not (number.isascii() and number.isdigit() and 0 < int(number) < 65536)
        ):
            raise Invalid.field(setting, _FORM)
        places.append(f"{found[1]}:{number}" if number else found[1])
    return ",".join(places)


def _transport(setting: str, said: Mapping[str, str]) -> dict[str, str]:
    """TLS: `ssl` is another spelling of `sslmode`; who names a root certificate wants it checked."""
    modes = [
        _TLS.get(said[name], said[name]).replace("_", "-") for name in ("sslmode", "ssl") if said.get(name)
    ]
    for mode in modes:
        if mode not in _MODES:
            raise Invalid.field(setting, f"sslmode must be one of {', '.join(_MODES)}; got {mode!r}")
    if len(set(modes)) > 1:
        raise Invalid.field(setting, f"ssl and sslmode say different things: {' and '.join(modes)}")
    for name in _FILES:
        if said.get(name) and not Path(said[name]).is_file():
            raise Invalid.field(setting, f"{name}: there is no file {said[name]}")
    transport = {name: said[name] for name in _FILES if said.get(name)}
    if not modes and "sslrootcert" in transport:
        modes = ["verify-full"]
    return ({"sslmode": modes[0]} if modes else {}) | transport


def _seconds(setting: str, written: str) -> int:
    if not written:
        return _CONNECT_SECONDS
    if not (written.isascii() and written.isdigit() and 0 < int(written) <= 600):
        raise Invalid.field(setting, f"connect_timeout must be 1 to 600 seconds; got {written!r}")
    return int(written)


def _is_postgres(url: str) -> bool:
    return url.partition("://")[0].partition("+")[0].lower() in {"postgresql", "postgres"} and "://" in url


def _masked(url: str) -> str:
    """A URL without its secrets."""
    url = re.sub(r"://([^:@/]*):.*@", r"://\1:***@", url)
    return re.sub(r"(?i)\b(\w*password)=[^&]*", r"\1=***", url)


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
        Meta(
            ge=1,
            le=64,
            description="Server processes. More than 1 needs PostgreSQL: the embedded stores have one owner.",
        ),
    ] = 1
    database_url: Annotated[
        str,
        Meta(
            description="Catalog and assignments: `sqlite:///path`, or "
            "`postgresql://user:password@host/database` with `sslmode`, `sslrootcert` … as usual. "
            "Empty: `assay.db` in the data directory. "
            "A SQLite file is opened by one server at a time."
        ),
    ] = ""
    events_url: Annotated[
        str,
        Meta(
            description="Events: empty (beside the database, in the same PostgreSQL or in a DuckDB file) or "
            "the URL of `DATABASE_URL`; this version takes nothing else."
        ),
    ] = ""
    report_database_url: Annotated[
        str,
        Meta(
            description="Read replica of the PostgreSQL with the events, for reports. "
            "Empty: that PostgreSQL itself."
        ),
    ] = ""
    database_pool_size: Annotated[
        int,
        Meta(
            ge=1,
            le=100,
            description="PostgreSQL connections that each worker keeps for assignments and events.",
        ),
    ] = 4
    database_prepared: Annotated[
        Literal["auto", "on", "off"],
        Meta(
            description="Whether statements are prepared on PostgreSQL: `off` for a pooler in transaction "
            "mode. `auto`: on, unless the URL has `pgbouncer=true`, the port 6432, or `pgbouncer` or "
            "`-pooler.` in the host name."
        ),
    ] = "auto"
    statement_timeout: Annotated[
        float,
        Meta(gt=0, le=86400, description="Seconds that one statement of a report may take on PostgreSQL."),
    ] = 60.0
    retention: Annotated[
        str,
        Meta(
            description="How long events are kept, by type, in hours, days or weeks: "
            "`page_view=90d,*=400d`, where `*` is every other type. Empty: for ever."
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
    shutdown_delay: Annotated[
        float,
        Meta(
            ge=0,
            le=600,
            description="Seconds that `/ready` is red before a terminating server accepts nothing more, for "
            "load balancers to notice.",
        ),
    ] = 0.0
    drain_timeout: Annotated[
        float,
        Meta(ge=0, le=3600, description="Seconds that open requests and connections get at shutdown."),
    ] = 30.0
    report_memory: Annotated[
        str,
        Meta(
            pattern=r"^\d+(\.\d+)?\s?([KMGT]i?B|B)$", description="Most memory the analytical store may take."
        ),
    ] = "1GiB"
    report_threads: Annotated[
        int, Meta(ge=0, description="Threads of the analytical store; 0: one for each core.")
    ] = 0
    report_max_age: Annotated[
        float,
        Meta(
            ge=0,
            le=86400,
            description="Seconds that a report on a running experiment stays good while nothing new comes; "
            "pages show one that old whatever has come.",
        ),
    ] = 60.0
    report_refresh: Annotated[
        float,
        Meta(
            ge=0,
            description="Seconds between two reports that are computed and kept of each running experiment, "
            "for pages to be at hand and for its history; 0: none by themselves.",
        ),
    ] = 3600.0
    breaker_interval: Annotated[
        float,
        Meta(
            gt=0,
            le=86400,
            description="Seconds between two looks at the guardrails of experiments that have a circuit "
            "breaker.",
        ),
    ] = 60.0
    report_history: Annotated[
        int,
        Meta(
            ge=0,
            le=36_500,
            description="Days that past reports are kept, of each day gone by the last; those of looks stay. "
            "0: none but those.",
        ),
    ] = 90
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
        """The SQLite file that `database_url` names; raises `Invalid` where it names none."""
        if not self.database_url:
            return self.data / "assay.db"
        scheme, separator, rest = self.database_url.partition("://")
        if not separator or scheme.partition("+")[0] != "sqlite" or not rest.startswith("/") or len(rest) < 2:
            raise Invalid.field(
                "DATABASE_URL",
                f"{scheme + '://…' if separator else 'this'} is not a database that can be opened; write "
                "sqlite:///relative/path, sqlite:////absolute/path or postgresql://user:password@host/database",
            )
        return Path(rest[1:])

    @property
    def postgres(self) -> PostgresUrl | None:
        """Where catalog and assignments are, if that is a PostgreSQL; None for SQLite."""
        return postgres_url("DATABASE_URL", self.database_url) if _is_postgres(self.database_url) else None

    @property
    def events_postgres(self) -> PostgresUrl | None:
        """Where events are, if that is a PostgreSQL; None for DuckDB."""
        if not self.events_url:
            return self.postgres
        if not _is_postgres(self.events_url):
            raise Invalid.field(
                "EVENTS_URL",
                "must be a postgresql:// URL, or empty for events beside the database; "
                f"got {_masked(self.events_url)}",
            )
        if self.postgres is None:
            raise Invalid.field(
                "EVENTS_URL",
                "needs a PostgreSQL in DATABASE_URL, too; leave it empty for events beside SQLite",
            )
        return postgres_url("EVENTS_URL", self.events_url)

    @property
    def report_postgres(self) -> PostgresUrl | None:
        """Where reports read events, if that is a PostgreSQL; None for DuckDB."""
        if not self.report_database_url:
            return self.events_postgres
        if not _is_postgres(self.report_database_url):
            raise Invalid.field(
                "REPORT_DATABASE_URL",
                "must be the postgresql:// URL of a read replica, or empty; "
                f"got {_masked(self.report_database_url)}",
            )
        if self.events_postgres is None:
            raise Invalid.field(
                "REPORT_DATABASE_URL", "needs a PostgreSQL in DATABASE_URL that it replicates"
            )
        return postgres_url("REPORT_DATABASE_URL", self.report_database_url)

    def prepares(self, url: PostgresUrl) -> bool:
        """Whether statements are prepared on the server behind `url`."""
        return not url.pooled if self.database_prepared == "auto" else self.database_prepared == "on"

    @property
    def retained(self) -> dict[str, timedelta]:
        """How long each type of event is kept; `*` is every other type. What is not here is kept for ever."""
        kept: dict[str, timedelta] = {}
        for part in filter(None, (each.strip() for each in self.retention.split(","))):
            kind, _, span = (each.strip() for each in part.rpartition("="))
            found = re.fullmatch(r"([1-9]\d{0,5})\s*([hdw])", span, re.ASCII)
            if not kind or found is None:
                raise Invalid.field(
                    "RETENTION", f"must be written like page_view=90d,*=400d (h, d or w); got {part!r}"
                )
            if kind in kept:
                raise Invalid.field("RETENTION", f"names {kind} twice")
            kept[kind] = int(found[1]) * _UNITS[found[2]]
        return kept

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
        shown = []
        for name, value in msgspec.structs.asdict(self).items():
            if name.endswith("token") and value:
                shown.append(f"{name}=***")
            else:
                shown.append(f"{name}={(_masked(value) if name.endswith('_url') else value)!r}")
        return f"Settings({', '.join(shown)})"


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
        settings = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$.")
        name = path.rstrip("`")
        raise Invalid.field(name.upper(), f"{message}, got {values.get(name)!r}") from error
    _readable(settings)
    return settings


def _readable(settings: Settings) -> None:
    """Refuse at the start what would be refused once it is used."""
    if settings.postgres is None:
        _ = settings.database_path
    _ = settings.report_postgres, settings.retained


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
