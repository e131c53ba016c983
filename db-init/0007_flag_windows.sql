-- Windows that a flag held before: positions there have to follow the ledger as well. Plain SQL.
--
-- A change of a flag is written down first and applied to positions after that, in two transactions. Whoever applies it has
-- to know what the flag covered before, also after a crash in between, and also what it covered for a moment only: rows may
-- have arrived just then. So each change leaves the window that it replaces here, until positions follow the change.

CREATE TABLE IF NOT EXISTS position_flag_windows (
    flag_id uuid        NOT NULL,
    -- The change that replaced the window.
    seq     bigint      NOT NULL,
    imei    bigint      NOT NULL,
    ts_from timestamptz NOT NULL,
    ts_to   timestamptz NOT NULL,
    CONSTRAINT position_flag_windows_pkey PRIMARY KEY (flag_id, seq)
);

-- IF NOT EXISTS is also content with a table of that name made by somebody else.
DO $$
DECLARE
    missing text[];
BEGIN
    SELECT array_agg(e.definition) INTO missing
    FROM unnest(string_to_array('flag_id uuid,seq bigint,imei bigint,ts_from timestamp with time zone,'
        'ts_to timestamp with time zone', ',')) AS e (definition)
    WHERE e.definition NOT IN (
        SELECT attname || ' ' || format_type(atttypid, atttypmod) FROM pg_attribute
        WHERE attrelid = 'position_flag_windows'::regclass AND attnum > 0 AND NOT attisdropped);
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'table position_flag_windows is not odograph''s: it lacks %', array_to_string(missing, ', ');
    END IF;
    IF NOT EXISTS (
        SELECT FROM pg_constraint WHERE conrelid = 'position_flag_windows'::regclass AND contype = 'p'
            AND pg_get_constraintdef(oid) = 'PRIMARY KEY (flag_id, seq)')
    THEN
        RAISE EXCEPTION 'table position_flag_windows is not odograph''s: it lacks PRIMARY KEY (flag_id, seq)';
    END IF;
END $$;
