//! The texts of the statements about flags: what a drain asks of the ledger, and how a change of a flag is written down and
//! applied. Times are passed as `timestamptz`, so that the planner knows which chunks they touch.

use std::sync::LazyLock;

use crate::store::model::column_set::{all_columns, latest_wins};

/// Taken shared by drains from their last look at the ledger to their commit, and alone by whoever changes the ledger: a
/// change is either seen by a drain, or made after its rows can be seen. "odogflag".
pub(crate) const LEDGER_LOCK: i64 = 0x6f64_6f67_666c_6167;
/// Added to an IMEI, which has fifty bits: the lock under which positions of a device follow the ledger.
pub(crate) const DEVICE_LOCK: i64 = 0x0a5f << 50;
/// Held by the session that publishes corrections, so that they go out in order. "odogcorr".
pub(crate) const PUBLISHER_LOCK: i64 = 0x6f64_6f67_636f_7272;

/// $1 the ledger's lock.
pub(crate) const SHARE_LEDGER: &str = "SELECT pg_advisory_xact_lock_shared($1)";
/// $1 the ledger's lock.
pub(crate) const TAKE_LEDGER: &str = "SELECT pg_advisory_xact_lock($1)";
/// $1 locks, in order.
pub(crate) const TAKE_DEVICES: &str = "SELECT pg_advisory_xact_lock(device) FROM unnest($1::bigint[]) AS device";

/// The newest version, 0 for an empty ledger.
pub(crate) const LEDGER_VERSION: &str = "SELECT coalesce(max(version), 0) FROM position_flag_ledger";
/// $1 the known version, $2 most rows.
pub(crate) const LEDGER_NEWER: &str = "SELECT flag_id, imei, ts_from, ts_to, faulty AND NOT deleted \
     FROM position_flag_ledger WHERE version > $1 ORDER BY version LIMIT $2";
/// $1 most rows. For a first look, which tombstones do not concern.
pub(crate) const LEDGER_LIVE: &str = "SELECT flag_id, imei, ts_from, ts_to, true \
     FROM position_flag_ledger WHERE faulty AND NOT deleted LIMIT $1";
/// $1 devices, each once, $2 and $3 first and last instant of each: the live flags there.
pub(crate) const LIVE_OVER: &str = "SELECT f.flag_id, f.imei, f.ts_from, f.ts_to, true \
     FROM unnest($1::bigint[], $2::timestamptz[], $3::timestamptz[]) AS w (imei, ts_from, ts_to) \
     JOIN position_flag_ledger f ON f.faulty AND NOT f.deleted AND f.imei = w.imei AND f.ts_to >= w.ts_from \
         AND f.ts_from <= w.ts_to";

/// For a transaction that makes positions follow: plans that know which chunks the times touch, and that probe the key once
/// for each window.
pub(crate) const PLAN_BY_KEY: &str = "SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL jit = off; \
     SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL enable_seqscan = off";
/// The same for the rest of a drain's transaction is undone.
pub(crate) const PLAN_AS_USUAL: &str = "SET LOCAL plan_cache_mode = DEFAULT; SET LOCAL jit = DEFAULT; \
     SET LOCAL enable_hashjoin = DEFAULT; SET LOCAL enable_mergejoin = DEFAULT; SET LOCAL enable_seqscan = DEFAULT";

/// $1 to $4 parts: devices, first and last instants, whether faulty; $5 and $6 the first and last instant of all.
///
/// An insert that always meets its key, and not an UPDATE: an UPDATE of a hypertable opens every chunk, and decompresses
/// what an exact key leaves alone. The row is inserted whole, so one that somebody deleted in this very moment does
/// not come back as a fragment.
pub(crate) static FOLLOW: LazyLock<String> = LazyLock::new(|| {
    let columns = all_columns();
    let values: Vec<_> =
        columns.iter().map(|name| if *name == "faulty" { "w.faulty".into() } else { format!("p.{name}") }).collect();
    format!(
        "INSERT INTO positions ({}) SELECT {} \
         FROM unnest($1::bigint[], $2::timestamptz[], $3::timestamptz[], $4::boolean[]) \
              AS w (imei, ts_from, ts_to, faulty) \
         JOIN positions p ON p.imei = w.imei AND p.ts >= w.ts_from AND p.ts <= w.ts_to AND p.ts >= $5 AND p.ts <= $6 \
              AND p.faulty <> w.faulty \
         ORDER BY p.imei, p.ts, p.fingerprint \
         ON CONFLICT (imei, ts, fingerprint) DO UPDATE SET faulty = excluded.faulty RETURNING imei, ts",
        columns.join(", "),
        values.join(", ")
    )
});
/// $1 device, $2 and $3 first and last instant: the first position there.
pub(crate) const FIRST_POSITION: &str =
    "SELECT ts FROM positions WHERE imei = $1 AND ts >= $2 AND ts <= $3 ORDER BY ts LIMIT 1";

