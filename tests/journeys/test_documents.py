"""Every request of every reference document, as written, against one real server: twice, and after a restart.

Host and key are the server's; placeholders stand for what the server answered before. What must come back is
worked out from the requests themselves, by a few lines that know nothing of the implementation.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from journeys import documents
from journeys.documents import Document, Request
from live import Server
from postgresql import Postgres

DOCUMENTS = {document.name[:3]: document for document in documents.read()}
pytestmark = pytest.mark.skipif(not DOCUMENTS, reason="the reference documents are not beside the project")

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: Names under which the documents write a share in percent, and an amount of money.
_PERCENT = ("allocation_percent", "traffic_percentage", "traffic_allocation_percent")
_AMOUNTS = ("value", "price", "order_value", "amount")


@dataclass
class Recorded:
    """An event as it was sent, with the moment of sending as a place in the order of all requests."""

    user: str
    type: str
    experiment: int | None
    at: int
    long_ago: bool
    amount: float


@dataclass
class Ledger:
    """What the requests so far must have led to."""

    moment: int = 0
    #: experiment id: the request that made it.
    made: dict[int, Any] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    #: (experiment id, user): the answer and its moment.
    assigned: dict[tuple[int, str], tuple[dict[str, Any], int]] = field(default_factory=dict)
    events: list[Recorded] = field(default_factory=list)

    def assign(self, experiment: int, user: str, answer: dict[str, Any]) -> None:
        """An assignment, which must be the same each time."""
        assert answer["assigned"] is True
        first = self.assigned.setdefault((experiment, user), (answer, self.moment))
        assert answer == first[0]

    def record(self, body: dict[str, Any], experiment: int | None) -> None:
        """An event."""
        properties = body.get("properties", {})
        amounts = [body["value"]] if "value" in body else [properties[n] for n in _AMOUNTS if n in properties]
        kind = body.get("type") or body["event_name"]
        named = body.get("experiment_id")
        self.events.append(
            Recorded(
                body["user_id"],
                kind,
                experiment if experiment is not None else named,
                self.moment,
                "timestamp" in body,
                amounts[0] if amounts else 0.0,
            )
        )

    def counted(self, experiment: int, variant: int, kind: str | None = None) -> list[Recorded]:
        """The events that count for a variant: not before the assignment, and meant for this experiment."""
        found = []
        for event in self.events:
            answer, since = self.assigned.get((experiment, event.user), ({}, 0))
            if (
                answer.get("variant_id") == variant
                and event.experiment in {None, experiment}
                and event.at > since
                and not event.long_ago
                and kind in {None, event.type}
            ):
                found.append(event)
        return found

    def units(self, experiment: int, variant: int) -> int:
        """How many users have the variant."""
        return sum(
            e == experiment and answer["variant_id"] == variant
            for (e, _), (answer, _) in self.assigned.items()
        )


@dataclass
class Player:
    """Plays documents against a server and keeps the ledger."""

    server: Server
    ledger: Ledger = field(default_factory=Ledger)

    def play(self, document: Document) -> list[tuple[Request, str, Any]]:
        """Send each request in order; what was asked, where exactly, and what came back."""
        said: list[tuple[Request, str, Any]] = []
        latest: int | None = None
        for request in document.requests:
            path, raw = self._filled(document, request, latest)
            headers = {"Content-Type": request.media} if request.media else {}
            with self.server.client(None if request.authorised else "") as client:
                content = None if raw is None else raw.encode()
                answer = client.request(request.method, path, content=content, headers=headers)
            assert answer.status_code == self._status(request), f"{request.method} {path}: {answer.text}"
            found = answer.json()
            self._note(request, urlsplit(path).path, None if raw is None else json.loads(raw), found)
            if request.method == "POST" and path.endswith("/experiments"):
                latest = found["id"]
            said.append((request, path, found))
        return said

    @staticmethod
    def _filled(document: Document, request: Request, latest: int | None) -> tuple[str, str | None]:
        path, raw = request.path, request.raw
        if latest is not None:
            for placeholder in ("{id}", "{experiment_id}"):
                path = path.replace(placeholder, str(latest))
            path = _UUID.sub(str(latest), path)
            raw = raw and _UUID.sub(str(latest), raw)
        for shown in document.requests:
            for answer in shown.answers:
                if "{user_id}" in path and "user_id" in answer:
                    path = path.replace("{user_id}", answer["user_id"])
        assert "{" not in path, path
        return path, raw

    @staticmethod
    def _status(request: Request) -> int:
        path = urlsplit(request.path).path
        if request.method != "POST" or path.endswith(
            ("/start", "/assign", "/check-eligibility", "/events/1")
        ):
            return 200
        return 202 if isinstance(request.body, list) else 201

    def _note(self, request: Request, path: str, body: Any, found: Any) -> None:
        ledger = self.ledger
        ledger.moment += 1
        parts = path.strip("/").split("/")
        if request.method == "POST" and parts[-1] == "experiments":
            assert found["id"] not in ledger.made
            ledger.made[found["id"]] = body
        elif parts[-2:-1] == ["assignment"]:
            ledger.assign(int(parts[-3]), parts[-1], found)
        elif parts[-1] == "assign":
            ledger.assign(int(parts[-2]), body["user_id"], found)
        elif parts[-1] == "check-eligibility":
            for key, answer in found["eligible_experiment_ids"].items():
                ledger.assign(int(key), body["user_id"], answer)
        elif parts[-1] == "track":
            ledger.record(body, int(parts[-2]))
        elif request.method == "POST" and parts[-1] == "events":
            for event in body if isinstance(body, list) else [body]:
                ledger.record(event, None)


def lacking(shown: Any, found: Any, path: str = "") -> Iterator[str]:
    """Fields of a document's answer that ours lacks, or has as something else."""
    if isinstance(shown, dict):
        if not isinstance(found, dict):
            yield f"{path}: an object, not {found!r}"
            return
        for name, value in shown.items():
            if name.isdigit() or path.endswith(("events_by_type", "event_counts")):
                continue  # keys that are data
            if name in found:
                yield from lacking(value, found[name], f"{path}.{name}")
            else:
                yield f"{path}.{name}"
    elif isinstance(shown, list):
        if not isinstance(found, list):
            yield f"{path}: a list, not {found!r}"
        elif shown and found:
            yield from lacking(shown[0], found[0], f"{path}[0]")
    elif shown is not None and found is not None and not path.endswith("_id"):
        kinds = (
            (bool,) if isinstance(shown, bool) else (int, float) if isinstance(shown, int | float) else (str,)
        )
        if not isinstance(found, kinds):
            yield f"{path}: {found!r} is not like {shown!r}"


