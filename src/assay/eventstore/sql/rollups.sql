-- schema --
-- What each unit of an experiment comes to, by events of one source: rows in a table of their own for each rollup,
-- `rollup_N` with one row a unit, and `rollup_N_fresh` with what came since, which may have several. A rollup is
-- true for the very transaction that shows it: every write that moves events or assignments carries it along, or
-- drops it.
-- `totals`: what is kept, as JSON. `ended_at`: later events are not in it. `first_at`, `last_at`: no event in it
-- happened before or after. `fresh`: rows of the second table. `form`: the version of the code that made it.
CREATE TABLE IF NOT EXISTS rollups (
  number BIGINT NOT NULL,
  experiment_id BIGINT NOT NULL,
  totals VARCHAR NOT NULL,
  ended_at BIGINT,
  first_at BIGINT,
  last_at BIGINT,
  units BIGINT NOT NULL,
  fresh BIGINT NOT NULL,
  form INTEGER NOT NULL
);
CREATE SEQUENCE IF NOT EXISTS rollup_number START 1;

-- next_number --
SELECT nextval('rollup_number');

-- of_experiment --
SELECT number, totals, ended_at, first_at, last_at, fresh FROM rollups WHERE experiment_id = $experiment_id;

-- all --
SELECT number, experiment_id, totals, ended_at, units, fresh, form FROM rollups ORDER BY number;

-- rows --
-- A rollup's rows, one a unit. Additions are few, so that only their units are put together.
(
  SELECT variant_id, phase, unit, n0, n1, n2, t0
  FROM rollup_{number} AS old
  WHERE NOT EXISTS (SELECT * FROM rollup_{number}_fresh AS fresh WHERE fresh.unit = old.unit)
  UNION ALL
  SELECT
    variant_id, phase, unit, CAST(sum(n0) AS BIGINT) AS n0, CAST(sum(n1) AS BIGINT) AS n1,
    CAST(sum(n2) AS BIGINT) AS n2, sum(t0) AS t0
  FROM (
    SELECT * FROM rollup_{number}_fresh
    UNION ALL
    SELECT * FROM rollup_{number} WHERE unit IN (SELECT unit FROM rollup_{number}_fresh)
  ) AS both_tables
  GROUP BY variant_id, phase, unit
)

-- rows_alone --
-- The same where nothing was added.
rollup_{number}

-- read --
-- In the form of `done`.
SELECT {key}, unit, {kind} AS kind, {slots} FROM {rows} AS kept

-- read_narrowed --
-- Of the question's units only.
SELECT {key}, u.unit, {kind} AS kind, {slots}
FROM {rows} AS kept
JOIN ({units}) AS u ON u.unit = kept.unit

-- moments --
SELECT
  variant_id, phase, kind, count(*), sum(n0), sum(t0), coalesce(var_samp(CAST(n0 AS FLOAT8)), 0),
  coalesce(var_samp(t0), 0), coalesce(covar_samp(CAST(n0 AS FLOAT8), t0), 0)
FROM ({done}) AS done
GROUP BY variant_id, phase, kind;

-- folded --
CREATE TEMP TABLE folded AS {done};

-- folded_kinds --
SELECT kind, epoch_us(min(first_at)), epoch_us(max(last_at)) FROM folded GROUP BY kind;

-- folded_rows --
-- The rows of one rollup.
SELECT unit, {key}, {n0} AS n0, {n1} AS n1, {n2} AS n2, {t0} AS t0
FROM folded
WHERE kind IN ({kinds})
GROUP BY unit, {key}
HAVING {n0} > 0

-- folded_rows_of_kind --
-- The same where one kind of events is all there is to it, which has one row a unit.
SELECT unit, {key}, {n0} AS n0, {n1} AS n1, {n2} AS n2, {t0} AS t0
FROM folded
WHERE kind = {kinds} AND {n0} > 0

-- make --
CREATE TABLE rollup_{number} AS
SELECT
  unit, variant_id, phase, CAST(n0 AS BIGINT) AS n0, CAST(n1 AS BIGINT) AS n1, CAST(n2 AS BIGINT) AS n2,
  CAST(t0 AS DOUBLE) AS t0
FROM ({rows}) AS made
ORDER BY unit;
CREATE TABLE rollup_{number}_fresh AS SELECT * FROM rollup_{number} LIMIT 0;

-- length --
SELECT count(*) FROM rollup_{number};

-- count --
-- How many there are, up to a limit.
SELECT count(*) FROM (SELECT 1 FROM {rows} AS counted LIMIT {limit}) AS few;

