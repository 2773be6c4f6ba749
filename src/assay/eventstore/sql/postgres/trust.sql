-- latest --
-- Events by their numbers, of which the highest are the latest, down to the last that is wanted.
SELECT * FROM events WHERE seq > coalesce((SELECT seq FROM events ORDER BY seq DESC OFFSET $latest LIMIT 1), -9223372036854775808)

-- repetitions --
-- Counting rows costs reading them; what the server knows of a large table is near enough.
SELECT
  (
    SELECT CAST(coalesce(sum(count), 0) AS BIGINT)
    FROM ledger
    WHERE experiment_id = $experiment_id AND reason = 'duplicate'
  ),
  CASE
    WHEN known.rows > 1000000 THEN known.rows
    ELSE (SELECT count(*) FROM events WHERE experiment_id IS NULL OR experiment_id = $experiment_id)
  END
FROM (SELECT CAST(reltuples AS BIGINT) AS rows FROM pg_class WHERE oid = CAST('events' AS regclass)) AS known;
