-- events --
-- The newest events first, which come off the end of the file in no time; then the assignments of their users: in
-- the experiment listed, or in the one each event names.
SELECT
  e.seq, coalesce(e.original_id, CAST(e.event_id AS VARCHAR)), e.user_id, e.type, {occurred_at},
  {received_at}, e.value, e.amount, e.properties, e.units, e.experiment_id, a.variant_id, e.variant_id
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
-- In canonical form, every text that is the same id finds it, and so do the ids that we made.
SELECT
  e.seq, coalesce(e.original_id, CAST(e.event_id AS VARCHAR)), e.user_id, e.type, {occurred_at},
  {received_at}, e.value, e.amount, e.properties, e.units, e.experiment_id, a.variant_id, e.variant_id
FROM events AS e
LEFT JOIN assignments AS a ON a.experiment_id = e.experiment_id AND a.unit_id = e.user_id
WHERE e.event_id = CAST($canonical AS UUID)
  AND (CAST($user_id AS VARCHAR) IS NULL OR e.user_id = $user_id)
ORDER BY e.occurred_at DESC, e.seq DESC
LIMIT 1;
