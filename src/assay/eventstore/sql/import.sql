-- chunk --
-- A stretch of the staged rows, each value read as what it should be, or with the reason why it cannot be.
-- {fields}: the columns of the file by the names used here; NULL for those it does not have.
-- {start}, {span}: the time, and how many µs beyond it the written time may mean.
CREATE OR REPLACE TEMP TABLE chunk AS
SELECT
  *,
  CASE WHEN line IS NOT NULL THEN 'is not a JSON object' END AS wrong_line,
  CASE WHEN unknown IS NOT NULL THEN 'is not a known field; see --rename and --extra-as-properties' END
    AS wrong_unknown,
  CASE
    WHEN line IS NOT NULL THEN NULL
    WHEN user_id IS NULL OR user_id = '' THEN 'is missing'
    WHEN length(user_id) > $longest THEN 'is too long'
    WHEN contains(user_id, chr(0)) THEN 'contains the character NUL'
  END AS wrong_user_id,
  CASE
    WHEN line IS NOT NULL THEN NULL
    WHEN type IS NULL OR type = '' THEN 'is missing'
    WHEN length(type) > $longest THEN 'is too long'
    WHEN contains(type, chr(0)) THEN 'contains the character NUL'
  END AS wrong_type,
  CASE
    WHEN length(event_id) > $longest THEN 'is too long'
    WHEN contains(event_id, chr(0)) THEN 'contains the character NUL'
  END AS wrong_event_id,
  CASE
    WHEN timestamp_text IS NULL THEN NULL
    WHEN occurred_at IS NULL THEN 'is not a time (ISO 8601, or seconds or milliseconds since 1970)'
    WHEN occurred_at > $latest THEN 'is more than 5 minutes in the future'
    WHEN occurred_at < TIMESTAMP '2000-01-01' THEN 'is before the year 2000'
  END AS wrong_timestamp,
  CASE
    WHEN value_text IS NULL THEN NULL
    WHEN value IS NULL THEN 'is not a number'
    WHEN NOT isfinite(value) THEN 'is not finite'
    WHEN abs(value) > {largest} THEN 'is beyond 1e100'
  END AS wrong_value,
  CASE
    WHEN properties IS NULL THEN NULL
    WHEN NOT json_valid(properties) THEN 'is not JSON'
    WHEN json_type(properties) <> 'OBJECT' THEN 'is not a JSON object'
  END AS wrong_properties,
  CASE
    WHEN units IS NULL THEN NULL
    WHEN NOT json_valid(units) THEN 'is not JSON'
    WHEN json_type(units) <> 'OBJECT'
      OR len(list_filter(json_extract(units, '$.*'), lambda unit: json_type(unit) <> 'VARCHAR')) > 0
      THEN 'is not a JSON object of texts'
  END AS wrong_units,
  CASE WHEN experiment IS NOT NULL AND experiment_id IS NULL THEN 'is not a known experiment' END
    AS wrong_experiment,
  CASE WHEN variant_text IS NOT NULL AND variant_id IS NULL THEN 'is not the number of a variant' END
    AS wrong_variant_id
FROM (
  SELECT
    fields.*,
    {start} AS occurred_at,
    {span} AS span,
    TRY_CAST(value_raw AS DOUBLE) AS value,
    CAST(value_raw AS VARCHAR) AS value_text,
    CAST(timestamp_raw AS VARCHAR) AS timestamp_text,
    TRY_CAST(variant_text AS BIGINT) AS variant_id,
    names.id AS experiment_id
  FROM (SELECT {place} AS place, {fields} FROM staged WHERE {place} >= $first AND {place} < $end) AS fields
  LEFT JOIN (SELECT unnest($names) AS name, unnest($ids) AS id) AS names ON names.name = fields.experiment
) AS values;

-- iso_start --
-- Reading an offset is slow, and reading one as if it were none would be wrong: only texts that end in one do.
CASE
  WHEN regexp_full_match(timestamp_raw, '\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d(:\d\d([.,]\d{1,9})?)?([Zz]|[+-]\d\d(:?\d\d)?)?)?')
    THEN CASE
      WHEN length(timestamp_raw) > 10 AND (
          timestamp_raw[-6] IN ('+', '-') OR timestamp_raw[-5] IN ('+', '-') OR timestamp_raw[-3] IN ('+', '-')
        )
        THEN CAST(TRY_CAST(replace(upper(timestamp_raw), ',', '.') AS TIMESTAMPTZ) AS TIMESTAMP)
      ELSE TRY_CAST(replace(upper(timestamp_raw), ',', '.') AS TIMESTAMP)
    END
  ELSE {number}
END

-- iso_span --
CASE
  WHEN NOT contains(timestamp_raw, '-') OR starts_with(timestamp_raw, '-') THEN {number}
  WHEN length(timestamp_raw) = 10 THEN 86399999999
  WHEN timestamp_raw[17] <> ':' THEN 59999999
  WHEN timestamp_raw[20] NOT IN ('.', ',') THEN 999999
  WHEN timestamp_raw[23] BETWEEN '0' AND '9' AND NOT timestamp_raw[24] BETWEEN '0' AND '9' THEN 999
  ELSE 0
