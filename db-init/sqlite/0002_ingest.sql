-- How far each journal is written, what could not become a position, and messages. Times are microseconds since
-- 1970-01-01 UTC; journal ids are their 16 bytes. See db-init/0003_ingest.sql.

CREATE TABLE ingest_checkpoints (
    journal_id      BLOB    NOT NULL,
    lane            INTEGER NOT NULL,
    lanes           INTEGER NOT NULL,
    position        INTEGER NOT NULL,
    tag             INTEGER NOT NULL,
    latest_position INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    PRIMARY KEY (journal_id, lane)
) STRICT;

CREATE TABLE quarantined_records (
    imei         INTEGER NOT NULL,
    digest       BLOB    NOT NULL,
    reason       TEXT    NOT NULL,
    detail       TEXT    NOT NULL,
    received_at  INTEGER NOT NULL,
    journal_id   BLOB    NOT NULL,
    position     INTEGER NOT NULL,
    record_index INTEGER,
    codec        INTEGER NOT NULL,
    bytes        BLOB    NOT NULL,
    seen         INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (imei, digest)
) STRICT;
CREATE INDEX quarantined_records_received_at_idx ON quarantined_records (received_at);

CREATE TABLE device_messages (
    journal_id  BLOB    NOT NULL,
    position    INTEGER NOT NULL,
    imei        INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    codec       INTEGER NOT NULL,
    type        INTEGER NOT NULL,
    bytes       BLOB    NOT NULL,
    text        TEXT,
    PRIMARY KEY (journal_id, position)
) STRICT;
CREATE INDEX device_messages_imei_idx ON device_messages (imei, received_at);
