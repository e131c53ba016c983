-- How far each journal is written, what could not become a position, and messages. Plain SQL.

-- One row a lane of a journal, read under its lock at the beginning of every transaction and written at its end: nothing
-- is written twice, nothing by two owners. A copied journal that went another way has the same positions and other tags.
CREATE TABLE IF NOT EXISTS ingest_checkpoints (
    journal_id      uuid        NOT NULL,
    lane            smallint    NOT NULL,
    lanes           smallint    NOT NULL,
    position        bigint      NOT NULL,
    tag             bigint      NOT NULL,
    latest_position bigint      NOT NULL,
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT ingest_checkpoints_pkey PRIMARY KEY (journal_id, lane)
    -- A few rows, each rewritten several times a second.
) WITH (fillfactor = 10);

-- The same bytes of a device stand here once; `seen` counts how often they came. `bytes` is a record as it came on the
-- wire, or the data field of a whole frame where record_index is NULL. `digest` is their SHA-256.
CREATE TABLE IF NOT EXISTS quarantined_records (
    imei         bigint      NOT NULL,
    digest       bytea       NOT NULL,
    reason       text        NOT NULL,
    detail       text        NOT NULL,
    received_at  timestamptz NOT NULL,
    journal_id   uuid        NOT NULL,
    position     bigint      NOT NULL,
    record_index smallint,
    codec        smallint    NOT NULL,
    bytes        bytea       NOT NULL,
    seen         bigint      NOT NULL DEFAULT 1,
    CONSTRAINT quarantined_records_pkey PRIMARY KEY (imei, digest)
);
CREATE INDEX IF NOT EXISTS quarantined_records_received_at_idx ON quarantined_records (received_at);

-- Codec 12 to 15. `text` is NULL where the bytes are no text.
CREATE TABLE IF NOT EXISTS device_messages (
    journal_id  uuid        NOT NULL,
    position    bigint      NOT NULL,
    imei        bigint      NOT NULL,
    received_at timestamptz NOT NULL,
    codec       smallint    NOT NULL,
    type        smallint    NOT NULL,
    bytes       bytea       NOT NULL,
    text        text,
    CONSTRAINT device_messages_pkey PRIMARY KEY (journal_id, position)
);
CREATE INDEX IF NOT EXISTS device_messages_imei_idx ON device_messages (imei, received_at);

-- IF NOT EXISTS is also content with a table of that name made by somebody else.
DO $$
DECLARE
    wanted record;
    missing text[];
BEGIN
    FOR wanted IN
        SELECT * FROM (VALUES
            ('ingest_checkpoints'::regclass, 'PRIMARY KEY (journal_id, lane)',
             'journal_id uuid,lane smallint,lanes smallint,position bigint,tag bigint,latest_position bigint,'
             'updated_at timestamp with time zone'),
            ('quarantined_records'::regclass, 'PRIMARY KEY (imei, digest)',
             'imei bigint,digest bytea,reason text,detail text,received_at timestamp with time zone,journal_id uuid,'
             'position bigint,record_index smallint,codec smallint,bytes bytea,seen bigint'),
            ('device_messages'::regclass, 'PRIMARY KEY (journal_id, "position")',
             'journal_id uuid,position bigint,imei bigint,received_at timestamp with time zone,codec smallint,'
             'type smallint,bytes bytea,text text')) AS tables (name, key, columns)
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
END $$;
