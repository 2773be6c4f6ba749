-- ledger_fates --
-- What became of each event that concerns the experiment, by type, with some of the latest as samples: the latest of
-- each class of numbers, so that nothing has to be sorted.
SELECT
  type, fate, CAST(sum(count) AS BIGINT), (array_agg(latest ORDER BY latest DESC))[1:5],
  CAST(coalesce(sum(count) FILTER (WHERE mismatch), 0) AS BIGINT),
  (array_agg(latest ORDER BY latest DESC) FILTER (WHERE mismatch))[1:5]
FROM (
  SELECT type, fate, mismatch, count(*) AS count, max(seq) AS latest
  FROM (
    SELECT
      e.seq,
      e.type,
      CASE
        WHEN a.unit_id IS NULL THEN 'unassigned'
        WHEN e.occurred_at > CAST($ended_at AS BIGINT) THEN 'late'
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
  GROUP BY type, fate, mismatch, seq % 1009
) AS classes
GROUP BY type, fate;

-- ledger_notes --
-- What was dropped or refused; refusals that named no known experiment are everybody's.
SELECT
  type, reason, detail, CAST(sum(count) FILTER (WHERE nth IS NULL OR nth = 1) AS BIGINT),
  (array_agg(sample ORDER BY place, nth) FILTER (WHERE sample IS NOT NULL))[1:5]
FROM (
  SELECT *, ctid AS place
  FROM ledger
  WHERE (experiment_id = $experiment_id OR (experiment_id IS NULL AND reason = 'rejected')) {types}
) AS notes
LEFT JOIN LATERAL unnest(samples) WITH ORDINALITY AS shown (sample, nth) ON true
GROUP BY type, reason, detail;
