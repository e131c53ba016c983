-- See db-init/0008_quarantine_by_device.sql.

CREATE INDEX IF NOT EXISTS quarantined_records_imei_idx ON quarantined_records (imei, received_at);
