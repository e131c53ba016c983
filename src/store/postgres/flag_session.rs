//! The statements of a flag's transactions in PostgreSQL, and of the outbox of corrections.

use std::time::SystemTime;

use uuid::Uuid;

use super::connection::Connection;
use super::faulty_session::{time, window};
use super::flag_sql::{
    BEHIND, CORRECT, CORRECTIONS, DEVICE_LOCK, FORGET_CORRECTIONS, FORGET_WINDOWS, LEDGER_LOCK, MARK_APPLIED,
    PUBLISHER_LOCK, RECORD, STATE_EXISTS, TAKE_DEVICES, TAKE_LEDGER, TRIM_CORRECTIONS, TRY_PUBLISHER, UNAPPLIED_FLAGS,
    UNAPPLIED_WINDOWS,
};
use crate::store::error::class::ErrorClass;
use crate::store::error::store_error::StoreError;
use crate::store::model::flag::{Correction, FlagChange, FlagState, Window};
use crate::store::model::unapplied::{FlagWindow, UnappliedFlags};
use crate::store::statements::FlagSession;

impl FlagSession for Connection {
    async fn lock_ledger(&mut self) -> Result<(), StoreError> {
        self.query(RECORDING, TAKE_LEDGER, &[&LEDGER_LOCK]).await.map(drop)
    }

    async fn record(&mut self, changes: &[FlagChange]) -> Result<(), StoreError> {
        let new: Vec<_> = changes.iter().map(|change| StateColumns::of(&change.state)).collect();
        let old: Vec<_> = changes.iter().map(|change| WindowColumns::of(change.old)).collect();
        let flags: Vec<_> = changes.iter().map(|change| change.flag).collect();
        let seqs: Vec<_> = changes.iter().map(|change| change.seq).collect();
        let imeis: Vec<_> = new.iter().map(|new| new.window.imei).collect();
        let from: Vec<_> = new.iter().map(|new| new.window.from).collect();
        let to: Vec<_> = new.iter().map(|new| new.window.to).collect();
        let faulty: Vec<_> = new.iter().map(|new| new.faulty).collect();
        let deleted: Vec<_> = new.iter().map(|new| new.deleted).collect();
        let reasons: Vec<_> = new.iter().map(|new| new.reason).collect();
        let old_imeis: Vec<_> = old.iter().map(|old| old.imei).collect();
        let old_from: Vec<_> = old.iter().map(|old| old.from).collect();
        let old_to: Vec<_> = old.iter().map(|old| old.to).collect();
        self.execute(
            RECORDING,
            RECORD,
            &[&flags, &seqs, &imeis, &from, &to, &faulty, &deleted, &reasons, &old_imeis, &old_from, &old_to],
        )
        .await
        .map(drop)
    }

    async fn unapplied(&mut self, flags: &[Uuid]) -> Result<UnappliedFlags, StoreError> {
        let mut unapplied = UnappliedFlags::default();
        for row in self.query(APPLYING, UNAPPLIED_WINDOWS, &[&flags]).await? {
            let failed = |error| StoreError::postgres(APPLYING, error);
            let (flag, seq) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
            unapplied.seqs.insert(flag, seq);
            // A tombstone of an unknown flag covers nothing.
            if let Some(window) = window(&row, 3)? {
                let replaced_by = row.try_get(2).map_err(failed)?;
                unapplied.windows.push(FlagWindow { flag, seq, replaced_by, window });
            }
        }
        Ok(unapplied)
    }

    async fn lock_devices(&mut self, imeis: &[u64]) -> Result<(), StoreError> {
        let locks: Vec<_> = imeis.iter().map(|imei| DEVICE_LOCK + imei.cast_signed()).collect();
        self.query(APPLYING, TAKE_DEVICES, &[&locks]).await.map(drop)
    }

    async fn write_corrections(&mut self, windows: &[(FlagWindow, i64)]) -> Result<(), StoreError> {
        let of = || windows.iter().map(|(window, _)| window);
        let imeis: Vec<_> = of().map(|held| held.window.imei().get().cast_signed()).collect();
        let from: Vec<_> = of().map(|held| time(held.window.from_ms())).collect();
        let to: Vec<_> = of().map(|held| time(held.window.to_ms())).collect();
        let positions: Vec<_> = windows.iter().map(|(_, positions)| *positions).collect();
        let flags: Vec<_> = of().map(|held| held.flag).collect();
        let seqs: Vec<_> = of().map(|held| held.seq).collect();
        self.execute(APPLYING, CORRECT, &[&imeis, &from, &to, &positions, &flags, &seqs]).await.map(drop)
    }

    async fn mark_applied(&mut self, changes: &[(Uuid, i64)]) -> Result<(), StoreError> {
        let (flags, seqs): (Vec<Uuid>, Vec<i64>) = changes.iter().copied().unzip();
        self.execute(APPLYING, MARK_APPLIED, &[&flags, &seqs]).await.map(drop)
    }

    async fn forget_windows(&mut self, windows: &[(Uuid, i64)]) -> Result<(), StoreError> {
        let (flags, seqs): (Vec<Uuid>, Vec<i64>) = windows.iter().copied().unzip();
        self.execute(APPLYING, FORGET_WINDOWS, &[&flags, &seqs]).await.map(drop)
    }

