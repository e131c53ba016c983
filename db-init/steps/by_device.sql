-- positions_by_device: positions_named joined with the device. Created once the table `devices` exists. That table
-- belongs to Directus; this only reads it.
--
-- The view takes each row of devices whole, as JSON. If it named columns, Directus could not change them: it alters a
-- column's type even if only its notes are edited, and PostgreSQL refuses that for a column of a view.

DO $$
BEGIN
    IF to_regclass('devices') IS NULL THEN
        RETURN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_attribute
        WHERE attrelid = 'devices'::regclass AND attname = 'imei' AND attnum > 0 AND NOT attisdropped)
    THEN
        RAISE EXCEPTION 'table devices has no column imei';
    END IF;
    -- An existing view stays as it is, together with the privileges on it.
    IF to_regclass('positions_by_device') IS NULL THEN
        EXECUTE $view$
            CREATE VIEW positions_by_device AS
            SELECT p.*, d.device ->> 'model' AS model, d.device
            FROM (SELECT to_jsonb(devices) AS device FROM devices) AS d
            -- Text that is not an IMEI matches nothing.
            JOIN positions_named AS p ON p.imei_number =
                CASE WHEN d.device ->> 'imei' ~ '^[0-9]{15}$' THEN (d.device ->> 'imei')::bigint END
        $view$;
    END IF;
END $$;
