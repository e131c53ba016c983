//! A change of flags in two transactions: the order of their steps, written once for every database that implements the
//! port.
//!
//! The first transaction records the change under the ledger's lock, in milliseconds. From then on batches know it. The
//! second one makes stored positions follow, under the locks of the devices. It may take minutes. Every process may run
//! the second one at any time for a flag that is recorded and not applied: it goes by the ledger, never by the event.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use uuid::Uuid;

use super::intervals::{MarkCount, intervals, merged};
use super::latest::{LatestRepair, repair};
use crate::store::error::store_error::StoreError;
use crate::store::model::flag::{FlagChange, Window};
use crate::store::model::unapplied::{FlagWindow, UnappliedFlags};
use crate::store::statements::FlagSession;

/// A step of a flag's transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlagStep {
    /// Begins a transaction.
    Begin,
    /// Takes the exclusive lock of the ledger. Waits for batches that have read the ledger and are not committed.
    LockLedger,
    /// Writes the changes into the ledger.
    Record,
    /// Locks the devices that unapplied flags concern, and reads the windows that have to follow.
    LockDevices,
    /// Reads the live flags, and cuts the windows into intervals that are faulty or not.
    ReadLive,
    /// Marks positions in the intervals.
    Mark,
    /// Writes corrections for windows in which positions changed.
    Correct,
    /// Repairs the latest positions of the devices.
    RepairLatest,
    /// Records that positions follow the flags.
    Applied,
    /// Deletes replaced windows.
    ForgetWindows,
    /// Commits the transaction.
    Commit,
}

/// The order in which changes are recorded.
pub const RECORD_ORDER: [FlagStep; 4] = [FlagStep::Begin, FlagStep::LockLedger, FlagStep::Record, FlagStep::Commit];

/// The order in which positions are made to follow.
///
/// The devices are locked before the flags are read: another writer may apply the same flags. The latest positions are
/// repaired after the marks, because a marked position does not count.
pub const APPLY_ORDER: [FlagStep; 9] = [
    FlagStep::Begin,
    FlagStep::LockDevices,
    FlagStep::ReadLive,
    FlagStep::Mark,
    FlagStep::Correct,
    FlagStep::RepairLatest,
    FlagStep::Applied,
    FlagStep::ForgetWindows,
    FlagStep::Commit,
];

/// The orders of both transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlagOrder {
    /// Of the transaction that records changes.
    pub record: &'static [FlagStep],
    /// Of the transaction that applies them.
    pub apply: &'static [FlagStep],
}

/// The orders that ship.
pub const FLAG_ORDER: FlagOrder = FlagOrder { record: &RECORD_ORDER, apply: &APPLY_ORDER };

/// One of the two transactions, and the results of its steps so far.
struct FlagTransaction<'a, S> {
    session: &'a mut S,
    /// The changes to record: at most one per flag, in the order of the flags.
    changes: &'a [FlagChange],
    /// The flags to apply.
    flags: &'a [Uuid],
    unapplied: UnappliedFlags,
    /// The windows that have to follow, merged.
    windows: Vec<Window>,
    marks: MarkCount,
}

/// Records changes: at most one per flag, in the order of the flags.
pub(super) async fn record<S: FlagSession>(
    session: &mut S,
    changes: &[FlagChange],
    order: &[FlagStep],
) -> Result<(), StoreError> {
    FlagTransaction::new(session, changes, &[]).run(order, RECORDING).await.map(drop)
}

/// Makes positions follow those of the flags that are recorded and not applied. Returns these flags, each with the
/// change that positions follow now.
pub(super) async fn apply<S: FlagSession>(
    session: &mut S,
    flags: &[Uuid],
    order: &[FlagStep],
) -> Result<HashMap<Uuid, i64>, StoreError> {
    FlagTransaction::new(session, &[], flags).run(order, APPLYING).await
}

impl<'a, S: FlagSession> FlagTransaction<'a, S> {
    fn new(session: &'a mut S, changes: &'a [FlagChange], flags: &'a [Uuid]) -> Self {
        let marks = MarkCount::new(Vec::new(), []);
        Self { session, changes, flags, unapplied: UnappliedFlags::default(), windows: Vec::new(), marks }
    }

