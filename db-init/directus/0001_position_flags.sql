-- Directus' side of faulty flags, run only by `odograph migrate --directus` and safe to repeat. Needs the collections
-- `devices` and `position_flags`, which belong to Directus.
--
-- A hook of Directus cannot tell what really happened: it fires for changes that are rolled back or refused, and loses
-- those of a process that ends. A trigger stands inside the marshal's transaction. It keeps the state of each flag, for
-- reconciliation, and writes the same into an outbox, from which a hook feeds the Redis stream.
--
-- No trigger or view here names a column of Directus' tables in its definition: Directus alters a column's type even when
-- only its notes are edited, and PostgreSQL refuses that for a column that something depends on.

DO $$
DECLARE
    wanted record;
    found text;
BEGIN
    FOR wanted IN
        SELECT * FROM (VALUES
            ('devices', 'id', '{uuid,integer,bigint}'::text[], 'the primary key'),
            ('devices', 'imei', '{text,"character varying"}', 'type String'),
            ('position_flags', 'id', '{uuid}', 'a primary key of type UUID'),
            ('position_flags', 'device', '{uuid,integer,bigint}', 'a many-to-one field to devices'),
            ('position_flags', 'ts_from', '{"timestamp with time zone"}', 'type Timestamp, not DateTime'),
            ('position_flags', 'ts_to', '{"timestamp with time zone"}', 'type Timestamp, not DateTime'),
            ('position_flags', 'faulty', '{boolean}', 'type Boolean'),
            ('position_flags', 'reason', '{text,"character varying"}', 'type String or Text')
        ) AS columns (table_name, column_name, types, meant)
    LOOP
        IF to_regclass(wanted.table_name) IS NULL THEN
            RAISE EXCEPTION 'there is no table %: make the collection in Directus first', wanted.table_name;
        END IF;
        SELECT regexp_replace(format_type(atttypid, atttypmod), '\(\d+\)', '') INTO found FROM pg_attribute
        WHERE attrelid = to_regclass(wanted.table_name) AND attname = wanted.column_name
            AND attnum > 0 AND NOT attisdropped;
        IF found IS NULL OR found <> ALL (wanted.types) THEN
            RAISE EXCEPTION '%.% is %: it has to be %', wanted.table_name, wanted.column_name,
                coalesce(found, 'missing'), wanted.meant;
        END IF;
    END LOOP;
END $$;

-- One row a flag, deleted ones too: what the ledger is compared with. Nothing is ever removed from it.
CREATE TABLE IF NOT EXISTS position_flag_state (
    flag_id uuid        NOT NULL,
    seq     bigint      NOT NULL,
    imei    bigint      NOT NULL,
    ts_from timestamptz NOT NULL,
    ts_to   timestamptz NOT NULL,
    faulty  boolean     NOT NULL,
    deleted boolean     NOT NULL DEFAULT false,
    reason  text,
    CONSTRAINT position_flag_state_pkey PRIMARY KEY (flag_id)
);

-- What the relay still has to add to the stream, in the order of `id`; `old` and `new` are as the stream has them.
CREATE TABLE IF NOT EXISTS flag_outbox (
    id      bigint      GENERATED ALWAYS AS IDENTITY,
    flag_id uuid        NOT NULL,
    seq     bigint      NOT NULL,
    op      text        NOT NULL,
    old     jsonb,
    new     jsonb,
    at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT flag_outbox_pkey PRIMARY KEY (id),
    CONSTRAINT flag_outbox_op CHECK (op IN ('insert', 'update', 'delete'))
);

-- IF NOT EXISTS is also content with a table of that name made by somebody else.
DO $$
DECLARE
    wanted record;
    missing text[];
BEGIN
    FOR wanted IN
        SELECT * FROM (VALUES
            ('position_flag_state'::regclass,
             'flag_id uuid,seq bigint,imei bigint,ts_from timestamp with time zone,ts_to timestamp with time zone,'
             'faulty boolean,deleted boolean,reason text'),
            ('flag_outbox'::regclass, 'id bigint,flag_id uuid,seq bigint,op text,old jsonb,new jsonb,'
             'at timestamp with time zone')) AS tables (name, columns)
    LOOP
        SELECT array_agg(e.definition) INTO missing
        FROM unnest(string_to_array(wanted.columns, ',')) AS e (definition)
        WHERE e.definition NOT IN (
            SELECT attname || ' ' || format_type(atttypid, atttypmod) FROM pg_attribute
            WHERE attrelid = wanted.name AND attnum > 0 AND NOT attisdropped);
        IF missing IS NOT NULL THEN
            RAISE EXCEPTION 'table % is not odograph''s: it lacks %', wanted.name, array_to_string(missing, ', ');
        END IF;
    END LOOP;
