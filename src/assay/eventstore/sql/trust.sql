-- arrivals --
-- When units were assigned, under which split.
SELECT {stretch} AS bucket, a.variant_id, a.phase, count(*)
FROM {assignments} AS a
WHERE a.experiment_id = $experiment_id {narrowing}
GROUP BY bucket, a.variant_id, a.phase
ORDER BY bucket, a.variant_id, a.phase;

-- latest --
-- Events from the end of the file, so that it takes no longer when there are many. The limit takes nothing off: it
-- tells the engine how few they are, which then looks for their units instead of indexing all units.
SELECT * FROM events WHERE rowid > (SELECT max(rowid) FROM events) - $latest LIMIT $latest

-- fates --
-- What became of the latest events that concern the experiment. First by unit, so that units can be counted.
SELECT
  variant_id, fate, CAST(sum(events) AS BIGINT), count(*), CAST(sum(named) AS BIGINT), CAST(sum(claims) AS BIGINT),
  CAST(sum(mismatched) AS BIGINT), count(*) FILTER (WHERE mismatched > 0), {first}, {last}
FROM (
  SELECT
    unit, variant_id, fate, count(*) AS events, count(*) FILTER (WHERE named) AS named,
    count(claimed) AS claims, count(*) FILTER (WHERE claimed <> variant_id) AS mismatched,
    min(occurred_at) AS first, max(occurred_at) AS last
  FROM (
    SELECT
      {unit_id} AS unit, a.variant_id, e.experiment_id IS NOT NULL AS named, e.variant_id AS claimed, e.occurred_at,
      CASE
        WHEN a.unit_id IS NULL THEN 'unassigned'
        WHEN e.occurred_at > {ended_at} THEN 'late'
        WHEN e.counts_until < a.assigned_at THEN 'before_assignment'
        WHEN {reversed} THEN 'reversed'
        ELSE 'counted'
      END AS fate
    FROM ({latest}) AS e
    LEFT JOIN (
      SELECT a.unit_id, a.variant_id, a.assigned_at
      FROM assignments AS a
      WHERE a.experiment_id = $experiment_id {narrowing}
    ) AS a ON a.unit_id = {unit_id}
    WHERE (e.experiment_id = $experiment_id OR (e.experiment_id IS NULL AND a.unit_id IS NOT NULL))
      {event_narrowing}
  ) AS dated
  GROUP BY unit, variant_id, fate
) AS units
GROUP BY variant_id, fate
ORDER BY variant_id, fate;

-- repetitions --
SELECT
  (
    SELECT CAST(coalesce(sum(count), 0) AS BIGINT)
    FROM ledger
    WHERE experiment_id = $experiment_id AND reason = 'duplicate'
  ),
  (SELECT count(*) FROM events WHERE experiment_id IS NULL OR experiment_id = $experiment_id);

-- conflicts --
-- Exposures are no events: what contradicts the record stands in the ledger alone.
SELECT CAST(coalesce(sum(count), 0) AS BIGINT)
FROM ledger
WHERE experiment_id = $experiment_id AND reason = 'variant_mismatch';

-- overlaps --
SELECT o.experiment_id, count(*)
FROM assignments AS a
JOIN assignments AS o ON o.unit_id = a.unit_id
WHERE a.experiment_id = $experiment_id
  AND o.experiment_id IN (SELECT unnest(CAST({others} AS BIGINT[]))) {narrowing}
GROUP BY o.experiment_id
ORDER BY o.experiment_id;
