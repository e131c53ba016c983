//! Writes records that were decoded again to SQLite. It compares rows first, and writes only those that differ. An
//! immediate transaction keeps every other writer out, so it is kept short.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::LazyLock;

use serde_json::{Map, Value};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use super::connection::{COLUMN_SETS_MAX, open_synced, options};
use super::flags::repair_latest;
use super::insert::Insert;
use super::operator_connection::failed;
use super::transaction::{lanes, messages, quarantine, rows_cannot_vanish};
use super::{flag_batch, migrate};
use crate::lane::Lane;
use crate::store::error::store_error::StoreError;
use crate::store::flags::cache::FlagCache;
use crate::store::model::batch::{Batch, QuarantineReason, Quarantined};
use crate::store::model::column_set::{ColumnSet, decoded_columns, decoded_of, decoded_wins};
use crate::store::model::committed::Reduced;
use crate::store::model::digest::digest;
use crate::store::model::migration::Schema;
use crate::store::model::retention::CLEARING_QUARANTINE;
use crate::store::model::rewrite::{
    COMPARING_ROWS, ChangedRow, Differences, LanePosition, REWRITING_ROWS, ReplayBatch, RewriteCounts, RewriteProgress,
    missing,
};
use crate::store::model::row::{Key, Row};
use crate::store::model::rows::Rows;
use odograph_journal::JournalId;

/// Writes over one connection.
pub(crate) struct SqliteRewriter {
    options: SqliteConnectOptions,
    /// Taken out for each transaction and put back only after success.
    connection: Option<SqliteConnection>,
    inserts: HashMap<ColumnSet, Inserts>,
    flags: FlagCache,
}

struct Inserts {
    incoming: Insert,
    rewrite: Insert,
}

impl SqliteRewriter {
    /// Opens an existing file.
    pub(in crate::store) async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = options(path).create_if_missing(false);
        let connection = Some(open_synced(&options).await?);
        Ok(Self { options, connection, inserts: HashMap::new(), flags: FlagCache::default() })
    }

    async fn connection(&mut self) -> Result<SqliteConnection, StoreError> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        self.flags = FlagCache::default();
        open_synced(&self.options).await
    }

    pub(in crate::store) async fn schema(&mut self) -> Result<Schema, StoreError> {
        let mut connection = self.connection().await?;
        let schema = migrate::schema(&mut connection).await?;
        self.connection = Some(connection);
        Ok(schema)
    }

    pub(in crate::store) async fn lanes(&mut self, journal: JournalId) -> Result<Vec<LanePosition>, StoreError> {
        let mut connection = self.connection().await?;
        let stored = lanes(&mut connection, Lane::only(journal)).await?;
        self.connection = Some(connection);
        let positions = stored.into_iter().map(|(number, stored)| {
            let position = stored.checkpoint.mark.position;
            LanePosition { number, lanes: stored.lanes, position }
        });
        Ok(positions.collect())
    }

    /// Runs one transaction over all rows that differ.
    pub(in crate::store) async fn round(
        &mut self,
        replay: &ReplayBatch,
        counts: &mut RewriteCounts,
    ) -> Result<RewriteProgress, StoreError> {
        let mut connection = self.connection().await?;
        self.write(&mut connection, replay, counts).await?;
        self.connection = Some(connection);
        Ok(RewriteProgress::Whole)
    }

    async fn write(
        &mut self,
        connection: &mut SqliteConnection,
        replay: &ReplayBatch,
        counts: &mut RewriteCounts,
    ) -> Result<(), StoreError> {
        let lane = Lane::only(replay.journal);
        make_incoming(connection).await?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(failed(REWRITING_ROWS))?;
        rows_cannot_vanish(&mut transaction).await?;
        let inserts = inserts_of(&mut self.inserts, &replay.rows);
        let changed = changed_rows(&mut transaction, inserts, &replay.rows).await?;
        let keys: HashSet<_> = changed.iter().map(|row| row.key).collect();
        let changing = replay.rows.only(&keys);
        let (mut refused, mut quarantined) = (HashSet::new(), Vec::new());
        let refuse = |row: &Row, error: &StoreError| {
            refused.insert(row.key());
            let (detail, wire) = (error.detail(), changing.wire(row));
            quarantined.push((row.key(), Quarantined::record(row, QuarantineReason::Refused, detail, wire)));
        };
        let written = inserts.rewrite.run(&mut transaction, &changing, refuse).await?;
        let refused_keys: Vec<_> = refused.iter().copied().collect();
        let batch = Batch { new: changing.without(&refused_keys), ..Batch::default() };
        if written > 0 {
            flag_batch::learn(&mut transaction, &mut self.flags).await?;
            flag_batch::flag_rows(&mut transaction, &self.flags, &batch).await?;
            replace_latest(&mut transaction, &batch.new).await?;
        }
        let mut cleared = 0;
        for (imei, digest) in resolved(&mut transaction, replay, &refused).await? {
            let query = sqlx::query(RESOLVE).bind(imei).bind(digest.to_vec());
            cleared += query.execute(&mut *transaction).await.map_err(failed(CLEARING_QUARANTINE))?.rows_affected();
        }
        let reduced = &mut Reduced::default();
        let messages = messages(&mut transaction, &replay.messages, reduced).await?;
        let lost = not_stored_anywhere(&mut transaction, quarantined).await?;
        quarantine(&mut transaction, lane, &lost, None, reduced).await?;
        transaction.commit().await.map_err(failed("committing"))?;
        counts.add(missing(&changed, &refused), written);
        counts.resolved += cleared;
        counts.messages += messages;
        counts.refused.extend(refused);
        Ok(())
    }

    /// Counts what differs. Writes to a temporary table only, which no other connection sees or waits for.
    pub(in crate::store) async fn compare(
        &mut self,
        replay: &ReplayBatch,
        differences: &mut Differences,
        counts: &mut RewriteCounts,
    ) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        make_incoming(&mut connection).await?;
        let mut transaction = connection.begin().await.map_err(failed(COMPARING_ROWS))?;
        let inserts = inserts_of(&mut self.inserts, &replay.rows);
        fill(&mut transaction, inserts, &replay.rows).await?;
        let comparing = failed(COMPARING_ROWS);
        let found = sqlx::query(AssertSqlSafe(COUNT_CHANGED.as_str())).fetch_one(&mut *transaction).await;
        let found = found.map_err(comparing)?;
        let count = |column: usize| found.try_get::<i64, _>(column).map_err(comparing);
        counts.inserted += u64::try_from(count(0)?).unwrap_or(0);
        counts.updated += u64::try_from(count(1)?).unwrap_or(0);
        for (at, name) in (2..).zip(decoded_columns()) {
            differences.count(name, count(at)?);
        }
        let wanted = differences.examples_wanted();
        if wanted > 0 {
            let query = sqlx::query(AssertSqlSafe(EXAMPLES.as_str())).bind(wanted);
            for row in query.fetch_all(&mut *transaction).await.map_err(comparing)? {
                let key = changed_row(&row).map_err(comparing)?.key;
                differences.add_example(key, &object(&row, 4)?, &object(&row, 5)?);
            }
        }
        for (imei, digest) in resolved(&mut transaction, replay, &HashSet::new()).await? {
            let query = sqlx::query_scalar(IS_QUARANTINED).bind(imei).bind(digest.to_vec());
            let exists: bool = query.fetch_one(&mut *transaction).await.map_err(failed(CLEARING_QUARANTINE))?;
            counts.resolved += u64::from(exists);
        }
        transaction.rollback().await.map_err(failed(COMPARING_ROWS))?;
        self.connection = Some(connection);
        Ok(())
    }
}

