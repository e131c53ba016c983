//! A change of flags in two transactions: the order of their steps, told once for every database that has sessions.
//!
//! The first transaction records the change, under the ledger's lock alone, in milliseconds: from then on batches know it.
//! The second makes stored positions follow, under the locks of the devices, and takes as long as it takes. Anyone who
//! finds a flag recorded and not applied can run the second one at any time: it goes by the ledger, never by the event.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use uuid::Uuid;

use super::intervals::{Tally, merged, parts};
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
    /// Takes the ledger's lock alone: waits for batches that have read the ledger and are not committed.
    LockLedger,
    /// Writes the changes into the ledger.
    Record,
    /// Locks the devices that unapplied flags concern, and reads what has to follow.
    LockDevices,
    /// Reads the live flags, and cuts the windows into intervals that are faulty or not.
    ReadLive,
    /// Marks positions in the intervals.
    Mark,
    /// Writes corrections for windows in which positions changed.
    Correct,
    /// Repairs the latest positions of the devices.
    RepairLatest,
    /// Notes that positions follow the flags.
    Applied,
    /// Forgets replaced windows.
    ForgetWindows,
    /// Commits the transaction.
    Commit,
}

/// The order in which changes are recorded.
pub const RECORD_ORDER: [FlagStep; 4] = [FlagStep::Begin, FlagStep::LockLedger, FlagStep::Record, FlagStep::Commit];

/// The order in which positions are made to follow.
///
/// The devices are locked before anything is read: another writer may apply the same flags. The latest positions are
/// repaired after the marks, which decide what counts.
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
    /// Of the first one.
    pub record: &'static [FlagStep],
    /// Of the second one.
    pub apply: &'static [FlagStep],
}

/// The orders that ship.
pub const FLAG_ORDER: FlagOrder = FlagOrder { record: &RECORD_ORDER, apply: &APPLY_ORDER };

/// Some flags on their way into positions, and what the steps have found out so far.
struct FlagTransaction<'a, S> {
    session: &'a mut S,
    /// Of the first transaction: at most one change a flag, in the order of the flags.
    changes: &'a [FlagChange],
    /// Of the second.
    flags: &'a [Uuid],
    unapplied: UnappliedFlags,
    /// The windows that have to follow, merged.
    windows: Vec<Window>,
    tally: Tally,
}

/// Records changes, at most one a flag, in the order of the flags.
pub(super) async fn record<S: FlagSession>(
    session: &mut S,
    changes: &[FlagChange],
    order: &[FlagStep],
) -> Result<(), StoreError> {
    FlagTransaction::new(session, changes, &[]).run(order, RECORDING).await.map(drop)
}

/// Makes positions follow those of the flags that are recorded and not applied. Returns them with the change that positions
/// follow now.
pub(super) async fn apply<S: FlagSession>(
    session: &mut S,
    flags: &[Uuid],
    order: &[FlagStep],
) -> Result<HashMap<Uuid, i64>, StoreError> {
    FlagTransaction::new(session, &[], flags).run(order, APPLYING).await
}

impl<'a, S: FlagSession> FlagTransaction<'a, S> {
    fn new(session: &'a mut S, changes: &'a [FlagChange], flags: &'a [Uuid]) -> Self {
        let tally = Tally::new(Vec::new(), []);
        Self { session, changes, flags, unapplied: UnappliedFlags::default(), windows: Vec::new(), tally }
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

    /// Reads again until the locks of all devices concerned are held: the ledger may change while it waits for a lock.
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
        // One range a device: the windows are in order.
        let devices = self.windows.chunk_by(|one, next| one.imei() == next.imei());
        let range =
            |device: &[Window]| Some(device.first()?.with_range(device.first()?.from_ms(), device.last()?.to_ms()));
        let ranges: Vec<_> = devices.filter_map(range).collect();
        if !ranges.is_empty() {
            let live = self.session.live_flags(&ranges).await?;
            let live = merged(live.into_iter().filter_map(|entry| entry.live));
            self.tally = Tally::new(parts(&self.windows, &live), self.held());
        }
        Ok(())
    }

    async fn mark(&mut self) -> Result<(), StoreError> {
        let (intervals, tally) = (self.tally.parts(), &mut self.tally);
        if intervals.is_empty() {
            return Ok(());
        }
        self.session.mark(&intervals, |imei, ts_ms| tally.count(imei, ts_ms)).await
    }

    /// One correction for each window in which something changed.
    async fn correct(&mut self) -> Result<(), StoreError> {
        let counted = self.unapplied.windows.iter().map(|window| (*window, self.tally.changed_in(&window.window)));
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
            repair.may_begin |= self.tally.changed_in(window) > 0;
        }
        // A batch takes away a latest position that a flag covers, though the flag was never applied to the row itself. If
        // the flag ends before that, no row changes, and the position counts again.
        for part in self.tally.parts().iter().filter(|part| !part.faulty) {
            if let Some(repair) = repairs.get_mut(&part.window.imei().get()) {
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