END $$;

-- Checks, for what is written from now on: rows that are there already are not looked at, so that this can be installed.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = 'devices'::regclass AND conname = 'devices_imei_digits') THEN
        ALTER TABLE devices ADD CONSTRAINT devices_imei_digits CHECK (imei ~ '^[0-9]{15}$') NOT VALID;
    END IF;
    IF NOT EXISTS (
        SELECT FROM pg_constraint WHERE conrelid = 'position_flags'::regclass AND conname = 'position_flags_window')
    THEN
        ALTER TABLE position_flags ADD CONSTRAINT position_flags_window CHECK (
            ts_from IS NOT NULL AND ts_to IS NOT NULL AND faulty IS NOT NULL AND ts_from <= ts_to
            AND ts_from >= '1970-01-01 00:00:00+00' AND ts_to < '10000-01-01 00:00:00+00') NOT VALID;
    END IF;
END $$;

-- The functions name their tables and types with the schema, and search no other: a caller's temporary table with the
-- name of one of ours would be found first otherwise, and its triggers would run with our rights. The schema is the one
-- that the tables are in, so the definitions are texts with names to fill in.
DO $install$
DECLARE
    qualified constant text := 'SELECT format(''%I.%I'', n.nspname, c.relname) FROM pg_class AS c
        JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = $1';
    home      text;
    state     text;
    outbox    text;
    devices   text;
    flags     text;
    search    text;
    statement text;
