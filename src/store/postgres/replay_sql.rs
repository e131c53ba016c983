//! The text of the statements that compare and replace rows that were decoded again.

use std::sync::LazyLock;

use crate::store::model::column_set::{decoded_columns, decoded_of};

/// $1 first instant, $2 last instant. The rows of `incoming` that are not stored like this.
pub(crate) static CHANGED_ROWS: LazyLock<String> = LazyLock::new(|| {
    let joined = joined();
    format!("SELECT i.imei, i.ts, i.fingerprint, p.imei IS NULL{joined} AND (p.imei IS NULL OR {})", differs())
});
/// The same parameters. How many rows are missing, how many differ, and how many differ in each decoded column.
pub(crate) static COUNT_CHANGED: LazyLock<String> = LazyLock::new(|| {
    let column =
        |name: &&str| format!("count(*) FILTER (WHERE p.imei IS NOT NULL AND p.{name} IS DISTINCT FROM i.{name})");
    let columns: Vec<_> = decoded_columns().iter().map(column).collect();
    format!(
        "SELECT count(*) FILTER (WHERE p.imei IS NULL), count(*) FILTER (WHERE p.imei IS NOT NULL AND {}), {}{}",
        differs(),
        columns.join(", "),
        joined()
    )
});
/// The same parameters, and $3 how many. Some stored rows that differ, both versions as JSON.
pub(crate) static EXAMPLES: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT i.imei, i.ts, i.fingerprint, to_jsonb(p)::text, to_jsonb(i)::text{} AND p.imei IS NOT NULL AND {} LIMIT $3",
        joined(),
        differs()
    )
});

fn joined() -> &'static str {
    " FROM incoming i LEFT JOIN positions p ON p.imei = i.imei AND p.ts = i.ts AND p.fingerprint = i.fingerprint \
         AND p.ts >= $1 AND p.ts <= $2 \
     WHERE i.ts >= $1 AND i.ts <= $2"
}

fn differs() -> String {
    format!("({}) IS DISTINCT FROM ({})", decoded_of("p"), decoded_of("i"))
}

/// $1 journal. Needs no lock: a lane only goes forward, or back with the whole database.
pub(crate) const LANE_POSITIONS: &str =
    "SELECT lane, lanes, position FROM ingest_checkpoints WHERE journal_id = $1 ORDER BY lane";

/// $1 devices. Those that have something in quarantine.
pub(crate) const HAS_QUARANTINE: &str = "SELECT d.imei FROM unnest($1::bigint[]) AS d (imei) \
     WHERE EXISTS (SELECT FROM quarantined_records q WHERE q.imei = d.imei)";
/// $1 devices, $2 digests.
pub(crate) const RESOLVE: &str = "DELETE FROM quarantined_records q \
     USING unnest($1::bigint[], $2::bytea[]) AS r (imei, digest) WHERE q.imei = r.imei AND q.digest = r.digest";
/// $1 devices, $2 digests. How many of them exist.
pub(crate) const RESOLVED: &str = "SELECT count(DISTINCT (q.imei, q.digest)) FROM quarantined_records q \
     JOIN unnest($1::bigint[], $2::bytea[]) AS r (imei, digest) ON q.imei = r.imei AND q.digest = r.digest";
/// $1 device, $2 time, $3 fingerprint, $4 digest. Whether the record is in the table or in quarantine.
pub(crate) const IS_KEPT: &str = "SELECT EXISTS ( \
         SELECT FROM positions WHERE imei = $1 AND ts = $2 AND fingerprint = $3) \
     OR EXISTS (SELECT FROM quarantined_records WHERE imei = $1 AND digest = $4)";

/// $1 devices, each once. Those whose positions do not follow a flag yet, in order.
pub(crate) const UNSETTLED: &str = "SELECT DISTINCT u.imei FROM ( \
         SELECT imei FROM position_flag_ledger WHERE applied_seq < seq \
         UNION ALL SELECT imei FROM position_flag_windows) AS u WHERE u.imei = ANY ($1) ORDER BY 1";

/// $1 devices. Takes no lock.
pub(crate) const LATEST_TIMES: &str = "SELECT imei, ts FROM latest_positions WHERE imei = ANY ($1)";
/// $1 devices, $2 times, $3 fingerprints. Removes the latest positions that came from these records.
pub(crate) const DROP_REPLACED_LATEST: &str = "DELETE FROM latest_positions l \
     USING unnest($1::bigint[], $2::timestamptz[], $3::integer[]) AS r (imei, ts, fingerprint) \
     WHERE l.imei = r.imei AND l.ts = r.ts AND l.fingerprint = r.fingerprint";
