-- How many records a device has in quarantine for an hour is asked whenever another one comes: at most
-- ODOGRAPH_QUARANTINE_MAX_PER_HOUR of them are kept. Plain SQL.

CREATE INDEX IF NOT EXISTS quarantined_records_imei_idx ON quarantined_records (imei, received_at);
