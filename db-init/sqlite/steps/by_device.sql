-- positions_by_device, see db-init/steps/by_device.sql. Run only if the table devices exists.

CREATE VIEW IF NOT EXISTS positions_by_device AS
SELECT p.*, d.model, d.name
FROM devices AS d
JOIN positions_named AS p ON p.imei_number = CAST(d.imei AS INTEGER)
WHERE length(d.imei) = 15 AND d.imei NOT GLOB '*[^0-9]*';
