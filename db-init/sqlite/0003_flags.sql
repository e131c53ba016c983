-- Faulty flags, see db-init/0004_flags.sql. Bounds are milliseconds since 1970-01-01 UTC like positions.ts, applied_at is
-- microseconds like every other time; flag ids are their 16 bytes. One connection writes, so versions come from max + 1.

CREATE TABLE position_flag_ledger (
    flag_id     BLOB    NOT NULL PRIMARY KEY,
    seq         INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    imei        INTEGER,
    ts_from     INTEGER,
    ts_to       INTEGER,
    faulty      INTEGER NOT NULL,
    deleted     INTEGER NOT NULL DEFAULT 0,
    reason      TEXT,
    applied_seq INTEGER NOT NULL DEFAULT 0,
    applied_at  INTEGER,
    CHECK (
        (imei IS NOT NULL AND ts_from IS NOT NULL AND ts_to IS NOT NULL AND ts_from <= ts_to)
        OR (deleted AND imei IS NULL AND ts_from IS NULL AND ts_to IS NULL))
) STRICT;
CREATE INDEX position_flag_ledger_live_idx ON position_flag_ledger (imei, ts_to, ts_from) WHERE faulty AND NOT deleted;
CREATE INDEX position_flag_ledger_version_idx ON position_flag_ledger (version);
CREATE INDEX position_flag_ledger_unapplied_idx ON position_flag_ledger (flag_id) WHERE applied_seq < seq;

CREATE TABLE position_corrections (
    -- AUTOINCREMENT: an id is never used twice, also after its row was sent and deleted.
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    imei      INTEGER NOT NULL,
    ts_from   INTEGER NOT NULL,
    ts_to     INTEGER NOT NULL,
    positions INTEGER NOT NULL,
    flag_id   BLOB    NOT NULL,
    seq       INTEGER NOT NULL
) STRICT;
