"""Reports: a question put to the event store, and everything that follows from its answer."""
