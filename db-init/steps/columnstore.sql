-- Chunks older than a week become columns, if this build of TimescaleDB supports it: the community build does, the Apache
-- build (such as Debian's) does not. What the operator has set up already stays as it is.
--
-- Segmented by device, so that a query for one device reads only its own segments. Ordered by time. The fingerprint is
-- named too because it is part of the key, and a key is checked only by columns that the columnstore can look up.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')
        OR current_setting('timescaledb.license', true) IS DISTINCT FROM 'timescale'
    THEN
        RETURN;
    END IF;
    IF NOT EXISTS (SELECT FROM timescaledb_information.hypertables
        WHERE format('%I.%I', hypertable_schema, hypertable_name)::regclass = 'positions'::regclass
            AND NOT compression_enabled)
    THEN
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM pg_proc WHERE proname = 'add_columnstore_policy') THEN
        -- TimescaleDB 2.18 or later.
        EXECUTE $sql$ALTER TABLE positions SET (timescaledb.enable_columnstore,
            timescaledb.segmentby = 'imei', timescaledb.orderby = 'ts, fingerprint')$sql$;
        EXECUTE $sql$CALL add_columnstore_policy('positions', after => INTERVAL '7 days', if_not_exists => true)$sql$;
    ELSE
        EXECUTE $sql$ALTER TABLE positions SET (timescaledb.compress,
            timescaledb.compress_segmentby = 'imei', timescaledb.compress_orderby = 'ts, fingerprint')$sql$;
        PERFORM add_compression_policy('positions', compress_after => INTERVAL '7 days', if_not_exists => true);
    END IF;
    IF NOT EXISTS (SELECT FROM timescaledb_information.hypertables
        WHERE format('%I.%I', hypertable_schema, hypertable_name)::regclass = 'positions'::regclass
            AND compression_enabled)
    THEN
        RAISE EXCEPTION 'the columnstore was switched on for positions and is not on';
    END IF;
END $$;
