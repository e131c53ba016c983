-- What a message says of itself: Codec 13 and 15 carry a time, Codec 14 and 15 the IMEI of the device that they are from, which
-- may be another one than that of the connection. Messages of before have neither. Plain SQL.

ALTER TABLE device_messages
    ADD COLUMN IF NOT EXISTS device_time timestamptz,
    ADD COLUMN IF NOT EXISTS device_imei bigint;

DO $$
DECLARE
    missing text[];
BEGIN
    SELECT array_agg(e.definition) INTO missing
    FROM unnest(string_to_array('device_time timestamp with time zone,device_imei bigint', ',')) AS e (definition)
    WHERE e.definition NOT IN (
        SELECT attname || ' ' || format_type(atttypid, atttypmod) FROM pg_attribute
        WHERE attrelid = 'device_messages'::regclass AND attnum > 0 AND NOT attisdropped);
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'table device_messages is not odograph''s: it lacks %', array_to_string(missing, ', ');
    END IF;
END $$;
