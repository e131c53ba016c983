
DO $$
DECLARE
    -- What a record says about elements: those with a column, and those in io. `raw` is the number on the wire with its sign.
    -- In io, an unsigned number of a signed element has the vendor's width. Numbers beyond 2^53 are text, because most readers
    -- of JSON would lose digits.
    elements constant text := $view$(
        SELECT jsonb_object_agg(e.label, jsonb_build_object('value', CASE WHEN e.fault IS NULL THEN e.value END, 'unit', e.unit)
            || CASE WHEN e.fault IS NULL THEN '{}'::jsonb ELSE jsonb_build_object('fault', e.fault, 'raw', e.raw) END)
        FROM (
            SELECT coalesce(d.label, 'element ' || s.key) AS label, d.unit, r.raw,
                coalesce(d.faults ->> r.raw::text,
                    CASE WHEN r.raw < d.minimum OR r.raw > d.maximum THEN 'out of range' END) AS fault,
                CASE
                WHEN r.raw IS NOT NULL AND abs(r.raw * d.multiplier) > 9007199254740992
                THEN to_jsonb(trim_scale(r.raw * d.multiplier)::text)
                WHEN r.raw IS NOT NULL THEN to_jsonb(trim_scale(r.raw * d.multiplier))
                WHEN r.hex IS NOT NULL AND d.kind = 'id' THEN to_jsonb(r.hex)
                WHEN r.hex IS NOT NULL THEN to_jsonb(
                    (SELECT string_agg(substr(r.hex, 15 - 2 * g, 2), '' ORDER BY g) FROM generate_series(0, 7) AS g))
                WHEN d.kind = 'text' AND jsonb_typeof(s.value) = 'string'
                    AND regexp_replace(s.value #>> '{}', '(00)+$', '') ~ '^([2-6][0-9a-f]|7[0-9a-e])+$'
                THEN to_jsonb(convert_from(decode(regexp_replace(s.value #>> '{}', '(00)+$', ''), 'hex'), 'UTF8'))
                WHEN n.number > 9007199254740992 THEN to_jsonb(n.number::text)
                ELSE s.value END AS value
            FROM (
                SELECT c.key, c.value, k.id FROM jsonb_each(to_jsonb(p)) AS c JOIN io_elements AS k ON k.column_name = c.key
                WHERE c.value <> 'null'
                UNION ALL
                SELECT i.key, i.value, i.key::integer FROM jsonb_each(p.io) AS i
            ) AS s LEFT JOIN io_elements AS d ON d.id = s.id
            CROSS JOIN LATERAL (SELECT
                CASE WHEN jsonb_typeof(s.value) = 'number' THEN (s.value #>> '{}')::numeric END AS number,
                CASE WHEN jsonb_typeof(s.value) = 'array' THEN (s.value ->> 0)::numeric END AS signed
            ) AS n
            CROSS JOIN LATERAL (SELECT
                CASE
                WHEN d.multiplier IS NULL THEN NULL
                WHEN n.signed IS NOT NULL THEN n.signed
                WHEN s.key = d.column_name THEN trim_scale(round(n.number * d.column_multiplier / d.multiplier))
                WHEN d.kind = 'signed' AND n.number >= 2::numeric ^ (8 * d.width - 1)
                THEN trim_scale(n.number - 2::numeric ^ (8 * d.width))
                ELSE n.number END AS raw,
                CASE WHEN d.kind IN ('id', 'id_reversed') THEN upper(lpad(to_hex(CASE
                    WHEN n.number >= 9223372036854775808 THEN (n.number - 18446744073709551616)::bigint
                    ELSE n.number::bigint END), 16, '0')) END AS hex
            ) AS r
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
