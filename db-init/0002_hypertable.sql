-- Makes positions a hypertable, by device time. Needs TimescaleDB 2.13 or later; any build of it will do. A plain
-- PostgreSQL keeps an ordinary table, with a warning: everything works, and the table is never cut into chunks.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        IF NOT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb') THEN
            RAISE WARNING 'TimescaleDB is not installed on this server: positions stays an ordinary table';
            RETURN;
        END IF;
        -- Without its loader CREATE EXTENSION would end this connection. Only loaded libraries show settings here.
        IF NOT EXISTS (SELECT FROM pg_settings WHERE name LIKE 'timescaledb.%') THEN
            RAISE WARNING 'TimescaleDB is not in shared_preload_libraries: positions stays an ordinary table';
            RETURN;
        END IF;
        -- A role that may not do this gets an error and not the ordinary table: the operator meant to have TimescaleDB.
        CREATE EXTENSION IF NOT EXISTS timescaledb;
    END IF;

    -- One day: the chunks that are written to, and their part of the key's index, should fit in memory together. The
    -- default index on ts alone is left out, it costs every insert; `odograph migrate --index-time` makes a cheap one.
    PERFORM create_hypertable('positions', by_range('ts', INTERVAL '1 day'),
        create_default_indexes => false, if_not_exists => true, migrate_data => true);
END $$;

DO $$
DECLARE
    is_hypertable boolean;
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        SELECT EXISTS (
            SELECT FROM timescaledb_information.hypertables
            WHERE format('%I.%I', hypertable_schema, hypertable_name)::regclass = 'positions'::regclass)
        INTO is_hypertable;
        IF NOT is_hypertable THEN
            RAISE EXCEPTION 'TimescaleDB is here, but positions is no hypertable';
        END IF;
    END IF;
END $$;
