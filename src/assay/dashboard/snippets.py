"""The calls that connect an application, ready to be copied, for one experiment of this installation."""

import json
from typing import NamedTuple

_HEADERS = '    headers={"Authorization": f"Bearer {KEY}"}'


class Calls(NamedTuple):
    """The same call in each language: pairs of the language's name and the text."""

    create: tuple[tuple[str, str], ...]
    assign: tuple[tuple[str, str], ...]
    track: tuple[tuple[str, str], ...]


def calls(origin: str, key: str, event_type: str) -> Calls:
    """How to create an experiment, ask for an assignment, and record an event, at this address."""
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
        ),
        track=_in_each_language(events, event, "recorded"),
    )


def _in_each_language(address: str, document: object, name: str) -> tuple[tuple[str, str], ...]:
    short = json.dumps(document)
    long = json.dumps(document, indent=2)
    return (
        (
            "curl",
            (
                f'curl -H "Authorization: Bearer $KEY" \\\n  -H "Content-Type: application/json" \\\n'
                f"  -d '{short}' \\\n  {address}"
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


def _indented(text: str, by: int) -> str:
    return text.replace("\n", "\n" + " " * by)
