-- For installations without Directus, and only with `odograph migrate --standalone-devices`: the columns that `devices`
-- needs at least. An existing table of that name keeps its columns and rows.

CREATE TABLE IF NOT EXISTS devices (
    id    uuid NOT NULL DEFAULT gen_random_uuid(),
    imei  text NOT NULL,
    model text,
    name  text,
    CONSTRAINT devices_pkey PRIMARY KEY (id),
    CONSTRAINT devices_imei_key UNIQUE (imei),
    CONSTRAINT devices_imei_digits CHECK (imei ~ '^[0-9]{15}$')
);

-- A service that admits only registered devices listens on `devices`. No trigger on another owner's table.
CREATE OR REPLACE FUNCTION odograph_devices_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NOTIFY devices;
    RETURN NULL;
END $$;
DO $$
BEGIN
    IF (SELECT relkind IN ('r', 'p') AND pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = 'devices'::regclass) THEN
        CREATE OR REPLACE TRIGGER odograph_devices_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON devices
            FOR EACH STATEMENT EXECUTE FUNCTION odograph_devices_changed();
    END IF;
END $$;
