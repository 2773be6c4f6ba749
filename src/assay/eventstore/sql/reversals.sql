-- reversals --
-- Which user's events take back another, and the id under which the caller sent that.
SELECT user_id, reverses FROM reversals;

-- reversed_events --
-- It may have come before or after the one that takes it back.
SELECT DISTINCT e.seq
FROM events AS e
JOIN (
  SELECT unnest(CAST($users AS VARCHAR[])) AS user_id, CAST(unnest(CAST($ids AS VARCHAR[])) AS UUID) AS event_id
) AS named ON named.event_id = e.event_id AND named.user_id = e.user_id
WHERE e.keyed;

-- store_reversals --
-- The table keeps what a question would otherwise look for in the properties of all events.
INSERT INTO reversals
SELECT seq, user_id, json_extract_string(properties, '/reverses')
FROM incoming
WHERE contains(properties, '"reverses"') AND json_type(properties, '/reverses') = 'VARCHAR';

-- forget_reversals --
-- Those whose own events are gone. Only the numbers in question are looked for among the events.
DELETE FROM reversals
WHERE seq NOT IN (SELECT seq FROM events WHERE seq IN (SELECT seq FROM reversals));
