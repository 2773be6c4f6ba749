"""Moving a whole installation from a data directory to PostgreSQL: copied in steps, checked, resumable."""
