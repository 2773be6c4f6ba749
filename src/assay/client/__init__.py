"""A client for Python applications: evaluates in memory, records in the background, never in the way.

It needs nothing of the server but its address and a key of the role `client`.
"""

from assay.client.client import AsyncClient, Client
from assay.client.engine import Change, Status
from assay.client.evaluation import Evaluation, Origin, StickyBuckets
from assay.client.memory import MemoryStickyBuckets
from assay.client.options import Options
from assay.client.outbox import Delivery

__all__ = [
    "AsyncClient",
    "Change",
    "Client",
    "Delivery",
    "Evaluation",
    "MemoryStickyBuckets",
    "Options",
    "Origin",
    "Status",
    "StickyBuckets",
]
