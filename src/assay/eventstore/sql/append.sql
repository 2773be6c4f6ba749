-- incoming --
-- A portion of the log as rows. Events the store already has are left out, so a portion may come twice. It is read
-- as a file, in a third of the time that `from_json` takes; as an array, since the engine's reader of lines, which
-- works in parallel, calls a good file malformed when its end meets the end of a buffer.
CREATE OR REPLACE TEMP TABLE incoming AS
SELECT
  q * 65536 + i + place - 1 AS seq,
  event.e AS event_id,
  event.o AS original_id,
  coalesce(event.k, false) AS keyed,
  CASE WHEN event.k THEN md5_number_lower(event.u || chr(31) || CAST(event.e AS VARCHAR)) END AS dedup_key,
  event.u AS user_id,
  event.m AS units,
  event.t AS type,
  make_timestamp(event.s) AS occurred_at,
  make_timestamp(coalesce(event.c, event.s)) AS counts_until,
  make_timestamp(event.r) AS received_at,
  event.v AS value,
  event.a AS amount,
  event.p AS properties,
  event.x AS experiment_id,
  event.y AS variant_id
FROM (
  SELECT q, i, unnest(b) AS event, generate_subscripts(b, 1) AS place
  FROM read_json($path, format = 'array', auto_detect = false, maximum_object_size = $size, columns = {
    q: 'BIGINT', i: 'BIGINT', b: 'STRUCT(
      e UUID, o VARCHAR, k BOOLEAN, u VARCHAR, m JSON, t VARCHAR, s BIGINT, c BIGINT, r BIGINT, v DOUBLE,
      a DOUBLE, p VARCHAR, x BIGINT, y BIGINT)[]'})
) AS events
WHERE q * 65536 + i + place - 1 > $after;

-- leave_known --
-- What an earlier run stored is no repetition to be noted.
DELETE FROM incoming
WHERE seq IN (
  SELECT incoming.seq
  FROM events
  JOIN incoming ON incoming.event_id = events.event_id AND incoming.user_id = events.user_id
);

-- incoming_facts --
SELECT
  count(*), count_if(keyed), count_if(properties IS NOT NULL AND NOT json_valid(properties)),
  count_if(contains(properties, '"reverses"'))
FROM incoming;

-- doubles --
-- Repetitions: within the portion all but the first in log order, and what the store has already. The hash finds
-- the few candidates by one pass over one column; only of these user and id are read, and decide. (In one step the
-- engine reads all three columns throughout, in four times the time.)
CREATE OR REPLACE TEMP TABLE doubles AS
WITH candidates AS MATERIALIZED (
  SELECT rowid AS place FROM events WHERE dedup_key IN (SELECT dedup_key FROM incoming WHERE keyed)
), stored AS MATERIALIZED (
  SELECT user_id, event_id FROM events WHERE rowid IN (SELECT place FROM candidates)
)
SELECT seq
FROM (
  SELECT seq, row_number() OVER (PARTITION BY user_id, event_id ORDER BY seq) AS nth
  FROM incoming
  WHERE dedup_key IN (SELECT dedup_key FROM incoming WHERE keyed GROUP BY dedup_key HAVING count(*) > 1)
) AS numbered
WHERE nth > 1
UNION
SELECT incoming.seq
FROM incoming
JOIN stored ON stored.user_id = incoming.user_id AND stored.event_id = incoming.event_id
WHERE incoming.keyed;

-- note_doubles --
-- A repetition that names no experiment is noted with every experiment its user is in.
INSERT INTO ledger
SELECT
  coalesce(incoming.experiment_id, assigned.experiment_id), type, 'duplicate', '', count(*),
  list_slice(list(CAST(json_object(
    'event_id', coalesce(original_id, CAST(event_id AS VARCHAR)), 'user_id', user_id
  ) AS VARCHAR) ORDER BY incoming.seq), 1, 5)
FROM incoming
JOIN doubles ON doubles.seq = incoming.seq
LEFT JOIN assignments AS assigned
  ON incoming.experiment_id IS NULL AND assigned.unit_id = incoming.user_id
GROUP BY 1, 2;

-- store_all --
INSERT INTO events SELECT * FROM incoming;

-- leave_doubles --
DELETE FROM incoming WHERE seq IN (SELECT seq FROM doubles);

-- store_assignments --
INSERT INTO assignments
SELECT
  CAST(item[1] AS BIGINT), CAST(item[2] AS BIGINT), item[3], CAST(item[4] AS BIGINT), CAST(item[5] AS INTEGER),
  make_timestamp(CAST(item[6] AS BIGINT))
FROM (SELECT unnest(from_json($assignments, '[["VARCHAR"]]')) AS item) AS items
WHERE CAST(item[1] AS BIGINT) > $after
ORDER BY 1;

-- note_rejections --
-- A repetition that was named at once, and a variant that an exposure contradicts, come the same way, each
-- under a code of its own.
INSERT INTO ledger VALUES (
  $experiment_id, $type,
  CASE WHEN $code IN ('duplicate', 'variant_mismatch') THEN $code ELSE 'rejected' END,
  CASE WHEN $code IN ('duplicate', 'variant_mismatch') THEN '' ELSE $code END,
  $count, $samples
);

-- advance --
UPDATE position SET events = greatest(events, $events), assignments = greatest(assignments, $assignments);

-- ledger_length --
SELECT count(*) FROM ledger;

-- ledger_summed --
CREATE OR REPLACE TEMP TABLE ledger_summed AS
SELECT experiment_id, type, reason, detail, sum(count) AS count, list_slice(flatten(list(samples)), 1, 5) AS samples
FROM ledger
GROUP BY experiment_id, type, reason, detail;

-- ledger_cleared --
DELETE FROM ledger;

-- ledger_refilled --
INSERT INTO ledger SELECT * FROM ledger_summed;
