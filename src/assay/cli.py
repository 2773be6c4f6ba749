"""The `assay` command. Each command imports what it needs when it runs, so that `--help` is quick."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from assay import __version__
from assay.cli_offline import offline_app
from assay.errors import AssayError

app = typer.Typer(
    name="assay",
    help="Self-hosted experimentation: assign, record, and read results that can be trusted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # drawing the help in colour would take longer than everything else
    context_settings={"help_option_names": ["-h", "--help"]},
)
keys_app = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")
import_app = typer.Typer(
    help="Import assignments or events from CSV, Parquet or NDJSON.", no_args_is_help=True
)
app.add_typer(import_app, name="import")
app.add_typer(offline_app)

Data = Annotated[
    Path | None, typer.Option("--data", help="Data directory (DATA_DIR).", show_default="./assay-data")
]


def main() -> None:
    """Run the command line; errors are one sentence on standard error and exit code 1."""
    try:
        app()
    except AssayError as error:
        _fail(error.detail)


def _fail(sentence: str) -> NoReturn:
    print(f"assay: {sentence}", file=sys.stderr)
    raise SystemExit(1)


def _settings(**flags: Any) -> Any:
    from assay import settings
    from assay.telemetry import configure_logging

    found = settings.load(**flags)
    configure_logging(found.log_level, found.log_format)
    return found


@app.command()
def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on (ASSAY_HOST).", show_default="127.0.0.1")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port; 0 takes a free one (PORT).", show_default="8000")
    ] = None,
    data: Data = None,
    workers: Annotated[
        int | None, typer.Option(help="Server processes (ASSAY_WORKERS).", show_default="1")
    ] = None,
) -> None:
    """Start the server; on an empty data directory it makes everything it needs and an admin key."""
    flags: dict[str, Any] = {"host": host, "port": port, "data_dir": data, "workers": workers}
    settings = _settings(**flags)
    from assay.serving import serve as run
    from assay.settings import load

    raise SystemExit(run(settings, lambda: load(**flags)))


@app.command()
def migrate(data: Data = None) -> None:
    """Bring the database to the newest tables; `serve` does it by itself on the embedded default."""
    settings = _settings(data_dir=data)
    from assay.stores.choice import migrate as run

    print(f"{run(settings)} is up to date.")


@app.command()
def transfer(
    to: Annotated[
        str,
        typer.Option("--to", help="postgresql://user:password@host/database; postgresql: of DATABASE_URL."),
    ],
    from_: Annotated[
        str, typer.Option("--from", help="What is in the data directory: sqlite+duckdb.")
    ] = "sqlite+duckdb",
    data: Data = None,
) -> None:
    """Copy the whole installation in the data directory to an empty PostgreSQL, with checks.

    Interrupted and repeated, it goes on where it was.
    """
    if from_ != "sqlite+duckdb":
        _fail(f"--from takes sqlite+duckdb, which is what a data directory holds; got {from_!r}.")
    given = _settings(data_dir=data)
    named = to.lower() in {"postgresql", "postgres"}
    target = (given if named else _settings(data_dir=data, database_url=to)).postgres
    if target is None:
        where = "DATABASE_URL" if named else "--to"
        _fail(f"{where} names no PostgreSQL: it takes a URL like postgresql://user:password@host/database.")
    from rich.console import Console

    from assay.stores.base import utc_now
    from assay.transfer.run import source_settings
    from assay.transfer.run import transfer as run
    from assay.transfer.shown import Shown

    with Shown(Console(stderr=True)) as shown:
        run(source_settings(given), target, shown, utc_now)
    start = "" if named else f"DATABASE_URL={target.shown} "
    print(f"Next: {start}assay serve --workers {os.cpu_count() or 1}")
    if not named:
        print("The URL is shown without password and parameters: write it as you gave it.")


@app.command()
def demo(
    port: Annotated[int | None, typer.Option(help="Port of the demo server.", show_default="8000")] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Where to keep the demo; default: a new temporary directory."),
    ] = None,
    users: Annotated[int, typer.Option(help="Simulated users.", min=100, max=1_000_000)] = 20_000,
    seed: Annotated[int, typer.Option(help="Seed of the simulation.")] = 1,
    serve_after: Annotated[
        bool, typer.Option("--serve/--no-serve", help="Keep serving after the experiment is filled in.")
    ] = True,
) -> None:
    """Start with a simulated experiment whose true effect is known, and say where to look."""
    import tempfile

    directory = data or Path(tempfile.mkdtemp(prefix="assay-demo-"))
    settings = _settings(data_dir=directory, port=port, database_url="", workers=1)
    from assay.demo import run

    raise SystemExit(run(settings, users=users, seed=seed, serve_after=serve_after))


@app.command()
def report(
    experiment: Annotated[str, typer.Argument(help="Id or key.")],
    metrics: Annotated[
        str, typer.Option(help="Keys or names, comma-separated.", show_default="all of the experiment")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the document, for `assay verify`.")] = False,
    data: Data = None,
) -> None:
    """Print an experiment's report: the decision, what is wrong with the data, and the numbers."""
    import json

    document = _ask(data, {"do": "report", "experiment": experiment, "metrics": metrics})["report"]
    if as_json:
        print(json.dumps(document, ensure_ascii=False, indent=2))
        return
    from rich.console import Console

    from assay.reports.views.table import show

    show(document, Console())