def shares(body: dict[str, Any]) -> dict[str, float]:
    """Variant names and their shares in percent, as a request writes them."""
    found = {}
    for variant in body["variants"]:
        name = variant.get("name") or variant["variant_name"]
        found[name] = next((variant[p] for p in _PERCENT if p in variant), variant.get("allocation", 0) * 100)
    return found


def same(document: Any) -> Any:
    """An answer without what moves with the clock alone."""
    if isinstance(document, dict):
        return {
            name: same(value)
            for name, value in document.items()
            if name not in {"date_range", "experiment_days_running", "computed_at", "as_of"}
        }
    return [same(each) for each in document] if isinstance(document, list) else document


class Played:
    """All documents played twice, and what every view said then."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.player = Player(server)
        # The documents without a `create` of their own speak of experiments that others have made.
        self.first = {name: self.player.play(DOCUMENTS[name]) for name in ("002", "004", "001", "003", "000")}
        self.between = self.views()
        self.second = {name: self.player.play(DOCUMENTS[name]) for name in sorted(DOCUMENTS)}

    def views(self) -> dict[str, Any]:
        """What can be read about every experiment."""
        found: dict[str, Any] = {}
        with self.server.client() as client:
            for experiment in self.player.ledger.made:
                for path in (
                    f"/experiments/{experiment}",
                    f"/experiments/{experiment}/results",
                    f"/experiments/{experiment}/results?event_type=purchase",
                    f"/experiments/{experiment}/results?view=summary",
                    f"/api/v1/experiments/{experiment}/stats",
                    f"/experiments/{experiment}/events/ledger",
                ):
                    answer = client.get(path)
                    assert answer.status_code == 200, answer.text
                    found[path] = same(answer.json())
        return found


@pytest.fixture(scope="module", params=["embedded", "postgresql"])
def played(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres: Postgres
) -> Iterator[Played]:
    settings = {"API_TOKEN": "one-key,another-key", "ADMIN_TOKEN": "an-admin-key", "ANONYMOUS_ROLE": "viewer"}
    with ExitStack() as stack:
        if request.param == "postgresql":
            settings |= {"DATABASE_URL": stack.enter_context(postgres.database()), "ASSAY_WORKERS": "3"}
        folder = tmp_path_factory.mktemp("documents")
        yield Played(stack.enter_context(Server(folder / "data", settings)))


def test_documents__every_one_is_read() -> None:
    assert sorted(DOCUMENTS) == ["000", "001", "002", "003", "004"]
    assert [len(document.requests) for _, document in sorted(DOCUMENTS.items())] == [3, 4, 7, 5, 5]


@pytest.mark.parametrize("name", ["000", "001", "002", "003", "004"])
def test_answers__have_the_fields_that_the_document_shows(played: Played, name: str) -> None:
    for request, path, found in [*played.first[name], *played.second[name]]:
        for shown in request.answers:
            assert list(lacking(shown, found)) == [], path


@pytest.mark.parametrize("name", ["001", "002", "003", "004"])
def test_created__is_what_was_asked_for(played: Played, name: str) -> None:
    for request, _, found in [*played.first[name], *played.second[name]]:
        if request.method == "POST" and request.path.endswith("/experiments"):
            body = request.body
            assert found["name"] == body["name"]
            assert found["description"] == body["description"]
            assert {v["name"]: v["allocation_percent"] for v in found["variants"]} == shares(body)
            assert [v["config"] for v in found["variants"]] == [
                v.get("config", v.get("configuration_json", {})) for v in body["variants"]
            ]
            assert found["primary_metric"] == body.get("primary_metric_name", body.get("metrics", [None])[0])
            short = not request.path.startswith("/api/v1")
            assert found["status"] == ("running" if short else "draft")


def test_assignments__are_the_same_every_time_and_one_of_the_variants(played: Played) -> None:
    ledger = played.player.ledger
    assert len(ledger.assigned) >= 5
    for (experiment, user), (answer, _) in ledger.assigned.items():
        assert answer["experiment_id"] == experiment
        assert answer["user_id"] == user
        assert answer["variant"] == answer["variant_name"]
        assert answer["variant_name"] in shares(ledger.made[experiment])
        assert answer["assigned_at"] == answer["assignment_timestamp"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", answer["assigned_at"])


def test_events__come_back_with_what_was_sent(played: Played) -> None:
    ledger = played.player.ledger
    ids = set()
    for name in DOCUMENTS:
        for request, path, found in [*played.first[name], *played.second[name]]:
            if request.method == "POST" and path.endswith(("/events", "/track")):
                if isinstance(request.body, list):
                    assert found["accepted"] == len(request.body)
                    assert found["rejected"] == []
                    ids.update(found["event_ids"])
                    continue
                ids.add(found["event_id"])
                assert found["user_id"] == request.body["user_id"]
                assert found["type"] == (request.body.get("type") or request.body["event_name"])
                assert found["properties"] == request.body.get("properties", {})
                experiment = found["experiment_id"]
                known = ledger.assigned.get((experiment, found["user_id"]))
                assert found["variant_id"] == (known[0]["variant_id"] if known else None)
    assert len(ids) == len(ledger.events)


def expected(ledger: Ledger, experiment: int, variant: int, kind: str | None) -> dict[str, Any]:
    """One variant's row of the results."""
    counted = ledger.counted(experiment, variant, kind)
    by_type: dict[str, int] = defaultdict(int)
    for event in counted:
        by_type[event.type] += 1
    return {
        "assigned_count": ledger.units(experiment, variant),
        "event_count": len(counted),
        "events_by_type": dict(by_type),
        "unique_users_with_events": len({event.user for event in counted}),
    }


