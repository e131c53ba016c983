//! The narrow port below the scripts: the single statements of a batch's transaction and of a flag's transactions.
//!
//! A database implements statements and decides nothing. The order of the statements, and everything that is decided
//! between them, is in `commit/script.rs` and `flags/script.rs`. PostgreSQL implements this port, and so does the
//! simulated database of the crate `sim`.
//!
//! A statement runs at READ COMMITTED: it sees what was committed when it began. After any error the session is
//! dropped, except after an error between [`BatchSession::savepoint`] and [`BatchSession::undo_part`].

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use crate::lane::Lane;
use crate::store::commit::quarantine_input::{QuarantineCap, QuarantineInput};
use crate::store::error::store_error::StoreError;
use crate::store::flags::cache::LedgerEntry;
use crate::store::flags::intervals::FlagInterval;
use crate::store::model::batch::Message;
use crate::store::model::fence::{Checkpoint, StoredCheckpoint};
use crate::store::model::flag::{Correction, FlagChange, Window};
use crate::store::model::migration::Schema;
use crate::store::model::rows::{RowSlice, Rows};
use crate::store::model::unapplied::{FlagWindow, UnappliedFlags};

/// Opens sessions.
pub trait Connect {
    /// A session of the database.
    type Session: Session;

    /// Opens a session.
    fn connect(&mut self) -> impl Future<Output = Result<Self::Session, StoreError>> + Send;
}

/// A session. Dropping it ends it. The database rolls back an open transaction as soon as it notices.
pub trait Session: Send {
    /// Whether the session is known to be broken.
    fn is_closed(&self) -> bool;

