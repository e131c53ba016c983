#!/bin/sh
# Runs in the database's container when its volume is new: creates the roles of db-init/server/roles.sql with their passwords.
set -eu
psql --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --set ON_ERROR_STOP=1 --file /odograph/roles.sql
psql --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --set ON_ERROR_STOP=1 \
    --set owner="$ODOGRAPH_OWNER_PASSWORD" --set ingest="$ODOGRAPH_INGEST_PASSWORD" <<'SQL'
ALTER ROLE odograph_owner PASSWORD :'owner';
ALTER ROLE odograph_ingest PASSWORD :'ingest';
SQL
