-- reversals --
-- The condition is that of the index, which holds these events and no others.
SELECT user_id, reverses
FROM (
  SELECT user_id, assay_text(assay_member(properties, 'reverses')) AS reverses
  FROM events
  WHERE properties LIKE '%"reverses"%'
  OFFSET 0
) AS named
WHERE reverses IS NOT NULL;
