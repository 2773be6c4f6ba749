"""The control plane: everything but assigning and recording, over HTTP."""

from assay.api.app import create_api
from assay.api.parts import Parts

__all__ = ["Parts", "create_api"]
