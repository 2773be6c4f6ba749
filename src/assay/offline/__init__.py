"""Analysis without a server: files in, verdicts out, and the design numbers of experiments to come.

The room holds no statistics of its own. A file is brought to moments inside DuckDB (`source`, `units`),
judged by `assay.stats` (`judging`), and shown as a document or a table (`document`, `table`).
"""