fn inserts_of<'a>(kept: &'a mut HashMap<ColumnSet, Inserts>, rows: &Rows) -> &'a Inserts {
    if kept.len() >= COLUMN_SETS_MAX {
        kept.clear();
    }
    let columns = ColumnSet::of(rows);
    kept.entry(columns).or_insert_with(|| Inserts {
        incoming: Insert::new("temp.incoming", columns, ""),
        rewrite: Insert::new("positions", columns, &decoded_wins("IS NOT")),
    })
}

async fn make_incoming(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let create = "CREATE TEMPORARY TABLE IF NOT EXISTS incoming AS SELECT * FROM positions WHERE 0";
    sqlx::query(create).execute(connection).await.map_err(failed(COMPARING_ROWS))?;
    Ok(())
}

async fn fill(connection: &mut SqliteConnection, inserts: &Inserts, rows: &Rows) -> Result<(), StoreError> {
    let emptying = sqlx::query("DELETE FROM temp.incoming").execute(&mut *connection).await;
    emptying.map_err(failed(COMPARING_ROWS))?;
    inserts.incoming.run(connection, rows, |_, _| ()).await?;
    Ok(())
}

/// Finds the rows that are not stored as they are decoded.
async fn changed_rows(
    connection: &mut SqliteConnection,
    inserts: &Inserts,
    rows: &Rows,
) -> Result<Vec<ChangedRow>, StoreError> {
    fill(connection, inserts, rows).await?;
    let rows = sqlx::query(AssertSqlSafe(CHANGED_ROWS.as_str()))
        .fetch_all(connection)
        .await
        .map_err(failed(COMPARING_ROWS))?;
    rows.iter().map(changed_row).collect::<Result<_, _>>().map_err(failed(COMPARING_ROWS))
}

fn changed_row(row: &SqliteRow) -> Result<ChangedRow, sqlx::Error> {
    let imei: i64 = row.try_get(0)?;
    let key = Key { imei: imei.cast_unsigned(), ts_ms: row.try_get(1)?, fingerprint: row.try_get(2)? };
    Ok(ChangedRow { key, missing: row.try_get(3)? })
}