-- add --
INSERT INTO rollup_{number}_fresh {rows};

-- differing --
-- How many units there are in a rollup or in the same made anew, and of how many the two say something else. Sums of
-- the same numbers in another order agree to nine digits.
SELECT
  count(*),
  count(*) FILTER (
    WHERE coalesce(kept.n0, 0) <> coalesce(anew.n0, 0)
      OR coalesce(kept.n1, 0) <> coalesce(anew.n1, 0)
      OR coalesce(kept.n2, 0) <> coalesce(anew.n2, 0)
      OR abs(coalesce(kept.t0, 0) - coalesce(anew.t0, 0))
        > 1e-9 * greatest(abs(coalesce(kept.t0, 0)), abs(coalesce(anew.t0, 0)), 1)
  )
FROM {rows} AS kept
FULL JOIN ({anew}) AS anew ON anew.unit = kept.unit;

-- drop --
DROP TABLE IF EXISTS rollup_{number};
DROP TABLE IF EXISTS rollup_{number}_fresh;
DELETE FROM rollups WHERE number = {number};

-- note_made --
INSERT INTO rollups
VALUES ($number, $experiment_id, $totals, $ended_at, $first_at, $last_at, $units, 0, $form);

-- note_added --
UPDATE rollups
SET fresh = fresh + $fresh, first_at = least(first_at, $first_at), last_at = greatest(last_at, $last_at)
WHERE number = $number;

-- note_merged --
INSERT INTO rollups
SELECT $number, experiment_id, totals, ended_at, first_at, last_at, $units, 0, form FROM rollups WHERE number = $old;

-- incoming_types --
SELECT DISTINCT type FROM incoming;

-- touched --
-- The assignments of those who have new events, in one pass for all experiments.
CREATE TEMP TABLE touched AS
SELECT * FROM {assignments} AS stored
WHERE experiment_id IN (SELECT unnest(CAST($experiments AS BIGINT[])))
  AND unit_id IN (SELECT user_id FROM incoming WHERE $every OR type IN (SELECT unnest(CAST($types AS VARCHAR[]))));

-- newcomers --
CREATE TEMP TABLE newcomers AS
SELECT * FROM {assignments} AS stored
WHERE seq > $after AND experiment_id IN (SELECT unnest(CAST($experiments AS BIGINT[])));

-- newcomers_since --
SELECT experiment_id, epoch_us(min(assigned_at)) FROM newcomers GROUP BY experiment_id;

-- of_newcomers --
-- Events that may count for a newcomer although they came before it.
(SELECT * FROM {events} AS stored WHERE counts_until >= make_timestamp({since}))

-- reversals_of --
-- Which of these users' events take back another.
SELECT DISTINCT user_id, reverses FROM reversals WHERE user_id IN (SELECT {user} FROM {users});

-- reversals_new --
SELECT DISTINCT user_id, reverses FROM reversals WHERE seq IN (SELECT seq FROM incoming);

-- taken_back --
-- Which events of {events} are those with these ids.
SELECT DISTINCT e.seq, e.user_id
FROM {events} AS e
JOIN (
  SELECT unnest(CAST($users AS VARCHAR[])) AS user_id, CAST(unnest(CAST($ids AS VARCHAR[])) AS UUID) AS event_id
) AS named ON named.event_id = e.event_id AND named.user_id = e.user_id
WHERE e.keyed;

-- again --
-- The units of users whose older events are taken back: all of their events are folded again.
CREATE TEMP TABLE again AS
SELECT * FROM {assignments} AS stored
WHERE experiment_id IN (SELECT unnest(CAST($experiments AS BIGINT[])))
  AND unit_id IN (SELECT unnest(CAST($users AS VARCHAR[])));

-- older --
(SELECT * FROM {events} AS stored WHERE seq NOT IN (SELECT seq FROM incoming))

-- not_again --
(SELECT * FROM incoming WHERE user_id NOT IN (SELECT unit_id FROM again))

-- forget_units --
DELETE FROM rollup_{number} WHERE unit IN ({units});
DELETE FROM rollup_{number}_fresh WHERE unit IN ({units});

-- units_of --
SELECT experiment_id, seq FROM assignments WHERE unit_id = $user_id;

-- reversal_count --
SELECT count(*) FROM reversals;

-- first_assigned --
SELECT experiment_id, epoch_us(min(assigned_at)) FROM assignments GROUP BY experiment_id;

-- newest_older --
-- How long the last of those events that are about to go may have counted.
SELECT epoch_us(max(counts_until)) FROM events WHERE {older};