BEGIN
    SELECT quote_ident(n.nspname) INTO home FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.oid = 'position_flag_state'::regclass;
    EXECUTE qualified INTO state USING 'position_flag_state'::regclass;
    EXECUTE qualified INTO outbox USING 'flag_outbox'::regclass;
    EXECUTE qualified INTO devices USING 'devices'::regclass;
    EXECUTE qualified INTO flags USING 'position_flags'::regclass;
    search := format('pg_catalog, %s, pg_temp', home);

    FOREACH statement IN ARRAY ARRAY[
-- A window as the stream has it: milliseconds, because neither positions nor Directus have anything finer.
$definition$
CREATE OR REPLACE FUNCTION {home}.odograph_flag_json(state {state}, by_user text) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = {search} AS $$
    SELECT jsonb_build_object(
        'imei', lpad(state.imei::text, 15, '0'),
        'ts_from', to_char(state.ts_from AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
        'ts_to', to_char(state.ts_to AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
        'faulty', state.faulty, 'reason', state.reason, 'user', by_user)
$$
$definition$,

-- Runs with the rights of who installed it: the role that Directus uses needs none on these tables.
$definition$
CREATE OR REPLACE FUNCTION {home}.odograph_flag_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {search} AS $$
DECLARE
    before  {state};
    after   {state};
    digits  text;
    changed jsonb := to_jsonb(CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END);
    by_user text := coalesce(changed ->> 'user_updated', changed ->> 'user_created');
BEGIN
    IF TG_RELID <> '{flags}'::regclass THEN
        RAISE EXCEPTION 'only position_flags may announce flags' USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF TG_OP = 'UPDATE' AND NEW.id <> OLD.id THEN
        RAISE EXCEPTION 'a flag keeps its id';
    END IF;
    -- Locked: two changes of a flag come one after the other, even if one deletes the flag and the other inserts it again.
    SELECT * INTO before FROM {state} WHERE flag_id = (changed ->> 'id')::uuid FOR UPDATE;
    after := before;
    after.flag_id := (changed ->> 'id')::uuid;
    IF TG_OP = 'DELETE' THEN
        IF before.flag_id IS NULL THEN
            -- Never valid, so never announced.
            RETURN OLD;
        END IF;
        after.deleted := true;
    ELSE
        -- The device's IMEI as it is now. An edit of a flag leaves it: the flag is about what was recorded then, also if
        -- the device has another tracker since, or is gone.
        IF before.flag_id IS NULL OR before.deleted OR TG_OP = 'INSERT'
            OR (NEW.device IS NOT NULL AND NEW.device IS DISTINCT FROM OLD.device)
        THEN
            SELECT imei INTO digits FROM {devices} WHERE id = NEW.device;
            IF digits IS NULL OR digits !~ '^[0-9]{15}$' THEN
                RAISE EXCEPTION 'the flag''s device has no IMEI of 15 digits' USING ERRCODE = 'check_violation';
            END IF;
            after.imei := digits::bigint;
        END IF;
        after.ts_from := date_trunc('milliseconds', NEW.ts_from);
        after.ts_to := date_trunc('milliseconds', NEW.ts_to);
        after.faulty := NEW.faulty;
        after.reason := NEW.reason;
        after.deleted := false;
    END IF;
    after.seq := before.seq;
    IF after IS NOT DISTINCT FROM before THEN
        RETURN NULL;
    END IF;
    after.seq := greatest(coalesce(before.seq, 0) + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);
    INSERT INTO {state} SELECT after.*
    ON CONFLICT (flag_id) DO UPDATE SET seq = excluded.seq, imei = excluded.imei, ts_from = excluded.ts_from,
        ts_to = excluded.ts_to, faulty = excluded.faulty, deleted = excluded.deleted, reason = excluded.reason;
    INSERT INTO {outbox} (flag_id, seq, op, old, new) VALUES (after.flag_id, after.seq, lower(TG_OP),
        CASE WHEN before.flag_id IS NOT NULL AND NOT before.deleted THEN {home}.odograph_flag_json(before, NULL) END,
        CASE WHEN TG_OP <> 'DELETE' THEN {home}.odograph_flag_json(after, by_user) END);
    NOTIFY flag_outbox;
    RETURN NULL;
END $$
$definition$,

-- TRUNCATE fires no trigger per row, so flags that nobody sees any more would stay in force.
$definition$
CREATE OR REPLACE FUNCTION {home}.odograph_flags_truncated() RETURNS trigger
LANGUAGE plpgsql SET search_path = {search} AS $$
BEGIN
    RAISE EXCEPTION 'TRUNCATE would leave the flags in force: use DELETE FROM position_flags';
END $$
$definition$,

-- Anyone who admits only registered devices listens on `devices`.
$definition$
CREATE OR REPLACE FUNCTION {home}.odograph_devices_changed() RETURNS trigger
LANGUAGE plpgsql SET search_path = {search} AS $$
BEGIN
    NOTIFY devices;
    RETURN NULL;
END $$
$definition$,

-- Anyone who may execute a trigger function may put it on a table of their own, and announce flags that are not there.
-- Firing a trigger takes no privilege.
'REVOKE ALL ON FUNCTION {home}.odograph_flag_changed() FROM PUBLIC',
'CREATE OR REPLACE TRIGGER odograph_flag_changed AFTER INSERT OR UPDATE OR DELETE ON {flags}
    FOR EACH ROW EXECUTE FUNCTION {home}.odograph_flag_changed()',
'CREATE OR REPLACE TRIGGER odograph_flags_truncated BEFORE TRUNCATE ON {flags}
    FOR EACH STATEMENT EXECUTE FUNCTION {home}.odograph_flags_truncated()',
'CREATE OR REPLACE TRIGGER odograph_devices_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON {devices}
    FOR EACH STATEMENT EXECUTE FUNCTION {home}.odograph_devices_changed()'
    ] LOOP
        statement := replace(replace(statement, '{home}', home), '{search}', search);
        statement := replace(replace(statement, '{state}', state), '{outbox}', outbox);
        EXECUTE replace(replace(statement, '{devices}', devices), '{flags}', flags);
    END LOOP;
END $install$;

-- Flags that were there before the trigger. Those that break the checks are left out, and come once somebody mends them.
INSERT INTO position_flag_state (flag_id, seq, imei, ts_from, ts_to, faulty, reason)
SELECT f.id, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, d.imei::bigint,
    date_trunc('milliseconds', f.ts_from), date_trunc('milliseconds', f.ts_to), f.faulty, f.reason
FROM position_flags AS f JOIN devices AS d ON d.id = f.device
WHERE d.imei ~ '^[0-9]{15}$' AND f.faulty IS NOT NULL AND f.ts_from <= f.ts_to
    AND f.ts_from >= '1970-01-01 00:00:00+00' AND f.ts_to < '10000-01-01 00:00:00+00'
ON CONFLICT (flag_id) DO NOTHING;
