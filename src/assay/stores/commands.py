"""What the command line asks of the stores: of whoever owns them, or by opening them."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from assay.catalog import documents, keys
from assay.catalog.checks import parse
from assay.catalog.database import Actor
from assay.durable.ownership import ask_owner
from assay.errors import Conflict, Invalid
from assay.hotpath.app import microseconds
from assay.importing import ImportRequest, ImportTarget, run_import
from assay.reports.build import build
from assay.reports.picture import read_spec
from assay.reports.populations import populations
from assay.reports.question import ask
from assay.reports.views.canonical import canonical
from assay.settings import Settings
from assay.stores.base import Stores, utc_now
from assay.stores.choice import stores_for

_COMMAND = Actor("command")
#: Numbers in one message.
_VALUES = 10_000


def run(settings: Settings, request: dict[str, Any], hear: Callable[[dict[str, Any]], None]) -> None:
    """Have a request done, hearing each message as it comes, by the owner of the stores or right here."""
    try:
        asyncio.run(_here(settings, request, hear))
    except Conflict as error:
        if error.code != "data_directory_in_use":
            raise
        ask_owner(settings.data, request, hear)


async def _here(settings: Settings, request: dict[str, Any], hear: Callable[[dict[str, Any]], None]) -> None:
    stores = stores_for(settings)
    await asyncio.to_thread(stores.open)
    try:
        await stores.start()
        await asyncio.to_thread(perform, stores, request, hear)
    finally:
        await stores.stop()


def perform(stores: Stores, request: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> None:
    """Do what a command asks, saying each message as it comes."""
    now = utc_now()
    match request:
        case {"do": "import", "request": dict(what)}:
            target = ImportTarget(
                stores.assignments,
                stores.store,
                stores.published.ruleset,
                stores.flush,
                stores.settings.max_name_length,
            )
            run_import(target, msgspec.convert(what, ImportRequest), microseconds(), say)
            stores.log.relearn()
        case {"do": "report", "experiment": str(reference), "metrics": str(metrics)}:
            stores.flush()
            with stores.database.reading() as read:
                spec = read_spec(read, reference)
            report = build(stores.store, spec, ask({"metrics": metrics}, now), now)
            say({"report": canonical(report)})
        case {"do": "units", "experiment": str(reference), "metrics": str(metrics)}:
            stores.flush()
            with stores.database.reading() as read:
                spec = read_spec(read, reference)
            report = build(stores.store, spec, ask({"metrics": metrics} if metrics else {}, now), now)
            for units in populations(report, stores.store):
                say({"metric": units.name, "sentence": units.sentence})
                for start in range(0, len(units.values), _VALUES):
                    say({"values": units.values[start : start + _VALUES].tolist()})
        case {"do": "rebuild"}:
            stores.flush()
            for one in stores.store.rebuild():
                say({"rebuilt": one._asdict()})
        case {"do": "create_key", "name": str(name), "role": str(role)}:
            with stores.database.writing(_COMMAND, now) as tx:
                row, secret = keys.create(tx, parse(keys.KeyInput, {"name": name, "role": role}))
                made = {**documents.key(row, now), "key": secret}
            say(made)
        case {"do": "list_keys"}:
            with stores.database.reading() as read:
                rows, _ = keys.page(read, limit=1000)
                say({"keys": [dict(documents.key(row, now)) for row in rows]})
        case {"do": "revoke_key", "id": int(key_id)}:
            with stores.database.writing(_COMMAND, now) as tx:
                keys.revoke(tx, key_id)
            say({"revoked": key_id})
        case _:
            raise Invalid("The command is not one that this server knows.", code="unknown_command")
