"""Its endpoints: get or create an assignment, record an event, read results.

Sync handlers in FastAPI's thread pool, the ORM, one session and one commit for each request, pydantic models
in and out. SQLite runs with a write-ahead log and a full sync for each commit, as durable as what it is
compared with, and a busy timeout long enough that concurrent requests wait instead of failing.
"""

import argparse
import hashlib
import hmac
import math
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel, Field
from sqlalchemy import create_engine, event, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from benchmarks.typical.models import Assignment, Base, Event, Experiment, Variant


class AssignmentOut(BaseModel):
    """An assignment as it is answered."""

    experiment_id: int
    experiment_key: str
    user_id: str
    variant_id: int
    variant: str
    config: dict[str, Any]
    assigned_at: datetime


class EventIn(BaseModel):
    """An event as it is sent."""

    event_id: str | None = None
    user_id: str = Field(min_length=1, max_length=200)
    type: str = Field(min_length=1, max_length=200)
    timestamp: datetime | None = None
    value: float | None = None
    properties: dict[str, Any] = {}


class EventOut(BaseModel):
    """An event as it is answered."""

    event_id: str
    user_id: str
    type: str
    timestamp: datetime
    value: float | None
    properties: dict[str, Any]


class VariantResult(BaseModel):
    """One arm of the results."""

    variant: str
    users: int
    converters: int
    conversion_rate: float
    total: float
    z: float | None


_RESULTS = text("""
SELECT v.id, v.name, count(*) AS users, count(c.user_id) AS converters, coalesce(sum(c.total), 0) AS total
FROM assignments a
JOIN variants v ON v.id = a.variant_id
LEFT JOIN (
  SELECT e.user_id, sum(e.value) AS total
  FROM events e
  JOIN assignments s ON s.user_id = e.user_id AND s.experiment_id = :experiment_id
  WHERE e.type = :type AND e.timestamp >= s.assigned_at
  GROUP BY e.user_id
) c ON c.user_id = a.user_id
WHERE a.experiment_id = :experiment_id
GROUP BY v.id, v.name
ORDER BY v.id
""")


def create_app(url: str, key: str) -> FastAPI:
    """The service on a database, for holders of one key."""
    engine = create_engine(url, connect_args={"timeout": 30} if url.startswith("sqlite") else {})
    if url.startswith("sqlite"):

        @event.listens_for(engine, "connect")
        def durable(connection: Any, _record: Any) -> None:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")

    Base.metadata.create_all(engine)
    sessions = sessionmaker(engine)
    with sessions() as session:
        if session.scalar(select(Experiment).where(Experiment.key == "bench")) is None:
            variants = [Variant(name="control", allocation=0.5), Variant(name="treatment", allocation=0.5)]
            session.add(Experiment(key="bench", name="bench", variants=variants))
            session.commit()

    def session_for_request() -> Iterator[Session]:
        with sessions() as session:
            yield session

    def authorised(authorization: Annotated[str, Header()] = "") -> None:
        if not hmac.compare_digest(authorization.encode(), b"Bearer " + key.encode()):
            raise HTTPException(401)

    app = FastAPI(dependencies=[Depends(authorised)])
    Tx = Annotated[Session, Depends(session_for_request)]

    def find(session: Session, experiment: str) -> Experiment:
        found = session.scalar(select(Experiment).where(Experiment.key == experiment))
        if found is None:
            raise HTTPException(404)
        return found

    @app.get("/experiments/{experiment}/assignment/{user_id}")
    def assign(experiment: str, user_id: str, session: Tx) -> AssignmentOut:
        found = find(session, experiment)
        stored = select(Assignment).where(Assignment.experiment_id == found.id, Assignment.user_id == user_id)
        assignment = session.scalar(stored)
        if assignment is None:
            assignment = Assignment(experiment_id=found.id, user_id=user_id, variant=choose(found, user_id))
            session.add(assignment)
            try:
                session.commit()
            except IntegrityError:  # somebody else was first
                session.rollback()
                assignment = session.scalars(stored).one()
        return AssignmentOut(
            experiment_id=found.id,
            experiment_key=found.key,
            user_id=user_id,
            variant_id=assignment.variant_id,
            variant=assignment.variant.name,
            config=assignment.variant.config,
            assigned_at=assignment.assigned_at,
        )

    @app.post("/events", status_code=201)
    def record(body: EventIn, session: Tx) -> EventOut:
        row = Event(**body.model_dump(exclude_none=True))
        session.add(row)
        try:
            session.commit()
        except IntegrityError as error:
            raise HTTPException(409, "This event is known.") from error
        return EventOut.model_validate(row, from_attributes=True)

    @app.get("/experiments/{experiment}/results")
    def results(experiment: str, session: Tx, type: str = "purchase") -> list[VariantResult]:  # noqa: A002
        found = find(session, experiment)
        rows = session.execute(_RESULTS, {"experiment_id": found.id, "type": type}).all()
        control = rows[0] if rows else None
        return [
            VariantResult(
                variant=row.name,
                users=row.users,
                converters=row.converters,
                conversion_rate=row.converters / row.users,
                total=row.total,
                z=None if row is control else z_test(control, row),
            )
            for row in rows
        ]

    return app


def choose(experiment: Experiment, user_id: str) -> Variant:
    """The variant of a new user, by a hash."""
    digest = hashlib.md5(f"{experiment.key}:{user_id}".encode(), usedforsecurity=False).hexdigest()
    point = int(digest[:8], 16) / 0xFFFFFFFF
    for variant in experiment.variants:
        point -= variant.allocation
        if point <= 0:
            return variant
    return experiment.variants[-1]


def z_test(control: Any, treatment: Any) -> float | None:
    """The pooled two-proportion z."""
    pooled = (control.converters + treatment.converters) / (control.users + treatment.users)
    error = math.sqrt(pooled * (1 - pooled) * (1 / control.users + 1 / treatment.users))
    difference = treatment.converters / treatment.users - control.converters / control.users
    return difference / error if error else None


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--database", required=True, help="SQLAlchemy URL")
    parser.add_argument("--key", required=True)
    arguments = parser.parse_args()
    app = create_app(arguments.database, arguments.key)
    uvicorn.run(app, host="127.0.0.1", port=arguments.port, access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
