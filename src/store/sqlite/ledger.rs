//! The ledger in SQLite, over a connection of its own. One immediate transaction records changes and applies them, so
//! nothing is ever half done.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow};
use sqlx::{Connection as _, Row as _};
use uuid::Uuid;

use super::connection::{open_synced, options};
use super::flags::{flag, follow, imei_of, live_flags, repair_latest, window};
use super::operator_connection::failed;
use crate::store::error::class::ErrorClass;
use crate::store::error::store_error::StoreError;
use crate::store::flags::changes::{latest_of_each, outcomes};
use crate::store::flags::intervals::{MarkCount, intervals, merged};
use crate::store::model::flag::{Applied, Correction, FlagChange, FlagState, Window};
use crate::store::port::{Ledger, OUTBOX_MAX};
use odograph_journal::unix_now_us;

/// Writes the ledger of flags in a SQLite file, and makes positions follow.
pub struct SqliteLedger {
    options: SqliteConnectOptions,
    /// Taken out for each operation and put back only after success.
    connection: Option<SqliteConnection>,
}

impl SqliteLedger {
    /// Prepares for a file. A [`SqliteStore`](super::SqliteStore) has to open it before: it makes the tables.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { options: options(path), connection: None }
    }

    async fn connection(&mut self) -> Result<SqliteConnection, StoreError> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => open_synced(&self.options).await,
        }
    }
}

impl Ledger for SqliteLedger {
    async fn apply(&mut self, changes: &[FlagChange]) -> Result<Vec<Applied>, StoreError> {
        let mut connection = self.connection().await?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(failed(APPLYING))?;
        let (mut applied, mut changed_windows) = (HashMap::new(), Vec::new());
        for change in latest_of_each(changes) {
            if record(&mut transaction, &change, &mut changed_windows).await? {
                applied.insert(change.flag, change.seq);
            }
        }
        follow_all(&mut transaction, &changed_windows).await?;
        transaction.commit().await.map_err(failed(APPLYING))?;
        self.connection = Some(connection);
        Ok(outcomes(changes, &applied))
    }

    async fn unapplied(&mut self, _most: usize, _except: &[(Uuid, i64)]) -> Result<Vec<(Uuid, i64)>, StoreError> {
        Ok(Vec::new())
    }

    async fn follow(&mut self, _flags: &[Uuid]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn behind(&mut self, _most: usize, _except: &[(Uuid, i64)]) -> Result<Vec<FlagChange>, StoreError> {
        // Directus' side exists in PostgreSQL only.
        Ok(Vec::new())
    }

    async fn corrections(&mut self, most: usize) -> Result<Option<Vec<Correction>>, StoreError> {
        let mut connection = self.connection().await?;
        let query = "SELECT id, imei, ts_from, ts_to, positions, flag_id, seq FROM position_corrections \
                     ORDER BY id LIMIT ?";
        let query = sqlx::query(query).bind(i64::try_from(most).unwrap_or(i64::MAX));
        let rows = query.fetch_all(&mut connection).await.map_err(failed(READING))?;
        self.connection = Some(connection);
        rows.iter().map(correction).collect::<Result<_, _>>().map(Some)
    }

    async fn remove_corrections(&mut self, ids: &[i64]) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        let removing = failed("removing published corrections");
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(removing)?;
        for id in ids {
            let delete = sqlx::query("DELETE FROM position_corrections WHERE id = ?").bind(id);
            delete.execute(&mut *transaction).await.map_err(removing)?;
        }
        transaction.commit().await.map_err(removing)?;
        self.connection = Some(connection);
        Ok(())
    }

    async fn trim_corrections(&mut self) -> Result<u64, StoreError> {
        let mut connection = self.connection().await?;
        let delete = "DELETE FROM position_corrections WHERE id <= (SELECT max(id) FROM position_corrections) - ?";
        let delete = sqlx::query(delete).bind(OUTBOX_MAX).execute(&mut connection).await;
        let rows = delete.map_err(failed("trimming corrections"))?.rows_affected();
        self.connection = Some(connection);
        Ok(rows)
    }

    async fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            // What is committed is synced.
            let _ = connection.close().await;
        }
    }
}

/// A window that a flag covers or covered, and the change that caused it.
struct ChangedWindow {
    flag: Uuid,
    seq: i64,
    window: Window,
}

