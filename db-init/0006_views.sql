-- Views for people: the IMEI as its 15 digits, and every element under its name, scaled and with its unit.
--
-- `elements` is worked out for each row that is read, and only where it is asked for. Filter by `imei_number`, which the
-- key of positions serves; `imei` is text that no index knows.

DO $$
DECLARE
    -- What a record says about elements: those with a column, and those in io. A signed integer in io has lost its width,
    -- so the vendor's decides. What did not fit its column stays raw and without a unit: it is another element.
    elements constant text := $view$(
        SELECT jsonb_object_agg(e.label, jsonb_build_object('value', e.value, 'unit', e.unit))
        FROM (
            SELECT d.label, d.unit, CASE jsonb_typeof(c.value)
                WHEN 'number' THEN to_jsonb(trim_scale((c.value #>> '{}')::numeric * d.column_multiplier))
                ELSE c.value END AS value
            FROM jsonb_each(to_jsonb(p)) AS c JOIN io_elements AS d ON d.column_name = c.key
            WHERE c.value <> 'null'
            UNION ALL
            SELECT coalesce(d.label, 'element ' || i.key), CASE WHEN d.column_name IS NULL THEN d.unit END, CASE
                WHEN d.id IS NULL OR d.column_name IS NOT NULL THEN i.value
                WHEN jsonb_typeof(i.value) = 'number' AND d.multiplier IS NOT NULL THEN to_jsonb(trim_scale(
                    d.multiplier * ((i.value #>> '{}')::numeric - CASE
                        WHEN d.kind = 'signed' AND (i.value #>> '{}')::numeric >= 2::numeric ^ (8 * d.width - 1)
                        THEN 2::numeric ^ (8 * d.width) ELSE 0 END)))
                WHEN d.kind = 'text' AND regexp_replace(i.value #>> '{}', '(00)+$', '') ~ '^([2-6][0-9a-f]|7[0-9a-e])+$'
                THEN to_jsonb(convert_from(decode(regexp_replace(i.value #>> '{}', '(00)+$', ''), 'hex'), 'UTF8'))
                ELSE i.value END
            FROM jsonb_each(p.io) AS i LEFT JOIN io_elements AS d ON d.id = i.key::integer
        ) AS e)$view$;
    typed text;
    named record;
BEGIN
    SELECT string_agg('p.' || a.attname, ', ' ORDER BY a.attnum) INTO typed
    FROM pg_attribute AS a JOIN io_elements AS d ON d.column_name = a.attname
    WHERE a.attrelid = 'positions'::regclass AND a.attnum > 0 AND NOT a.attisdropped;
    FOR named IN SELECT * FROM (VALUES ('positions_named', 'positions'), ('latest_named', 'latest_positions')) AS v (name, source)
    LOOP
        EXECUTE format(
            'CREATE OR REPLACE VIEW %I AS SELECT lpad(p.imei::text, 15, ''0'') AS imei, p.imei AS imei_number, p.ts, '
            'p.fingerprint, p.longitude, p.latitude, p.altitude_m, p.angle_deg, p.speed_kmh, p.satellites, p.priority, '
            'p.codec, p.generation_type, p.event_io_id, '
            '(SELECT d.label FROM io_elements AS d WHERE d.id = p.event_io_id) AS event, '
            'p.valid, p.faulty, p.received_at, %s, %s AS elements FROM %I AS p',
            named.name, typed, elements, named.source);
    END LOOP;
END $$;

DO $$
DECLARE
    missing text[];
BEGIN
    SELECT array_agg(v.name || '.' || c.name) INTO missing
    FROM unnest(ARRAY['positions_named', 'latest_named']) AS v (name),
        unnest(ARRAY['imei', 'imei_number', 'ts', 'event', 'elements']) AS c (name)
    WHERE NOT EXISTS (
        SELECT FROM pg_attribute AS a JOIN pg_class AS r ON r.oid = a.attrelid
        WHERE r.oid = v.name::regclass AND r.relkind = 'v' AND a.attname = c.name);
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'the views are not odograph''s: they lack %', array_to_string(missing, ', ');
    END IF;
END $$;
