-- schema --
-- Events lie in the order in which the log had them; `seq` numbers them. Only events with a caller's id carry a
-- `dedup_key`, since only they can be repetitions. There are no indexes: each costs more at insertion than all
-- questions together would save.
CREATE TABLE IF NOT EXISTS events (
  seq BIGINT NOT NULL,
  event_id UUID NOT NULL,
  original_id VARCHAR,
  keyed BOOLEAN NOT NULL,
  dedup_key UBIGINT,
  user_id VARCHAR NOT NULL,
  units VARCHAR,
  type VARCHAR NOT NULL,
  occurred_at TIMESTAMP NOT NULL,
  counts_until TIMESTAMP NOT NULL,
  received_at TIMESTAMP NOT NULL,
  value DOUBLE,
  amount DOUBLE,
  properties VARCHAR,
  experiment_id BIGINT,
  variant_id BIGINT
);
CREATE TABLE IF NOT EXISTS assignments (
  seq BIGINT NOT NULL,
  experiment_id BIGINT NOT NULL,
  unit_id VARCHAR NOT NULL,
  variant_id BIGINT NOT NULL,
  phase INTEGER NOT NULL,
  assigned_at TIMESTAMP NOT NULL
);
-- Rows are only added; those of one kind are summed when read, and now and then made one.
CREATE TABLE IF NOT EXISTS ledger (
  experiment_id BIGINT,
  type VARCHAR,
  reason VARCHAR NOT NULL,
  detail VARCHAR NOT NULL,
  count BIGINT NOT NULL,
  samples VARCHAR[] NOT NULL
);
CREATE TABLE IF NOT EXISTS position (
  events BIGINT NOT NULL,
  assignments BIGINT NOT NULL
);
-- Which log the position is a position in.
CREATE TABLE IF NOT EXISTS source (identity BIGINT NOT NULL);
INSERT INTO position SELECT -1, 0 WHERE NOT EXISTS (SELECT * FROM position);
CREATE TABLE IF NOT EXISTS imports (
  digest VARCHAR NOT NULL,
  rows_done BIGINT NOT NULL,
  events BIGINT NOT NULL,
  duplicates BIGINT NOT NULL,
  bad BIGINT NOT NULL,
  finished BOOLEAN NOT NULL
);
-- Events that take others back, and the caller's ids of these.
CREATE TABLE IF NOT EXISTS reversals AS
SELECT seq, user_id, json_extract_string(properties, '/reverses') AS reverses
FROM events
WHERE contains(properties, '"reverses"') AND json_type(properties, '/reverses') = 'VARCHAR';
CREATE SEQUENCE IF NOT EXISTS import_number START 1;

-- source --
SELECT identity FROM source;

-- name_source --
INSERT INTO source VALUES ($identity);

-- position --
SELECT events, assignments FROM position;

-- recent_keys --
-- The latest events with a caller's id, for the memory of the log: from the end of the file, so that it takes no
-- longer when there are many.
SELECT user_id, CAST(event_id AS VARCHAR)
FROM (
  SELECT rowid AS place, user_id, event_id
  FROM events
  WHERE keyed AND rowid > (SELECT max(rowid) FROM events) - 4 * $limit
  ORDER BY place DESC
  LIMIT $limit
) AS latest
ORDER BY place;

-- purge_events --
DELETE FROM events WHERE experiment_id = $experiment_id;

-- purge_assignments --
DELETE FROM assignments WHERE experiment_id = $experiment_id;

-- purge_ledger --
DELETE FROM ledger WHERE experiment_id = $experiment_id;

-- erase_events --
DELETE FROM events WHERE user_id = $user_id;

-- erase_assignments --
DELETE FROM assignments WHERE unit_id = $user_id;

-- erase_ledger --
-- A sample may be a piece of what the user sent in any spelling, so all that could name the user lose their samples.
UPDATE ledger SET samples = [] WHERE len(samples) > 0 AND contains(array_to_string(samples, ' '), $user_id);

-- expire --
-- {older}: the condition, by types.
DELETE FROM events WHERE rowid IN (SELECT rowid FROM events WHERE {older} LIMIT $limit);