@app.command()
def settings() -> None:
    """Print every setting with its default and what it is for."""
    from assay.settings import reference

    print(reference(), end="")


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


@keys_app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    role: Annotated[str, typer.Option(help="admin, editor, viewer or client.")] = "client",
    data: Data = None,
) -> None:
    """Make a key and print its secret, this once."""
    made = _ask(data, {"do": "create_key", "name": name, "role": role})
    print(f"{made['key']}")
    print(f"Key {made['id']} ({made['role']}) is not shown again.", file=sys.stderr)


@keys_app.command("list")
def list_keys(data: Data = None) -> None:
    """List the keys, without their secrets."""
    from rich.console import Console
    from rich.table import Table

    table = Table("id", "name", "role", "prefix", "active", "last used")
    for key in _ask(data, {"do": "list_keys"})["keys"]:
        used = key["last_used_at"] or "never"
        table.add_row(str(key["id"]), key["name"], key["role"], key["prefix"], str(key["is_active"]), used)
    Console().print(table)


@keys_app.command("revoke")
def revoke_key(key_id: Annotated[int, typer.Argument(help="The key's id.")], data: Data = None) -> None:
    """Revoke a key at once."""
    _ask(data, {"do": "revoke_key", "id": key_id})
    print(f"Key {key_id} is revoked.")