    async fn unapplied_flags(&mut self, most: usize, except: &[(Uuid, i64)]) -> Result<Vec<(Uuid, i64)>, StoreError> {
        const READING_UNAPPLIED: &str = "reading unapplied flags";
        let (flags, seqs): (Vec<Uuid>, Vec<i64>) = except.iter().copied().unzip();
        let rows = self.query(READING_UNAPPLIED, UNAPPLIED_FLAGS, &[&limit(most), &flags, &seqs]).await?;
        let change = |row: &tokio_postgres::Row| Ok((row.try_get(0)?, row.try_get(1)?));
        let flags = rows.iter().map(change).collect::<Result<_, _>>();
        flags.map_err(|error| StoreError::postgres(READING_UNAPPLIED, error))
    }

    async fn changes_behind(&mut self, most: usize, except: &[(Uuid, i64)]) -> Result<Vec<FlagChange>, StoreError> {
        const RECONCILING: &str = "comparing the ledger with Directus' side";
        let installed = self.query(RECONCILING, STATE_EXISTS, &[]).await?;
        if installed.first().and_then(|row| row.try_get(0).ok()) != Some(true) {
            return Ok(Vec::new());
        }
        let (flags, seqs): (Vec<Uuid>, Vec<i64>) = except.iter().copied().unzip();
        self.query(RECONCILING, BEHIND, &[&limit(most), &flags, &seqs]).await?.iter().map(change).collect()
    }

    async fn claim_publisher(&mut self) -> Result<bool, StoreError> {
        let taken = self.query(READING_CORRECTIONS, TRY_PUBLISHER, &[&PUBLISHER_LOCK]).await?;
        Ok(taken.first().and_then(|row| row.try_get(0).ok()) == Some(true))
    }

    async fn corrections(&mut self, most: usize) -> Result<Vec<Correction>, StoreError> {
        self.query(READING_CORRECTIONS, CORRECTIONS, &[&limit(most)]).await?.iter().map(correction).collect()
    }

    async fn forget_corrections(&mut self, ids: &[i64]) -> Result<(), StoreError> {
        self.execute("removing published corrections", FORGET_CORRECTIONS, &[&ids]).await.map(drop)
    }

    async fn trim_corrections(&mut self, most: i64) -> Result<u64, StoreError> {
        self.execute("trimming corrections", TRIM_CORRECTIONS, &[&most]).await
    }
}

/// Reads a row of Directus' table: flag, seq, window, faulty, deleted, reason.
fn change(row: &tokio_postgres::Row) -> Result<FlagChange, StoreError> {
    let failed = |error| StoreError::postgres(READING, error);
    let deleted: bool = row.try_get(6).map_err(failed)?;
    let window = window(row, 2)?;
    let state = match window {
        Some(window) if !deleted => {
            FlagState::Set { window, faulty: row.try_get(5).map_err(failed)?, reason: row.try_get(7).map_err(failed)? }
        }
        None if !deleted => return Err(StoreError::new(ErrorClass::Refuses, READING, "a live flag without a window")),
        _ => FlagState::Deleted,
    };
    // The row of a deleted flag holds its last window.
    let old = if deleted { window } else { None };
    Ok(FlagChange { flag: row.try_get(0).map_err(failed)?, seq: row.try_get(1).map_err(failed)?, old, state })
}

fn correction(row: &tokio_postgres::Row) -> Result<Correction, StoreError> {
    let failed = |error| StoreError::postgres(READING, error);
    let window = window(row, 1)?;
    let window =
        window.ok_or_else(|| StoreError::new(ErrorClass::Refuses, READING, "a correction without a window"))?;
    Ok(Correction {
        id: row.try_get(0).map_err(failed)?,
        window,
        positions: row.try_get(4).map_err(failed)?,
        flag: row.try_get(5).map_err(failed)?,
        seq: row.try_get(6).map_err(failed)?,
    })
}

/// A window as three columns.
struct WindowColumns {
    imei: Option<i64>,
    from: Option<SystemTime>,
    to: Option<SystemTime>,
}

impl WindowColumns {
    fn of(window: Option<Window>) -> Self {
        Self {
            imei: window.map(|window| window.imei().get().cast_signed()),
            from: window.map(|window| time(window.from_ms())),
            to: window.map(|window| time(window.to_ms())),
        }
    }
}

/// The state of a flag as columns.
struct StateColumns<'a> {
    window: WindowColumns,
    faulty: bool,
    deleted: bool,
    reason: Option<&'a str>,
}

impl<'a> StateColumns<'a> {
    fn of(state: &'a FlagState) -> Self {
        match state {
            FlagState::Set { window, faulty, reason } => Self {
                window: WindowColumns::of(Some(*window)),
                faulty: *faulty,
                deleted: false,
                reason: reason.as_deref(),
            },
            FlagState::Deleted => Self { window: WindowColumns::of(None), faulty: false, deleted: true, reason: None },
        }
    }
}

fn limit(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}

const RECORDING: &str = "recording flags";
const APPLYING: &str = "making positions follow flags";
const READING: &str = "reading the tables of flags";
const READING_CORRECTIONS: &str = "reading corrections";
