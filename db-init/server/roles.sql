-- The two roles of odograph. `odograph_owner` runs `migrate` and owns the tables. `odograph_ingest` runs `serve` and may only
-- read and write rows. Neither is a superuser, and neither has a password yet: set it with ALTER ROLE … PASSWORD.
--
-- Run it as a superuser in odograph's database, after CREATE EXTENSION timescaledb and before the first `migrate`. It is safe
-- to repeat.

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['odograph_owner', 'odograph_ingest'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', name);
        END IF;
    END LOOP;
    EXECUTE format('ALTER DATABASE %I OWNER TO odograph_owner', current_database());
    EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO odograph_ingest', current_database());
END $$;

-- Before PostgreSQL 15 everyone may create functions and operators here, which others then call by accident.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO odograph_owner;
GRANT USAGE ON SCHEMA public TO odograph_ingest;

-- For the tables that `migrate` is going to create.
ALTER DEFAULT PRIVILEGES FOR ROLE odograph_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO odograph_ingest;
ALTER DEFAULT PRIVILEGES FOR ROLE odograph_owner IN SCHEMA public GRANT USAGE ON SEQUENCES TO odograph_ingest;
