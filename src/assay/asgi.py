"""`uvicorn assay.asgi:app` serves what `assay serve` serves, with settings from the environment."""

from assay.wiring import Application

app = Application.from_environment()