/// $1 devices.
pub(crate) const LOCK_LATEST: &str =
    "SELECT imei, ts FROM latest_positions WHERE imei = ANY ($1) ORDER BY imei FOR UPDATE";
/// $1 devices. Removes what a live flag covers; gives the devices.
pub(crate) const DROP_FLAGGED_LATEST: &str = "DELETE FROM latest_positions l WHERE l.imei = ANY ($1) AND EXISTS ( \
         SELECT FROM position_flag_ledger f WHERE f.faulty AND NOT f.deleted AND f.imei = l.imei AND f.ts_to >= l.ts \
             AND f.ts_from <= l.ts) \
     RETURNING imei";
/// $1 device, $2 an instant: writes the latest position after it that counts, if there is one. What flags cover is not
/// searched row by row: only what lies between them, ends excluded, is looked at.
pub(crate) static FIND_LATEST: LazyLock<String> = LazyLock::new(|| {
    let columns = all_columns();
    let columns = columns.join(", ");
    format!(
        "INSERT INTO latest_positions ({columns}) SELECT {columns} FROM ( \
             SELECT p.* FROM unnest(tstzmultirange(tstzrange($2, NULL, '()')) - coalesce(( \
                 SELECT range_agg(tstzrange(f.ts_from, f.ts_to, '[]')) FROM position_flag_ledger f \
                 WHERE f.faulty AND NOT f.deleted AND f.imei = $1 AND f.ts_to > $2), '{{}}'::tstzmultirange)) AS gap \
             CROSS JOIN LATERAL ( \
                 SELECT * FROM positions p WHERE p.imei = $1 AND p.ts > $2 AND p.ts > lower(gap) \
                     AND p.ts < coalesce(upper(gap), 'infinity') AND p.valid AND NOT p.faulty \
                     AND p.ts <= p.received_at + interval '5 minutes' \
                 ORDER BY p.ts DESC, p.fingerprint DESC LIMIT 1) AS p \
             ORDER BY p.ts DESC, p.fingerprint DESC LIMIT 1) AS latest {}",
        latest_wins()
    )
});

/// Arrays, one element a change: $1 flag, $2 seq, $3 to $5 window or NULL, $6 faulty, $7 deleted, $8 reason, $9 to $11 the
/// window before, as the event has it. Writes down what is newer, and the windows that it replaces.
///
/// The parts of one statement see the ledger as it was before; the lock keeps everybody else out.
pub(crate) const RECORD: &str = "WITH event AS ( \
         SELECT e.*, l.flag_id IS NOT NULL AS known, \
             CASE WHEN l.flag_id IS NULL THEN e.old_imei ELSE l.imei END AS was_imei, \
             CASE WHEN l.flag_id IS NULL THEN e.old_from ELSE l.ts_from END AS was_from, \
             CASE WHEN l.flag_id IS NULL THEN e.old_to ELSE l.ts_to END AS was_to \
         FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::timestamptz[], $5::timestamptz[], $6::boolean[], \
                     $7::boolean[], $8::text[], $9::bigint[], $10::timestamptz[], $11::timestamptz[]) \
              AS e (flag_id, seq, imei, ts_from, ts_to, faulty, deleted, reason, old_imei, old_from, old_to) \
         LEFT JOIN position_flag_ledger l ON l.flag_id = e.flag_id \
         WHERE l.flag_id IS NULL OR l.seq < e.seq), \
     replaced AS ( \
         INSERT INTO position_flag_windows (flag_id, seq, imei, ts_from, ts_to) \
         SELECT flag_id, seq, was_imei, was_from, was_to FROM event \
         WHERE was_imei IS NOT NULL AND NOT deleted AND (was_imei, was_from, was_to) <> (imei, ts_from, ts_to)) \
     INSERT INTO position_flag_ledger AS l (flag_id, seq, imei, ts_from, ts_to, faulty, deleted, reason) \
     SELECT flag_id, seq, CASE WHEN deleted THEN was_imei ELSE imei END, \
         CASE WHEN deleted THEN was_from ELSE ts_from END, CASE WHEN deleted THEN was_to ELSE ts_to END, \
         faulty, deleted, reason \
     FROM event ORDER BY flag_id \
     ON CONFLICT (flag_id) DO UPDATE SET seq = excluded.seq, version = excluded.version, imei = excluded.imei, \
         ts_from = excluded.ts_from, ts_to = excluded.ts_to, faulty = excluded.faulty, deleted = excluded.deleted, \
         reason = coalesce(excluded.reason, l.reason) \
     WHERE l.seq < excluded.seq \
     RETURNING flag_id";

