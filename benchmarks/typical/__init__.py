"""The service most teams would write: FastAPI, SQLAlchemy, a session and a commit for each request."""
