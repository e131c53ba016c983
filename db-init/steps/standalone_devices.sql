-- For those without Directus, and only when `odograph migrate --standalone-devices` asks for it: the least that `devices`
-- has to have. A table of that name that is there is left alone.

CREATE TABLE IF NOT EXISTS devices (
    id    uuid NOT NULL DEFAULT gen_random_uuid(),
    imei  text NOT NULL,
    model text,
    name  text,
    CONSTRAINT devices_pkey PRIMARY KEY (id),
    CONSTRAINT devices_imei_key UNIQUE (imei),
    CONSTRAINT devices_imei_digits CHECK (imei ~ '^[0-9]{15}$')
);
