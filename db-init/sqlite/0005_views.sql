-- Views for people, see db-init/0006_views.sql: the IMEI as its 15 digits, times as text, and every element under its name,
-- scaled and with its unit. Booleans stay 0 and 1. A number above 2^63 loses its last digits here, and keeps them in io.

CREATE VIEW positions_named AS
SELECT printf('%015d', p.imei) AS imei, p.imei AS imei_number,
    strftime('%Y-%m-%dT%H:%M:%fZ', p.ts / 1000.0, 'unixepoch') AS ts, p.ts AS ts_ms, p.fingerprint, p.longitude, p.latitude,
    p.altitude_m, p.angle_deg, p.speed_kmh, p.satellites, p.priority, p.codec, p.generation_type, p.event_io_id,
    (SELECT d.label FROM io_elements AS d WHERE d.id = p.event_io_id) AS event, p.valid, p.faulty,
    strftime('%Y-%m-%dT%H:%M:%fZ', p.received_at / 1000000.0, 'unixepoch') AS received_at,
    p.ignition, p.movement, p.instant_movement, p.digital_input_1, p.digital_input_2, p.digital_output_1,
    p.analog_input_1_mv, p.external_voltage_mv, p.battery_voltage_mv, p.battery_current_ma, p.battery_level_pct,
    p.total_odometer_m, p.trip_odometer_m, p.io_speed_kmh, p.gsm_signal, p.gsm_operator, p.gsm_cell_id,
    p.gsm_area_code, p.gnss_status, p.pdop, p.hdop, p.data_mode, p.sleep_mode, p.axis_x_mg, p.axis_y_mg, p.axis_z_mg,
    (SELECT json_group_object(e.label, json_object('value', e.value, 'unit', e.unit))
        FROM (
            SELECT d.label, d.unit, CASE WHEN d.column_multiplier = 1 THEN c.value
                -- 15 digits: what doubles add behind them is none of the value.
                ELSE CAST(printf('%.15g', c.value * d.column_multiplier) AS REAL) END AS value
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
            )) AS c JOIN io_elements AS d ON d.column_name = c.key
            WHERE c.value IS NOT NULL
            UNION ALL
            SELECT coalesce(d.label, 'element ' || i.key), CASE WHEN d.column_name IS NULL THEN d.unit END, CASE
                WHEN d.id IS NULL OR d.column_name IS NOT NULL THEN i.value
                WHEN i.type <> 'text' AND d.kind = 'signed' AND i.value >= 1 << (8 * d.width - 1)
                THEN CAST(printf('%.15g', (i.value - (1 << (8 * d.width))) * d.multiplier) AS REAL)
                WHEN i.type <> 'text' AND d.multiplier <> 1
                THEN CAST(printf('%.15g', i.value * d.multiplier) AS REAL)
                -- Printable ASCII, the only text there is; zeros fill it up to its length.
                WHEN d.kind = 'text' AND length(rtrim(i.value, '0')) > 0
                    AND CAST(unhex(substr(i.value, 1, (length(rtrim(i.value, '0')) + 1) / 2 * 2)) AS TEXT) NOT GLOB '*[^ -~]*'
                THEN CAST(unhex(substr(i.value, 1, (length(rtrim(i.value, '0')) + 1) / 2 * 2)) AS TEXT)
                ELSE i.value END
            FROM json_each(p.io) AS i LEFT JOIN io_elements AS d ON d.id = CAST(i.key AS INTEGER)
        ) AS e) AS elements
FROM positions AS p;

CREATE VIEW latest_named AS
SELECT printf('%015d', p.imei) AS imei, p.imei AS imei_number,
    strftime('%Y-%m-%dT%H:%M:%fZ', p.ts / 1000.0, 'unixepoch') AS ts, p.ts AS ts_ms, p.fingerprint, p.longitude, p.latitude,
    p.altitude_m, p.angle_deg, p.speed_kmh, p.satellites, p.priority, p.codec, p.generation_type, p.event_io_id,
    (SELECT d.label FROM io_elements AS d WHERE d.id = p.event_io_id) AS event, p.valid, p.faulty,
    strftime('%Y-%m-%dT%H:%M:%fZ', p.received_at / 1000000.0, 'unixepoch') AS received_at,
    p.ignition, p.movement, p.instant_movement, p.digital_input_1, p.digital_input_2, p.digital_output_1,
    p.analog_input_1_mv, p.external_voltage_mv, p.battery_voltage_mv, p.battery_current_ma, p.battery_level_pct,
    p.total_odometer_m, p.trip_odometer_m, p.io_speed_kmh, p.gsm_signal, p.gsm_operator, p.gsm_cell_id,
    p.gsm_area_code, p.gnss_status, p.pdop, p.hdop, p.data_mode, p.sleep_mode, p.axis_x_mg, p.axis_y_mg, p.axis_z_mg,
    (SELECT json_group_object(e.label, json_object('value', e.value, 'unit', e.unit))
        FROM (
            SELECT d.label, d.unit, CASE WHEN d.column_multiplier = 1 THEN c.value
                -- 15 digits: what doubles add behind them is none of the value.
                ELSE CAST(printf('%.15g', c.value * d.column_multiplier) AS REAL) END AS value
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
            )) AS c JOIN io_elements AS d ON d.column_name = c.key
            WHERE c.value IS NOT NULL
            UNION ALL
            SELECT coalesce(d.label, 'element ' || i.key), CASE WHEN d.column_name IS NULL THEN d.unit END, CASE
                WHEN d.id IS NULL OR d.column_name IS NOT NULL THEN i.value
                WHEN i.type <> 'text' AND d.kind = 'signed' AND i.value >= 1 << (8 * d.width - 1)
                THEN CAST(printf('%.15g', (i.value - (1 << (8 * d.width))) * d.multiplier) AS REAL)
                WHEN i.type <> 'text' AND d.multiplier <> 1
                THEN CAST(printf('%.15g', i.value * d.multiplier) AS REAL)
                -- Printable ASCII, the only text there is; zeros fill it up to its length.
                WHEN d.kind = 'text' AND length(rtrim(i.value, '0')) > 0
                    AND CAST(unhex(substr(i.value, 1, (length(rtrim(i.value, '0')) + 1) / 2 * 2)) AS TEXT) NOT GLOB '*[^ -~]*'
                THEN CAST(unhex(substr(i.value, 1, (length(rtrim(i.value, '0')) + 1) / 2 * 2)) AS TEXT)
                ELSE i.value END
            FROM json_each(p.io) AS i LEFT JOIN io_elements AS d ON d.id = CAST(i.key AS INTEGER)
        ) AS e) AS elements
FROM latest_positions AS p;
