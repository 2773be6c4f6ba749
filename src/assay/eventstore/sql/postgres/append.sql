-- incoming --
CREATE TEMP TABLE incoming (
  seq BIGINT, event_id UUID, original_id TEXT, keyed BOOLEAN, user_id TEXT COLLATE "C", units TEXT, type TEXT,
  occurred_at BIGINT, counts_until BIGINT, received_at BIGINT, value DOUBLE PRECISION, amount DOUBLE PRECISION,
  properties TEXT, experiment_id BIGINT, variant_id BIGINT
) ON COMMIT DROP;

-- copy --
COPY incoming FROM STDIN (FORMAT BINARY);

-- unreadable --
SELECT count(*)
FROM incoming
WHERE CASE WHEN assay_shallow(properties) THEN properties IS NOT JSON ELSE false END;

-- leave_known --
-- What an earlier run stored is no repetition to be noted.
DELETE FROM incoming USING events WHERE events.event_id = incoming.event_id AND events.user_id = incoming.user_id;

-- store --
-- The first of each user and id, in the order of their keys, as all who write here beside one another have them: so
-- none waits for another who waits for it. What remains in `incoming` are the repetitions.
WITH firsts AS (
  SELECT DISTINCT ON (event_id, user_id) * FROM incoming ORDER BY event_id, user_id, seq
), stored AS (
  INSERT INTO events SELECT * FROM firsts ON CONFLICT (event_id, user_id) DO NOTHING RETURNING seq
)
DELETE FROM incoming USING stored WHERE incoming.seq = stored.seq;

-- remaining --
SELECT count(*) FROM incoming;

-- note_doubles --
-- A repetition that names no experiment is noted with every experiment its user is in. An event whose id we made
-- ourselves is repeated only by a transfer, which is no loss to be told of.
INSERT INTO ledger
SELECT
  coalesce(incoming.experiment_id, assigned.experiment_id), type, 'duplicate', '', count(*),
  (array_agg(CAST(json_build_object(
    'event_id', coalesce(original_id, CAST(event_id AS TEXT)), 'user_id', user_id
  ) AS TEXT) ORDER BY incoming.seq))[1:5]
FROM incoming
LEFT JOIN assignments AS assigned ON incoming.experiment_id IS NULL AND assigned.unit_id = incoming.user_id
WHERE keyed
GROUP BY 1, 2;

-- spent --
DROP TABLE incoming;

-- store_assignments --
-- One that is there already stays: the record is written once.
INSERT INTO assignments (seq, experiment_id, unit_id, variant_id, phase, assigned_at)
SELECT
  CAST(item ->> 0 AS BIGINT), CAST(item ->> 1 AS BIGINT), item ->> 2, CAST(item ->> 3 AS BIGINT),
  CAST(item ->> 4 AS INTEGER), CAST(item ->> 5 AS BIGINT)
FROM json_array_elements(CAST($assignments AS JSON)) AS items (item)
WHERE CAST(item ->> 0 AS BIGINT) > $after
ORDER BY 2, 3
ON CONFLICT DO NOTHING;

-- note_rejections --
-- A repetition that was named at once, and a variant that an exposure contradicts, come the same way, each
-- under a code of its own.
INSERT INTO ledger
SELECT
  $experiment_id, $type,
  CASE WHEN code IN ('duplicate', 'variant_mismatch') THEN code ELSE 'rejected' END,
  CASE WHEN code IN ('duplicate', 'variant_mismatch') THEN '' ELSE code END,
  $count, CAST($samples AS TEXT[])
FROM (SELECT CAST($code AS TEXT) AS code) AS said;

-- taken --
-- Writes wait here for one another, and are counted: what they change has no number of its own.
UPDATE position SET changes = changes + 1 RETURNING events, assignments;

-- new_epoch --
UPDATE position SET epoch = epoch + 1;

-- advance --
UPDATE position SET events = greatest(events, $events), assignments = greatest(assignments, $assignments);

-- ledger_length --
SELECT count(*) FROM ledger;

-- ledger_summed --
WITH gone AS (
  DELETE FROM ledger RETURNING *
), numbered AS (
  SELECT *, row_number() OVER () AS place FROM gone
)
INSERT INTO ledger
SELECT
  experiment_id, type, reason, detail, sum(count) FILTER (WHERE nth IS NULL OR nth = 1),
  coalesce((array_agg(sample ORDER BY place, nth) FILTER (WHERE sample IS NOT NULL))[1:5], '{}')
FROM numbered
LEFT JOIN LATERAL unnest(samples) WITH ORDINALITY AS shown (sample, nth) ON true
GROUP BY experiment_id, type, reason, detail;
