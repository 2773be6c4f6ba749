"""What runs here and how it is."""

from sqlalchemy import func, select
from starlette.responses import Response

from assay.catalog.tables import ReportSnapshot
from assay.dashboard.pages import Visit, render


def shown(visit: Visit) -> Response:
    """Version, parts, and the figures that say whether all is well."""
    found = visit.parts.installation()
    ruleset = visit.parts.published.ruleset
    counted: dict[str, int] = {}
    for experiment in ruleset.by_id.values():
        counted[str(experiment.status)] = counted.get(str(experiment.status), 0) + 1
    with visit.parts.database.reading() as tx:
        latest = tx.scalar(select(func.max(ReportSnapshot.computed_at)))
    return render(
        visit,
        "installation.html",
        found=found,
        well=all(each.trouble is None for each in found.standing),
        latest=latest,
        counted=sorted(counted.items()),
        version=ruleset.version,
        keys=len(visit.parts.published.keys),
    )