fn object(row: &SqliteRow, column: usize) -> Result<Map<String, Value>, StoreError> {
    let text: Option<String> = row.try_get(column).map_err(failed(COMPARING_ROWS))?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
}

async fn replace_latest(connection: &mut SqliteConnection, rows: &Rows) -> Result<(), StoreError> {
    let drop = "DELETE FROM latest_positions WHERE imei = ? AND ts = ? AND fingerprint = ?";
    for device in rows.devices() {
        let Some((last, _)) = device.last() else { continue };
        let imei = last.imei.cast_signed();
        for (key, _) in device {
            let query = sqlx::query(drop).bind(imei).bind(key.ts_ms).bind(key.fingerprint);
            query.execute(&mut *connection).await.map_err(failed("repairing the latest positions"))?;
        }
        repair_latest(connection, imei, last.ts_ms, true).await?;
    }
    Ok(())
}

/// Device and digest of what no longer belongs into quarantine, for devices that have something there.
async fn resolved(
    connection: &mut SqliteConnection,
    replay: &ReplayBatch,
    refused: &HashSet<Key>,
) -> Result<HashSet<(i64, [u8; 32])>, StoreError> {
    let mut among = HashSet::new();
    for imei in replay.devices().into_iter().map(|imei| imei.get().cast_signed()) {
        let has = sqlx::query_scalar("SELECT EXISTS (SELECT * FROM quarantined_records WHERE imei = ?)").bind(imei);
        if has.fetch_one(&mut *connection).await.map_err(failed(CLEARING_QUARANTINE))? {
            among.insert(imei);
        }
    }
    let (imeis, digests) = if among.is_empty() { Default::default() } else { replay.resolved(&among, refused) };
    Ok(imeis.into_iter().zip(digests).collect())
}

/// Finds the refused records that are neither in quarantine nor, with their old values, in the table: nothing else
/// holds them.
async fn not_stored_anywhere(
    connection: &mut SqliteConnection,
    refused: Vec<(Key, Quarantined)>,
) -> Result<Vec<Quarantined>, StoreError> {
    let is_kept = "SELECT EXISTS (SELECT * FROM positions WHERE imei = ?1 AND ts = ?2 AND fingerprint = ?3) \
                  OR EXISTS (SELECT * FROM quarantined_records WHERE imei = ?1 AND digest = ?4)";
    let mut lost = Vec::new();
    for (Key { imei, ts_ms, fingerprint }, record) in refused {
        let query = sqlx::query_scalar(is_kept).bind(imei.cast_signed()).bind(ts_ms).bind(fingerprint);
        let query = query.bind(digest(&record.bytes).to_vec());
        let kept: bool = query.fetch_one(&mut *connection).await.map_err(failed(CLEARING_QUARANTINE))?;
        if !kept {
            lost.push(record);
        }
    }
    Ok(lost)
}

static CHANGED_ROWS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT i.imei, i.ts, i.fingerprint, p.imei IS NULL{JOINED} WHERE p.imei IS NULL OR {} \
         ORDER BY i.imei, i.ts, i.fingerprint",
        differs()
    )
});
/// How many rows are missing, how many differ, and how many differ in each decoded column.
static COUNT_CHANGED: LazyLock<String> = LazyLock::new(|| {
    let column = |name: &&str| format!("coalesce(sum(p.imei IS NOT NULL AND p.{name} IS NOT i.{name}), 0)");
    let columns: Vec<_> = decoded_columns().iter().map(column).collect();
    format!(
        "SELECT coalesce(sum(p.imei IS NULL), 0), coalesce(sum(p.imei IS NOT NULL AND {}), 0), {}{JOINED}",
        differs(),
        columns.join(", ")
    )
});
/// Some stored rows that differ, both versions as JSON.
static EXAMPLES: LazyLock<String> = LazyLock::new(|| {
    let object = |table: &str| {
        let value = |name: &&str| match *name {
            "io" => format!("'io', json({table}.io)"),
            name => format!("'{name}', {table}.{name}"),
        };
        let values: Vec<_> = decoded_columns().iter().map(value).collect();
        format!("json_object({})", values.join(", "))
    };
    format!(
        "SELECT i.imei, i.ts, i.fingerprint, 0, {}, {}{JOINED} WHERE p.imei IS NOT NULL AND {} LIMIT ?",
        object("p"),
        object("i"),
        differs()
    )
});

fn differs() -> String {
    format!("({}) IS NOT ({})", decoded_of("p"), decoded_of("i"))
}

const JOINED: &str = " FROM temp.incoming i \
    LEFT JOIN main.positions p ON p.imei = i.imei AND p.ts = i.ts AND p.fingerprint = i.fingerprint";
const IS_QUARANTINED: &str = "SELECT EXISTS (SELECT * FROM quarantined_records WHERE imei = ? AND digest = ?)";
const RESOLVE: &str = "DELETE FROM quarantined_records WHERE imei = ? AND digest = ?";
