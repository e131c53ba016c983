//! A change of flags in two transactions, as for PostgreSQL: written down under the ledger's lock alone; then positions follow,
//! under the locks of the devices, by what the ledger says.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use uuid::Uuid;

use super::Flaw;
use super::locks::Lock;
use super::look::{self, Repair};
use super::server::Server;
use super::session::Session;
use super::tables::{Flagged, Replaced};
use crate::store::StoreError;
use crate::store::flags::intervals::{Tally, merged, parts};
use crate::store::model::flag::{Correction, FlagChange, FlagState, Window};

/// Writes changes down, at most one of each flag, in the order of the flags.
pub(super) async fn record(session: &mut Session, changes: &[FlagChange]) -> Result<(), StoreError> {
    const RECORDING: &str = "writing flags down";
    session.statement(RECORDING, |server, backend, _| server.alone(backend, Lock::Ledger)).await?;
    let write = session.statement(RECORDING, |server, backend, _| {
        for change in changes {
            if server.tables.ledger.contains_key(&change.flag) {
                server.alone(backend, Lock::Flag(change.flag))?;
            }
        }
        for change in changes {
            write_down(server, backend, change);
        }
        Ok(())
    });
    write.await?;
    session.commit().await
}

fn write_down(server: &mut Server, backend: u64, change: &FlagChange) {
    let known = server.tables.ledger.get(&change.flag).cloned();
    if known.as_ref().is_some_and(|known| known.seq >= change.seq) && server.flaw != Some(Flaw::NoSeq) {
        return;
    }
    let was = known.as_ref().map_or(change.old, |known| known.window);
    let (window, live) = match &change.state {
        FlagState::Set { window, faulty, .. } => (Some(*window), *faulty),
        FlagState::Deleted => (was, false),
    };
    server.version += 1;
    let (version, seq, flag) = (server.version, change.seq, change.flag);
    let applied_seq = known.map_or(0, |known| known.applied_seq).min(seq - 1);
    let writes = server.writes(backend);
    let replaced = was.filter(|was| change.state != FlagState::Deleted && Some(*was) != window);
    writes.replaced.extend(replaced.map(|window| Replaced { flag, seq, window }));
    writes.ledger.insert(flag, Flagged { seq, version, window, live, applied_seq });
}

/// What is to be done for some flags.
#[derive(Clone, Debug, Default)]
struct Unapplied {
    seqs: HashMap<Uuid, i64>,
    windows: Vec<Held>,
}

/// A window that a flag holds, or held.
#[derive(Clone, Debug)]
struct Held {
    flag: Uuid,
    seq: i64,
    replaced_by: Option<i64>,
    window: Window,
}

/// Makes positions follow those of the flags that are written down and not applied.
pub(super) async fn apply(session: &mut Session, flags: &[Uuid]) -> Result<HashMap<Uuid, i64>, StoreError> {
    let unapplied = under_lock(session, flags).await?;
    if !unapplied.seqs.is_empty() {
        let windows = merged(unapplied.windows.iter().map(|held| held.window));
        let live = session.statement(APPLYING, |server, _, _| {
            let devices: BTreeSet<_> = windows.iter().map(Window::imei).collect();
            Ok(merged(server.tables.live().filter(|window| devices.contains(&window.imei()))))
        });
        let live = live.await?;
        let mut tally = Tally::new(parts(&windows, &live), unapplied.windows.iter().map(|held| held.window));
        let (parts, mut plan) = (tally.parts(), None);
        let follow = session.statement(APPLYING, |server, backend, _| {
            look::follow(server, backend, &parts, &mut plan, |imei, ts_ms| tally.count(imei, ts_ms))
        });
        follow.await?;
        look::repair(session, &repairs(&windows, &tally)).await?;
        settle(session, &unapplied, &tally).await?;
    }
    session.commit().await?;
    Ok(unapplied.seqs)
}

/// Reads it again and again until the locks of all devices in it are held: the ledger may change while a lock is waited for.
async fn under_lock(session: &mut Session, flags: &[Uuid]) -> Result<Unapplied, StoreError> {
    let mut locked = BTreeSet::new();
    loop {
        let unapplied = session.statement(APPLYING, |server, _, _| Ok(read(server, flags))).await?;
        let devices: BTreeSet<_> = unapplied.windows.iter().map(|held| held.window.imei().get()).collect();
        let missing: Vec<_> = devices.difference(&locked).copied().collect();
        if missing.is_empty() {
            return Ok(unapplied);
        }
        let take = session.statement(APPLYING, |server, backend, _| {
            missing.iter().try_for_each(|imei| server.alone(backend, Lock::Device(*imei)))
        });
        take.await?;
        locked.extend(devices);
    }
}

fn read(server: &Server, flags: &[Uuid]) -> Unapplied {
    let mut unapplied = Unapplied::default();
    for flag in flags {
        let Some(flagged) = server.tables.ledger.get(flag).filter(|flagged| flagged.applied_seq < flagged.seq) else {
            continue;
        };
        let (flag, seq) = (*flag, flagged.seq);
        unapplied.seqs.insert(flag, seq);
        let held = |replaced_by, window| Held { flag, seq, replaced_by, window };
        unapplied.windows.extend(flagged.window.map(|window| held(None, window)));
        let replaced = server.tables.windows.iter().filter(|replaced| replaced.flag == flag && replaced.seq <= seq);
        unapplied.windows.extend(replaced.map(|replaced| held(Some(replaced.seq), replaced.window)));
    }
    unapplied
}

fn repairs(windows: &[Window], tally: &Tally) -> Vec<Repair> {
    let mut repairs: BTreeMap<u64, Repair> = BTreeMap::new();
    for window in windows {
        let (imei, until_ms) = (window.imei().get(), window.to_ms());
        let repair = repairs.entry(imei).or_insert(Repair { imei, until_ms, may_begin: false });
        repair.until_ms = repair.until_ms.max(until_ms);
        repair.may_begin |= tally.changed_in(window) > 0;
    }
    for part in tally.parts().iter().filter(|part| !part.faulty) {
        if let Some(repair) = repairs.get_mut(&part.window.imei().get()) {
            repair.may_begin = true;
        }
    }
    repairs.into_values().collect()
}

async fn settle(session: &mut Session, unapplied: &Unapplied, tally: &Tally) -> Result<(), StoreError> {
    let settle = session.statement(APPLYING, |server, backend, _| {
        for flag in unapplied.seqs.keys() {
            server.alone(backend, Lock::Flag(*flag))?;
        }
        let mut corrections = Vec::new();
        for Held { flag, seq, window, .. } in &unapplied.windows {
            let positions = tally.changed_in(window);
            if positions > 0 {
                server.corrections += 1;
                let (id, flag, seq, window) = (server.corrections, *flag, *seq, *window);
                corrections.push(Correction { id, window, positions, flag, seq });
            }
        }
        let writes = server.writes(backend);
        writes.corrections.extend(corrections);
        writes.applied.extend(unapplied.seqs.iter().map(|(flag, seq)| (*flag, *seq)));
        let replaced = unapplied.windows.iter().filter_map(|held| Some((held.flag, held.replaced_by?)));
        writes.followed.extend(replaced);
        Ok(())
    });
    settle.await
}

const APPLYING: &str = "applying flags";