@pytest.mark.parametrize("kind", [None, "purchase", "click", "conversion", "nothing-like-it"])
def test_results__count_what_was_sent(played: Played, kind: str | None) -> None:
    ledger = played.player.ledger
    with played.server.client() as client:
        for experiment, body in ledger.made.items():
            query = {"event_type": kind} if kind else {}
            found = client.get(f"/experiments/{experiment}/results", params=query).json()
            names = {variant["variant_name"]: variant["variant_id"] for variant in found["variants"]}
            assert list(names) == list(shares(body))
            for variant in found["variants"]:
                want = expected(ledger, experiment, variant["variant_id"], kind)
                assert {name: variant[name] for name in want} == want, (experiment, kind)
                flat = found["variant_stats"][variant["variant_name"]]
                assert flat["total_assigned_users"] == want["assigned_count"]
                assert flat["event_counts"] == want["events_by_type"]
                assert flat["traffic_allocation"] == shares(body)[variant["variant_name"]]
                amounts = [e.amount for e in ledger.counted(experiment, variant["variant_id"], kind)]
                assert flat["metrics"]["total_revenue"] == pytest.approx(sum(amounts), abs=1e-9)
            total = sum(ledger.units(experiment, variant) for variant in names.values())
            assert found["summary"]["total_assigned"] == total
            assert found["total_users_in_experiment"] == total
            assert found["srm"]["total_assigned"] == total
            assert json.dumps(found, allow_nan=False)


