-- See db-init/steps/standalone_devices.sql.

CREATE TABLE IF NOT EXISTS devices (
    id    TEXT NOT NULL PRIMARY KEY DEFAULT (lower(hex(randomblob(16)))),
    imei  TEXT NOT NULL UNIQUE CHECK (length(imei) = 15 AND imei NOT GLOB '*[^0-9]*'),
    model TEXT,
    name  TEXT
) STRICT;
