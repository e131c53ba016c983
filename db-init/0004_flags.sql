-- Faulty flags: what marshals declared, and what has to be told to the timing services. Plain SQL.
--
-- A position is faulty exactly while a live flag with faulty = true covers it. The ledger keeps one row a flag, deleted
-- ones too: events come at least once and in any order, and `seq` decides which one is the newest.

-- Drawn under the lock that flags and drains share, so a drain that knows version N needs only rows above N.
CREATE SEQUENCE IF NOT EXISTS position_flag_versions AS bigint;

CREATE TABLE IF NOT EXISTS position_flag_ledger (
    flag_id     uuid        NOT NULL,
    seq         bigint      NOT NULL,
    version     bigint      NOT NULL DEFAULT nextval('position_flag_versions'),
    -- Device and bounds are NULL only in the tombstone of a flag that was never seen alive.
    imei        bigint,
    ts_from     timestamptz,
    ts_to       timestamptz,
    faulty      boolean     NOT NULL,
    deleted     boolean     NOT NULL DEFAULT false,
    reason      text,
    -- The seq up to which positions follow this row. Smaller than seq: step 2 is still to be done.
    applied_seq bigint      NOT NULL DEFAULT 0,
    applied_at  timestamptz,
    CONSTRAINT position_flag_ledger_pkey PRIMARY KEY (flag_id),
    CONSTRAINT position_flag_ledger_window CHECK (
        (imei IS NOT NULL AND ts_from IS NOT NULL AND ts_to IS NOT NULL AND ts_from <= ts_to)
        OR (deleted AND imei IS NULL AND ts_from IS NULL AND ts_to IS NULL))
);
-- Which live flags cover a device and a time range: imei = $1 AND ts_to >= $from AND ts_from <= $to.
CREATE INDEX IF NOT EXISTS position_flag_ledger_live_idx ON position_flag_ledger (imei, ts_to, ts_from)
    WHERE faulty AND NOT deleted;
-- What is newer than a drain knows.
CREATE INDEX IF NOT EXISTS position_flag_ledger_version_idx ON position_flag_ledger (version);
-- What was begun and not finished.
CREATE INDEX IF NOT EXISTS position_flag_ledger_unapplied_idx ON position_flag_ledger (flag_id) WHERE applied_seq < seq;

-- The outbox of the corrected stream: one row a window whose positions changed, deleted when it was sent.
CREATE TABLE IF NOT EXISTS position_corrections (
    id        bigint      GENERATED ALWAYS AS IDENTITY,
    imei      bigint      NOT NULL,
    ts_from   timestamptz NOT NULL,
    ts_to     timestamptz NOT NULL,
    positions bigint      NOT NULL,
    flag_id   uuid        NOT NULL,
    seq       bigint      NOT NULL,
    CONSTRAINT position_corrections_pkey PRIMARY KEY (id)
);

-- IF NOT EXISTS is also content with a table of that name made by somebody else.
DO $$
DECLARE
    wanted record;
    missing text[];
BEGIN
    FOR wanted IN
        SELECT * FROM (VALUES
            ('position_flag_ledger'::regclass, 'PRIMARY KEY (flag_id)',
             'flag_id uuid,seq bigint,version bigint,imei bigint,ts_from timestamp with time zone,'
             'ts_to timestamp with time zone,faulty boolean,deleted boolean,reason text,applied_seq bigint,'
             'applied_at timestamp with time zone'),
            ('position_corrections'::regclass, 'PRIMARY KEY (id)',
             'id bigint,imei bigint,ts_from timestamp with time zone,ts_to timestamp with time zone,positions bigint,'
             'flag_id uuid,seq bigint')) AS tables (name, key, columns)
    LOOP
        SELECT array_agg(e.definition) INTO missing
        FROM unnest(string_to_array(wanted.columns, ',')) AS e (definition)
        WHERE e.definition NOT IN (
            SELECT attname || ' ' || format_type(atttypid, atttypmod) FROM pg_attribute
            WHERE attrelid = wanted.name AND attnum > 0 AND NOT attisdropped);
        IF missing IS NOT NULL THEN
            RAISE EXCEPTION 'table % is not odograph''s: it lacks %', wanted.name, array_to_string(missing, ', ');
        END IF;
        IF NOT EXISTS (
            SELECT FROM pg_constraint
            WHERE conrelid = wanted.name AND contype = 'p' AND pg_get_constraintdef(oid) = wanted.key)
        THEN
            RAISE EXCEPTION 'table % is not odograph''s: it lacks %', wanted.name, wanted.key;
        END IF;
    END LOOP;
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'position_corrections'::regclass
        AND attname = 'id' AND attidentity = 'a')
    THEN
        RAISE EXCEPTION 'table position_corrections is not odograph''s: its id is no identity';
    END IF;
END $$;