def test_dated_results__leave_out_who_came_later(played: Played) -> None:
    for _, path, found in [*played.first["004"], *played.second["004"]]:
        query = parse_qs(urlsplit(path).query)
        if "end_date" in query:
            assert found["summary"]["total_assigned"] == 0
            assert [variant["event_count"] for variant in found["variants"]] == [0, 0]
            assert [variant["conversion_rate"] for variant in found["variants"]] == [0, 0]
            assert found["comparison"]["p_value"] is None
            assert found["comparison"]["reason"]


def test_stats__count_the_conversions(played: Played) -> None:
    ledger = played.player.ledger
    for name, said in (("003", played.first["003"]), ("003", played.second["003"])):
        body = DOCUMENTS[name].find("POST", "/experiments").body
        tracked = DOCUMENTS[name].find("POST", "/track").body
        found = said[-1][2]
        assert found["experiment_name"] == body["name"]
        assert found["status"] == "running"
        assert found["control_variant"] == next(iter(shares(body)))
        assert found["confidence_level"] == pytest.approx(1 - body["significance_level"])
        assert found["total_conversions"] == 1
        assert found["winner"] is None
        assert found["statistical_significance"] is False
        for arm in found["variants"]:
            [(answer, _)] = [a for (e, _), a in ledger.assigned.items() if e == found["experiment_id"]]
            here = arm["variant"] == answer["variant"]
            assert arm["sample_size"] == arm["conversions"] == int(here)
            assert arm["mean_value"] == (tracked["value"] if here else None)


def test_listing__shows_the_events_that_were_asked_for(played: Played) -> None:
    ledger = played.player.ledger
    for said in (played.first["000"], played.second["000"]):
        (_, _, eligible), (event_request, _, event), (list_request, _, listed) = said
        wanted = list_request.body
        mine = eligible["eligible_experiment_ids"][str(event_request.body["experiment_id"])]["variant_id"]
        ids = [each["event_id"] for each in listed["events"]]
        assert (event["event_id"] in ids) == (mine == wanted["variant_id"])
        assert {each["type"] for each in listed["events"]} <= set(wanted["event_types"])
        assert {each["experiment_id"] for each in listed["events"]} <= {1, None}
    assert len(ledger.made) == 8


