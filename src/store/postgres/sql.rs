//! The text of the statements, for the columns that they fill.

use crate::store::model::column_set::{ColumnSet, decoded_wins, latest_wins};

/// What a statement does. A connection prepares each kind once for each set of columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum StatementKind {
    /// COPY straight into `positions`.
    CopyPositions,
    /// COPY into the table `incoming`: the first half of writing under the key.
    CopyIncoming,
    /// From `incoming` into `positions`: the second half. The key decides row by row.
    InsertPositions,
    /// From `incoming` into `positions` for records that were decoded again: updates the decoded columns of stored
    /// rows.
    RewritePositions,
    /// COPY latest positions into the table `incoming_latest`.
    CopyLatest,
    /// From there into `latest_positions`, only forward in time.
    InsertLatest,
}

impl StatementKind {
    /// The statement for these columns.
    pub(crate) fn text(self, columns: ColumnSet) -> String {
        let names = columns.names();
        match self {
            Self::CopyPositions => format!("COPY positions ({names}) FROM STDIN (FORMAT binary)"),
            Self::CopyIncoming => format!("COPY incoming ({names}) FROM STDIN (FORMAT binary)"),
            // Sorted, so that two writers lock the same rows in the same order. Copies of a record in a batch differ at
            // most in the receive time, and the earliest is kept. The key is named, so that a unique index that the
            // operator added fails loudly.
            Self::InsertPositions => format!(
                "INSERT INTO positions ({names}) SELECT {names} FROM incoming \
                 ORDER BY imei, ts, fingerprint, received_at ON CONFLICT (imei, ts, fingerprint) DO NOTHING"
            ),
            Self::RewritePositions => format!(
                "INSERT INTO positions ({names}) SELECT {names} FROM incoming ORDER BY imei, ts, fingerprint {}",
                decoded_wins("IS DISTINCT FROM")
            ),
            Self::CopyLatest => format!("COPY incoming_latest ({names}) FROM STDIN (FORMAT binary)"),
            // Sorted for the same reason. One row per device, or the statement would fail.
            Self::InsertLatest => format!(
                "INSERT INTO latest_positions ({names}) SELECT DISTINCT ON (imei) {names} FROM incoming_latest \
                 ORDER BY imei, ts DESC, fingerprint DESC {}",
                latest_wins()
            ),
        }
    }
}

/// The tables in which rows land before the keys decide, because COPY cannot skip a row. Each connection has its own.
pub(crate) const CREATE_INCOMING: &str =
    "CREATE TEMPORARY TABLE IF NOT EXISTS incoming (LIKE positions) ON COMMIT DELETE ROWS;
     CREATE TEMPORARY TABLE IF NOT EXISTS incoming_latest (LIKE latest_positions) ON COMMIT DELETE ROWS";

pub(crate) const SERVER_NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
/// $1 the lane's key. Waits at most for the lock timeout. The lock ends with the session.
pub(crate) const LOCK_LANE: &str = "SELECT pg_advisory_lock($1)";
/// $1 journal, $2 lane. Waits for the backend of an earlier attempt to end.
pub(crate) const FENCE: &str = "SELECT lanes, position, tag, latest_position FROM ingest_checkpoints \
     WHERE journal_id = $1 AND lane = $2 FOR UPDATE";
/// What about the tables of a transaction could lose a row silently, if anything. A trigger before each inserted or updated
/// row, or a rule, could drop it; without the key the same row is stored twice; an unlogged table is empty after a crash.
/// The bits of a trigger's type: row 1, before 2, insert 4, update 16.
pub(crate) const SILENT_LOSS: &str = "WITH tables AS (SELECT unnest(ARRAY['positions', 'latest_positions', \
         'ingest_checkpoints', 'quarantined_records', 'device_messages', 'position_flag_ledger']::regclass[]) AS oid) \
     SELECT oid::text || ' has a trigger before each row, or a rule, which could drop rows unseen: drop it' FROM tables \
     WHERE EXISTS (SELECT FROM pg_trigger WHERE tgrelid = tables.oid AND NOT tgisinternal \
             AND tgname <> 'ts_insert_blocker' AND tgtype & 3 = 3 AND tgtype & 20 <> 0 AND tgenabled <> 'D') \
         OR EXISTS (SELECT FROM pg_rewrite WHERE ev_class = tables.oid) \
     UNION ALL \
     SELECT oid::text || ' has no primary key, so resent records would be stored twice: `odograph migrate` names the key' FROM tables \
     WHERE NOT EXISTS (SELECT FROM pg_index WHERE indrelid = tables.oid AND indisprimary AND indisvalid AND indisready) \
     UNION ALL \
     SELECT c.oid::regclass::text || ' is not a permanent table: ALTER TABLE … SET LOGGED' FROM tables \
         JOIN pg_class c ON c.oid = tables.oid WHERE c.relpersistence <> 'p' \
     LIMIT 1";
