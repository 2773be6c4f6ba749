-- counted --
-- Events that count, each with the unit it counts for. Type and time are tested before anything is joined.
SELECT
  a.seq AS unit, a.variant_id, a.phase, a.assigned_at, e.type, e.amount, e.properties, e.occurred_at
FROM events AS e
JOIN {assignments} AS a ON a.unit_id = {unit_id}
WHERE a.experiment_id = $experiment_id
  AND (e.experiment_id IS NULL OR e.experiment_id = $experiment_id)
  AND e.counts_until >= a.assigned_at
  {narrowing}

-- of_every_type --
-- The same events without their types, so that a unit's events of several types are one unit's.
SELECT unit, variant_id, phase, assigned_at, '' AS type, amount, properties, occurred_at
FROM ({counted}) AS typed

-- moments --
-- First what each unit did, by kind of event; then how that is distributed over the units that did anything. Units
-- that did nothing are zeros and need no rows: they are merged in exactly, afterwards.
-- {values}: the kind, a small number for each type asked for (grouping by it is cheaper than by its name; {kinds} has
-- it), and what is read from the properties, for each way of selecting and valuing events (a slot).
-- {slots}: for each slot, number (n) and sum (t) of a unit's events.
-- {distributions}: for each slot, what the units with n > 0 look like.
SELECT variant_id, phase, kind, {distributions}
FROM (
  SELECT unit, variant_id, phase, kind, {slots}
  FROM (SELECT {values} FROM ({counted}) AS counted {kinds} {once}) AS valued
  GROUP BY unit, variant_id, phase, kind
) AS units
GROUP BY variant_id, phase, kind;

-- arms --
-- How many units each variant has in each phase.
SELECT variant_id, phase, count(*)
FROM {assignments} AS a
WHERE a.experiment_id = $experiment_id {narrowing}
GROUP BY variant_id, phase
ORDER BY variant_id, phase;

-- event_counts --
SELECT variant_id, type, CAST(sum(events) AS BIGINT), count(*), coalesce(sum(amount), 0)
FROM (
  SELECT unit, variant_id, type, count(*) AS events, sum(amount) AS amount
  FROM ({counted}) AS counted
  GROUP BY unit, variant_id, type
) AS units
GROUP BY variant_id, type
ORDER BY variant_id, type;

-- series_events --
-- By stretch of time and variant: events, units with an event, units with their first, and the sum. An event
-- whose time is known to the day only may begin before its unit was assigned; it falls with the assignment then.
SELECT
  bucket, variant_id, CAST(sum(events) AS BIGINT), count(*), count(*) FILTER (WHERE bucket = first_bucket),
  coalesce(sum(total), 0)
FROM (
  SELECT *, min(bucket) OVER (PARTITION BY unit) AS first_bucket
  FROM (
    SELECT
      unit, variant_id, {stretch} AS bucket, count(*) AS events,
      sum({bounded}) AS total
    FROM (SELECT *, {value} AS number FROM ({counted}) AS counted WHERE {condition} {once}) AS valued
    GROUP BY unit, variant_id, bucket
  ) AS stretches
) AS dated
GROUP BY bucket, variant_id;

-- series_assignments --
SELECT {stretch} AS bucket, a.variant_id, count(*)
FROM {assignments} AS a
WHERE a.experiment_id = $experiment_id {narrowing}
GROUP BY bucket, a.variant_id;

-- ledger_fates --
-- What became of each event that concerns the experiment, by type, with the latest as samples. An event that names
-- no experiment concerns those its user is in.
SELECT type, fate, count(*), max(seq, 5), count(*) FILTER (WHERE mismatch), max(seq, 5) FILTER (WHERE mismatch)
FROM (
  SELECT
    e.seq,
    e.type,
    CASE
      WHEN a.unit_id IS NULL THEN 'unassigned'
      WHEN e.occurred_at > CAST($ended_at AS TIMESTAMP) THEN 'late'
      WHEN e.counts_until < a.assigned_at THEN 'before_assignment'
      WHEN {reversed} THEN 'reversed'
      ELSE 'counted'
    END AS fate,
    coalesce(e.variant_id <> a.variant_id, false) AS mismatch
  FROM events AS e
  LEFT JOIN (
    SELECT a.unit_id, a.variant_id, a.assigned_at
    FROM assignments AS a
    WHERE a.experiment_id = $experiment_id {narrowing}
  ) AS a ON a.unit_id = {unit_id}
  WHERE (e.experiment_id = $experiment_id OR (e.experiment_id IS NULL AND a.unit_id IS NOT NULL))
    {event_narrowing}
) AS fates
GROUP BY type, fate;

-- ledger_samples --
SELECT seq, coalesce(original_id, CAST(event_id AS VARCHAR)), user_id, type, {occurred_at}, variant_id
FROM events
WHERE seq = ANY (CAST($seqs AS BIGINT[]));

-- ledger_notes --
-- What was dropped or refused; refusals that named no known experiment are everybody's.
SELECT type, reason, detail, CAST(sum(count) AS BIGINT), list_slice(flatten(list(samples)), 1, 5)
FROM ledger
WHERE (experiment_id = $experiment_id OR (experiment_id IS NULL AND reason = 'rejected')) {types}
GROUP BY type, reason, detail;
