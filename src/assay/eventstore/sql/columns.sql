-- units --
-- The units a question is about, and since when their events count.
-- {assignments}: the table, or what stands for it where only units with a certain event are looked at.
-- {label}, {groups}: the number of each unit's group, where units are told apart by groups.
-- {phase}: the phase, or the number of the stratum that it belongs to.
SELECT a.seq AS unit, a.unit_id, a.variant_id, {phase} AS phase, a.assigned_at, {since} AS since {label}
FROM {assignments} AS a {groups}
WHERE a.experiment_id = $experiment_id {narrowing}

-- activated --
-- The assignments of those units that have a certain event, with the time of the first one.
(
  SELECT a.seq, a.experiment_id, a.unit_id, a.variant_id, a.phase, a.assigned_at, firsts.since
  FROM assignments AS a
  JOIN (
    SELECT unit, min(greatest(occurred_at, assigned_at)) AS since
    FROM ({valued}) AS valued
    WHERE {condition}
    GROUP BY unit
  ) AS firsts ON firsts.unit = a.seq
)

-- activated_assignments --
-- The same as if that were their assignment.
(SELECT seq, experiment_id, unit_id, variant_id, phase, since AS assigned_at FROM {activated} AS activated)

-- groups --
-- {groups}: the units of each group with its number.
LEFT JOIN (
{groups}
) AS g ON g.unit_id = a.unit_id

-- beside --
LEFT JOIN (
  SELECT unit_id, variant_id AS label FROM assignments WHERE experiment_id = {other}
) AS g ON g.unit_id = a.unit_id

-- cells --
-- How many units each variant has in each phase (and group).
SELECT {key}, count(*) FROM ({units}) AS units GROUP BY {key} ORDER BY {key};

-- read --
-- Events that may count, each with its unit. Type and time are tested before anything is joined.
-- {kind}: a small number for each type asked for; grouping by it is cheaper than by its name. {kinds}: the table that
-- has it, since a long CASE would compare each event's type with several.
-- {bounds}: where the unit's windows open and close.
-- {members}: the properties asked for, as JSON texts, read once.
-- {events}: the table, or a part of it.
SELECT
  {key}, u.unit, {kind} AS kind, e.seq, e.amount, e.occurred_at, e.counts_until, u.assigned_at, u.since
  {bounds} {members}
FROM {events} AS e {kinds}
JOIN ({units}) AS u ON u.unit_id = {unit_id}
WHERE (e.experiment_id IS NULL OR e.experiment_id = $experiment_id) {narrowing}
{once}

-- valued --
-- The same with the properties that are numbers as numbers.
SELECT * {numbers} FROM ({read}) AS read {once}

-- done --
-- What each unit did, by kind of event.
-- {slots}: numbers (n0, n1, …) and sums (t0, t1, …) of those of its events that match; what a slot means depends on
-- the kind, so that there are as many as the kind with the most of them needs.
SELECT {key}, unit, kind, {slots} FROM ({valued}) AS valued GROUP BY {key}, unit, kind

-- funnel --
-- A row for each unit that has done all steps, in the form of `done`.
-- {matches}: whether an event is one of step 1 (m1), 2 (m2), …
-- {step}: the last step it is one of; of events at the same time, those of earlier steps come first.
SELECT {key}, unit, {kind} AS kind, {slots}
FROM ({steps}) AS reached
WHERE place = {last}

-- funnel_events --
SELECT *, row_number() OVER (PARTITION BY unit ORDER BY moment, step, seq) AS place
FROM (
  SELECT *, {step} AS step
  FROM (SELECT {key}, unit, seq, {moment} AS moment, {matches} FROM ({valued}) AS valued) AS matched
) AS stepped
WHERE step > 0

-- funnel_step --
-- {reached}: the place, among the unit's events, of the first of this step after the one before was done.
SELECT *, min(CASE WHEN {condition} THEN place END) OVER (PARTITION BY unit) AS {reached} FROM ({before}) AS before

-- columns --
-- {together}: what is distributed by itself, kind by kind, and what needs the unit's whole row.
-- Units that did nothing need no rows: they are merged in exactly, afterwards.
WITH done AS {materialized} ({done})
{together};

