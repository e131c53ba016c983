-- What a message says of itself, see db-init/0009_messages.sql: its time in milliseconds, and an IMEI.

ALTER TABLE device_messages ADD COLUMN device_time INTEGER;
ALTER TABLE device_messages ADD COLUMN device_imei INTEGER;
