"""The control plane put together; imported when it is first asked for something."""

import contextlib
from collections.abc import Iterator, Sequence

from assay.api.app import create_api
from assay.api.parts import Parts
from assay.catalog.keys import KeyUse
from assay.hotpath.app import Route, microseconds, openapi_paths
from assay.hotpath.http import Application
from assay.published import anonymous_rights
from assay.reports.report import Report
from assay.settings import Settings
from assay.stores.base import Stores
from assay.telemetry import Telemetry


def build(
    settings: Settings, stores: Stores, routes: Sequence[Route], telemetry: Telemetry, uses: KeyUse
) -> Application:
    """The FastAPI application over the open stores; `routes` are the hot ones, for the API page."""

    def analysed(report: Report, seconds: float) -> None:
        significant = any(each.significant for each in report.primary.comparisons)
        telemetry.analysed(report.spec.id, seconds, significant=significant)

    @contextlib.contextmanager
    def paused() -> Iterator[None]:
        with stores.paused():
            yield
            stores.log.relearn()

    paths, schemas = openapi_paths(routes)
    return create_api(
        Parts(
            database=stores.database,
            published=stores.published,
            store=stores.store,
            assignments=stores.assignments,
            flush=stores.wait_past,
            paused=paused,
            forget=stores.forget,
            clock=microseconds,
            key_use=uses,
            anonymous=anonymous_rights(settings.anonymous_role),
            max_body=settings.max_body_bytes,
            docs=settings.docs,
            analysed=analysed,
            extra_paths=paths,
            extra_schemas=schemas,
        )
    )