def test_mentioned__everything_else_that_a_document_names_is_there(played: Played) -> None:
    """The requests a document only lists; run on an experiment of their own."""
    with played.server.client() as client:
        body = DOCUMENTS["003"].find("POST", "/experiments").raw or ""
        answered: set[tuple[str, str]] = set()
        for prefix in ("", "/api", "/api/v1"):
            made = client.post(f"{prefix}/experiments", content=body).json()
            base = f"{prefix}/experiments/{made['id']}"
            event = client.post(f"{prefix}/events", json={"user_id": "listed", "type": "seen"}).json()
            calls: list[tuple[str, str, Any]] = [
                ("GET", "/experiments", None),
                ("GET", "/experiments/{id}", None),
                ("PUT", "/experiments/{id}", {"description": "changed"}),
                ("POST", "/experiments/{id}/start", None),
                ("GET", "/experiments/{id}/assignment/{user_id}", None),
                ("POST", "/experiments/{id}/assign", {"user_id": "listed"}),
                ("POST", "/experiments/{id}/track", {"user_id": "listed", "event_name": "seen"}),
                (
                    "POST",
                    "/experiments/check-eligibility",
                    {"user_id": "listed", "experiment_ids": [made["id"]]},
                ),
                ("GET", "/experiments/{id}/results", None),
                ("GET", "/experiments/{id}/stats", None),
                ("GET", "/events", None),
                ("GET", "/events/{event_id}", None),
                ("POST", "/experiments/{id}/stop", None),
                ("DELETE", "/experiments/{id}", None),
            ]
            for method, template, sent in calls:
                if template.endswith("/start") and made["status"] == "running":
                    answered.add((method, prefix + template))
                    continue  # it runs already
                path = prefix + template.replace("{id}", str(made["id"])).replace(
                    "{user_id}", "listed"
                ).replace("{event_id}", event["event_id"])
                answer = client.request(method, path, json=sent) if sent else client.request(method, path)
                assert answer.status_code in {200, 201, 204}, f"{method} {path}: {answer.text}"
                answered.add((method, prefix + template))
            answered |= {("POST", f"{prefix}/experiments"), ("POST", f"{prefix}/events")}
            assert base.endswith(str(made["id"]))
        for path in ("/health", "/metrics"):
            assert client.get(path).status_code == 200
            answered.add(("GET", path))
    for document in DOCUMENTS.values():
        for method, path in document.mentioned:
            template = path.replace("{experiment_id}", "{id}").rstrip("/")
            if template == "/{id}/results":  # short for the one below `experiments`
                template = "/experiments/{id}/results"
            assert (method, template) in answered, f"{document.name} names {method} {path}"


def test_series__are_exposed_with_their_labels(played: Played) -> None:
    named = {n: labels for n, labels in DOCUMENTS["003"].series.items() if n.startswith("experimentation_")}
    assert len(named) == 6
    with played.server.client("") as client:
        text = client.get("/metrics").text
    for series, labels in named.items():
        lines = re.findall(rf"^{series}(?:_count)?(?:\{{(.*)\}})? \S+$", text, re.MULTILINE)
        if series == "experimentation_significant_results_total":
            assert (
                f"# TYPE {series.removesuffix('_total')} counter" in text
                or f"# TYPE {series} counter" in text
            )
            continue  # nothing here is significant
        assert lines, series
        assert sorted(re.findall(r'(\w+)="', lines[0])) == sorted(labels)


def test_restart__nothing_has_changed(played: Played) -> None:
    before = played.views()
    assert set(played.between) <= set(before)
    played.server.restart()
    ledger = played.player.ledger
    with played.server.client() as client:
        for (experiment, user), (answer, _) in ledger.assigned.items():
            assert client.get(f"/experiments/{experiment}/assignment/{user}").json() == answer
    assert played.views() == before


def test_without_the_role__no_key_is_refused(server: Server) -> None:
    with server.client("") as client:
        for document in DOCUMENTS.values():
            for request in document.requests:
                path = _UUID.sub("1", request.path.replace("{id}", "1").replace("{experiment_id}", "1"))
                answer: httpx2.Response = client.request(
                    request.method, path.replace("{user_id}", "u"), content=(request.raw or "").encode()
                )
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"].startswith("Bearer")


def test_documents__nothing_of_them_is_kept_here() -> None:
    """These tests read the documents and do not repeat them: no body of theirs stands in a test file."""
    here = "".join(path.read_text() for path in Path(__file__).parent.glob("*.py"))
    for document in DOCUMENTS.values():
        for request in document.requests:
            if request.raw is not None:
                assert request.raw not in here