/// $1 journal, $2 lane, $3 position, $4 tag, $5 latest position.
pub(crate) const CHECKPOINT: &str = "UPDATE ingest_checkpoints \
     SET position = $3, tag = $4, latest_position = $5, updated_at = now() WHERE journal_id = $1 AND lane = $2";

/// Serialises the sessions that read a journal's lanes and may make them again. The lock ends with the transaction.
pub(crate) const LOCK_LANES: &str = "SELECT pg_advisory_xact_lock($1)";
/// $1 journal.
pub(crate) const LANES: &str = "SELECT lane, lanes, position, tag, latest_position FROM ingest_checkpoints \
     WHERE journal_id = $1 ORDER BY lane FOR UPDATE";
/// $1 journal.
pub(crate) const FORGET_LANES: &str = "DELETE FROM ingest_checkpoints WHERE journal_id = $1";
/// $1 journal, $2 lanes, $3 position, $4 tag, $5 latest position.
pub(crate) const MAKE_LANES: &str = "INSERT INTO ingest_checkpoints \
     (journal_id, lane, lanes, position, tag, latest_position) \
     SELECT $1, lane, $2, $3, $4, $5 FROM generate_series(0, $2::smallint - 1) lane";

/// Arrays with one element per record, the same bytes of a device once: $1 imei, $2 reason, $3 detail, $4 received µs,
/// $5 frame, $6 record index, $7 codec, $8 bytes, $9 digest, $10 how often they were received; $11 journal; $12 the
/// maximum number of records per device and hour, or NULL. Returns how many exceeded it. Known bytes only raise their
/// count.
pub(crate) const QUARANTINE: &str = "WITH offered AS MATERIALIZED ( \
         SELECT t.*, t.received_us / 3600000000 AS hour, q.imei IS NOT NULL AS known \
         FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::smallint[], $7::smallint[], \
                     $8::bytea[], $9::bytea[], $10::bigint[]) \
              AS t (imei, reason, detail, received_us, frame, record_index, codec, bytes, digest, seen) \
         LEFT JOIN quarantined_records q ON q.imei = t.imei AND q.digest = t.digest), \
     room AS MATERIALIZED ( \
         SELECT h.imei, h.hour, $12::bigint - (SELECT count(*) FROM ( \
             SELECT FROM quarantined_records q WHERE q.imei = h.imei \
                 AND q.received_at >= timestamptz 'epoch' + h.hour * interval '1 hour' \
                 AND q.received_at < timestamptz 'epoch' + (h.hour + 1) * interval '1 hour' LIMIT $12) AS kept) AS room \
         FROM (SELECT DISTINCT imei, hour FROM offered WHERE NOT known AND $12::bigint IS NOT NULL) AS h), \
     capped AS MATERIALIZED ( \
         SELECT o.*, NOT o.known AND coalesce(row_number() OVER ( \
             PARTITION BY o.imei, o.hour, o.known ORDER BY o.received_us, o.digest) > r.room, false) AS over \
         FROM offered o LEFT JOIN room r ON r.imei = o.imei AND r.hour = o.hour), \
     written AS ( \
         INSERT INTO quarantined_records \
             (imei, digest, reason, detail, received_at, journal_id, position, record_index, codec, bytes, seen) \
         SELECT imei, digest, reason, detail, timestamptz 'epoch' + received_us * interval '1 microsecond', \
                $11, frame, record_index, codec, bytes, seen \
         FROM capped WHERE NOT over ORDER BY imei, digest \
         ON CONFLICT (imei, digest) DO UPDATE SET seen = quarantined_records.seen + excluded.seen) \
     SELECT coalesce(sum(seen), 0)::bigint FROM capped WHERE over";
/// Arrays with one element per message: frame, imei, received µs, codec, type, bytes, text, source, device time ms, device IMEI.
pub(crate) const MESSAGES: &str = "INSERT INTO device_messages \
     (journal_id, position, imei, received_at, codec, type, bytes, text, device_time, device_imei) \
     SELECT source, frame, imei, timestamptz 'epoch' + received_us * interval '1 microsecond', codec, type, bytes, text, \
            timestamptz 'epoch' + time_ms * interval '1 millisecond', device_imei \
     FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::smallint[], $5::smallint[], $6::bytea[], $7::text[], \
                 $8::uuid[], $9::bigint[], $10::bigint[]) \
          AS t (frame, imei, received_us, codec, type, bytes, text, source, time_ms, device_imei) \
     ON CONFLICT (journal_id, position) DO NOTHING";