    async fn run(mut self, order: &[FlagStep], doing: &'static str) -> Result<HashMap<Uuid, i64>, StoreError> {
        for step in order {
            match step {
                FlagStep::Begin => self.session.begin(doing).await?,
                FlagStep::LockLedger => self.session.lock_ledger().await?,
                FlagStep::Record => self.session.record(self.changes).await?,
                FlagStep::LockDevices => self.lock_devices().await?,
                FlagStep::ReadLive => self.read_live().await?,
                FlagStep::Mark => self.mark().await?,
                FlagStep::Correct => self.correct().await?,
                FlagStep::RepairLatest => self.repair_latest().await?,
                FlagStep::Applied => self.applied().await?,
                FlagStep::ForgetWindows => self.forget_windows().await?,
                FlagStep::Commit => self.session.commit(doing).await?,
            }
        }
        Ok(self.unapplied.seqs)
    }

    /// Locks the devices of all windows. Reads the windows again after each lock, as the ledger may change meanwhile.
    async fn lock_devices(&mut self) -> Result<(), StoreError> {
        self.session.plan_by_key().await?;
        let mut locked = BTreeSet::new();
        loop {
            let unapplied = self.session.unapplied(self.flags).await?;
            let devices: BTreeSet<_> = unapplied.windows.iter().map(|window| window.window.imei().get()).collect();
            let missing: Vec<_> = devices.difference(&locked).copied().collect();
            if missing.is_empty() {
                self.unapplied = unapplied;
                self.windows = merged(self.held());
                return Ok(());
            }
            self.session.lock_devices(&missing).await?;
            locked.extend(devices);
        }
    }

    async fn read_live(&mut self) -> Result<(), StoreError> {
        // One range per device: the windows are in order.
        let devices = self.windows.chunk_by(|one, next| one.imei() == next.imei());
        let range =
            |device: &[Window]| Some(device.first()?.with_range(device.first()?.from_ms(), device.last()?.to_ms()));
        let ranges: Vec<_> = devices.filter_map(range).collect();
        if !ranges.is_empty() {
            let live = self.session.live_flags(&ranges).await?;
            let live = merged(live.into_iter().filter_map(|entry| entry.live));
            self.marks = MarkCount::new(intervals(&self.windows, &live), self.held());
        }
        Ok(())
    }

    async fn mark(&mut self) -> Result<(), StoreError> {
        let (intervals, marks) = (self.marks.intervals(), &mut self.marks);
        if intervals.is_empty() {
            return Ok(());
        }
        self.session.mark(&intervals, |imei, ts_ms| marks.count(imei, ts_ms)).await
    }

    /// Writes one correction for each window in which a position changed.
    async fn correct(&mut self) -> Result<(), StoreError> {
        let counted = self.unapplied.windows.iter().map(|window| (*window, self.marks.changed_in(&window.window)));
        let changed: Vec<_> = counted.filter(|(_, positions)| *positions > 0).collect();
        if changed.is_empty() { Ok(()) } else { self.session.write_corrections(&changed).await }
    }

    async fn repair_latest(&mut self) -> Result<(), StoreError> {
        let repairs = self.repairs();
        if repairs.is_empty() { Ok(()) } else { repair(self.session, &repairs).await }
    }

    fn repairs(&self) -> Vec<LatestRepair> {
        let mut repairs: BTreeMap<u64, LatestRepair> = BTreeMap::new();
        for window in &self.windows {
            let (imei, until_ms) = (window.imei().get(), window.to_ms());
            let repair = repairs.entry(imei).or_insert(LatestRepair { imei, until_ms, may_begin: false });
            repair.until_ms = repair.until_ms.max(until_ms);
            repair.may_begin |= self.marks.changed_in(window) > 0;
        }
        // A batch drops a latest position that a live flag covers, before that flag is applied to the row. If the flag
        // ends before it is applied, no row changes, but the position counts again.
        for interval in self.marks.intervals().iter().filter(|interval| !interval.faulty) {
            if let Some(repair) = repairs.get_mut(&interval.window.imei().get()) {
                repair.may_begin = true;
            }
        }
        repairs.into_values().collect()
    }

    async fn applied(&mut self) -> Result<(), StoreError> {
        let changes: Vec<_> = self.unapplied.seqs.iter().map(|(flag, seq)| (*flag, *seq)).collect();
        if changes.is_empty() { Ok(()) } else { self.session.mark_applied(&changes).await }
    }

    async fn forget_windows(&mut self) -> Result<(), StoreError> {
        let replaced = |window: &FlagWindow| Some((window.flag, window.replaced_by?));
        let windows: Vec<_> = self.unapplied.windows.iter().filter_map(replaced).collect();
        if windows.is_empty() { Ok(()) } else { self.session.forget_windows(&windows).await }
    }

    fn held(&self) -> impl Iterator<Item = Window> {
        self.unapplied.windows.iter().map(|window| window.window)
    }
}

const RECORDING: &str = "recording flags";
const APPLYING: &str = "making positions follow flags";
