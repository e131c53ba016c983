    (SELECT json_group_object(f.label, CASE WHEN f.fault IS NULL THEN json_object('value', f.value, 'unit', f.unit)
            ELSE json_object('value', NULL, 'unit', f.unit, 'fault', f.fault, 'raw', f.raw) END)
        FROM (SELECT coalesce(r.label, 'element ' || r.id) AS label, r.unit, r.raw,
            coalesce(json_extract(r.faults, '$."' || r.raw || '"'),
                CASE WHEN r.raw < r.minimum OR r.raw > r.maximum THEN 'out of range' END) AS fault,
            CASE
            -- As text: most readers of JSON would lose digits beyond 2^53.
            WHEN r.raw IS NOT NULL AND r.multiplier = 1 AND abs(r.raw) > 9007199254740992
            THEN CASE r.type WHEN 'array' THEN CAST(r.raw AS TEXT) ELSE r.digits END
            WHEN r.raw IS NOT NULL AND r.multiplier = 1 THEN r.raw
            -- 15 digits: what doubles add behind them is none of the value.
            WHEN r.raw IS NOT NULL THEN CAST(printf('%.15g', r.raw * r.multiplier) AS REAL)
            WHEN r.hex IS NOT NULL AND r.kind = 'id' THEN r.hex
            WHEN r.hex IS NOT NULL THEN substr(r.hex, 15, 2) || substr(r.hex, 13, 2) || substr(r.hex, 11, 2)
                || substr(r.hex, 9, 2) || substr(r.hex, 7, 2) || substr(r.hex, 5, 2) || substr(r.hex, 3, 2) || substr(r.hex, 1, 2)
            -- Printable ASCII, the only text there is; zeros fill it up to its length.
            WHEN r.kind = 'text' AND r.type = 'text' AND length(rtrim(r.value, '0')) > 0
                AND CAST(unhex(substr(r.value, 1, (length(rtrim(r.value, '0')) + 1) / 2 * 2)) AS TEXT) NOT GLOB '*[^ -~]*'
                -- A text ends at its first zero here.
                AND length(CAST(unhex(substr(r.value, 1, (length(rtrim(r.value, '0')) + 1) / 2 * 2)) AS TEXT))
                    = (length(rtrim(r.value, '0')) + 1) / 2
            THEN CAST(unhex(substr(r.value, 1, (length(rtrim(r.value, '0')) + 1) / 2 * 2)) AS TEXT)
            WHEN r.type IN ('integer', 'real') AND r.value > 9007199254740992 THEN r.digits
            ELSE r.value END AS value
            FROM (SELECT s.id, s.value, s.type, s.digits, d.label, d.unit, d.kind, d.multiplier, d.faults, d.minimum, d.maximum,
                CASE
                WHEN d.multiplier IS NULL THEN NULL
                WHEN s.type = 'array' THEN json_extract(s.value, '$[0]')
                WHEN s.type NOT IN ('integer', 'real') THEN NULL
                WHEN s.typed THEN CAST(round(s.value * d.column_multiplier / d.multiplier) AS INTEGER)
                WHEN d.kind = 'signed' AND s.value >= 1 << (8 * d.width - 1) THEN s.value - (1 << (8 * d.width))
                ELSE s.value END AS raw,
                CASE WHEN d.kind IN ('id', 'id_reversed') AND s.type IN ('integer', 'real') THEN printf('%016X', CASE typeof(s.value)
                    WHEN 'integer' THEN s.value
                    -- From 2^63 on it is no integer here: its digits less 2^64.
                    ELSE (CAST(substr(s.digits, 1, length(s.digits) - 10) AS INTEGER) - 922337204) * 10000000000
                        + CAST(substr(s.digits, -10) AS INTEGER) + 3145224192 - 9223372036854775807 - 1 END) END AS hex
                FROM (SELECT k.id AS id, c.value AS value, c.type AS type, NULL AS digits, 1 AS typed
                    FROM json_each(json_object(
                'ignition', p.ignition, 'movement', p.movement, 'instant_movement', p.instant_movement,
                'digital_input_1', p.digital_input_1, 'digital_input_2', p.digital_input_2,
                'digital_output_1', p.digital_output_1, 'analog_input_1_mv', p.analog_input_1_mv,
                'external_voltage_mv', p.external_voltage_mv, 'battery_voltage_mv', p.battery_voltage_mv,
                'battery_current_ma', p.battery_current_ma, 'battery_level_pct', p.battery_level_pct,
                'total_odometer_m', p.total_odometer_m, 'trip_odometer_m', p.trip_odometer_m,
                'io_speed_kmh', p.io_speed_kmh, 'gsm_signal', p.gsm_signal, 'gsm_operator', p.gsm_operator,
                'gsm_cell_id', p.gsm_cell_id, 'gsm_area_code', p.gsm_area_code, 'gnss_status', p.gnss_status,
                'pdop', p.pdop, 'hdop', p.hdop, 'data_mode', p.data_mode, 'sleep_mode', p.sleep_mode,
                'axis_x_mg', p.axis_x_mg, 'axis_y_mg', p.axis_y_mg, 'axis_z_mg', p.axis_z_mg
                    )) AS c JOIN io_elements AS k ON k.column_name = c.key
                    WHERE c.value IS NOT NULL
                    UNION ALL
                    SELECT CAST(i.key AS INTEGER), i.value, i.type, p.io -> ('$."' || i.key || '"'), 0
                    FROM json_each(p.io) AS i) AS s LEFT JOIN io_elements AS d ON d.id = s.id) AS r) AS f) AS elements
