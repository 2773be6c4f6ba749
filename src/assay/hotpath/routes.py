"""The table of hot routes: what is dispatched here, and what the API page says about it."""

from assay.hotpath import features as growthbook
from assay.hotpath import ofrep as openfeature
from assay.hotpath.app import Route
from assay.hotpath.assignment import Assign, AssignmentRoutes, Bulk, CheckEligibility
from assay.hotpath.exposures import Exposure, Exposures
from assay.hotpath.features import Evaluation, FeatureRoutes
from assay.hotpath.ofrep import FlagEvaluation, OfrepRoutes, TrackingEvent, TrackingEvents
from assay.hotpath.operations import OperationRoutes
from assay.hotpath.recording import EventIn, EventsIn, RecordingRoutes
from assay.published import Right

_CANONICAL = ("/api/v1",)
_ROOT = ("",)


def hot_routes(
    assignment: AssignmentRoutes,
    recording: RecordingRoutes,
    features: FeatureRoutes,
    ofrep: OfrepRoutes,
    operations: OperationRoutes,
) -> list[Route]:
    """Every hot route, once."""
    assign, read = Right.ASSIGN, Right.READ
    return [
        Route(
            "GET",
            "/experiments/{experiment}/assignment/{user_id}",
            assignment.get,
            assign,
            "Get a user's variant, assigning one durably on the first call",
            quick=assignment.quick,
        ),
        Route(
            "POST",
            "/experiments/{experiment}/assign",
            assignment.assign,
            assign,
            "Get or create an assignment, with attributes for targeting",
            (Assign,),
        ),
        Route(
            "POST",
            "/experiments/check-eligibility",
            assignment.check_eligibility,
            assign,
            "Assign a user in several experiments at once",
            (CheckEligibility,),
        ),
        Route(
            "POST",
            "/assignments",
            assignment.bulk,
            assign,
            "Assign many users in one durable commit",
            (Bulk,),
            prefixes=_CANONICAL,
        ),
        Route(
            "POST",
            "/exposures",
            assignment.exposures,
            assign,
            "Report variants that an SDK assigned locally",
            (Exposure, list[Exposure], Exposures),
            202,
            prefixes=_CANONICAL,
        ),
        Route(
            "GET",
            "/experiments/{experiment}/explain/{user_id}",
            assignment.explain,
            read,
            "Why a user gets what they get",
        ),
        Route(
            "POST",
            "/events",
            recording.events,
            assign,
            "Record one event or many",
            (EventIn, list[EventIn], EventsIn),
            201,
        ),
        Route(
            "POST",
            "/experiments/{experiment}/track",
            recording.track,
            assign,
            "Record one event for this experiment",
            (EventIn,),
            201,
        ),
        Route(
            "GET",
            "/api/features/{sdk_key}",
            features.payload,
            None,
            "The payload that GrowthBook's SDKs evaluate themselves",
            prefixes=_ROOT,
            refuse=growthbook.refuse,
        ),
        Route(
            "POST",
            "/api/eval/{sdk_key}",
            features.evaluate,
            None,
            "Evaluate every experiment for a GrowthBook SDK, assigning durably",
            (Evaluation,),
            prefixes=_ROOT,
            refuse=growthbook.refuse,
        ),
        Route(
            "POST",
            "/ofrep/v1/evaluate/flags/{key}",
            ofrep.flag,
            assign,
            "OFREP: evaluate one flag, assigning durably",
            (FlagEvaluation,),
            prefixes=_ROOT,
            refuse=openfeature.refuse,
        ),
        Route(
            "POST",
            "/ofrep/v1/evaluate/flags",
            ofrep.flags,
            assign,
            "OFREP: evaluate every flag for one context",
            (FlagEvaluation,),
            prefixes=_ROOT,
            refuse=openfeature.refuse,
        ),
        Route(
            "POST",
            "/ofrep/v1/track/events",
            ofrep.track,
            assign,
            "Record one OpenFeature tracking event, or a list of them",
            (TrackingEvent, list[TrackingEvent], TrackingEvents),
            201,
            prefixes=_ROOT,
            refuse=openfeature.refuse,
        ),
        Route("GET", "/health", operations.health, None, "Liveness", prefixes=_ROOT),
        Route("GET", "/ready", operations.ready, None, "Readiness", prefixes=_ROOT),
        Route("GET", "/metrics", operations.metrics, None, "Prometheus metrics", prefixes=_ROOT),
    ]
