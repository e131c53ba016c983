-- Positions, and the newest position of each device. Plain SQL: any PostgreSQL from 14 on.
--
-- A record's identity is its device, its device time in milliseconds, and the CRC-32 over its wire bytes: trackers
-- resend records, and do produce two different ones in one millisecond. Everything that is written relies on that key.

CREATE TABLE IF NOT EXISTS positions (
    imei                bigint           NOT NULL,
    ts                  timestamptz      NOT NULL,
    fingerprint         integer          NOT NULL,
    longitude           double precision,
    latitude            double precision,
    altitude_m          smallint,
    angle_deg           integer,
    speed_kmh           integer,
    satellites          smallint,
    priority            smallint,
    codec               smallint,
    generation_type     smallint,
    event_io_id         integer,
    valid               boolean          NOT NULL,
    faulty              boolean          NOT NULL DEFAULT false,
    received_at         timestamptz      NOT NULL,
    -- Typed I/O elements; the element ids stand in src/store/columns.rs.
    ignition            boolean,
    movement            boolean,
    instant_movement    boolean,
    digital_input_1     boolean,
    digital_input_2     boolean,
    digital_output_1    boolean,
    analog_input_1_mv   integer,
    external_voltage_mv integer,
    battery_voltage_mv  integer,
    battery_current_ma  integer,
    battery_level_pct   smallint,
    total_odometer_m    bigint,
    trip_odometer_m     bigint,
    io_speed_kmh        integer,
    gsm_signal          smallint,
    gsm_operator        bigint,
    gsm_cell_id         integer,
    gsm_area_code       integer,
    gnss_status         smallint,
    pdop                real,
    hdop                real,
    data_mode           smallint,
    sleep_mode          smallint,
    axis_x_mg           smallint,
    axis_y_mg           smallint,
    axis_z_mg           smallint,
    -- Every other element, and what does not fit its column: {"id": unsigned integer | "hex"}.
    io                  jsonb,
    CONSTRAINT positions_pkey PRIMARY KEY (imei, ts, fingerprint)
);

-- Rewritten all the time and never grows: half of each page stays free, so that a new version of a row fits beside the
-- old one and needs no index entry (HOT).
CREATE TABLE IF NOT EXISTS latest_positions (
    LIKE positions,
    CONSTRAINT latest_positions_pkey PRIMARY KEY (imei)
) WITH (fillfactor = 50);

-- IF NOT EXISTS is also content with a table of that name made by somebody else.
DO $$
DECLARE
    expected constant text[] := string_to_array(
        'imei bigint,ts timestamp with time zone,fingerprint integer,longitude double precision,'
        'latitude double precision,altitude_m smallint,angle_deg integer,speed_kmh integer,satellites smallint,'
        'priority smallint,codec smallint,generation_type smallint,event_io_id integer,valid boolean,faulty boolean,'
        'received_at timestamp with time zone,ignition boolean,movement boolean,instant_movement boolean,'
        'digital_input_1 boolean,digital_input_2 boolean,digital_output_1 boolean,analog_input_1_mv integer,'
        'external_voltage_mv integer,battery_voltage_mv integer,battery_current_ma integer,battery_level_pct smallint,'
        'total_odometer_m bigint,trip_odometer_m bigint,io_speed_kmh integer,gsm_signal smallint,gsm_operator bigint,'
        'gsm_cell_id integer,gsm_area_code integer,gnss_status smallint,pdop real,hdop real,data_mode smallint,'
        'sleep_mode smallint,axis_x_mg smallint,axis_y_mg smallint,axis_z_mg smallint,io jsonb', ',');
    wanted record;
    missing text[];
BEGIN
    FOR wanted IN
        SELECT * FROM (VALUES
            ('positions'::regclass, 'PRIMARY KEY (imei, ts, fingerprint)'),
            ('latest_positions'::regclass, 'PRIMARY KEY (imei)')) AS tables (name, key)
    LOOP
        SELECT array_agg(e.definition) INTO missing
        FROM unnest(expected) AS e (definition)
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