/// $1 flags: what is written down and not applied, with every window that has to follow.
pub(crate) const UNAPPLIED_WINDOWS: &str = "SELECT l.flag_id, l.seq, NULL::bigint, l.imei, l.ts_from, l.ts_to \
     FROM position_flag_ledger l WHERE l.flag_id = ANY ($1) AND l.applied_seq < l.seq \
     UNION ALL \
     SELECT l.flag_id, l.seq, w.seq, w.imei, w.ts_from, w.ts_to \
     FROM position_flag_ledger l JOIN position_flag_windows w ON w.flag_id = l.flag_id AND w.seq <= l.seq \
     WHERE l.flag_id = ANY ($1) AND l.applied_seq < l.seq";
/// $1 flags, $2 seqs: positions follow them.
pub(crate) const MARK_APPLIED: &str = "UPDATE position_flag_ledger l SET applied_seq = a.seq, applied_at = now() \
     FROM unnest($1::uuid[], $2::bigint[]) AS a (flag_id, seq) \
     WHERE l.flag_id = a.flag_id AND l.applied_seq < a.seq";
/// $1 flags, $2 seqs.
pub(crate) const FORGET_WINDOWS: &str = "DELETE FROM position_flag_windows w \
     USING unnest($1::uuid[], $2::bigint[]) AS a (flag_id, seq) WHERE w.flag_id = a.flag_id AND w.seq = a.seq";
/// Arrays, one element a window: $1 device, $2 and $3 bounds, $4 positions, $5 flag, $6 seq.
pub(crate) const CORRECT: &str = "INSERT INTO position_corrections (imei, ts_from, ts_to, positions, flag_id, seq) \
     SELECT * FROM unnest($1::bigint[], $2::timestamptz[], $3::timestamptz[], $4::bigint[], $5::uuid[], $6::bigint[])";

/// $1 most rows, $2 flags and $3 seqs of changes that are left out.
pub(crate) const UNAPPLIED_FLAGS: &str = "SELECT l.flag_id, l.seq FROM position_flag_ledger l WHERE l.applied_seq < l.seq \
     AND NOT EXISTS (SELECT FROM unnest($2::uuid[], $3::bigint[]) AS x (flag_id, seq) \
         WHERE x.flag_id = l.flag_id AND x.seq = l.seq) \
     ORDER BY l.flag_id LIMIT $1";
/// Whether Directus' side is installed.
pub(crate) const STATE_EXISTS: &str = "SELECT to_regclass('position_flag_state') IS NOT NULL";
/// $1 most rows, $2 flags and $3 seqs of changes that are left out. What Directus' side says and the ledger does not have. It never infers a delete from a row that is missing.
pub(crate) const BEHIND: &str = "SELECT s.flag_id, s.seq, s.imei, s.ts_from, s.ts_to, s.faulty, s.deleted, s.reason \
     FROM position_flag_state s LEFT JOIN position_flag_ledger l ON l.flag_id = s.flag_id \
     WHERE (l.flag_id IS NULL OR l.seq < s.seq) \
         AND NOT EXISTS (SELECT FROM unnest($2::uuid[], $3::bigint[]) AS x (flag_id, seq) \
             WHERE x.flag_id = s.flag_id AND x.seq = s.seq) \
     ORDER BY s.seq LIMIT $1";

/// $1 the publisher's lock.
pub(crate) const TRY_PUBLISHER: &str = "SELECT pg_try_advisory_lock($1)";
/// $1 most rows.
pub(crate) const CORRECTIONS: &str = "SELECT id, imei, ts_from, ts_to, positions, flag_id, seq \
     FROM position_corrections ORDER BY id LIMIT $1";
/// $1 ids.
pub(crate) const FORGET_CORRECTIONS: &str = "DELETE FROM position_corrections WHERE id = ANY ($1)";
/// $1 how many stay.
pub(crate) const TRIM_CORRECTIONS: &str = "DELETE FROM position_corrections WHERE id <= ( \
     SELECT id FROM position_corrections ORDER BY id DESC OFFSET $1 LIMIT 1)";