-- narrow --
-- {of_kinds}: the condition that rows are of kinds asked for, where there are others.
SELECT {key}, kind, count(*), ARRAY[{numbers}] FROM done {of_kinds} GROUP BY {key}, kind

-- wide --
-- {values}: every column's value for the unit; {raw}: before anything is pulled in.
SELECT {key}, -1, count(*), ARRAY[{numbers}]
FROM (
  SELECT *, {values} FROM (SELECT {key}, unit, {raw} FROM done {of_kinds} GROUP BY {key}, unit) AS raw
) AS units
GROUP BY {key}

-- percentiles --
-- Over the units of all variants together.
SELECT ARRAY[{numbers}]
FROM (
  SELECT *, {values} FROM (SELECT {key}, unit, {raw} FROM ({done}) AS done GROUP BY {key}, unit) AS raw
) AS units;

-- observed_units --
-- Each unit's value; of those with events only.
SELECT {key}, {value} AS x, unit
FROM (SELECT {key}, unit, {raw} FROM ({done}) AS done GROUP BY {key}, unit) AS raw
WHERE {active} > 0

-- observed_all_units --
SELECT {unit_key}, {value} AS x, u.unit
FROM ({units}) AS u
LEFT JOIN (SELECT {key}, unit, {raw} FROM ({done}) AS done GROUP BY {key}, unit) AS raw ON raw.unit = u.unit

-- unit_values --
-- The units after a certain one, each with its value in every column.
-- {page}: these units; {joined}: what they did, if there is anything that they could have done.
SELECT {unit_key}, u.unit, u.unit_id, {assigned_at}, CAST(ARRAY[{values}] AS FLOAT8[])
FROM ({page}) AS u {joined}
ORDER BY u.unit;

-- done_by_unit --
LEFT JOIN (SELECT {key}, unit, {raw} FROM ({done}) AS done GROUP BY {key}, unit) AS raw ON raw.unit = u.unit

-- units_after --
SELECT * FROM ({units}) AS units WHERE unit > {after} ORDER BY unit LIMIT {limit}

-- observed_events --
-- Each event's number.
SELECT {key}, number AS x, unit
FROM (SELECT {key}, unit, CASE WHEN {condition} THEN {number} END AS number FROM ({valued}) AS valued) AS numbers
WHERE number IS NOT NULL

-- quantiles --
-- The quantile of each cell, its two neighbours, and what each unit has to do with it: how many of its observations
-- are at or below the quantile, and how many it has.
-- {lower}, {upper}: the levels of the neighbours, which depend on the number of observations.
WITH ranked AS MATERIALIZED (
  SELECT *, row_number() OVER (PARTITION BY {key} ORDER BY x) AS place, count(*) OVER (PARTITION BY {key}) AS events
  FROM ({observed}) AS observed
), marks AS MATERIALIZED (
  SELECT
    {key}, events,
    min(x) FILTER (WHERE place >= events * {q}) AS value,
    min(x) FILTER (WHERE place >= events * {lower}) AS lower,
    min(x) FILTER (WHERE place >= events * {upper}) AS upper
  FROM ranked
  GROUP BY {key}, events
), clusters AS (
  SELECT {ranked_key}, ranked.unit, count(*) FILTER (WHERE ranked.x <= marks.value) AS below, count(*) AS own
  FROM ranked
  JOIN marks ON {same_key}
  GROUP BY {ranked_key}, ranked.unit
), spread AS (
  SELECT
    {key}, count(*) AS units, count(*) FILTER (WHERE below > 0) AS some_below, sum(below) AS below, sum(own) AS own,
    coalesce(var_samp(CAST(below AS FLOAT8)), 0) AS of_below, coalesce(var_samp(CAST(own AS FLOAT8)), 0) AS of_own,
    coalesce(covar_samp(CAST(below AS FLOAT8), CAST(own AS FLOAT8)), 0) AS of_both
  FROM clusters
  GROUP BY {key}
)
SELECT
  {marks_key}, marks.events, marks.value, marks.lower, marks.upper, units, some_below, CAST(below AS BIGINT),
  CAST(own AS BIGINT), of_below, of_own, of_both
FROM marks
JOIN spread ON {same_spread};
