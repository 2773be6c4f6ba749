"""The routes that carry the load, as raw ASGI: assignment, events, health. No framework on this path."""
