"""Views: one report in the shapes that clients expect. Pure functions from a report to a JSON document.

Nothing is rounded, nothing is NaN or infinite; what cannot be said is null, beside a `reason`.
"""
