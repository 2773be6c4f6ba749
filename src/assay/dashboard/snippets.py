"""The calls that connect an application, ready to be copied, for one experiment of this installation."""

import json
from collections.abc import Mapping
from typing import NamedTuple

#: Characters that a page shows beside each other, even a narrow one with some scrolling.
_LONGEST_LINE = 80
_HEADERS = '    headers={"Authorization": f"Bearer {KEY}"}'


class Calls(NamedTuple):
    """The same call in each language: pairs of the language's name and the text."""

    create: tuple[tuple[str, str], ...]
    assign: tuple[tuple[str, str], ...]
    track: tuple[tuple[str, str], ...]


def calls(origin: str, key: str, event_type: str, *, configured: bool = False) -> Calls:
    """How to create an experiment, ask for an assignment, and record an event, at this address.

    `configured` says that variants have configurations: SDKs get those, and names otherwise.
    """
    definition = {
        "key": key,
        "name": "My first experiment",
        "variants": [{"name": "control", "allocation": 0.5}, {"name": "treatment", "allocation": 0.5}],
        "metrics": [event_type],
        "status": "running",
    }
    asked = f"{origin}/api/v1/experiments/{key}/assignment/user-1"
    events = f"{origin}/api/v1/events"
    event = {"user_id": "user-1", "type": event_type}
    return Calls(
        create=_in_each_language(f"{origin}/api/v1/experiments", definition, "created"),
        assign=(
            ("curl", f'curl -H "Authorization: Bearer $KEY" \\\n  {asked}'),
            (
                "Python",
                (
                    f'import httpx\n\nanswer = httpx.get(\n    "{asked}",\n{_HEADERS},\n)\n'
                    'variant = answer.json()["variant"]'
                ),
            ),
            (
                "JavaScript",
                (
                    f'const answer = await fetch("{asked}", {{\n'
                    "  headers: { Authorization: `Bearer ${KEY}` },\n});\n"
                    "const { variant } = await answer.json();"
                ),
            ),
            ("OpenFeature", _openfeature(origin, key, configured=configured)),
            ("GrowthBook", _growthbook(origin, key, configured=configured)),
        ),
        track=_in_each_language(events, event, "recorded"),
    )


def _openfeature(origin: str, key: str, *, configured: bool) -> str:
    asked = f'getObjectValue("{key}", {{}}' if configured else f'getStringValue("{key}", "control"'
    return (
        'import { OpenFeature } from "@openfeature/server-sdk";\n'
        'import { OFREPProvider } from "@openfeature/ofrep-provider";\n\n'
        "await OpenFeature.setProviderAndWait(\n  new OFREPProvider({\n"
        f'    baseUrl: "{origin}",\n'
        '    headers: [["Authorization", `Bearer ${KEY}`]],\n  }),\n);\n'
        f'const value = await OpenFeature.getClient().{asked}, {{ targetingKey: "user-1" }});'
    )


def _growthbook(origin: str, key: str, *, configured: bool) -> str:
    fallback = "{}" if configured else '"control"'
    return (
        'import { GrowthBook } from "@growthbook/growthbook";\n\n'
        "const growthbook = new GrowthBook({\n"
        f'  apiHost: "{origin}",\n'
        '  clientKey: KEY,\n  attributes: { id: "user-1" },\n'
        "  // Who is in is counted from here on: report what the SDK has decided.\n"
        "  trackingCallback: (experiment, result) =>\n"
        f'    fetch("{origin}/api/v1/exposures", {{\n      method: "POST",\n'
        '      headers: { Authorization: `Bearer ${KEY}`, "Content-Type": "application/json" },\n'
        "      body: JSON.stringify({\n        user_id: result.hashValue,\n"
        "        experiment: experiment.key,\n        variant: result.key,\n      }),\n    }),\n});\n"
        f'await growthbook.init();\nconst value = growthbook.getFeatureValue("{key}", {fallback});'
    )


def _in_each_language(address: str, document: Mapping[str, object], name: str) -> tuple[tuple[str, str], ...]:
    short, long = json.dumps(document), _by_field(document)
    given = short if len(short) <= _LONGEST_LINE else _indented(long, 2)
    return (
        (
            "curl",
            (
                'curl -H "Authorization: Bearer $KEY" \\\n  -H "Content-Type: application/json" \\\n'
                # A quote ends what the shell takes as it stands: what it says is written beside it.
                "  -d '" + given.replace("'", "'\\''") + f"' \\\n  {address}"
            ),
        ),
        (
            "Python",
            (
                f'import httpx\n\n{name} = httpx.post(\n    "{address}",\n{_HEADERS},\n'
                f"    json={_indented(long, 4)},\n)\n{name}.raise_for_status()"
            ),
        ),
        (
            "JavaScript",
            (
                f'const {name} = await fetch("{address}", {{\n  method: "POST",\n'
                '  headers: { Authorization: `Bearer ${KEY}`, "Content-Type": "application/json" },\n'
                f"  body: JSON.stringify({_indented(long, 2)}),\n}});"
            ),
        ),
    )


def _by_field(document: Mapping[str, object]) -> str:
    """JSON, and Python and JavaScript alike, with a line for each field."""
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in document.items())
    return f"{{\n{lines}\n}}"


def _indented(text: str, by: int) -> str:
    return text.replace("\n", "\n" + " " * by)
