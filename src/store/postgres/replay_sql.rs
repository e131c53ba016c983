//! The texts of the statements that compare and replace what was decoded again.

use std::sync::LazyLock;

use crate::store::model::column_set::{decoded_columns, decoded_of};

/// $1 and $2 the first and last instant: the rows of `incoming` that do not stand as they are.
pub(crate) static DIFFERING: LazyLock<String> = LazyLock::new(|| {
    let joined = joined();
    format!("SELECT i.imei, i.ts, i.fingerprint, p.imei IS NULL{joined} AND (p.imei IS NULL OR {})", differs())
});
/// The same: how many are missing, how many differ, and how many in each decoded column.
pub(crate) static COUNT_DIFFERING: LazyLock<String> = LazyLock::new(|| {
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
/// The same: some that stand and differ, with both rows as JSON; $3 how many.
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

/// $1 journal. Without a lock: lanes only go forward, or back with the whole database.
pub(crate) const LANES_STAND: &str =
    "SELECT lane, lanes, position FROM ingest_checkpoints WHERE journal_id = $1 ORDER BY lane";

/// $1 devices: those that have something in quarantine.
pub(crate) const HAS_QUARANTINE: &str = "SELECT d.imei FROM unnest($1::bigint[]) AS d (imei) \
     WHERE EXISTS (SELECT FROM quarantined_records q WHERE q.imei = d.imei)";
/// $1 devices, $2 digests.
pub(crate) const RESOLVE: &str = "DELETE FROM quarantined_records q \
     USING unnest($1::bigint[], $2::bytea[]) AS r (imei, digest) WHERE q.imei = r.imei AND q.digest = r.digest";
/// $1 devices, $2 digests: how many there are.
pub(crate) const RESOLVED: &str = "SELECT count(DISTINCT (q.imei, q.digest)) FROM quarantined_records q \
     JOIN unnest($1::bigint[], $2::bytea[]) AS r (imei, digest) ON q.imei = r.imei AND q.digest = r.digest";
/// $1 device, $2 time, $3 fingerprint, $4 digest: whether the record is in the table or in quarantine.
pub(crate) const STANDS_SOMEWHERE: &str = "SELECT EXISTS (SELECT FROM positions WHERE imei = $1 AND ts = $2 AND fingerprint = $3) \
         OR EXISTS (SELECT FROM quarantined_records WHERE imei = $1 AND digest = $4)";

/// $1 devices, each once: those where positions do not follow a flag yet, in order.
pub(crate) const UNSETTLED: &str = "SELECT DISTINCT u.imei FROM ( \
         SELECT imei FROM position_flag_ledger WHERE applied_seq < seq \
         UNION ALL SELECT imei FROM position_flag_windows) AS u WHERE u.imei = ANY ($1) ORDER BY 1";

/// $1 devices: without a lock.
pub(crate) const NEWEST_STANDS: &str = "SELECT imei, ts FROM latest_positions WHERE imei = ANY ($1)";
/// $1 devices, $2 times, $3 fingerprints: removes the newest positions that are of these records.
pub(crate) const DROP_REPLACED_NEWEST: &str = "DELETE FROM latest_positions l \
     USING unnest($1::bigint[], $2::timestamptz[], $3::integer[]) AS r (imei, ts, fingerprint) \
     WHERE l.imei = r.imei AND l.ts = r.ts AND l.fingerprint = r.fingerprint";