END

-- number_start --
-- Numbers below 10^11 are seconds, above milliseconds.
make_timestamp(CAST(round(
  CASE
    WHEN abs(TRY_CAST(timestamp_raw AS DOUBLE)) < 1e11 THEN TRY_CAST(timestamp_raw AS DOUBLE) * 1e6
    WHEN abs(TRY_CAST(timestamp_raw AS DOUBLE)) < 1e14 THEN TRY_CAST(timestamp_raw AS DOUBLE) * 1e3
  END
) AS BIGINT))

-- number_span --
CASE
  WHEN TRY_CAST(timestamp_raw AS DOUBLE) <> floor(TRY_CAST(timestamp_raw AS DOUBLE)) THEN 0
  WHEN abs(TRY_CAST(timestamp_raw AS DOUBLE)) < 1e11 THEN 999999
  ELSE 999
END

-- good --
-- The good rows as events. An id of the caller's is kept as the log would keep it; without one, the file and the
-- row are the id, so that the same row of the same file is the same event.
CREATE OR REPLACE TEMP TABLE incoming AS
SELECT
  $base + place AS seq,
  id AS event_id,
  CASE WHEN event_id <> CAST(id AS VARCHAR) THEN event_id END AS original_id,
  event_id IS NOT NULL AS keyed,
  CASE WHEN event_id IS NOT NULL THEN md5_number_lower(user_id || chr(31) || CAST(id AS VARCHAR)) END AS dedup_key,
  user_id,
  units,
  type,
  coalesce(occurred_at, $now) AS occurred_at,
  CASE WHEN occurred_at IS NULL THEN $now ELSE occurred_at + to_microseconds(span) END AS counts_until,
  $now AS received_at,
  value,
  CASE WHEN value IS NOT NULL OR properties IS NULL THEN value ELSE {amount} END AS amount,
  properties,
  coalesce(experiment_id, $experiment_id) AS experiment_id,
  variant_id
FROM (
  SELECT
    *,
    CASE WHEN value IS NULL AND properties IS NOT NULL THEN json_extract(properties, {amounts}) END AS found,
    CAST(CASE
      WHEN event_id IS NULL THEN md5($digest || ':' || place)
      WHEN regexp_full_match(event_id, '[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}')
        THEN event_id
      ELSE substr(sha, 1, 12) || '5' || substr(sha, 14, 3)
        || substr('89ab', 1 + ((instr('0123456789abcdef', substr(sha, 17, 1)) - 1) % 4), 1) || substr(sha, 18, 15)
    END AS UUID) AS id
  FROM (
    -- UUIDv5 is the SHA-1 of namespace and name, with version and variant put in.
    SELECT *, CASE WHEN event_id IS NOT NULL THEN sha1(from_hex({namespace}) || encode(event_id)) END AS sha
    FROM chunk
    WHERE {good}
  ) AS named
) AS good;

-- begun --
SELECT rows_done, events, duplicates, bad, finished FROM imports WHERE digest = $digest;

-- begin --
INSERT INTO imports VALUES ($digest, 0, 0, 0, 0, false);

-- restart --
-- `finished` stays: from now on rows of this file may be stored already, however far a run comes.
UPDATE imports SET rows_done = 0, events = 0, duplicates = 0, bad = 0, finished = true WHERE digest = $digest;

-- step --
UPDATE imports
SET rows_done = $rows_done, events = events + $events, duplicates = duplicates + $duplicates, bad = bad + $bad
WHERE digest = $digest;

-- base --
-- Imported events are numbered below all that came through the log, each chunk below the one before.
SELECT least(coalesce(min(seq), 0), 0) FROM events;

-- assignment_rows --
SELECT
  place, experiment, unit_id, variant,
  CASE WHEN timestamp_text IS NULL THEN $now ELSE epoch_us(assigned_at) END,
  CASE WHEN line IS NOT NULL THEN 'is not a JSON object' END,
  CASE WHEN unknown IS NOT NULL THEN 'is not a known field; see --rename' END,
  CASE
    WHEN line IS NOT NULL THEN NULL
    WHEN unit_id IS NULL OR unit_id = '' THEN 'is missing'
    WHEN length(unit_id) > $longest THEN 'is too long'
    WHEN contains(unit_id, chr(0)) THEN 'contains the character NUL'
  END,
  CASE WHEN line IS NULL AND variant IS NULL THEN 'is missing' END,
  CASE
    WHEN timestamp_text IS NULL THEN NULL
    WHEN assigned_at IS NULL THEN 'is not a time (ISO 8601, or seconds or milliseconds since 1970)'
    WHEN assigned_at > $latest THEN 'is more than 5 minutes in the future'
    WHEN assigned_at < TIMESTAMP '2000-01-01' THEN 'is before the year 2000'
  END,
  timestamp_text, line, unknown, unknown_value
FROM (
  SELECT *, {start} AS assigned_at, CAST(timestamp_raw AS VARCHAR) AS timestamp_text
  FROM (SELECT {place} AS place, {fields} FROM staged WHERE {place} >= $first AND {place} < $end) AS fields
) AS rows
ORDER BY place;