    /// Begins a transaction.
    fn begin(&mut self, doing: &'static str) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Commits the transaction.
    fn commit(&mut self, doing: &'static str) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Ends the transaction without effect.
    fn rollback(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Statements that batches and flags share: live flags, marks, and the repair of latest positions.
pub trait FaultySession: Session {
    /// Makes the planner use the key from now on. Only for databases whose planner needs that.
    fn plan_by_key(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send {
        async { Ok(()) }
    }

    /// Reverts [`FaultySession::plan_by_key`].
    fn plan_as_usual(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send {
        async { Ok(()) }
    }

    /// Reads the live flags that reach into these ranges.
    fn live_flags(&mut self, ranges: &[Window]) -> impl Future<Output = Result<Vec<LedgerEntry>, StoreError>> + Send;

    /// Sets `faulty` in the intervals where it differs. Calls `changed` with device and time of every changed position.
    fn mark(
        &mut self,
        intervals: &[FlagInterval],
        changed: impl FnMut(u64, i64) + Send,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Locks the latest positions of devices, in order. Returns the device time of those that have one.
    fn lock_latest(&mut self, imeis: &[u64]) -> impl Future<Output = Result<HashMap<u64, i64>, StoreError>> + Send;

    /// Removes the latest positions of devices that a live flag covers. Returns the devices.
    fn drop_flagged_latest(&mut self, imeis: &[u64]) -> impl Future<Output = Result<HashSet<u64>, StoreError>> + Send;

    /// Finds the last position after an instant that counts, and writes it if it is later than the stored one. Returns
    /// whether it wrote one.
    fn find_latest(&mut self, imei: u64, after_ms: i64) -> impl Future<Output = Result<bool, StoreError>> + Send;
}

/// The statements of a batch's transaction, and of the lanes.
pub trait BatchSession: FaultySession {
    /// Makes this session the owner of the lane until it ends. Waits for the session that owns it now.
    fn claim_lane(&mut self, lane: Lane) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Compares the schema of the database with the migrations of this program.
    fn schema(&mut self) -> impl Future<Output = Result<Schema, StoreError>> + Send;

    /// The time of the server, microseconds since 1970-01-01 UTC; `None` if it has no clock of its own.
    fn server_now_us(&mut self) -> impl Future<Output = Result<Option<i64>, StoreError>> + Send {
        async { Ok(None) }
    }

    /// Prepares the staging tables, if the database needs them: once in a session, outside of a transaction.
    fn prepare_staging(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send {
        async { Ok(()) }
    }

    /// Reads the lane's checkpoint and locks it. Waits until the backend of an earlier attempt has ended.
    fn lock_checkpoint(
        &mut self,
        lane: Lane,
    ) -> impl Future<Output = Result<Option<StoredCheckpoint>, StoreError>> + Send;

    /// What about the tables could lose a row silently, or store it twice, with the remedy.
    fn silent_loss(&mut self) -> impl Future<Output = Result<Option<String>, StoreError>> + Send;

    /// Copies rows that are new straight into `positions`. Returns their number.
    fn copy_rows(&mut self, rows: &Rows) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Inserts rows into `positions` under the key. Returns the number of those that were new.
    fn insert_rows(&mut self, rows: &[&Rows]) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Writes latest positions, only forward: at most one row per device.
    fn write_latest(&mut self, rows: &Rows) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Sets a savepoint before a part of the rows.
    fn savepoint(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Inserts a part of the rows. Returns the number of those that were new.
    fn insert_part(
        &mut self,
        part: RowSlice<'_>,
        table: PartTable,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Keeps the part, and removes the savepoint.
    fn keep_part(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Goes back to the savepoint, and removes it.
    fn undo_part(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Writes into quarantine. Returns how many records were over the cap of the device and hour.
    fn write_quarantine(
        &mut self,
        lane: Lane,
        records: &[QuarantineInput<'_>],
        cap: QuarantineCap,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Writes messages. Returns the number of those that were new.
    fn write_messages(&mut self, messages: &[Message]) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Shares the ledger's lock until the transaction ends. The ledger does not change meanwhile.
    fn share_ledger(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Reads the latest version in the ledger; 0 if it is empty.
    fn ledger_version(&mut self) -> impl Future<Output = Result<i64, StoreError>> + Send;

    /// Reads ledger rows newer than a version, at most `most`. After version 0 only live ones.
    fn newer_flags(
        &mut self,
        version: i64,
        most: usize,
    ) -> impl Future<Output = Result<Vec<LedgerEntry>, StoreError>> + Send;

    /// Writes the lane's checkpoint. Returns the number of rows that it wrote: 1, unless the row is gone.
    fn write_checkpoint(
        &mut self,
        lane: Lane,
        checkpoint: &Checkpoint,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Locks all lanes of the journal until the transaction ends. No other session replaces them meanwhile.
    fn lock_lanes(&mut self, lane: Lane) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Reads the checkpoints of all lanes of the journal, in order, and locks them.
    fn read_lanes(&mut self, lane: Lane) -> impl Future<Output = Result<Vec<StoredCheckpoint>, StoreError>> + Send;

    /// Deletes the checkpoints of all lanes of the journal.
    fn forget_lanes(&mut self, lane: Lane) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Writes a checkpoint for each of the journal's lanes.
    fn make_lanes(
        &mut self,
        lane: Lane,
        checkpoint: &Checkpoint,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// The table that a part of the rows goes into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartTable {
    /// `positions`.
    Positions,
    /// `latest_positions`.
    Latest,
}

/// The statements of a flag's transactions, and of the outbox of corrections.
pub trait FlagSession: FaultySession {
    /// Takes the exclusive lock of the ledger until the transaction ends. Waits for batches that share it.
    fn lock_ledger(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Writes the changes that are newer than the ledger, and the windows that they replace. At most one change per
    /// flag, in the order of the flags.
    fn record(&mut self, changes: &[FlagChange]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Reads those of the flags that are recorded and not applied, with every window that has to follow.
    fn unapplied(&mut self, flags: &[Uuid]) -> impl Future<Output = Result<UnappliedFlags, StoreError>> + Send;

    /// Takes the exclusive locks of devices, in order, until the transaction ends.
    fn lock_devices(&mut self, imeis: &[u64]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Writes one correction for each window, with the number of its positions that changed.
    fn write_corrections(
        &mut self,
        windows: &[(FlagWindow, i64)],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Records that positions follow these changes of flags.
    fn mark_applied(&mut self, changes: &[(Uuid, i64)]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Removes replaced windows that positions follow, by flag and change.
    fn forget_windows(&mut self, windows: &[(Uuid, i64)]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Reads changes that are recorded and not applied, as flag and `seq`, at most `most`, without those in `except`.
    fn unapplied_flags(
        &mut self,
        most: usize,
        except: &[(Uuid, i64)],
    ) -> impl Future<Output = Result<Vec<(Uuid, i64)>, StoreError>> + Send;

    /// Reads changes that Directus' tables have and the ledger does not, oldest first, at most `most`, without those in
    /// `except`.
    fn changes_behind(
        &mut self,
        most: usize,
        except: &[(Uuid, i64)],
    ) -> impl Future<Output = Result<Vec<FlagChange>, StoreError>> + Send;

    /// Makes this session the publisher of corrections until it ends, if no other session is. Returns whether it is.
    fn claim_publisher(&mut self) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Reads the first corrections, at most `most`.
    fn corrections(&mut self, most: usize) -> impl Future<Output = Result<Vec<Correction>, StoreError>> + Send;

    /// Removes corrections.
    fn forget_corrections(&mut self, ids: &[i64]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Removes all corrections but the latest `most`. Returns how many it removed.
    fn trim_corrections(&mut self, most: i64) -> impl Future<Output = Result<u64, StoreError>> + Send;
}