/// Records a change if it is newer than the known one, and adds the windows whose positions have to follow.
async fn record(
    connection: &mut SqliteConnection,
    change: &FlagChange,
    changed_windows: &mut Vec<ChangedWindow>,
) -> Result<bool, StoreError> {
    let known = sqlx::query("SELECT seq, imei, ts_from, ts_to FROM position_flag_ledger WHERE flag_id = ?");
    let known = known.bind(bytes(change.flag)).fetch_optional(&mut *connection).await.map_err(failed(APPLYING))?;
    let before = match &known {
        Some(row) if row.try_get::<i64, _>(0).map_err(failed(APPLYING))? >= change.seq => return Ok(false),
        Some(row) => window(row, 1)?,
        None => change.old,
    };
    let (now, faulty, reason) = match &change.state {
        FlagState::Set { window, faulty, reason } => (Some(*window), *faulty, reason.as_deref()),
        FlagState::Deleted => (before, false, None),
    };
    let insert = "INSERT INTO position_flag_ledger \
                  (flag_id, seq, version, imei, ts_from, ts_to, faulty, deleted, reason, applied_seq, applied_at) \
                  VALUES (?1, ?2, (SELECT coalesce(max(version), 0) + 1 FROM position_flag_ledger), ?3, ?4, ?5, ?6, ?7, \
                          ?8, ?2, ?9) \
                  ON CONFLICT (flag_id) DO UPDATE SET seq = excluded.seq, version = excluded.version, \
                      imei = excluded.imei, ts_from = excluded.ts_from, ts_to = excluded.ts_to, \
                      faulty = excluded.faulty, deleted = excluded.deleted, \
                      reason = coalesce(excluded.reason, reason), applied_seq = excluded.applied_seq, \
                      applied_at = excluded.applied_at";
    sqlx::query(insert)
        .bind(bytes(change.flag))
        .bind(change.seq)
        .bind(now.as_ref().map(imei_of))
        .bind(now.map(|window| window.from_ms()))
        .bind(now.map(|window| window.to_ms()))
        .bind(faulty)
        .bind(change.state == FlagState::Deleted)
        .bind(reason)
        .bind(unix_now_us())
        .execute(connection)
        .await
        .map_err(failed(APPLYING))?;
    let windows = now.into_iter().chain(before.filter(|before| Some(*before) != now));
    changed_windows.extend(windows.map(|window| ChangedWindow { flag: change.flag, seq: change.seq, window }));
    Ok(true)
}

/// Makes positions follow in all windows, records corrections, and repairs latest positions.
async fn follow_all(connection: &mut SqliteConnection, changed_windows: &[ChangedWindow]) -> Result<(), StoreError> {
    let windows = merged(changed_windows.iter().map(|changed| changed.window));
    let mut live = Vec::new();
    for device in windows.chunk_by(|one, next| one.imei() == next.imei()) {
        if let [first, ..] = device {
            live.extend(live_flags(connection, imei_of(first), first.from_ms()).await?);
        }
    }
    let mut marks = MarkCount::new(intervals(&windows, &live), changed_windows.iter().map(|changed| changed.window));
    for interval in marks.intervals() {
        let changed = follow(connection, &interval).await?;
        marks.add(&interval, changed);
    }
    for ChangedWindow { flag, seq, window } in changed_windows {
        let changed = marks.changed_in(window);
        if changed > 0 {
            let insert = "INSERT INTO position_corrections (imei, ts_from, ts_to, positions, flag_id, seq) \
                          VALUES (?, ?, ?, ?, ?, ?)";
            sqlx::query(insert)
                .bind(imei_of(window))
                .bind(window.from_ms())
                .bind(window.to_ms())
                .bind(changed)
                .bind(bytes(*flag))
                .bind(seq)
                .execute(&mut *connection)
                .await
                .map_err(failed(APPLYING))?;
        }
    }
    let mut repairs: BTreeMap<i64, (i64, bool)> = BTreeMap::new();
    for window in &windows {
        let (until_ms, changed) = repairs.entry(imei_of(window)).or_insert((window.to_ms(), false));
        *until_ms = (*until_ms).max(window.to_ms());
        *changed |= marks.changed_in(window) > 0;
    }
    for (imei, (until_ms, changed)) in repairs {
        repair_latest(connection, imei, until_ms, changed).await?;
    }
    Ok(())
}

fn correction(row: &SqliteRow) -> Result<Correction, StoreError> {
    let number = |column| row.try_get(column).map_err(failed(READING));
    let window = window(row, 1)?;
    let window =
        window.ok_or_else(|| StoreError::new(ErrorClass::Refuses, READING, "a correction without a window"))?;
    Ok(Correction { id: number(0)?, window, positions: number(4)?, flag: flag(row, 5)?, seq: number(6)? })
}

fn bytes(flag: Uuid) -> Vec<u8> {
    flag.as_bytes().to_vec()
}

const APPLYING: &str = "applying flags";
const READING: &str = "reading corrections";
