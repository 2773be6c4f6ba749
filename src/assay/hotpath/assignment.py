"""Handlers that assign: get-or-create, eligibility, bulk, exposures, explain."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from assay.assignments.base import Record
from assay.bucketing.evaluate import Decision, Past, decide, explain, required
from assay.bucketing.ruleset import Experiment, Status
from assay.errors import Invalid, NotFound, Refused
from assay.events import timestamps
from assay.events.accept import FUTURE, YEAR_2000
from assay.events.notes import Notes
from assay.hotpath import exposures
from assay.hotpath.assigner import Assigner, Serving, Settled, iso
from assay.hotpath.attributes import NONE_KNOWN
from assay.hotpath.exposures import Exposure
from assay.hotpath.http import Outcome, Request, Response, Waiting, path_text, shown, text_id
from assay.published import Key, covers

_encode = msgspec.json.Encoder().encode
#: What the ledger calls exposures, where it has the types of events.
_EXPOSURE: Final = "exposure"
_LONGEST_SAMPLE: Final = 300
Context = dict[str, Any]


class Assign(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /experiments/{experiment}/assign`."""

    user_id: str
    context: Context = {}
    units: dict[str, str] = {}


class CheckEligibility(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /experiments/check-eligibility`."""

    user_id: str
    experiment_ids: list[int | str]
    context: Context = {}
    units: dict[str, str] = {}


class BulkUnit(msgspec.Struct, forbid_unknown_fields=True):
    """One user of a bulk assignment, where each brings attributes or units of its own."""

    user_id: str
    context: Context = {}
    units: dict[str, str] = {}


class Bulk(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /assignments`: `user_ids` or `units`; without `experiments`, all running ones."""

    user_ids: list[str] = []
    units: list[BulkUnit] = []
    experiments: list[int | str] | None = None
    context: Context = {}


_assign = msgspec.json.Decoder(Assign)
_check = msgspec.json.Decoder(CheckEligibility)
_bulk = msgspec.json.Decoder(Bulk)


#: What was in force for an experiment, a user and their unit at a moment in microseconds; asked in a thread.
Replay = Callable[[int, str, str | None, int], Past]


def _variant_id(decision: Decision) -> int | None:
    return decision.variant.id if decision.variant else None


class AssignmentRoutes:
    """The handlers, over one `Assigner`."""

    def __init__(
        self, assigner: Assigner, *, max_name: int, max_pairs: int, replay: Replay, notes: Notes
    ) -> None:
        self.assigner = assigner
        self._notes = notes
        self._replay = replay
        self.max_name = max_name
        self.max_pairs = max_pairs
        self._peek = assigner.assignments.peek
        self._by_reference: dict[bytes, Serving] = {}
        self._ruleset: object = None

    def quick(self, parts: list[bytes], now: int, full: Callable[[], bool]) -> Response | Waiting | None:
        """The answer of `get`, from the last parts of the path, where memory decides; else None.

        An id that is percent-encoded, or an experiment with overrides, attributes or another unit, goes the
        long way, and so does a unit that memory does not know unless it knows all there are.
        """
        assigner = self.assigner
        ruleset = assigner.published.ruleset
        if ruleset is not self._ruleset:
            self._by_reference.clear()
            self._ruleset = ruleset
        serving = self._by_reference.get(parts[-3])
        if serving is None:
            experiment = ruleset.find(path_text(parts[-3]))
            if experiment is None:
                return None
            serving = self._by_reference[parts[-3]] = assigner.serving(experiment)
        if not serving.repeats or b"%" in parts[-1]:
            return None
        try:
            user_id = parts[-1].decode()
        except UnicodeDecodeError:
            return None
        hit = self._peek(serving.experiment.id, user_id)
        if hit is not None:
            return Response(200, serving.repeat(user_id, hit[0], hit[1]))
        experiment = serving.experiment
        if experiment.needs_attributes or experiment.requires or not 0 < len(user_id) <= self.max_name:
            return None
        if not assigner.assignments.complete or full():
            return None
        return self._given(
            serving, user_id, user_id, assigner.resolve(serving, user_id, user_id, NONE_KNOWN, now, None)
        )

    def experiment(self, reference: int | str, key: Key | None) -> Experiment:
        """The published experiment with this id or key, or `NotFound`; outside the key's scope is nothing."""
        found = self.assigner.published.ruleset.find(reference)
        if found is None or not covers(key, found.id):
            scoped = "" if key is None or key.scope is None else " that this key may know of"
            raise NotFound(f"There is no experiment {shown(reference)}{scoped}.", code="unknown_experiment")
        return found

    def _unit(self, experiment: Experiment, user_id: str, units: Mapping[str, str]) -> str | None:
        if experiment.unit == "user_id":
            return user_id
        unit = units.get(experiment.unit)
        return None if unit is None else text_id(unit, f"units.{experiment.unit}", self.max_name)

    def _one(self, request: Request, user_id: str, units: Mapping[str, str], context: Context) -> Outcome:
        now = request.now
        text_id(user_id, "user_id", self.max_name)
        experiment = self.experiment(request.params[0], request.key)
        assigner = self.assigner
        serving = assigner.serving(experiment)
        unit_id = user_id if experiment.unit == "user_id" else self._unit(experiment, user_id, units)
        if experiment.requires:
            return self._after_others(serving, user_id, unit_id, context, now)
        settled = assigner.settle(serving, user_id, unit_id, context, now)
        if settled is None:
            return self._looked(serving, user_id, unit_id, context, now)
        return self._given(serving, user_id, unit_id, settled)

    def _given(
        self, serving: Serving, user_id: str, unit_id: str | None, settled: Settled | Record
    ) -> Response | Waiting:
        """What is settled can be answered; what is proposed must be stored first."""
        if type(settled) is Record:
            assigner = self.assigner

            def stored(record: Record) -> Response:
                known = assigner.stored(serving, settled, record)
                if serving.repeats:
                    return Response(200, serving.repeat(user_id, record.variant_id, record.assigned_at))
                return Response(200, serving.answer(user_id, unit_id, known))

            return Waiting(assigner.assignments.put(settled), stored)
        return Response(200, serving.answer(user_id, unit_id, settled))  # type: ignore[arg-type]

    async def _looked(
        self, serving: Serving, user_id: str, unit_id: str | None, context: Context, now: int
    ) -> Response:
        (settled,) = await self.assigner.look([(serving, user_id, unit_id, context)], now)
        outcome = self._given(serving, user_id, unit_id, settled)
        return outcome.finish(await outcome.future) if type(outcome) is Waiting else outcome  # type: ignore[return-value]

    async def _after_others(
        self, serving: Serving, user_id: str, unit_id: str | None, context: Context, now: int
    ) -> Response:
        (settled,) = await self.assigner.settle_all([(serving, user_id, unit_id, context)], now)
        return Response(200, serving.answer(user_id, unit_id, settled))

    def get(self, request: Request) -> Outcome:
        """`GET /experiments/{experiment}/assignment/{user_id}`; other units come as query parameters."""
        units = request.query() if request.query_string else {}
        return self._one(request, request.params[1], units, {})

    def assign(self, request: Request) -> Outcome:
        """`POST /experiments/{experiment}/assign`."""
        body = request.json(_assign)
        return self._one(request, body.user_id, body.units, body.context)

    async def check_eligibility(self, request: Request) -> Response:
        """`POST /experiments/check-eligibility`: which of these experiments the user is in, and as what."""
        body = request.json(_check)
        text_id(body.user_id, "user_id", self.max_name)
        self._check_pairs(len(body.experiment_ids), "experiment_ids")
        assigner = self.assigner
        ineligible: dict[str, str] = {}
        references: list[str] = []
        asked: list[tuple[Serving, str, str | None, Context]] = []
        for reference in dict.fromkeys(body.experiment_ids):
            experiment = assigner.published.ruleset.find(reference)
            if experiment is None or not covers(request.key, experiment.id):
                ineligible[str(reference)] = "unknown_experiment"
                continue
            unit_id = self._unit(experiment, body.user_id, body.units)
            references.append(str(reference))
            asked.append((assigner.serving(experiment), body.user_id, unit_id, body.context))
        eligible: dict[str, msgspec.Raw] = {}
        settled = await assigner.settle_all(asked, request.now)
        for reference, (serving, user_id, unit_id, _), each in zip(references, asked, settled, strict=True):
            if each.served_id is None:
                ineligible[reference] = each.reason
            else:
                eligible[reference] = msgspec.Raw(serving.answer(user_id, unit_id, each))
        document = {"user_id": body.user_id, "eligible_experiment_ids": eligible, "ineligible": ineligible}
        return Response(200, _encode(document))

    def _check_pairs(self, pairs: int, path: str) -> None:
        if pairs > self.max_pairs:
            raise Invalid.field(
                path,
                f"at most {self.max_pairs} pairs in one call (MAX_BULK_PAIRS), got {pairs}",
                code="too_many",
            )

    async def bulk(self, request: Request) -> Response:
        """`POST /assignments`: many users into many experiments, in one durable commit."""
        body = request.json(_bulk)
        if bool(body.user_ids) == bool(body.units):
            raise Invalid.field("user_ids", "give either user_ids or units, and not both", code="no_users")
        ruleset = self.assigner.published.ruleset
        if body.experiments is None:
            running = (each for each in ruleset.by_id.values() if each.status is Status.RUNNING)
            experiments = [each for each in running if covers(request.key, each.id)]
        else:
            named = dict.fromkeys(body.experiments)
            experiments = [self.experiment(reference, request.key) for reference in named]
        name = "user_ids" if body.user_ids else "units"
        user_ids = list(dict.fromkeys(body.user_ids)) or [unit.user_id for unit in body.units]
        self._check_pairs(len(user_ids) * len(experiments), name)
        for position, user_id in enumerate(user_ids):
            if not 0 < len(user_id) <= self.max_name or "\0" in user_id:
                text_id(user_id, f"{name}[{position}]{'' if body.user_ids else '.user_id'}", self.max_name)
        servings = [self.assigner.serving(experiment) for experiment in experiments]
        answers = None
        if body.user_ids:
            answers = await self.assigner.answer_all(servings, user_ids, body.context, request.now)
        if answers is None:
            users = body.units or [BulkUnit(user_id) for user_id in user_ids]
            answers = await self._assign_many(users, servings, body.context, request.now)
        return Response(200, b'{"assignments":[%s],"total":%d}' % (b",".join(answers), len(answers)))

    async def _assign_many(
        self, users: list[BulkUnit], servings: list[Serving], context: Context, now: int
    ) -> list[bytes]:
        assigner = self.assigner
        asked: list[tuple[Serving, str, str | None, Context]] = []
        for user in users:
            seen = {**context, **user.context} if user.context else context
            for serving in servings:
                unit_id = self._unit(serving.experiment, user.user_id, user.units)
                asked.append((serving, user.user_id, unit_id, seen))
        settled = await assigner.settle_all(asked, now)
        return [
            serving.answer(user_id, unit_id, each)
            for (serving, user_id, unit_id, _), each in zip(asked, settled, strict=True)
        ]

    async def exposures(self, request: Request) -> Response:
        """`POST /exposures`: a unit's first exposure is its assignment; a later, different one is named.

        Of many the good ones are stored and the wrong ones named by their index, as with events.
        """
        reports = exposures.read(request)
        self._check_pairs(len(reports.found), "exposures")
        proposals: list[Record] = []
        positions: list[int] = []
        rejected = []
        for position, report in enumerate(reports.found):
            try:
                if isinstance(report, Refused):
                    raise report
                proposals.append(self._exposure(report, request, reports.shift))
                positions.append(position)
            except Refused as refused:
                self._note_refused(report, request.key, refused)
                if reports.single:
                    raise
                path = refused.errors[0].path if refused.errors else ""
                rejected.append(
                    {"index": position, "code": refused.code, "message": refused.detail, "path": path}
                )
        records = await self.assigner.assignments.put_many(proposals) if proposals else []
        conflicts = []
        for position, proposal, record in zip(positions, proposals, records, strict=True):
            if record.variant_id != proposal.variant_id:
                self._note_conflict(proposal, record)
                conflicts.append(
                    {
                        "index": position,
                        "recorded_variant_id": record.variant_id,
                        "reported_variant_id": proposal.variant_id,
                    }
                )
        accepted = len(records) - len(conflicts)
        document = {"accepted": accepted, "conflicts": conflicts, "rejected": rejected}
        return Response(202, _encode(document))

    def _note_refused(self, report: Exposure | Refused, key: Key | None, refused: Refused) -> None:
        """Enter a refusal into the ledger of the experiment, where that can be told."""
        if isinstance(report, Refused):
            self._notes.rejected(None, _EXPOSURE, refused.code, refused.detail[:_LONGEST_SAMPLE])
            return
        experiment = self.assigner.published.ruleset.find(report.experiment)
        known = experiment is not None and covers(key, experiment.id)
        sample = _encode(report).decode()[:_LONGEST_SAMPLE]
        self._notes.rejected(experiment.id if known and experiment else None, _EXPOSURE, refused.code, sample)

    def _note_conflict(self, proposal: Record, record: Record) -> None:
        """Enter a unit that was reported with another variant than it has into the experiment's ledger."""
        sample = {
            "unit_id": proposal.unit_id,
            "timestamp": iso(proposal.assigned_at),
            "variant_id": proposal.variant_id,
            "recorded_variant_id": record.variant_id,
        }
        self._notes.mismatch(proposal.experiment_id, _EXPOSURE, _encode(sample).decode())

    def _exposure(self, report: Exposure, request: Request, shift: int) -> Record:
        now = request.now
        text_id(report.user_id, "user_id", self.max_name)
        experiment = self.assigner.published.ruleset.find(report.experiment)
        if experiment is None or not covers(request.key, experiment.id):
            raise Invalid.field(
                "experiment",
                f"there is no experiment {shown(report.experiment)}",
                code="unknown_experiment",
            )
        if experiment.status is not Status.RUNNING:
            raise Invalid.field(
                "experiment",
                f"{experiment.key} is {experiment.status}: only a running experiment takes exposures",
                code="not_running",
            )
        unit_id = self._unit(experiment, report.user_id, report.units)
        if unit_id is None:
            raise Invalid.field("units", f"needs {experiment.unit}, the unit of {experiment.key}")
        if experiment.layer is not None and not experiment.layer.holds(unit_id):
            raise Invalid.field(
                "experiment",
                f"{experiment.key} does not hold this unit's slot of layer {experiment.layer.key}: another "
                "experiment may have the unit",
                code="layer_excluded",
            )
        for each in experiment.requires:
            if each.holdout and not each.met(_variant_id(decide(each.parent, unit_id, None, {}))):
                raise Invalid.field(
                    "experiment",
                    f"holdout {each.parent.key} keeps this unit out of {experiment.key}",
                    code="holdout",
                )
        for variant in experiment.variants:
            if not variant.removed and report.variant in (variant.id, variant.key, variant.name):
                break
        else:
            names = ", ".join(variant.key for variant in experiment.variants)
            raise Invalid.field("variant", f"{shown(report.variant)} is not one of: {names}")
        at = now
        if report.timestamp is not None:
            moment = timestamps.parse(report.timestamp)
            if moment is None or not YEAR_2000 <= moment.start + shift <= now + FUTURE:
                raise Invalid.field(
                    "timestamp",
                    "must be an ISO 8601 time since the year 2000 that is not in the future, "
                    f"got {shown(report.timestamp)}",
                )
            at = min(moment.start + shift, now)
        # One dated back was dealt by the split of its time. The phase of now is known without any clock.
        phase = experiment.phase if at == now else experiment.phase_at(at)
        return Record(experiment.id, unit_id, variant.id, phase, at)

    async def explain(self, request: Request) -> Response:
        """`GET /experiments/{experiment}/explain/{user_id}`: why this user gets what they get."""
        reference, user_id = request.params
        text_id(user_id, "user_id", self.max_name)
        experiment = self.experiment(reference, request.key)
        query = request.query()
        for name in query:
            if name not in (experiment.unit, "as_of"):
                raise Invalid.field(name, "is no parameter of this call", code="unknown_parameter")
        at = _past(query.pop("as_of"), request.now) if "as_of" in query else None
        unit_id = self._unit(experiment, user_id, query)
        if at is None:
            known = (await self.assigner.attributes.fetch([user_id])).get(user_id, NONE_KNOWN)
            past = Past(experiment, known, self.assigner.published.ruleset.version, ())
        else:
            past = await asyncio.to_thread(self._replay, experiment.id, user_id, unit_id, at)
        found: Mapping[tuple[int, str], Record] = {}
        if unit_id is not None:
            pairs = [(each, unit_id) for each in (experiment.id, *required(past.experiment))]
            found = await self.assigner.assignments.find_many(pairs)
        then = {number: each for (number, _), each in found.items() if at is None or each.assigned_at <= at}
        records = {number: each.variant_id for number, each in then.items()}
        record = then.get(experiment.id)
        document = {
            **explain(past.experiment, unit_id, user_id, past.attributes, records).as_document(),
            "assigned_at": iso(record.assigned_at) if record else None,
            "ruleset_version": past.ruleset_version,
            "as_of": None if at is None else iso(at),
            "notes": past.notes,
        }
        return Response(200, _encode(document if at is None else {**document, "version": None}))


def _past(text: str, now: int) -> int:
    """A past moment, in microseconds. Raises `Invalid`."""
    moment = timestamps.parse(text)
    if moment is None or not YEAR_2000 <= moment.start <= now:
        raise Invalid.field(
            "as_of",
            f"must be an ISO 8601 time since the year 2000 that is not in the future, got {shown(text)}",
        )
    return moment.start