def _ask(data: Path | None, request: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request that gives one."""
    settings = _settings(data_dir=data)
    if settings.postgres is None and not settings.data.is_dir():
        _fail(f"There is no data directory at {settings.data}; name it with --data.")
    answers: list[dict[str, Any]] = []
    _do(settings, request, answers.append)
    return answers[-1]


def _do(settings: Any, request: dict[str, Any], hear: Callable[[dict[str, Any]], None]) -> None:
    """Let the owner of the data directory do it, or become the owner for as long as it takes."""
    from assay.durable.ownership import ask_owner
    from assay.errors import Unavailable

    if settings.postgres is None:
        try:  # first, since with an owner nothing of the stores need be loaded here
            ask_owner(settings.data, request, hear)
        except Unavailable as error:
            if error.code != "no_owner":
                raise
        else:
            return
    from assay.stores.commands import run

    run(settings, request, hear)


_Rename = Annotated[
    list[str] | None, typer.Option("--rename", help="COLUMN=FIELD, once for each column named differently.")
]
_Format = Annotated[str | None, typer.Option(help="csv, parquet or ndjson.", show_default="by the suffix")]
_File = Annotated[Path, typer.Argument(help="The file to read.")]


@import_app.command("assignments")
def import_assignments(
    file: _File,
    experiment: Annotated[
        str | None, typer.Option(help="Id or key, for rows that name no experiment.")
    ] = None,
    data: Data = None,
    format: _Format = None,  # noqa: A002 - the flag's name
    rename: _Rename = None,
) -> None:
    """Import who got what: user_id (or unit_id), variant, assigned_at, experiment."""
    _import("assignments", file, experiment, data, format, rename)


@import_app.command("events")
def import_events(
    file: _File,
    experiment: Annotated[
        str | None, typer.Option(help="Id or key, for rows that name no experiment.")
    ] = None,
    data: Data = None,
    format: _Format = None,  # noqa: A002 - the flag's name
    rename: _Rename = None,
    extra_as_properties: Annotated[
        bool, typer.Option("--extra-as-properties", help="Unknown columns become properties.")
    ] = False,
) -> None:
    """Import what users did: user_id, type, timestamp, value, properties, event_id, experiment."""
    _import("events", file, experiment, data, format, rename, extra_as_properties=extra_as_properties)


#: For each kind: the count of what an import stored, and of what was there already.
_NEW_AND_KNOWN = {"events": ("events", "duplicates"), "assignments": ("inserted", "known")}


def _import(
    kind: str,
    file: Path,
    experiment: str | None,
    data: Path | None,
    form: str | None,
    rename: list[str] | None,
    *,
    extra_as_properties: bool = False,
) -> None:
    renamed = {}
    for pair in rename or []:
        column, equals, name = pair.partition("=")
        if not equals or not column or not name:
            _fail(f"--rename takes COLUMN=FIELD, got {pair!r}.")
        renamed[column] = name
    request = {
        "do": "import",
        "request": {
            "kind": kind,
            "path": str(file.absolute()),
            "format": form,
            "experiment": experiment,
            "rename": renamed,
            "extra_as_properties": extra_as_properties,
        },
    }
    done = _show_import(lambda hear: _do(_settings(data_dir=data), request, hear), file.name)
    bad, conflicts = done.get("bad", 0), done.get("conflicts", 0)
    counted = {name: number for name, number in done.items() if name not in {"kind", "resumed_from"}}
    print(f"{file.name}: " + ", ".join(f"{number:,} {name}" for name, number in counted.items()))
    if done.get("resumed_from"):
        print(f"An earlier run had already done {done['resumed_from']:,} of them.")
    new, known = (done.get(name, 0) for name in _NEW_AND_KNOWN[kind])
    if known and not new:
        print(f"Nothing new: {known:,} {kind} were stored before, and stay as they are.")
    if bad or conflicts:
        raise SystemExit(2)


def _show_import(run: Callable[[Callable[[dict[str, Any]], None]], None], name: str) -> dict[str, Any]:
    """Show progress and every bad row; give back the summary."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    done: dict[str, Any] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())

    def hear(message: dict[str, Any]) -> None:
        match message:
            case {"progress": at}:
                bar.update(task, completed=at["done"], total=at["total"])
            case {"bad_row": row}:
                what = f"{row['column']} = {row['value']!r}" if row["column"] else repr(row["value"])
                said = f"row {row['row']}: {what}: {row['reason']}"
                console.print(said, markup=False, highlight=False, soft_wrap=True)
            case {"conflict": found}:
                said = (
                    f"row {found['row']}: {found['unit_id']!r} already has variant "
                    f"{found['stored_variant_id']}, the file says {found['proposed_variant_id']}; "
                    "the record stays"
                )
                console.print(said, markup=False, highlight=False, soft_wrap=True)
            case {"done": summary}:
                done.update(summary)

    with Progress(*columns, console=console) as bar:
        task = bar.add_task(name, total=None)
        run(hear)
    return done
