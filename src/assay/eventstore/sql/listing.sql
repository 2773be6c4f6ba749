-- events --
-- The newest events first, which come off the end of the file in no time; then the assignments of their users: in
-- the experiment listed, or in the one each event names.
SELECT
  e.seq, coalesce(e.original_id, CAST(e.event_id AS VARCHAR)), e.user_id, e.type, epoch_us(e.occurred_at),
  epoch_us(e.received_at), e.value, e.amount, e.properties, e.units, e.experiment_id, a.variant_id, e.variant_id
FROM (
  SELECT * FROM events AS e WHERE {conditions} ORDER BY e.occurred_at DESC, e.seq DESC LIMIT $candidates
) AS e
LEFT JOIN assignments AS a
  ON a.experiment_id = coalesce($experiment_id, e.experiment_id) AND a.unit_id = {unit_id}
WHERE {matches}
ORDER BY e.occurred_at DESC, e.seq DESC
LIMIT $limit;

-- candidates --
-- Whether there are as many candidates as were looked at.
SELECT count(*) FROM (SELECT 1 FROM events AS e WHERE {conditions} LIMIT $candidates) AS e;

-- event --
-- An id is compared as it was sent; in canonical form it also finds ids sent in capitals, and those we made.
SELECT
  e.seq, coalesce(e.original_id, CAST(e.event_id AS VARCHAR)), e.user_id, e.type, epoch_us(e.occurred_at),
  epoch_us(e.received_at), e.value, e.amount, e.properties, e.units, e.experiment_id, a.variant_id, e.variant_id
FROM events AS e
LEFT JOIN assignments AS a ON a.experiment_id = e.experiment_id AND a.unit_id = e.user_id
WHERE (
    e.original_id = $event_id
    OR e.event_id = TRY_CAST(CASE WHEN length($event_id) = 36 THEN $event_id END AS UUID)
  )
  AND (CAST($user_id AS VARCHAR) IS NULL OR e.user_id = $user_id)
ORDER BY e.occurred_at DESC, e.seq DESC
LIMIT 1;
