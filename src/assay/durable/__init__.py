"""Durable writes: one SQLite writer, and the group commit in front of it."""
